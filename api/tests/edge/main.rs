//! The edge: what is well-formed survives the wire unchanged; what is not is refused with a sentence
//! that names the field; nothing panics, whatever the bytes.

mod advice;
mod lots;

use ebb_api::proto::{self, scheduler_call, task_status};
use ebb_api::{AgentEnvelope, MasterEnvelope};
use ebb_types::{
    AgentCounts, AgentId, Away, Call, Change, Claimant, Contender, Event, ExplainSubject,
    ExplainedClaim, Explanation, FailedConstraint, FrameworkId, FreeCounts, InLine, Limits,
    OffersOut, OpenAgent, Operation, Place, Quantities, Quota, QuotaState, ResourceKind, Resources,
    Role, TaskInfo, TaskStatus, Timestamp,
};
use proptest::prelude::*;
use prost::Message;

fn command_task(resources: Vec<proto::Resource>) -> proto::TaskInfo {
    proto::TaskInfo {
        task_id: "t".into(),
        agent_id: "a".into(),
        resources,
        command: Some(proto::CommandInfo {
            value: "true".into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn resource(name: &str, amount: i64, revocable: bool) -> proto::Resource {
    proto::Resource {
        name: name.into(),
        amount,
        revocable,
        ..proto::Resource::default()
    }
}

fn refusal<T: std::fmt::Debug, E: std::fmt::Display>(result: Result<T, E>) -> String {
    result.map_or_else(
        |error| error.to_string(),
        |value| panic!("was taken as {value:?}"),
    )
}

#[test]
fn amounts_are_refused_that_are_negative_enormous_misnamed_or_given_twice() {
    for (list, says) in [
        (vec![resource("cpus", -1, false)], "cpus is -1"),
        (vec![resource("mem", i64::MAX, false)], "between 0 and"),
        (vec![resource("uni corns", 1, false)], "without white space"),
        (
            vec![resource("mem", 1, false), resource("mem", 2, false)],
            "stands twice",
        ),
        (vec![resource("mem", 0, false); 521], "521 entries"),
    ] {
        let sentence = refusal(TaskInfo::try_from(command_task(list)));
        assert!(
            sentence.contains(says),
            "{sentence:?} does not say {says:?}"
        );
    }
    let both = vec![resource("cpus", 5, false), resource("cpus", 7, true)];
    let task = TaskInfo::try_from(command_task(both)).expect("both kinds may be read side by side");
    let (regular, revocable) = (Quantities::cpus_mem(5, 0), Quantities::cpus_mem(7, 0));
    assert_eq!(task.resources, Resources { regular, revocable });
}

#[test]
fn ids_are_refused_that_are_no_safe_file_names() {
    for bad in ["", "a/b", "..", "a\0b", &"x".repeat(64 * 1024)] {
        let task = proto::TaskInfo {
            task_id: bad.into(),
            ..command_task(vec![])
        };
        let sentence = refusal(TaskInfo::try_from(task));
        assert!(
            sentence.starts_with("task.task_id: task id"),
            "{sentence:?}"
        );
        assert!(
            sentence.len() < 1024,
            "the sentence carries the whole input"
        );
    }
}

#[test]
fn one_malformed_task_of_an_accept_is_put_aside_with_its_rule() {
    let tasks = vec![
        command_task(vec![resource("cpus", -1, false)]),
        command_task(vec![]),
    ];
    let launch = proto::operation::Launch { tasks };
    let accept = scheduler_call::Accept {
        offer_ids: vec!["o".into()],
        operations: vec![proto::Operation {
            id: String::new(),
            operation: Some(proto::operation::Operation::Launch(launch)),
        }],
        filters: None,
    };
    let wire = proto::SchedulerCall {
        call: Some(scheduler_call::Call::Accept(accept)),
    };
    let Ok(Call::Accept { operations, .. }) = Call::try_from(wire) else {
        panic!("not read as an accept")
    };
    let [Operation::Launch { tasks, malformed }] = &operations[..] else {
        panic!("not one launch")
    };
    assert_eq!((tasks.len(), malformed.len()), (1, 1));
    assert!(malformed[0].rule.contains("cpus is -1"));
}

#[test]
fn an_unset_oneof_is_refused_by_name() {
    assert_eq!(
        refusal(Call::try_from(proto::SchedulerCall::default())),
        "call: is missing; set it"
    );
    assert_eq!(
        refusal(Event::try_from(proto::SchedulerEvent::default())),
        "event: is missing; set it"
    );
    assert_eq!(
        refusal(AgentEnvelope::try_from(proto::AgentMessage::default())),
        "message: is missing; set it"
    );
    assert_eq!(
        refusal(MasterEnvelope::try_from(proto::MasterMessage::default())),
        "message: is missing; set it"
    );
}

fn statuses() -> impl Strategy<Value = proto::TaskStatus> {
    let exit = prop_oneof![
        Just(None),
        any::<i32>().prop_map(|code| Some(task_status::Exit::ExitCode(code))),
        any::<i32>().prop_map(|signal| Some(task_status::Exit::ExitSignal(signal))),
    ];
    let uuid = prop_oneof![Just(vec![]), prop::collection::vec(any::<u8>(), 16)];
    (
        "[a-z]{1,20}",
        0..14i32,
        0..3i32,
        exit,
        uuid,
        0..1u64 << 50,
        ".{0,200}",
    )
        .prop_map(
            |(task_id, state, source, exit, uuid, timestamp_ms, message)| proto::TaskStatus {
                task_id,
                state,
                source,
                exit,
                uuid,
                timestamp_ms,
                message,
                agent_id: "agent".into(),
                ..Default::default()
            },
        )
}

proptest! {
    #[test]
    fn a_status_survives_the_wire(wire in statuses()) {
        let status = TaskStatus::try_from(wire.clone()).expect("well-formed");
        prop_assert_eq!(proto::TaskStatus::from(status), wire);
    }

    #[test]
    fn whatever_the_bytes_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = proto::SchedulerCall::decode(&bytes[..]).map(Call::try_from);
        let _ = proto::SchedulerEvent::decode(&bytes[..]).map(Event::try_from);
        let _ = proto::AgentMessage::decode(&bytes[..]).map(AgentEnvelope::try_from);
        let _ = proto::MasterMessage::decode(&bytes[..]).map(MasterEnvelope::try_from);
        let _ = proto::Change::decode(&bytes[..]).map(Change::try_from);
        let _ = proto::ExplainRequest::decode(&bytes[..]).map(ExplainSubject::try_from);
        let _ = proto::Explanation::decode(&bytes[..]).map(Explanation::try_from);
    }

    #[test]
    fn a_message_with_a_flipped_byte_is_read_or_refused(
        status in statuses(), at in any::<prop::sample::Index>(), flip in 1..=255u8,
    ) {
        let update = proto::agent_message::Update {
            framework_id: "f".into(), status: Some(status), latest_state: 1,
        };
        let wire = proto::AgentMessage {
            classes: Vec::new(),
            incarnation: 3, message: Some(proto::agent_message::Message::Update(update)),
        };
        let mut bytes = wire.encode_to_vec();
        *at.get_mut(&mut bytes) ^= flip;
        let _ = proto::AgentMessage::decode(&bytes[..]).map(AgentEnvelope::try_from);
    }
}

#[test]
fn what_an_agent_measures_survives_the_wire_figure_by_figure() {
    // Each figure has a value of its own, so that two that are taken for each other show.
    let mut next = 0;
    let mut one = || {
        next += 1;
        Some(next)
    };
    let used = ebb_types::TaskUsageFigures {
        cpu_milli: one(),
        cpu_user_milli: one(),
        cpu_system_milli: one(),
        throttled_permille: one(),
        mem_bytes: one(),
        mem_anon_bytes: one(),
        mem_file_bytes: one(),
        mem_swap_bytes: one(),
        mem_peak_bytes: one(),
        reclaim_permille: one(),
        faults_minor_per_s: one(),
        faults_major_per_s: one(),
        oom_kills: one(),
        disk_bytes_per_s: one(),
        disk_read_bytes_per_s: one(),
        disk_write_bytes_per_s: one(),
        io_mean_ns: one(),
        io_queue_p99_ns: one(),
        io_device_p99_ns: one(),
        net_in_bytes_per_s: one(),
        net_out_bytes_per_s: one(),
        traffic_in_bytes_per_s: one(),
        traffic_out_bytes_per_s: one(),
        traffic_dropped_per_s: one(),
        run_queue_wait_ns: one(),
        run_queue_p99_ns: one(),
        waiting_milli: one(),
        waiting_own_milli: one(),
        preempted_by_revocable_per_s: one(),
        preempted_by_other_per_s: one(),
        migrations_per_s: one(),
        forks_per_s: one(),
        cpu_pressure_permille: one(),
        mem_pressure_permille: one(),
        io_pressure_permille: one(),
    };
    let (ebpf, files) = (
        ebb_types::MeasureSource::Ebpf,
        ebb_types::MeasureSource::Files,
    );
    let task = |used, cpu, faults| ebb_types::TaskUsage {
        framework_id: ebb_types::FrameworkId::new("f").unwrap(),
        task_id: ebb_types::TaskId::new("t").unwrap(),
        container_id: ebb_types::ContainerId::new("c").unwrap(),
        allocated: ebb_types::Resources::ZERO,
        used,
        sources: ebb_types::TaskSources {
            cpu,
            faults,
            oom_kills: faults,
            disk: cpu,
        },
        throttled_to_milli: Some(100),
        frozen: true,
        network_limited_to_bytes_per_s: Some(200),
        memory_reclaimed_to_bytes: Some(300),
    };
    let source = |figure: &str, source, why: &str| ebb_types::FigureSource {
        figure: figure.into(),
        source,
        why: why.into(),
    };
    let usage = ebb_types::AgentUsage {
        machine_cpu_milli: Some(1),
        cpu_pressure_permille: Some(2),
        mem_pressure_permille: Some(3),
        io_pressure_permille: Some(4),
        sources: vec![
            source("on_cpu", Some(ebpf), ""),
            source("memory", Some(files), ""),
            source("network", None, "no probes"),
        ],
        tasks: vec![
            task(used, ebpf, files),
            task(ebb_types::TaskUsageFigures::default(), files, ebpf),
        ],
        recent: vec![correction()],
        disturbances: vec![disturbance(4)],
        promises: ebb_types::Promises {
            cpu: ebb_types::Promise {
                watched_ms: 11,
                broken_ms: 12,
            },
            mem: ebb_types::Promise {
                watched_ms: 13,
                broken_ms: 14,
            },
            budget_ppm: 15,
        },
        lasting: ebb_types::Lasting {
            confidence_permille: 900,
            points: vec![
                ebb_types::LastingPoint {
                    time_ms: 600_000,
                    amount: ebb_types::Quantities::cpus_mem(1_000, 0),
                },
                ebb_types::LastingPoint {
                    time_ms: 3_600_000,
                    amount: ebb_types::Quantities::cpus_mem(250, 0),
                },
            ],
        },
        corrections: vec![correction()],
        ..ebb_types::AgentUsage::default()
    };
    let wire = proto::AgentUsage::from(usage.clone());
    assert_eq!(ebb_types::AgentUsage::try_from(wire.clone()), Ok(usage));
    let refused = |change: &dyn Fn(&mut proto::AgentUsage)| {
        let mut bad = wire.clone();
        change(&mut bad);
        assert!(ebb_types::AgentUsage::try_from(bad).is_err());
    };
    refused(&|usage| usage.sources = vec![usage.sources[0].clone(); 65]);
    refused(&|usage| usage.recent = vec![usage.recent[0].clone(); 33]);
    refused(&|usage| usage.disturbances = vec![usage.disturbances[0].clone(); 65]);
    refused(&|usage| {
        let by = &mut usage.disturbances[0].by;
        by.push(by[0].clone());
    });
    refused(&|usage| usage.disturbances[0].resource = 0);
    refused(&|usage| usage.recent[0].choice = None);
    refused(&|usage| usage.recent[0].signal = -1);
    refused(&|usage| usage.sources[0].source = -1);
    refused(&|usage| usage.recent[0].grace_ms = u64::MAX);
}

#[test]
fn what_a_newer_agent_says_beyond_what_is_known_is_left_out_and_the_rest_counts() {
    let usage = ebb_types::AgentUsage {
        sources: vec![ebb_types::FigureSource {
            figure: "cpu".into(),
            source: Some(ebb_types::MeasureSource::Ebpf),
            why: String::new(),
        }],
        corrections: vec![correction(); 4],
        recent: vec![correction(); 2],
        disturbances: vec![disturbance(1); 3],
        taken_back_cpu_milli: 7,
        ..ebb_types::AgentUsage::default()
    };
    let mut wire = proto::AgentUsage::from(usage.clone());
    wire.sources.push(proto::FigureSource {
        source: 99,
        ..wire.sources[0].clone()
    });
    wire.corrections[1].signal = 99;
    wire.corrections[2].choice.as_mut().expect("said").rule = 99;
    wire.corrections[3].action = None;
    wire.recent[0].signal = 99;
    wire.disturbances[0].resource = 99;
    wire.disturbances[1].signal = 99;
    let known = ebb_types::AgentUsage {
        corrections: vec![correction()],
        recent: vec![correction()],
        disturbances: vec![disturbance(1)],
        ..usage
    };
    assert_eq!(ebb_types::AgentUsage::try_from(wire), Ok(known));
}

#[test]
fn what_was_done_for_which_signal_and_by_which_rule_survives_the_wire() {
    use ebb_types::CorrectionAction as Action;
    let actions = [
        Action::Throttle { cpu_milli: 10 },
        Action::Freeze,
        Action::Release,
        Action::Evict,
        Action::LimitNetwork { bytes_per_s: 11 },
        Action::ReleaseNetwork,
        Action::ReclaimMemory { to_bytes: 12 },
        Action::ReleaseMemory,
    ];
    let one = |action, signal, rule| ebb_types::Correction {
        action,
        signal,
        choice: ebb_types::Choice {
            rule,
            ..correction().choice
        },
        ..correction()
    };
    for action in actions {
        for signal in ebb_types::Signal::ALL {
            for rule in ebb_types::ChoiceRule::ALL {
                let said = one(action, signal, rule);
                let wire = proto::Correction::from(said.clone());
                assert_eq!(ebb_types::Correction::try_from(wire), Ok(said));
            }
        }
    }
}

/// A correction in which each number has a value of its own.
fn correction() -> ebb_types::Correction {
    ebb_types::Correction {
        at: ebb_types::Timestamp::from_ms(1),
        container_id: ebb_types::ContainerId::new("c").expect("valid"),
        task_id: ebb_types::TaskId::new("t").expect("valid"),
        framework_id: ebb_types::FrameworkId::new("f").expect("valid"),
        action: ebb_types::CorrectionAction::Evict,
        signal: ebb_types::Signal::MemoryStall,
        on_behalf_of: None,
        value: 2,
        threshold: 3,
        baseline: Some(4),
        duration_ms: 5,
        choice: ebb_types::Choice {
            rule: ebb_types::ChoiceRule::MostMemory,
            amount: 6,
            rank: 7,
            candidates: 8,
            spared: true,
        },
        grace_ms: 9,
    }
}

fn disturbance(by: u64) -> ebb_types::Disturbance {
    let one = |n| ebb_types::Disturber {
        framework_id: ebb_types::FrameworkId::new("f").expect("valid"),
        task_id: ebb_types::TaskId::new(format!("t{n}")).expect("valid"),
        container_id: ebb_types::ContainerId::new("c").expect("valid"),
        revocable: n % 2 == 0,
        share_permille: 100 + n,
    };
    ebb_types::Disturbance {
        framework_id: ebb_types::FrameworkId::new("f").expect("valid"),
        task_id: ebb_types::TaskId::new("owner").expect("valid"),
        container_id: ebb_types::ContainerId::new("c").expect("valid"),
        resource: ebb_types::Contended::Disk,
        signal: ebb_types::Signal::DiskLatency,
        value: 1,
        baseline: 2,
        threshold: 3,
        since: ebb_types::Timestamp::from_ms(4),
        by: (0..by).map(one).collect(),
    }
}

/// Each number has a value of its own, so that two that are taken for each other show.
fn explanation() -> Explanation {
    let mut next = 0;
    let mut one = || {
        next += 1;
        next
    };
    let role = Role::new("a/b").expect("valid");
    let framework_id = FrameworkId::new("f").expect("valid");
    let mut open = || OpenAgent {
        agent_id: AgentId::new(format!("s{}", one())).expect("valid"),
        resources: Resources {
            regular: Quantities::cpus_mem(one(), one()),
            revocable: Quantities::cpus_mem(one(), 0),
        },
    };
    let (examples, regular, revocable) = (vec![open(), open()], open(), open());
    let mut contender = |claimant| Contender {
        claimant,
        share_milli: one(),
        weight_milli: one(),
    };
    let (a, own) = (Claimant::Role(role.clone()), Claimant::Own(role.clone()));
    let it = Claimant::Framework(framework_id.clone());
    let pairs = [a.clone(), own, it].map(|claimant| (contender(claimant), contender(a.clone())));
    let place = |(own, first)| Place {
        own,
        place: one(),
        of: one(),
        first,
    };
    let places = Vec::from(pairs.map(place));
    let mut quota = |role: &Role| QuotaState {
        role: role.clone(),
        quota: Quota {
            guarantee: Quantities::cpus_mem(one(), one()),
            limits: Limits::NONE
                .with(ResourceKind::Cpus, Some(one()))
                .with(ResourceKind::Mem, Some(0)),
            revocable_limits: Limits::NONE.with(ResourceKind::Mem, Some(one())),
        },
        held: Quantities::cpus_mem(one(), one()),
        held_revocable: Quantities::cpus_mem(one(), 0),
    };
    let quotas = vec![quota(&role), quota(&Role::new("a").expect("valid"))];
    let lot_quota = ebb_types::LotQuota {
        role: role.clone(),
        name: "gpus".into(),
        limit: one(),
        held: one(),
    };
    let mut at = || Timestamp::from_ms(one());
    let (since, until, lapses, refusal_end) = (at(), at(), at(), at());
    let claim = ExplainedClaim {
        framework_id: framework_id.clone(),
        framework_name: "name".into(),
        role,
        away: Some(Away {
            since,
            until: Some(until),
        }),
        subscribed: true,
        suppressed: false,
        takes_revocable: true,
        any_region: true,
        takes_gpus: true,
        minimum: Some(vec![Quantities::cpus_mem(7, 0), Quantities::cpus_mem(0, 9)]),
        failed: vec![FailedConstraint {
            constraint: "rack is \"a\"".into(),
            agents: 11,
        }],
        offers: OffersOut {
            count: one(),
            resources: Resources::revocable(Quantities::cpus_mem(one(), one())),
            first_deadline: Some(lapses),
        },
        quotas,
        lot_quotas: vec![lot_quota],
        most: Limits::NONE.with(ResourceKind::Disk, Some(one())),
        free: FreeCounts {
            open: one(),
            refused: one(),
            first_refusal_end: Some(refusal_end),
            over_quota: one(),
            over_limit: one(),
            only_revocable: one(),
            unsuited: one(),
            other_region: one(),
            with_gpus: one(),
            below_minimum: one(),
            small: one(),
            in_offers: one(),
            short_of_cpu: one(),
            short_of_mem: one(),
            examples,
        },
        regular: InLine {
            places,
            next: Some(regular),
        },
        revocable: InLine {
            places: Vec::new(),
            next: Some(revocable),
        },
    };
    Explanation {
        at: Timestamp::from_ms(one()),
        subject: ExplainSubject::Framework(framework_id),
        agents: AgentCounts {
            usable: one(),
            overfull: one(),
            inactive: one(),
            in_maintenance: one(),
            waiting: one(),
            disconnected: one(),
            absent: one(),
        },
        minimum: Quantities::cpus_mem(one(), one()),
        offers_full: true,
        region: Some("eu".into()),
        paid_first: Some(Role::new("a/c").expect("valid")),
        claims: vec![claim],
        left_out: one(),
    }
}

#[test]
fn an_explanation_survives_the_wire_fact_by_fact() {
    let all = explanation();
    let mut few = all.clone();
    few.offers_full = false;
    few.subject = ExplainSubject::Role(Role::new("*").unwrap());
    let claim = &mut few.claims[0];
    (claim.away, claim.offers) = (None, OffersOut::default());
    (claim.subscribed, claim.suppressed, claim.takes_revocable) = (false, true, false);
    (claim.regular, claim.revocable) = (InLine::default(), InLine::default());
    claim.free = FreeCounts::default();
    (claim.quotas, claim.most) = (Vec::new(), Limits::NONE);
    few.paid_first = None;
    for explanation in [all, few] {
        let bytes = proto::Explanation::from(explanation.clone()).encode_to_vec();
        let wire = proto::Explanation::decode(&bytes[..]).expect("decodes");
        assert_eq!(Explanation::try_from(wire), Ok(explanation));
    }
}

#[test]
fn an_explanation_that_floods_or_lacks_something_is_refused_by_name() {
    let good = proto::Explanation::from(explanation());
    type Spoil = fn(&mut proto::Explanation);
    let spoilt: [(Spoil, &str); 8] = [
        (
            |wire| wire.claims[0].quotas = vec![wire.claims[0].quotas[0].clone(); 131],
            "claim.quotas",
        ),
        (|wire| wire.claims[0].quotas[0].quota = None, "quota.quota"),
        (
            |wire| wire.claims = vec![wire.claims[0].clone(); 65],
            "explanation.claims",
        ),
        (|wire| wire.subject = None, "explanation.subject"),
        (|wire| wire.claims[0].free = None, "claim.free"),
        (
            |wire| {
                let free = wire.claims[0].free.as_mut().unwrap();
                free.examples = vec![free.examples[0].clone(); 4];
            },
            "free.examples",
        ),
        (
            |wire| {
                let line = wire.claims[0].regular.as_mut().unwrap();
                line.places = vec![line.places[0].clone(); 131];
            },
            "in_line.places",
        ),
        (
            |wire| {
                let line = wire.claims[0].regular.as_mut().unwrap();
                line.places[0].own.as_mut().unwrap().claimant = None;
            },
            "contender.claimant",
        ),
    ];
    for (spoil, field) in spoilt {
        let mut wire = good.clone();
        spoil(&mut wire);
        let sentence = refusal(Explanation::try_from(wire));
        assert!(sentence.starts_with(field), "{sentence:?}, not {field:?}");
    }
    let nobody = proto::ExplainRequest { subject: None };
    assert_eq!(
        refusal(ExplainSubject::try_from(nobody)),
        "subject: is missing; set it"
    );
}
