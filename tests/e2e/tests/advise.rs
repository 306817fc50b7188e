//! What tasks really use becomes advice on what they ask for: from the kernel to `ebb advise`.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use ebb_tests_e2e::Cluster;
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// About a tenth of a CPU, and a few MiB.
const LAZY: &str = "while :; do timeout 0.01 sh -c 'while :; do :; done'; sleep 0.1; done";

/// A class as `ebb advise` shows it.
fn class(cluster: &Cluster, name: &str) -> Option<Value> {
    let said = cluster.ebb(&["advise", "--class", name, "--json"]);
    assert_eq!(said.code(), 0, "{said:?}");
    let advice: Value = serde_json::from_str(&said.stdout).unwrap();
    let classes = advice["classes"].as_array().unwrap();
    assert!(classes.len() <= 1, "{advice}");
    classes.first().cloned()
}

#[test]
fn what_a_task_uses_is_shown_beside_what_it_asks_for_and_outlives_the_master() {
    let mut cluster = Cluster::start();
    let said = cluster.ebb(&["advise"]);
    assert!(said.stdout.contains("no task was measured yet"), "{said:?}");

    let lazy = cluster.spawn(&[
        "run", "--name", "lazy", "--cpus", "1", "--mem", "256MiB", "--", "sh", "-c", LAZY,
    ]);
    let seen = cluster.wait_until("its class, measured", |_| {
        class(&cluster, "lazy").filter(|class| !class["mem_bytes"]["p95"].is_null())
    });
    assert_eq!((&seen["running"], &seen["tasks"]), (&1.into(), &1.into()));
    assert_eq!(seen["cpu_milli"]["asked"], 1_000);
    assert_eq!(seen["mem_bytes"]["asked"], 256 * MIB);
    assert_eq!(
        (&seen["fit"], &seen["ooms"]),
        (&"not enough seen".into(), &0.into())
    );
    let used = |kind: &str, figure: &str| seen[kind][figure].as_u64().unwrap();
    assert!(
        (1..256 * MIB).contains(&used("mem_bytes", "peak")),
        "{seen}"
    );
    assert!(used("cpu_milli", "p50") < 600, "{seen}");
    assert!(seen["mem_bytes"]["advice"].is_null(), "{seen}");

    // A kill at its own limit says enough.
    let killed = cluster.ebb(&[
        "run",
        "--name",
        "grow",
        "--mem",
        "64MiB",
        "--",
        "tail",
        "/dev/zero",
    ]);
    assert_ne!(killed.code(), 0, "{killed:?}");
    let killed =
        |cluster: &Cluster| class(cluster, "grow").filter(|class| class["ooms"].as_u64() > Some(0));
    let told = cluster.wait_until("the kill", |_| killed(&cluster));
    assert_eq!(
        (&told["fit"], &told["running"]),
        (&"under-asked".into(), &0.into())
    );
    assert_eq!(told["oom_limit_bytes"], 64 * MIB);
    assert_eq!(told["mem_bytes"]["advice"], 77 * MIB);

    // A new master is told all of it again.
    cluster.kill9_master();
    cluster.start_master();
    cluster.wait_registered();
    let again = cluster.wait_until("the same from a new master", |_| killed(&cluster));
    assert_eq!(again["mem_bytes"]["advice"], 77 * MIB);
    let again = cluster.wait_until("what still runs", |_| class(&cluster, "lazy"));
    assert_eq!(again["running"], 1);
    let gauge = "ebb_master_advised_classes{fit=\"under-asked\"} 1";
    let metrics = cluster.master_metrics();
    assert!(metrics.contains(gauge), "{metrics}");
    drop(lazy);
    cluster.finish();
}
