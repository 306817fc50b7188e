//! The model of `ebb top`: changes in, rows out.

use ebb_types::{
    AgentInfo, AgentUsage, ContainerId, CorrectionAction, FrameworkInfo, FrameworkState,
    Generation, MasterInfo, MeasureSource, Quantities, Resources, Role, Signal, Source, TaskId,
    TaskSources, TaskState, TaskStatus, TaskUsageFigures,
};

use super::*;
use crate::output::table::Palette;
use crate::top::render::{Room, lines};

fn at(ms: u64) -> Timestamp {
    Timestamp::from_ms(ms)
}

fn framework_id() -> FrameworkId {
    FrameworkId::new("cafe-1-0000").expect("valid")
}

fn agent_id() -> AgentId {
    AgentId::new("cafe-1-S0").expect("valid")
}

fn task_id(name: &str) -> TaskId {
    TaskId::new(name).expect("valid")
}

fn record(name: &str, state: TaskState, resources: Resources) -> TaskRecord {
    TaskRecord {
        framework_id: framework_id(),
        task_id: task_id(name),
        name: name.into(),
        agent_id: agent_id(),
        role: Role::new("*").expect("valid"),
        lots: ebb_types::Lots::NONE,
        resources,
        state,
        executor_id: None,
        container_id: None,
        statuses: Vec::new(),
    }
}

fn used(name: &str, allocated: Resources, cpu_milli: Option<u64>) -> TaskUsage {
    TaskUsage {
        framework_id: framework_id(),
        task_id: task_id(name),
        container_id: ContainerId::new("c").expect("valid"),
        allocated,
        used: TaskUsageFigures {
            cpu_milli,
            ..TaskUsageFigures::default()
        },
        sources: TaskSources::all(MeasureSource::Ebpf),
        throttled_to_milli: None,
        frozen: false,
        network_limited_to_bytes_per_s: None,
        memory_reclaimed_to_bytes: None,
    }
}

fn agent(usage: Option<AgentUsage>) -> AgentState {
    AgentState {
        id: agent_id(),
        info: AgentInfo {
            id: Some(agent_id()),
            hostname: "host".into(),
            port: 5051,
            lots: ebb_types::Lots::NONE,
            lots_version: 0,
            total: Quantities::cpus_mem(4_000, 8 << 30),
            attributes: Vec::new(),
            version: "0".into(),
            domain: None,
        },
        status: AgentStatus::Registered,
        registered_at: at(0),
        offered: Resources::ZERO,
        offered_lots: ebb_types::Lots::NONE,
        allocated_lots: ebb_types::Lots::NONE,
        allocated: Resources {
            regular: Quantities::cpus_mem(2_000, 1 << 30),
            revocable: Quantities::cpus_mem(1_000, 0),
        },
        oversubscribed: Quantities::cpus_mem(1_500, 0),
        usage,
        activity: ebb_types::AgentActivity::Active,
    }
}

fn correction(n: u64) -> Correction {
    Correction {
        at: at(n),
        container_id: ContainerId::new("c").expect("valid"),
        task_id: task_id("batch"),
        framework_id: framework_id(),
        action: CorrectionAction::Throttle { cpu_milli: n },
        signal: Signal::RunQueueLatency,
        on_behalf_of: Some(task_id("web")),
        value: 4_000_000,
        threshold: 1_000_000,
        duration_ms: 300,
        baseline: None,
        choice: ebb_types::Choice {
            rule: ebb_types::ChoiceRule::MostCpu,
            amount: 1,
            rank: 1,
            candidates: 1,
            spared: false,
        },
        grace_ms: 0,
    }
}

fn own() -> Resources {
    Resources::regular(Quantities::cpus_mem(2_000, 1 << 30))
}

fn lent() -> Resources {
    Resources::revocable(Quantities::cpus_mem(1_000, 0))
}

fn report(at_ms: u64, corrections: Vec<Correction>) -> AgentUsage {
    AgentUsage {
        at: at(at_ms),
        machine_cpu_milli: Some(1_100),
        machine_mem_bytes: None,
        cpu_pressure_permille: None,
        mem_pressure_permille: None,
        io_pressure_permille: None,
        sources: Vec::new(),
        lent: Quantities::cpus_mem(1_500, 0),
        taken_back_cpu_milli: 250,
        tasks: vec![
            used("web", own(), Some(300)),
            used("batch", lent(), Some(700)),
        ],
        corrections,
        recent: Vec::new(),
        disturbances: Vec::new(),
        promises: ebb_types::Promises::default(),
        lasting: ebb_types::Lasting::UNKNOWN,
    }
}

fn snapshot(usage: Option<AgentUsage>) -> Change {
    Change::Snapshot(Box::new(ClusterState {
        master: MasterInfo {
            id: "cafe-1".into(),
            generation: Generation(1),
            hostname: "host".into(),
            port: 5050,
            version: "0".into(),
            domain: None,
        },
        at: at(1_000),
        agents: vec![agent(usage)],
        frameworks: vec![FrameworkState {
            id: framework_id(),
            info: FrameworkInfo {
                id: Some(framework_id()),
                name: "shop".into(),
                user: String::new(),
                roles: Vec::new(),
                failover_timeout_ms: 0,
                hostname: String::new(),
                principal: String::new(),
                webui_url: String::new(),
                capabilities: Vec::new(),
                labels: Vec::new(),
            },
            connected: true,
            registered_at: at(0),
            failover_deadline: None,
            suppressed_roles: Vec::new(),
            offered: Resources::ZERO,
            allocated: Resources::ZERO,
            live_tasks: 2,
        }],
        tasks: vec![
            record("web", TaskState::Running, own()),
            record("batch", TaskState::Running, lent()),
            record("old", TaskState::Finished, own()),
        ],
        roles: Vec::new(),
        offers: Vec::new(),
        maintenance: Vec::new(),
    }))
}

fn names(view: &View) -> Vec<&str> {
    view.tasks
        .iter()
        .map(|task| task.task_id.as_str())
        .collect()
}

#[test]
fn a_snapshot_shows_what_is_allocated_used_lent_and_taken_back() {
    let mut model = Model::default();
    model.apply(snapshot(Some(report(900, Vec::new()))), at(1_000));
    let view = model.view(at(1_000), None);
    assert_eq!(
        names(&view),
        ["batch", "web"],
        "the hungriest first, no ended ones"
    );
    let agent = &view.agents[0];
    assert_eq!(agent.short_id, "1-S0");
    assert_eq!(
        agent.cpu_milli,
        Amount {
            total: 4_000,
            allocated: 2_000,
            used: Some(300),
            lent: 1_500,
            lent_allocated: 1_000,
            lent_used: Some(700),
            machine_used: Some(1_100),
        }
    );
    assert_eq!(agent.mem_bytes.used, None, "nothing measured is not 0");
    assert_eq!(agent.taken_back_cpu_milli, Some(250));
    assert_eq!(agent.tasks, 2);
    let batch = &view.tasks[0];
    assert!(batch.revocable);
    assert_eq!(batch.used_cpu_milli, Some(700));
    assert_eq!(batch.framework, "shop");
    assert_eq!(batch.cpu_source, Some("ebpf"));
}

#[test]
fn tasks_come_change_and_go() {
    let mut model = Model::default();
    model.apply(snapshot(None), at(1_000));
    let task = record("new", TaskState::Staging, own());
    model.apply(Change::TaskAdded(Box::new(task)), at(1_100));
    let update = |name: &str, state| Change::TaskUpdated {
        framework_id: framework_id(),
        status: Box::new(TaskStatus::new(task_id(name), state, Source::Agent, at(1))),
    };
    model.apply(update("new", TaskState::Running), at(1_200));
    let view = model.view(at(1_200), None);
    let new = view.tasks.iter().find(|task| task.task_id == "new");
    assert_eq!(new.map(|task| task.state), Some("TASK_RUNNING"));
    model.apply(update("new", TaskState::Failed), at(1_300));
    model.apply(update("never heard of", TaskState::Running), at(1_300));
    assert_eq!(names(&model.view(at(1_300), None)), ["batch", "web"]);
    model.apply(Change::FrameworkRemoved(framework_id()), at(1_400));
    assert!(model.view(at(1_400), None).tasks.is_empty());
    model.apply(Change::AgentRemoved(agent_id()), at(1_500));
    assert!(model.view(at(1_500), None).agents.is_empty());
}

#[test]
fn figures_that_are_too_old_are_absent_not_frozen() {
    let mut model = Model::default();
    model.apply(snapshot(Some(report(900, Vec::new()))), at(1_000));
    let last = at(1_000 + STALE_AFTER_MS);
    assert!(model.view(last, None).agents[0].measured);
    // The same report again is no news.
    let again = agent(Some(report(900, Vec::new())));
    model.apply(Change::AgentUpdated(Box::new(again)), last);
    let view = model.view(last.plus_ms(1), None);
    assert!(!view.agents[0].measured);
    assert_eq!(view.agents[0].cpu_milli.used, None);
    assert_eq!(view.agents[0].taken_back_cpu_milli, None);
    assert!(view.tasks.iter().all(|task| task.used_cpu_milli.is_none()));
    let fresh = agent(Some(report(901, Vec::new())));
    model.apply(Change::AgentUpdated(Box::new(fresh)), last.plus_ms(2));
    assert!(model.view(last.plus_ms(2), None).agents[0].measured);
}

#[test]
fn an_agent_that_is_not_connected_measures_nothing() {
    let mut model = Model::default();
    model.apply(snapshot(Some(report(900, Vec::new()))), at(1_000));
    let mut gone = agent(Some(report(900, Vec::new())));
    gone.status = AgentStatus::Unreachable;
    model.apply(Change::AgentUpdated(Box::new(gone)), at(1_001));
    assert!(!model.view(at(1_001), None).agents[0].measured);
}

#[test]
fn corrections_are_counted_once_and_only_the_latest_are_kept() {
    let mut model = Model::default();
    model.apply(snapshot(None), at(0));
    let mut expected = 0;
    for n in 1..=20 {
        let report = report(n, vec![correction(2 * n), correction(2 * n + 1)]);
        expected += 2;
        for _ in 0..3 {
            let state = agent(Some(report.clone()));
            model.apply(Change::AgentUpdated(Box::new(state)), at(n));
        }
    }
    let view = model.view(at(20), None);
    assert_eq!(view.corrections_total, expected);
    assert_eq!(view.corrections.len(), MAX_CORRECTIONS);
    let newest = view.notes.last().expect("some");
    assert_eq!(
        newest,
        "throttle to 0.041 cpus batch for task web: run_queue_latency 4.0 ms past 1.0 ms for 300 ms; number 1 of 1 by use, 0.001 cpus"
    );
}

#[test]
fn a_new_snapshot_replaces_everything() {
    let mut model = Model::default();
    model.apply(snapshot(None), at(0));
    let task = record("extra", TaskState::Running, own());
    model.apply(Change::TaskAdded(Box::new(task)), at(1));
    model.apply(snapshot(Some(report(2, Vec::new()))), at(2));
    assert_eq!(names(&model.view(at(2), None)), ["batch", "web"]);
}

#[test]
fn the_picture_fits_into_its_room() {
    let mut model = Model::default();
    model.apply(snapshot(Some(report(900, vec![correction(1)]))), at(1_000));
    for n in 0..100 {
        let task = record(&format!("t{n}"), TaskState::Running, own());
        model.apply(Change::TaskAdded(Box::new(task)), at(1_000));
    }
    for (columns, rows) in [(80, 24), (200, 50), (10, 3), (1, 1)] {
        let view = model.view(at(1_000), Some("the master is away"));
        let picture = lines(&view, Palette::PLAIN, Room { columns, rows });
        assert!(picture.len() <= rows, "{} lines in {rows}", picture.len());
        assert!(picture.iter().all(|line| line.chars().count() <= columns));
    }
    let view = model.view(at(1_000), None);
    let picture = lines(
        &view,
        Palette::PLAIN,
        Room {
            columns: 200,
            rows: 24,
        },
    )
    .join("\n");
    for part in [
        "██▒▒▒▒▒--------···············",
        "more tasks",
        "1 corrections",
        "1-S0",
    ] {
        assert!(picture.contains(part), "{part} is not in\n{picture}");
    }
}
