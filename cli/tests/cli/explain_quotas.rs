//! `ebb explain` where quotas decide.

use ebb_types::{
    Claimant, ExplainedClaim, Explanation, FrameworkId, Limits, Place, Quantities, Quota,
    QuotaState, ResourceKind, Role,
};

use crate::explain::{claim, contender, open};
use crate::operator::good;
use crate::played::{End, Played};

fn role(name: &str) -> Role {
    Role::new(name).expect("valid")
}

fn limits(cpu_milli: Option<u64>, mem_bytes: Option<u64>) -> Limits {
    Limits::NONE
        .with(ResourceKind::Cpus, cpu_milli)
        .with(ResourceKind::Mem, mem_bytes)
}

fn state(name: &str, limits: Limits, held: Quantities) -> QuotaState {
    let guarantee = Quantities::ZERO;
    QuotaState {
        role: role(name),
        quota: Quota {
            guarantee,
            limits,
            ..Quota::default()
        },
        held,
        held_revocable: Quantities::ZERO,
    }
}

fn behind(who: &str, first: &str) -> Place {
    Place {
        own: contender(Claimant::Role(role(who)), 250),
        place: 2,
        of: 3,
        first: contender(Claimant::Role(role(first)), 105),
    }
}

/// One claim for each way in which quotas decide; `eng` is owed some of its guarantee.
pub fn explain(explanation: &mut Explanation, id: &FrameworkId) {
    explanation.paid_first = Some(role("eng"));
    explanation.claims = vec![
        at_one_limit(id),
        at_two_limits(id),
        allowed_nothing(id),
        lent_enough(id),
        while_others_are_owed(id),
        behind_the_owed(id),
        behind_within_the_owed(id),
        next_of_the_owed(id),
    ];
}

fn at_one_limit(id: &FrameworkId) -> ExplainedClaim {
    let mut claim = claim(id, &role("ops/db"));
    (claim.free.over_quota, claim.free.over_limit) = (3, 3);
    let held = Quantities::cpus_mem(7_995, 16 << 30);
    let mut own = state("ops/db", limits(Some(10_000), None), held);
    own.quota.guarantee = Quantities::cpus_mem(2_000, 0).with(ResourceKind::Disk, 1 << 30);
    let above = state("ops", limits(Some(8_000), Some(16 << 30)), held);
    claim.quotas = vec![own, above];
    claim.most = limits(Some(5), Some(0));
    claim
}

fn at_two_limits(id: &FrameworkId) -> ExplainedClaim {
    let mut claim = claim(id, &role("ops/db"));
    (claim.free.over_quota, claim.free.over_limit) = (1, 1);
    let held = Quantities::cpus_mem(2_000, 1 << 30);
    claim.quotas = vec![
        state("ops/db", limits(None, Some(1 << 30)), held),
        state("ops", limits(Some(1_000), Some(2 << 30)), held),
    ];
    claim
}

fn allowed_nothing(id: &FrameworkId) -> ExplainedClaim {
    let mut claim = claim(id, &role("off"));
    (claim.free.over_quota, claim.free.over_limit) = (1, 1);
    let nothing = limits(Some(0), Some(0));
    claim.quotas = vec![state("off", nothing, Quantities::ZERO)];
    claim
}

fn lent_enough(id: &FrameworkId) -> ExplainedClaim {
    let mut claim = claim(id, &role("batch"));
    (claim.free.over_quota, claim.free.over_limit) = (1, 1);
    let held = Quantities::ZERO.with(ResourceKind::NetworkBandwidth, 12_500_000);
    let most = Limits::NONE.with(ResourceKind::NetworkBandwidth, Some(125_000_000));
    let mut own = state("batch", most, held);
    own.quota.revocable_limits = limits(Some(8_000), Some(0));
    own.held_revocable = Quantities::cpus_mem(7_995, 0);
    claim.quotas = vec![own];
    claim
}

fn while_others_are_owed(id: &FrameworkId) -> ExplainedClaim {
    let mut claim = claim(id, &role("ops"));
    claim.free.over_quota = 2;
    claim.most = limits(Some(0), None);
    claim
}

/// The needier role is not the one that is paid first, which is not within `engine` either.
fn behind_the_owed(id: &FrameworkId) -> ExplainedClaim {
    let mut claim = claim(id, &role("engine"));
    (claim.free.open, claim.free.examples) = (1, vec![open()]);
    claim.regular.places = vec![behind("engine", "ops")];
    claim
}

/// Above the role that is paid first it does not matter who is needier.
fn behind_within_the_owed(id: &FrameworkId) -> ExplainedClaim {
    let mut claim = behind_the_owed(id);
    claim.role = role("eng/web");
    claim.regular.places = vec![behind("eng", "ops"), behind("eng/web", "eng/db")];
    claim
}

fn next_of_the_owed(id: &FrameworkId) -> ExplainedClaim {
    let mut claim = behind_within_the_owed(id);
    claim.regular.next = Some(open());
    claim
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_quotas_decide_is_said_in_sentences() {
    let played = Played::start(End::NoOffer).await;
    let text = good(&played, &["explain", "1-0001"]).await;
    let said = |line: &&str| line.starts_with("framework") || line.contains("  quota ");
    let lines: Vec<&str> = text.lines().filter(said).collect();
    const WHO: &str = "framework cafe-1-0001 (a \u{fffd}[31mred\u{fffd}[0m name) in role";
    let verdict = |role: &str, what: &str| format!("{WHO} {role}: {what}");
    assert_eq!(
        lines,
        [
            verdict(
                "ops/db",
                "enough is free of 3 agents, but role ops holds 7.995 cpus of at most 8 cpus \
                 and 16 GiB of at most 16 GiB"
            ),
            "  quota    role ops/db holds 7.995 cpus (at most 10 cpus, 2 cpus guaranteed), \
             0 B disk (1 GiB disk guaranteed)"
                .into(),
            "  quota    role ops holds 7.995 cpus (at most 8 cpus), 16 GiB (at most 16 GiB)".into(),
            "  quota    it may be offered 0.005 cpus, 0 B more".into(),
            verdict(
                "ops/db",
                "enough is free of 1 agent, but role ops/db holds 1 GiB of at most 1 GiB, \
                 and role ops holds 2 cpus of at most 1 cpu"
            ),
            "  quota    role ops/db holds 1 GiB (at most 1 GiB)".into(),
            "  quota    role ops holds 2 cpus (at most 1 cpu), 1 GiB (at most 2 GiB)".into(),
            verdict(
                "off",
                "enough is free of 1 agent, but role off holds 0 cpus of at most 0 cpus \
                 and 0 B of at most 0 B"
            ),
            "  quota    role off holds 0 cpus (at most 0 cpus), 0 B (at most 0 B)".into(),
            verdict(
                "batch",
                "enough is free of 1 agent, but role batch holds 7.995 cpus of at most 8 cpus \
                 and 0 B of at most 0 B of what is lent"
            ),
            "  quota    role batch holds 11.9 MiB/s network (at most 119.2 MiB/s network), \
             7.995 cpus lent (at most 8 cpus), 0 B lent (at most 0 B)"
                .into(),
            verdict(
                "ops",
                "what is free of 2 agents is kept for roles that are owed some of their \
                 guarantees; role eng comes first"
            ),
            "  quota    it may be offered 0 cpus more".into(),
            verdict(
                "engine",
                "something is free for it of 1 agent, but role eng comes first with what is \
                 owned, because it is owed some of its guarantee"
            ),
            verdict(
                "eng/web",
                "something is free for it of 1 agent, but role eng/db is needier than role \
                 eng/web and comes first"
            ),
            verdict(
                "eng/web",
                "it is next for 2 cpus, 1 GiB of agent cafe-1-S0, because role eng is owed some \
                 of its guarantee"
            ),
        ]
    );
    let free = "  free     of 3 of 12 agents enough, of which quotas leave it too little";
    assert!(text.contains(free), "{text}");
}

/// The shape of the JSON is a promise: this is it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_quotas_decide_as_json_keeps_its_shape() {
    let played = Played::start(End::NoOffer).await;
    let text = good(&played, &["explain", "1-0001", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["paid_first"], "eng");
    let claims = json["claims"].as_array().expect("a list");
    let verdicts: Vec<&str> = claims
        .iter()
        .filter_map(|claim| claim["verdict"].as_str())
        .collect();
    let expected = [
        "at_limit",
        "at_limit",
        "at_limit",
        "at_limit",
        "owed_to_others",
        "behind",
        "behind",
        "next",
    ];
    assert_eq!(verdicts, expected);
    assert_eq!(claims[0]["free"]["over_quota"], 3);
    let amounts = |cpu: u64, mem: u64, disk: u64| {
        serde_json::json!({
            "cpu_milli": cpu, "mem_bytes": mem, "disk_bytes": disk, "disk_bandwidth_bytes_per_s": 0,
            "network_bandwidth_bytes_per_s": 0
        })
    };
    let limits = |cpu: Option<u64>, mem: Option<u64>| {
        serde_json::json!({
            "cpu_milli": cpu, "mem_bytes": mem, "disk_bytes": null,
            "disk_bandwidth_bytes_per_s": null,
            "network_bandwidth_bytes_per_s": null
        })
    };
    assert_eq!(claims[0]["most"], limits(Some(5), Some(0)));
    assert_eq!(
        claims[0]["quotas"],
        serde_json::json!([
            {
                "role": "ops/db", "held": amounts(7_995, 16 << 30, 0),
                "quota": {
                    "guarantee": amounts(2_000, 0, 1 << 30), "limits": limits(Some(10_000), None),
                    "revocable_limits": limits(None, None)
                },
                "held_revocable": amounts(0, 0, 0)
            },
            {
                "role": "ops", "held": amounts(7_995, 16 << 30, 0),
                "quota": {
                    "guarantee": amounts(0, 0, 0), "limits": limits(Some(8_000), Some(16 << 30)),
                    "revocable_limits": limits(None, None)
                },
                "held_revocable": amounts(0, 0, 0)
            }
        ])
    );
    let network = |part: &serde_json::Value| part["network_bandwidth_bytes_per_s"].as_u64();
    let batch = &claims[3]["quotas"][0];
    assert_eq!(network(&batch["quota"]["limits"]), Some(125_000_000));
    assert_eq!(network(&batch["held"]), Some(12_500_000));
    assert_eq!(batch["held_revocable"], amounts(7_995, 0, 0));
    assert_eq!(claims[4]["quotas"], serde_json::json!([]));
    assert_eq!(claims[4]["most"], limits(Some(0), None));
}
