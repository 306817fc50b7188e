//! `ebb quota`: the real program against a played master.

use crate::operator::{bad, good};
use crate::played::{End, Played};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_set_forced_and_taken_away() {
    let played = Played::start(End::NoOffer).await;
    let both = ["--guarantee", "cpus=2,mem=4GiB", "--limit", "cpus=8"];
    let said = good(&played, &[&["quota", "eng"][..], &both].concat()).await;
    assert_eq!(
        said,
        "role eng is guaranteed 2 cpus, 4 GiB and limited to 8 cpus\n"
    );
    let said = good(&played, &["quota", "eng", "--guarantee", "cpus=1"]).await;
    assert_eq!(said, "role eng is guaranteed 1 cpu and not limited\n");
    let none = [
        "quota",
        "full",
        "--limit",
        "cpus=0,disk=0",
        "--force",
        "--json",
    ];
    let json: serde_json::Value = serde_json::from_str(&good(&played, &none).await).expect("JSON");
    assert_eq!(
        json,
        serde_json::json!({
            "role": "full",
            "quota": {
                "guarantee": {
                    "cpu_milli": 0, "mem_bytes": 0, "disk_bytes": 0, "disk_bandwidth_bytes_per_s": 0,
                    "network_bandwidth_bytes_per_s": 0
                },
                "limits": {
                    "cpu_milli": 0, "mem_bytes": null, "disk_bytes": 0,
                    "disk_bandwidth_bytes_per_s": null,
                    "network_bandwidth_bytes_per_s": null
                },
                "revocable_limits": {
                    "cpu_milli": null, "mem_bytes": null, "disk_bytes": null,
                    "disk_bandwidth_bytes_per_s": null,
                    "network_bandwidth_bytes_per_s": null
                }
            },
            "lot_limits": []
        })
    );
    let lent = ["quota", "eng", "--revocable-limit", "cpus=32,mem=1GiB"];
    assert_eq!(
        good(&played, &lent).await,
        "role eng is guaranteed nothing and not limited; of what is lent it is limited to 32 cpus, 1 GiB\n"
    );
    let network = ["quota", "eng", "--limit", "network-bandwidth=1Gbit"];
    assert_eq!(
        good(&played, &network).await,
        "role eng is guaranteed nothing and limited to 119.2 MiB/s network\n"
    );
    let said = good(&played, &["quota", "eng", "--remove"]).await;
    assert_eq!(said, "role eng has no quota\n");
    assert_eq!(
        played.asked(),
        [
            "quota eng cpus:2.000;mem:4294967296 up to cpus:8.000",
            "quota eng cpus:1.000 up to no limit",
            "quota full nothing up to cpus:0.000;disk:0 forced",
            "quota eng nothing up to no limit, lent up to cpus:32.000;mem:1073741824",
            "quota eng nothing up to network_bandwidth:125000000",
            "quota eng nothing up to no limit",
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_shown_with_what_counts_towards_it() {
    let played = Played::start(End::NoOffer).await;
    let shown = good(&played, &["quota", "eng/web"]).await;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(
        lines,
        [
            "role           eng/web",
            "guarantee      2 cpus, 128 MiB",
            "limit          4 cpus, 0 B disk, 4 gpus",
            "consumed       3.5 cpus, 64 MiB, 3 gpus",
            "left           0.5 cpus, 0 B disk, 1 gpus",
            "owed           64 MiB",
        ]
    );
    // The start of a role's name is not the role, here as where a quota is set.
    assert_eq!(
        good(&played, &["quota", "eng"]).await,
        "role eng has no quota\n"
    );
    let json: serde_json::Value =
        serde_json::from_str(&good(&played, &["quota", "eng", "--json"]).await).expect("JSON");
    assert_eq!(json["consumed"], serde_json::Value::Null);
    assert_eq!(
        json["quota"]["limits"]["cpu_milli"],
        serde_json::Value::Null
    );
    let roles = good(&played, &["roles"]).await;
    for part in [
        "CONSUMED",
        "3.5 cpus, 64 MiB, 0 B disk, 3 gpus",
        "2 cpus, 128 MiB",
        "4 cpus, 0 B disk, 4 gpus",
    ] {
        assert!(roles.contains(part), "{part} is not in\n{roles}");
    }
    assert_eq!(played.asked(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_quota_is_refused_before_the_master_is_asked() {
    let played = Played::start(End::NoOffer).await;
    for (options, says) in [
        (
            &["--guarantee", "gpus=1"][..],
            "GPUs and other lots can be limited only",
        ),
        (&["--limit", "mem=4"], "4\" has no unit"),
        (&["--limit", "cpus=1,cpus=1"], "--limit names cpus twice"),
        (
            &["--guarantee", "mem=2GiB", "--limit", "mem=1GiB"],
            "guarantee of mem is above the limit",
        ),
        (&["--guarantee", "cpus=0"], "guarantees and limits nothing"),
        (&["--remove", "--limit", "cpus=1"], "cannot be used with"),
        (&["--force"], "--guarantee"),
    ] {
        let args = [&["quota", "eng"][..], options].concat();
        bad(&played, &args, 2, &[says]).await;
    }
    bad(&played, &["quota", "a//b", "--remove"], 2, &["a//b"]).await;
    assert_eq!(played.asked(), [""; 0]);
    let no = ["cannot set the quota: role full holds 4 cpus, which is more than the limit"];
    bad(&played, &["quota", "full", "--limit", "cpus=1"], 1, &no).await;
    assert_eq!(played.asked(), [""; 0]);
}
