//! `ebb maintenance`, from a played master's answers.

use crate::operator::{bad, good};
use crate::played::{End, Played};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_planned_is_shown_with_what_frameworks_answer() {
    let played = Played::start(End::NoOffer).await;
    let text = good(&played, &["maintenance", "status"]).await;
    for part in [
        "MACHINE",
        "rack7",
        "scheduled",
        "in 1m 0s",
        "30m 0s",
        "will not be gone",
        "down",
        "1.0 s ago",
        "for ever",
        "will be gone",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let json = good(&played, &["maintenance", "status", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        json[0],
        serde_json::json!({
            "agent_id": null, "hostname": "rack7", "mode": "scheduled",
            "start_ms": 1_700_000_062_000_u64, "duration_ms": 1_800_000, "agents": ["cafe-1-S0"],
            "answers": [{
                "agent_id": "cafe-1-S0", "framework_id": "cafe-1-0000", "answer": "declined",
                "at_ms": 1_700_000_000_000_u64
            }]
        })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_are_named_by_agent_by_host_or_by_a_host_to_come() {
    let played = Played::start(End::NoOffer).await;
    let plan = ["maintenance", "schedule", "--in", "2h", "--for", "30m"];
    let text = good(
        &played,
        &[&plan[..], &["1-S0", "127.0.0.1", "host:new"]].concat(),
    )
    .await;
    assert!(
        text.contains("host new will be out of use in 2h 0m"),
        "{text}"
    );
    good(&played, &["maintenance", "start", "rack7"]).await;
    good(&played, &["maintenance", "stop", "1-S0"]).await;
    good(&played, &["maintenance", "cancel", "rack7"]).await;
    assert_eq!(
        played.asked(),
        [
            "schedule agent cafe-1-S0 7200000 Some(1800000)",
            "schedule host 127.0.0.1 7200000 Some(1800000)",
            "schedule host new 7200000 Some(1800000)",
            "start host rack7",
            "stop agent cafe-1-S0",
            "cancel host rack7",
        ]
    );
    bad(
        &played,
        &["maintenance", "start", "nobody"],
        1,
        &["nobody", "ebb agents"],
    )
    .await;
    bad(
        &played,
        &["maintenance", "start", "host:a b"],
        1,
        &["not allowed"],
    )
    .await;
}
