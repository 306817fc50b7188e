//! The operator's commands: the real program against a played master.

use crate::played::{End, Ended, Played, ebb, end_of};

fn is_clean(ended: &Ended) {
    let all = format!("{}{}", ended.stdout, ended.stderr);
    assert!(!all.contains('\x1b'), "an escape sequence in {all:?}");
}

pub async fn good(played: &Played, args: &[&str]) -> String {
    let ended = played.ebb(args).await;
    is_clean(&ended);
    assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
    assert_eq!(ended.stderr, "", "{args:?}");
    ended.stdout
}

pub async fn bad(played: &Played, args: &[&str], code: i32, says: &[&str]) {
    let ended = played.ebb(args).await;
    is_clean(&ended);
    let args: Vec<String> = args
        .iter()
        .map(|arg| arg.chars().take(60).collect())
        .collect();
    assert_eq!(ended.code, Some(code), "{args:?}: {}", ended.stderr);
    assert_eq!(ended.stdout, "", "{args:?}");
    for part in says {
        assert!(
            ended.stderr.contains(part),
            "{args:?} does not say {part:?} but {}",
            ended.stderr
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_aligned_tables_of_what_the_master_knows() {
    let played = Played::start(End::NoOffer).await;
    let tasks = good(&played, &["tasks"]).await;
    let lines: Vec<&str> = tasks.lines().collect();
    assert!(
        lines[0].starts_with("ID     NAME  STATE    FRAMEWORK  AGENT"),
        "{tasks}"
    );
    assert_eq!(lines.len(), 4, "the ended one is left out: {tasks}");
    assert!(
        lines[1].starts_with("web.1  shop  running  1-0000     1-S0"),
        "{tasks}"
    );
    assert!(
        lines[1].contains("1.5  0.25  64 MiB     -  regular"),
        "{tasks}"
    );
    assert!(
        good(&played, &["tasks", "--all"])
            .await
            .contains("finished")
    );
    assert!(good(&played, &["agents"]).await.contains("1-S0"));
    assert!(good(&played, &["frameworks"]).await.contains("connected"));
    assert!(
        good(&played, &["offers"])
            .await
            .contains("2 cpus, 1 GiB, 100 MiB/s disk, 119.2 MiB/s network")
    );
    assert!(
        good(&played, &["roles"])
            .await
            .contains("eng/web     2.5           1   1.5")
    );
    let status = good(&played, &["status"]).await;
    for part in [
        "1 registered",
        "2 running, 1 staging",
        "cpus",
        "network_bandwidth",
        "generation 1",
    ] {
        assert!(status.contains(part), "{part} is not in\n{status}");
    }
    let top = good(&played, &["top", "--once"]).await;
    assert!(top.contains("lent 1, used of it 0"), "{top}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_one_thing_is_shown_by_a_unique_prefix_of_its_id() {
    let played = Played::start(End::NoOffer).await;
    for (id, part) in [
        ("1-S0", "agent          cafe-1-S0"),
        ("cafe-1-S", "status         registered"),
        ("cafe-1-S", "pressure       1.5 % cpu"),
        ("cafe-1-S", "source         network none (no probes)"),
        ("1-0000/web.1", "oom kills      not measured"),
        ("1-0000", "framework      cafe-1-0000"),
        ("1-0000/web.1", "used cpus      0.25 (by ebpf)"),
        (
            "web.2",
            "TASK_STAGING: a \u{fffd}[31mred\u{fffd}[0m message",
        ),
        ("1-O", "offer          cafe-1-O7"),
        ("eng/", "weight         2.5"),
        ("eng/", "guarantee      2 cpus, 128 MiB"),
        ("eng/", "limit          4 cpus, 0 B disk"),
        ("eng/", "consumed       3.5 cpus, 64 MiB, 3 gpus"),
        ("eng/", "left           0.5 cpus, 0 B disk"),
        ("eng/", "owed           64 MiB"),
    ] {
        let shown = good(&played, &["status", id]).await;
        assert!(shown.contains(part), "{id}: {part} is not in\n{shown}");
    }
    let candidates = [
        "\"web.1\" may be any of 2",
        "cafe-1-0000/web.1",
        "cafe-1-0001/web.1",
    ];
    bad(&played, &["status", "web.1"], 1, &candidates).await;
    bad(
        &played,
        &["status", "nothing"],
        1,
        &["there is no", "ebb status"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_reach_the_master() {
    let played = Played::start(End::NoOffer).await;
    good(&played, &["kill", "1-0001/web.1", "--grace", "5s"]).await;
    good(&played, &["weight", "eng/web", "0.5"]).await;
    good(&played, &["teardown", "1-0001"]).await;
    assert_eq!(
        played.asked(),
        [
            "kill cafe-1-0001 web.1 Some(5000)",
            "weight eng/web 500",
            "teardown cafe-1-0001"
        ]
    );
    let no = ["cannot kill the task", "has no live task web.2"];
    bad(&played, &["kill", "web.2"], 1, &no).await;
    bad(
        &played,
        &["kill", "done"],
        1,
        &["has ended already (TASK_FINISHED)"],
    )
    .await;
    assert_eq!(played.asked().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_deactivated_and_drained_by_a_prefix_of_its_id() {
    let played = Played::start(End::NoOffer).await;
    let said = good(&played, &["deactivate", "1-S0"]).await;
    assert!(
        said.contains("cafe-1-S0 is deactivated; its 3 live tasks run on"),
        "{said}"
    );
    let said = good(&played, &["drain", "1-S0", "--grace", "30s"]).await;
    assert!(
        said.contains("cafe-1-S0 is draining; 3 live tasks"),
        "{said}"
    );
    let json = good(&played, &["drain", "1-S0", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["activity"], "draining");
    assert_eq!(json["agent_id"], "cafe-1-S0");
    assert_eq!(json["live_tasks"], 3);
    assert_eq!(
        played.asked(),
        [
            "deactivate cafe-1-S0",
            "drain cafe-1-S0 Some(30000)",
            "drain cafe-1-S0 None"
        ]
    );
    let no = ["cannot reactivate the agent", "cannot be called off"];
    bad(&played, &["reactivate", "1-S0"], 1, &no).await;
    bad(
        &played,
        &["drain", "1-S7"],
        1,
        &["there is no", "ebb agents"],
    )
    .await;
    assert_eq!(played.asked().len(), 3);
    let agents = good(&played, &["agents"]).await;
    assert!(
        agents.contains("ACTIVITY") && agents.contains("active"),
        "{agents}"
    );
    let shown = good(&played, &["status", "1-S0"]).await;
    assert!(shown.contains("activity       active"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_come_from_the_agent() {
    let played = Played::start(End::NoOffer).await;
    let task = "1-0000/web.1";
    assert_eq!(good(&played, &["logs", task]).await, "hello\nwörld\n");
    assert_eq!(good(&played, &["logs", task, "--stderr"]).await, "oh\n");
    assert_eq!(
        good(&played, &["logs", task, "--tail", "1"]).await,
        "wörld\n"
    );
    assert_eq!(
        good(&played, &["logs", task, "-f", "--tail", "1"]).await,
        "wörld\n"
    );
    let json = good(&played, &["logs", task, "--json"]).await;
    let texts: Vec<String> = json
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .map(|line| line["text"].as_str().expect("a text").to_owned())
        .collect();
    assert_eq!(texts.concat(), "hello\nwörld\n", "no character is torn");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_ends_in_a_sentence() {
    let played = Played::start(End::NoOffer).await;
    let huge = "x".repeat(65_536);
    for (id, code, says) in [
        (huge.as_str(), 2, "no id is longer"),
        ("", 2, "it is empty"),
        ("a\x1b[31mb", 2, "control characters"),
        ("/", 1, "there is no"),
        ("..", 1, "there is no"),
        ("../../etc/passwd", 1, "there is no"),
    ] {
        for command in ["status", "kill", "logs", "teardown", "explain"] {
            bad(&played, &[command, id], code, &[says]).await;
        }
    }
    bad(&played, &["tasks", "--frobnicate"], 2, &["--frobnicate"]).await;
    bad(
        &played,
        &["run", "--mem", "5 apples", "--", "true"],
        2,
        &["apples", "MiB"],
    )
    .await;
    bad(
        &played,
        &["run", "--cpus", "0", "--mem", "0", "--", "true"],
        2,
        &["ask for something"],
    )
    .await;
    bad(
        &played,
        &["batch", "/nonexistent"],
        2,
        &["/nonexistent", "No such file"],
    )
    .await;
    bad(&played, &["batch", "/dev/null"], 2, &["nothing to run"]).await;
    assert_eq!(played.asked(), [""; 0], "nothing was done");
}

#[tokio::test]
async fn a_master_that_is_down_is_named_with_the_remedy() {
    let held = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = held.local_addr().expect("bound").to_string();
    drop(held);
    for args in [
        &["status"][..],
        &["top"],
        &["logs", "x"],
        &["run", "--", "true"],
        &["service", "--", "true"],
    ] {
        let ended = end_of(ebb(&[args, &["--master", &address][..]].concat())).await;
        // What follows -- belongs to the command: there the address comes by the environment.
        let ended = if args.contains(&"--") {
            let mut command = ebb(args);
            command.env("EBB_MASTER", &address);
            end_of(command).await
        } else {
            ended
        };
        let says = format!(
            "ebb: cannot reach the master at {address}: connection refused; start one with `ebb dev`, \
             or name another with --master or EBB_MASTER\n"
        );
        assert_eq!((ended.code, ended.stderr), (Some(1), says), "{args:?}");
    }
    let mut command = ebb(&["status", "--json"]);
    command.env("EBB_MASTER", &address);
    let ended = end_of(command).await;
    let error: serde_json::Value = serde_json::from_str(&ended.stderr).expect("JSON");
    assert_eq!(error["exit_code"], 1);
    assert!(error["error"].as_str().expect("a text").contains("refused"));
}

#[tokio::test]
async fn a_server_that_is_no_master_is_told_apart() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    // It takes every connection and ends it without a word.
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let ended = end_of(ebb(&["status", "--master", &address])).await;
    assert_eq!(ended.code, Some(1));
    let says = format!("ebb: cannot reach the master at {address}: ");
    assert!(ended.stderr.starts_with(&says), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_leaves_is_no_error() {
    let played = Played::start(End::NoOffer).await;
    let mut top = played
        .command(&["top", "--json", "--interval", "100ms"])
        .spawn()
        .expect("starts");
    drop(top.stdout.take());
    let status = tokio::time::timeout(std::time::Duration::from_secs(20), top.wait()).await;
    assert_eq!(status.expect("ends").expect("waited for").code(), Some(0));
}

#[tokio::test]
async fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = end_of(ebb(&["completions", shell])).await;
        assert_eq!(ended.code, Some(0));
        assert!(ended.stdout.contains("teardown"), "{shell}");
    }
}

/// The shape of the JSON is a promise: this is it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_keeps_its_shape() {
    let played = Played::start(End::NoOffer).await;
    let json = |text: String| -> serde_json::Value { serde_json::from_str(&text).expect("JSON") };
    let amounts = |cpu: u64, mem: u64| {
        serde_json::json!({
            "cpu_milli": cpu, "mem_bytes": mem, "disk_bytes": 0, "disk_bandwidth_bytes_per_s": 0,
            "network_bandwidth_bytes_per_s": 0
        })
    };
    let own = serde_json::json!({"regular": amounts(1_500, 64 << 20), "revocable": amounts(0, 0)});
    let none = serde_json::json!({"regular": amounts(0, 0), "revocable": amounts(0, 0)});

    let tasks = json(good(&played, &["tasks", "--all", "--json"]).await);
    assert_eq!(tasks.as_array().map(Vec::len), Some(4));
    let mut task = serde_json::json!({
        "framework_id": "cafe-1-0000", "task_id": "web.1", "name": "shop", "agent_id": "cafe-1-S0",
        "role": "*", "state": "TASK_RUNNING", "terminal": false, "resources": own, "lots": [],
        "executor_id": null, "container_id": null,
        "statuses": [{
            "at_ms": 1_700_000_001_000_u64, "state": "TASK_RUNNING", "reason": null,
            "message": "a \u{1b}[31mred\u{1b}[0m message",
            "exit_code": null, "exit_signal": null, "limitation": null
        }]
    });
    assert_eq!(tasks[0], task);
    task["kind"] = "task".into();
    let one = json(good(&played, &["status", "1-0000/web.1", "--json"]).await);
    assert_eq!(one, task);

    let mut used = serde_json::json!({
        "framework_id": "cafe-1-0000", "task_id": "web.1", "container_id": "c1", "allocated": own,
        "cpu_milli": 250, "cpu_source": "ebpf", "faults_source": "ebpf", "oom_kills_source": "ebpf",
        "disk_source": "ebpf", "throttled_to_milli": null, "frozen": false,
        "network_limited_to_bytes_per_s": null, "memory_reclaimed_to_bytes": null
    });
    for unmeasured in [
        "cpu_user_milli",
        "cpu_system_milli",
        "throttled_permille",
        "mem_bytes",
        "mem_anon_bytes",
        "mem_file_bytes",
        "mem_swap_bytes",
        "mem_peak_bytes",
        "reclaim_permille",
        "faults_minor_per_s",
        "faults_major_per_s",
        "oom_kills",
        "disk_bytes_per_s",
        "disk_read_bytes_per_s",
        "disk_write_bytes_per_s",
        "io_mean_ns",
        "io_queue_p99_ns",
        "io_device_p99_ns",
        "net_in_bytes_per_s",
        "net_out_bytes_per_s",
        "traffic_in_bytes_per_s",
        "traffic_out_bytes_per_s",
        "traffic_dropped_per_s",
        "run_queue_wait_ns",
        "run_queue_p99_ns",
        "waiting_milli",
        "waiting_own_milli",
        "preempted_by_revocable_per_s",
        "preempted_by_other_per_s",
        "migrations_per_s",
        "forks_per_s",
        "cpu_pressure_permille",
        "mem_pressure_permille",
        "io_pressure_permille",
    ] {
        used[unmeasured] = serde_json::Value::Null;
    }
    let lot = |name: &str, amount: Option<u64>, ranges: serde_json::Value, roles: &[&str]| {
        let reservations = roles.iter().map(|role| {
            serde_json::json!({"role": role, "dynamic": false, "principal": "", "labels": []})
        });
        serde_json::json!({
            "name": name, "amount": amount, "ranges": ranges, "set": null,
            "reservations": reservations.collect::<Vec<_>>(),
            "source": null, "volume": null, "shared": false
        })
    };
    let null = serde_json::Value::Null;
    let lots = [
        lot("cpus", Some(2_000), null.clone(), &["eng"]),
        lot("disk", Some(10 << 30), null, &["eng"]),
        lot("ports", None, serde_json::json!([[31_000, 31_009]]), &[]),
    ];
    let froze = serde_json::json!({
        "at_ms": 1_700_000_001_000_u64, "framework_id": "cafe-1-0001", "task_id": "copy.1",
        "container_id": "c2", "action": "freeze", "throttle_to_milli": null,
        "limit_network_to_bytes_per_s": null, "reclaim_memory_to_bytes": null,
        "signal": "disk_latency", "on_behalf_of": "web.1", "value": 80_000_000,
        "threshold": 20_000_000, "baseline": 2_000_000, "duration_ms": 500,
        "choice": {
            "rule": "most_disk", "amount": 200 << 20, "rank": 1, "candidates": 3, "spared": false
        },
        "grace_ms": 0
    });
    let disturbed = serde_json::json!({
        "framework_id": "cafe-1-0000", "task_id": "web.1", "container_id": "c1",
        "resource": "disk", "signal": "disk_latency", "value": 80_000_000,
        "baseline": 2_000_000, "threshold": 20_000_000, "since_ms": 1_700_000_000_500_u64,
        "by": [{
            "framework_id": "cafe-1-0001", "task_id": "copy.1", "container_id": "c2",
            "revocable": true, "share_permille": 900
        }]
    });
    let mut neighbour = disturbed.clone();
    neighbour["agent_id"] = "cafe-1-S0".into();
    let neighbours = json(good(&played, &["neighbours", "--json"]).await);
    assert_eq!(neighbours, serde_json::json!([neighbour]));
    let agents = json(good(&played, &["agents", "--json"]).await);
    assert_eq!(
        agents[0],
        serde_json::json!({
            "id": "cafe-1-S0", "hostname": "127.0.0.1", "port": agents[0]["port"],
            "version": "0.1.0", "status": "registered", "activity": "active",
            "registered_at_ms": 1_700_000_000_000_u64,
            "attributes": [], "domain": null, "total": amounts(4_000, 8 << 30), "offered": none, "allocated": own,
            "oversubscribed": amounts(1_000, 0),
            "lots": lots, "offered_lots": [], "allocated_lots": [],
            "usage": {
                "at_ms": 1_700_000_001_500_u64, "machine_cpu_milli": 500, "machine_mem_bytes": null,
                "cpu_pressure_permille": 15, "mem_pressure_permille": null,
                "io_pressure_permille": null,
                "lent": amounts(1_000, 0), "taken_back_cpu_milli": 0, "corrections": [],
                "sources": [{ "figure": "network", "source": null, "why": "no probes" }],
                "tasks": [used], "recent": [froze], "disturbances": [disturbed],
                "promises": {
                    "cpu": {"watched_ms": 100_000, "broken_ms": 250, "broken_ppm": 2_500},
                    "mem": {"watched_ms": 0, "broken_ms": 0, "broken_ppm": null},
                    "budget_ppm": 1_000
                },
                "lasting": {
                    "confidence_permille": 900,
                    "points": [
                        {"time_ms": 600_000, "amount": amounts(1_000, 0)},
                        {"time_ms": 3_600_000, "amount": amounts(250, 0)},
                    ]
                }
            }
        })
    );

    let keys = |value: &serde_json::Value| -> Vec<String> {
        value
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    };
    let summary = json(good(&played, &["status", "--json"]).await);
    assert_eq!(
        keys(&summary),
        [
            "agents",
            "allocated",
            "at_ms",
            "connected_frameworks",
            "frameworks",
            "live_tasks",
            "master",
            "offered",
            "offers",
            "oversubscribed",
            "roles",
            "taken_back_cpu_milli",
            "tasks",
            "total",
            "used_cpu_milli",
            "used_mem_bytes"
        ]
    );
    let frameworks = json(good(&played, &["frameworks", "--json"]).await);
    assert_eq!(
        keys(&frameworks[0]),
        [
            "allocated",
            "capabilities",
            "connected",
            "failover_deadline_ms",
            "failover_timeout_ms",
            "hostname",
            "id",
            "live_tasks",
            "name",
            "offered",
            "principal",
            "registered_at_ms",
            "roles",
            "suppressed_roles",
            "user",
            "webui_url"
        ]
    );
    let offers = json(good(&played, &["offers", "--json"]).await);
    assert_eq!(
        keys(&offers[0]),
        [
            "agent_id",
            "attributes",
            "deadline_ms",
            "executor_ids",
            "framework_id",
            "hostname",
            "id",
            "lasting",
            "lots",
            "resources",
            "role"
        ]
    );
    let roles = json(good(&played, &["roles", "--json"]).await);
    assert_eq!(
        keys(&roles[0]),
        [
            "allocated",
            "consumed",
            "consumed_revocable",
            "frameworks",
            "lot_quotas",
            "offered",
            "quota",
            "role",
            "weight_milli"
        ]
    );
    assert_eq!(roles[0]["consumed"], amounts(3_500, 64 << 20));
    let gpus = serde_json::json!([
        {"role": "eng/web", "name": "gpus", "limit": 4_000, "held": 3_000}
    ]);
    let quota = serde_json::json!({
        "guarantee": amounts(2_000, 128 << 20),
        "limits": {
            "cpu_milli": 4_000, "mem_bytes": null, "disk_bytes": 0,
            "disk_bandwidth_bytes_per_s": null,
            "network_bandwidth_bytes_per_s": null
        },
        "revocable_limits": {
            "cpu_milli": null, "mem_bytes": null, "disk_bytes": null,
            "disk_bandwidth_bytes_per_s": null,
            "network_bandwidth_bytes_per_s": null
        }
    });
    assert_eq!(roles[0]["quota"], quota);
    let shown = json(good(&played, &["quota", "eng/web", "--json"]).await);
    let expected = serde_json::json!({
        "role": "eng/web", "quota": quota, "consumed": amounts(3_500, 64 << 20),
        "consumed_revocable": amounts(2_500, 0), "lot_quotas": gpus
    });
    assert_eq!(shown, expected);
    let top = json(good(&played, &["top", "--once", "--json"]).await);
    assert_eq!(
        keys(&top),
        [
            "agents",
            "at_ms",
            "corrections",
            "corrections_total",
            "master_id",
            "tasks",
            "trouble"
        ]
    );
    assert_eq!(
        keys(&top["tasks"][0]),
        [
            "agent_id",
            "allocated",
            "allocated_cpu_milli",
            "allocated_mem_bytes",
            "cpu_source",
            "framework",
            "framework_id",
            "frozen",
            "name",
            "revocable",
            "run_queue_p99_ns",
            "state",
            "task_id",
            "throttled_to_milli",
            "used_cpu_milli",
            "used_disk_bytes_per_s",
            "used_mem_bytes"
        ]
    );
    assert_eq!(
        keys(&top["agents"][0]["cpu_milli"]),
        [
            "allocated",
            "lent",
            "lent_allocated",
            "lent_used",
            "machine_used",
            "total",
            "used"
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_reserves_and_makes_volumes_of_what_an_agent_has() {
    let played = Played::start(End::NoOffer).await;
    let shown = good(&played, &["status", "1-S0"]).await;
    for lot in ["cpus(eng):2", "disk(eng):10GiB", "ports:[31000-31009]"] {
        assert!(shown.contains(lot), "{shown}");
    }
    let reserve = [
        "reserve",
        "1-S0",
        "eng/ci",
        "cpus(eng):1;ports:[31001-31002]",
    ];
    // Ports are reserved for nobody yet, the cores for a role above.
    let said = good(&played, &reserve).await;
    assert!(said.contains("has reserved cpus(eng,eng/ci):1"), "{said}");
    good(
        &played,
        &[
            "reserve",
            "1-S0",
            "ops",
            "mem:1GiB",
            "--label",
            "for=x",
            "--principal",
            "me",
        ],
    )
    .await;
    let json = good(
        &played,
        &["create-volume", "1-S0", "eng", "v", "1GiB", "--json"],
    )
    .await;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["operation"], "CREATE");
    assert_eq!(json["lots"][0]["volume"]["id"], "v");
    assert_eq!(json["lots"][0]["reservations"][0]["role"], "eng");
    assert_eq!(json["lots"][0]["amount"], 1_u64 << 30);
    assert_eq!(
        played.asked(),
        [
            "RESERVE cafe-1-S0 cpus(eng,eng/ci):1.000;ports(eng/ci):[31001-31002]",
            "RESERVE cafe-1-S0 mem(ops):1073741824",
            "CREATE cafe-1-S0 disk(eng)[v:volume]:1073741824",
        ]
    );
    for (line, says) in [
        (
            vec!["reserve", "1-S0", "eng/ci", "cpus(eng):3"],
            "ebb status",
        ),
        (vec!["unreserve", "1-S0", "cpus:1"], "name the role"),
        (vec!["unreserve", "1-S0", "cpus(ops):1"], "has no cpus(ops)"),
        (
            vec!["create-volume", "1-S0", "ops", "v", "1GiB"],
            "ebb reserve",
        ),
        (vec!["destroy-volume", "1-S0", "eng", "v"], "no volume v"),
    ] {
        bad(&played, &line, 1, &[says]).await;
    }
    bad(
        &played,
        &["reserve", "1-S0", "eng", "cpus"],
        2,
        &["write name:value"],
    )
    .await;
}

#[tokio::test]
async fn what_was_taken_back_and_who_disturbs_whom_is_said_with_its_cause() {
    let played = Played::start(End::NoOffer).await;
    let decision = "freeze copy.1 for task web.1: disk_latency 80.0 ms past 20.0 ms, normally 2.0 ms for 500 ms; \
                    number 1 of 3 by traffic, 200 MiB/s";
    let disturbance = "web.1 by copy.1 (90 % revocable) on disk";
    for args in [
        ["explain", "1-0000/web.1"],
        ["explain", "cafe-1-S0"],
        ["status", "cafe-1-S0"],
    ] {
        let said = good(&played, &args).await;
        assert!(said.contains(decision), "{args:?}: {said}");
        assert!(said.contains(disturbance), "{args:?}: {said}");
    }
    bad(&played, &["explain", "web.1"], 1, &["may be any of 2"]).await;
    let promised = good(&played, &["status", "cafe-1-S0"]).await;
    for part in [
        "cpus beyond what was kept in 0.25 %",
        "no mem lent yet",
        "budget 0.1 %",
    ] {
        assert!(promised.contains(part), "{promised}");
    }
    let neighbours = good(&played, &["neighbours"]).await;
    for part in [
        "web.1",
        "copy.1 (90 % revocable)",
        "disk",
        "normally 2.0 ms",
    ] {
        assert!(neighbours.contains(part), "{neighbours}");
    }
    let mut run = vec!["run", "--warn-signal", "KILL", "--", "true"];
    bad(&played, &run, 2, &["USR1"]).await;
    run[2] = "9";
    bad(&played, &run, 2, &["USR1"]).await;
}
