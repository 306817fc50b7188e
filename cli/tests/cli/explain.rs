//! `ebb explain`: sentences for people and facts for programs, from a played master's answers.

use ebb_types::{
    AgentCounts, AgentId, Away, Claimant, Contender, ExplainSubject, ExplainedClaim, Explanation,
    FailedConstraint, FrameworkId, FreeCounts, InLine, Limits, OffersOut, OpenAgent, Place,
    Quantities, Resources, Role, Timestamp,
};

use crate::operator::{bad, good};
use crate::played::{End, Played};

const NOW_MS: u64 = 1_700_000_002_000;

fn at(ms_later: u64) -> Timestamp {
    Timestamp::from_ms(NOW_MS).plus_ms(ms_later)
}

pub fn claim(id: &FrameworkId, role: &Role) -> ExplainedClaim {
    ExplainedClaim {
        framework_id: id.clone(),
        framework_name: "a \x1b[31mred\x1b[0m name".into(),
        role: role.clone(),
        away: None,
        subscribed: true,
        suppressed: false,
        takes_revocable: false,
        any_region: false,
        takes_gpus: false,
        minimum: None,
        failed: Vec::new(),
        offers: OffersOut::default(),
        quotas: Vec::new(),
        lot_quotas: Vec::new(),
        most: Limits::NONE,
        free: FreeCounts::default(),
        regular: InLine::default(),
        revocable: InLine::default(),
    }
}

pub fn open() -> OpenAgent {
    OpenAgent {
        agent_id: AgentId::new("cafe-1-S0").expect("valid"),
        resources: Resources::regular(Quantities::cpus_mem(2_000, 1 << 30)),
    }
}

pub fn contender(claimant: Claimant, share_milli: u64) -> Contender {
    Contender {
        claimant,
        share_milli,
        weight_milli: 2_500,
    }
}

/// The first framework has refused some and finds too little elsewhere; the second one meets quotas; a role has one claim
/// for each other reason.
pub fn explanation(subject: ExplainSubject) -> Explanation {
    let role = Role::new("eng/web").expect("valid");
    let mut explanation = Explanation {
        at: at(0),
        subject: subject.clone(),
        agents: AgentCounts {
            usable: 12,
            overfull: 0,
            inactive: 3,
            in_maintenance: 2,
            waiting: 0,
            disconnected: 1,
            absent: 2,
        },
        minimum: Quantities::cpus_mem(10, 32 << 20),
        offers_full: false,
        region: Some("eu".into()),
        paid_first: None,
        claims: Vec::new(),
        left_out: 0,
    };
    match subject {
        ExplainSubject::Framework(id) if id.as_str() == "cafe-1-0001" => {
            crate::explain_quotas::explain(&mut explanation, &id);
        }
        ExplainSubject::Framework(id) => {
            let mut claim = claim(&id, &role);
            claim.offers = OffersOut {
                count: 2,
                resources: open().resources,
                first_deadline: Some(at(90_000)),
            };
            claim.free = FreeCounts {
                refused: 3,
                first_refusal_end: Some(at(2_300)),
                small: 9,
                in_offers: 4,
                short_of_cpu: 10,
                short_of_mem: 9,
                ..FreeCounts::default()
            };
            explanation.claims.push(claim);
        }
        ExplainSubject::Role(role) => {
            explanation.claims = others(&role);
            explanation.left_out = 7;
        }
    }
    explanation
}

fn others(role: &Role) -> Vec<ExplainedClaim> {
    let id = FrameworkId::new("cafe-1-0000").expect("valid");
    let plain = claim(&id, role);
    let mut away = plain.clone();
    away.away = Some(Away {
        since: Timestamp::from_ms(NOW_MS - 1_000),
        until: Some(at(59_000)),
    });
    let mut left = plain.clone();
    left.subscribed = false;
    let mut suppressed = plain.clone();
    suppressed.suppressed = true;
    let mut lent = plain.clone();
    lent.free.only_revocable = 1;
    let mut small = plain.clone();
    (small.free.small, small.free.in_offers) = (12, 4);
    let mut behind = plain.clone();
    (behind.free.open, behind.free.examples) = (1, vec![open()]);
    let other = Role::new("ops").expect("valid");
    behind.regular.places = vec![
        Place {
            own: contender(Claimant::Role(Role::new("eng").expect("valid")), 250),
            place: 2,
            of: 3,
            first: contender(Claimant::Role(other), 105),
        },
        Place {
            own: contender(Claimant::Own(role.clone()), 250),
            place: 1,
            of: 2,
            first: contender(Claimant::Own(role.clone()), 250),
        },
        Place {
            own: contender(Claimant::Framework(id.clone()), 250),
            place: 1,
            of: 1,
            first: contender(Claimant::Framework(id), 250),
        },
    ];
    let mut next = behind.clone();
    next.regular.next = Some(open());
    let mut unsuited = plain.clone();
    unsuited.free.unsuited = 2;
    let failed = |constraint: &str, agents| FailedConstraint {
        constraint: constraint.to_owned(),
        agents,
    };
    unsuited.failed = vec![failed("rack is \"a\"", 2), failed("gpu exists", 1)];
    let mut remote = plain.clone();
    remote.free.other_region = 3;
    let mut gpus = plain.clone();
    gpus.free.with_gpus = 2;
    let mut least = plain;
    least.free.below_minimum = 1;
    let cores = Quantities::cpus_mem(4_000, 0);
    least.minimum = Some(vec![cores, Quantities::cpus_mem(0, 8 << 30)]);
    vec![
        away, left, suppressed, lent, small, behind, next, unsuited, remote, gpus, least,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_framework_is_explained_in_sentences() {
    let played = Played::start(End::NoOffer).await;
    let text = good(&played, &["explain", "1-0000"]).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "framework cafe-1-0000 (a \u{fffd}[31mred\u{fffd}[0m name) in role eng/web: \
             it has refused what is free of 3 agents; the first refusal ends in 2.3 s",
            "  offers   2 offers out to it: 2 cpus, 1 GiB; the first lapses in 1m 30s",
            "  agents   12 to be offered of, 3 deactivated or drained (2 of them for maintenance), 1 disconnected, 2 unreachable or awaited",
            "  free     of 3 of 12 agents as much as it has refused",
            "  free     of 9 of 12 agents less than 0.01 cpus and 32 MiB",
            "  free     of 4 of 12 agents too little because of what is out in offers",
            "  free     of 10 of 12 agents less than 0.01 cpus that it may take",
        ]
    );
    assert_eq!(
        played.asked(),
        ["explain Framework(FrameworkId(cafe-1-0000))"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_is_explained_framework_by_framework() {
    let played = Played::start(End::NoOffer).await;
    let text = good(&played, &["explain", "eng/"]).await;
    assert_eq!(played.asked(), ["explain Role(Role(eng/web))"]);
    for part in [
        "its scheduler has been away for 1.0 s; it is removed in 59.0 s unless it comes back",
        "it is not in the role any more",
        "it has suppressed offers in the role",
        "what is free of 1 agent is only revocable, which it does not take",
        "too little is free of 12 agents; enough of 4 agents is out in offers",
        "something is free for it of 1 agent, but role ops is needier than role eng and comes first",
        "it is next for 2 cpus, 1 GiB of agent cafe-1-S0",
        "  offers   none is out to it",
        "  free     2 cpus, 1 GiB of agent cafe-1-S0",
        "  owned    role eng holds 25 % at weight 2.5: place 2 of 3; first is role ops, which holds 10.5 % at weight 2.5",
        "  owned    what is in role eng/web itself holds 25 % at weight 2.5: the neediest of 2",
        "  owned    framework cafe-1-0000 holds 25 % at weight 2.5; nobody competes with it",
        "its constraints keep it from 2 agents: of 2 it does not hold that rack is \"a\"",
        "  free     of 2 of 12 agents nothing for it, by its constraints",
        "  terms    of 2 agents it does not hold that rack is \"a\"",
        "  terms    of 1 agent it does not hold that gpu exists",
        "what is free of 3 agents is in another region than eu, the master's, and it does not declare REGION_AWARE",
        "  terms    only agents of region eu, the master's: it does not declare REGION_AWARE",
        "what is free is of 2 agents with GPUs, which are kept for those who can use them, and it does not declare GPU_RESOURCES",
        "  free     of 2 of 12 agents nothing for it, as they have GPUs",
        "  terms    only agents without GPUs: it does not declare GPU_RESOURCES",
        "of 1 agent less is free than the least that it takes: 4 cpus, or 8 GiB",
        "  terms    takes offers of at least 4 cpus, or 8 GiB",
        "and 7 more frameworks",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_framework_and_no_role_is_refused_with_the_remedy() {
    let played = Played::start(End::NoOffer).await;
    let none = [
        "there is no framework or role \"nobody\"",
        "`ebb frameworks` and `ebb roles`",
    ];
    bad(&played, &["explain", "nobody"], 1, &none).await;
    let several = ["may be any of 2", "cafe-1-0001"];
    bad(&played, &["explain", "1-000"], 1, &several).await;
    bad(&played, &["explain"], 2, &["FRAMEWORK|ROLE"]).await;
    assert_eq!(played.asked(), [""; 0]);
}

/// The shape of the JSON is a promise: this is it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_explanation_as_json_keeps_its_shape() {
    let played = Played::start(End::NoOffer).await;
    let json = |text: String| -> serde_json::Value { serde_json::from_str(&text).expect("JSON") };
    let amounts = |cpu: u64, mem: u64| {
        serde_json::json!({
            "cpu_milli": cpu, "mem_bytes": mem, "disk_bytes": 0, "disk_bandwidth_bytes_per_s": 0,
            "network_bandwidth_bytes_per_s": 0
        })
    };
    let two = serde_json::json!({"regular": amounts(2_000, 1 << 30), "revocable": amounts(0, 0)});
    let free = serde_json::json!({
        "open": 0, "refused": 3, "first_refusal_end_ms": NOW_MS + 2_300, "over_quota": 0,
        "over_limit": 0, "only_revocable": 0, "unsuited": 0, "other_region": 0, "with_gpus": 0, "below_minimum": 0, "small": 9, "in_offers": 4, "short_of_cpu": 10,
        "short_of_mem": 9, "examples": []
    });
    let nobody = serde_json::json!({"places": [], "next": null});
    let claim = serde_json::json!({
        "framework_id": "cafe-1-0000", "framework_name": "a \u{1b}[31mred\u{1b}[0m name",
        "role": "eng/web", "verdict": "refused", "away_since_ms": null,
        "away_until_ms": null, "subscribed": true, "suppressed": false,
        "takes_revocable": false, "any_region": false, "takes_gpus": false, "minimum": null, "failed": [], "offers": 2, "offered": two,
        "first_offer_deadline_ms": NOW_MS + 90_000, "quotas": [], "lot_quotas": [],
        "most": {
            "cpu_milli": null, "mem_bytes": null, "disk_bytes": null,
            "disk_bandwidth_bytes_per_s": null,
            "network_bandwidth_bytes_per_s": null
        },
        "free": free,
        "regular": nobody, "revocable": nobody
    });
    assert_eq!(
        json(good(&played, &["explain", "1-0000", "--json"]).await),
        serde_json::json!({
            "at_ms": NOW_MS, "framework_id": "cafe-1-0000", "role": null, "agents_usable": 12,
            "agents_overfull": 0, "agents_inactive": 3, "agents_in_maintenance": 2, "agents_waiting": 0, "agents_disconnected": 1,
            "agents_absent": 2,
            "minimum": amounts(10, 32 << 20), "offers_full": false, "region": "eu", "paid_first": null,
            "left_out": 0,
            "claims": [claim]
        })
    );
    let role = json(good(&played, &["explain", "eng/web", "--json"]).await);
    assert_eq!(
        (&role["role"], &role["left_out"]),
        (&"eng/web".into(), &7.into())
    );
    let claims = role["claims"].as_array().expect("a list");
    let verdicts: Vec<&str> = claims
        .iter()
        .filter_map(|claim| claim["verdict"].as_str())
        .collect();
    let expected = [
        "away",
        "not_in_role",
        "suppressed",
        "only_revocable",
        "too_little",
        "behind",
        "next",
        "unsuited",
        "other_region",
        "with_gpus",
        "below_minimum",
    ];
    assert_eq!(verdicts, expected);
    assert_eq!(claims[0]["away_until_ms"], NOW_MS + 59_000);
    let open = serde_json::json!({"agent_id": "cafe-1-S0", "resources": two});
    assert_eq!(claims[6]["regular"]["next"], open);
    assert_eq!(claims[6]["free"]["examples"], serde_json::json!([open]));
    let contender = |kind: &str, name: &str, share: u64| serde_json::json!({"kind": kind, "name": name, "share_milli": share, "weight_milli": 2_500});
    let places = &claims[6]["regular"]["places"];
    assert_eq!(
        places[0],
        serde_json::json!({
            "own": contender("role", "eng", 250), "place": 2, "of": 3,
            "first": contender("role", "ops", 105)
        })
    );
    assert_eq!(
        places[1]["own"],
        contender("frameworks_of_role", "eng/web", 250)
    );
    assert_eq!(places[2]["own"], contender("framework", "cafe-1-0000", 250));
}
