//! What is lent, and who disturbs whom, on the kernel: an idle owner's CPU runs revocable tasks, and when the owner wants
//! all of it back, who is in the way is warned, may set its things in order, and ends; a neighbour that takes more than it
//! owns, or that starts one short process after another, is named; who keeps the disk from an owner is frozen.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ebb_framework::CommandSpec;
use ebb_tests_e2e::framework::Heard;
use ebb_tests_e2e::host::files_below;
use ebb_tests_e2e::{Cluster, Framework};
use ebb_types::{
    AgentUsage, Capability, ChoiceRule, ClusterState, Contended, CorrectionAction, Filters, Lots,
    Offer, Quantities, Reason, Resources, Signal, TaskId, TaskInfo, TaskState, TaskStatus,
};

/// A test has no five minutes to get to know an owner, and none to wait for an end.
const SETTINGS: &str = "[lending]\nwarm_up = '5s'\nhold = '1s'\ncool_down = '2s'\nevict_after = '1s'\nevict_grace = '30s'\n";
const SIGUSR1: u32 = 10;
/// Longer than the test lasts: who ends before it, was asked to and did.
const GRACE_MS: u64 = 30_000;
/// As much as each of the two borrows.
const BORROWED_MILLI: u64 = 100;

/// Eight processes that each take a CPU.
const SPINNERS: &str = "for i in 1 2 3 4 5 6 7 8; do while :; do :; done & done; wait";

/// Eight shells that each start processes that end at once.
const SHORT_LIVED: &str = "for i in 1 2 3 4 5 6 7 8; do while :; do env true; done & done; wait";

/// One test at a time: each takes the whole machine.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A line for the shell, as a task on an offer.
fn task(offer: &Offer, id: &str, line: &str, resources: Resources) -> TaskInfo {
    TaskInfo {
        warn_signal: None,
        task_id: TaskId::new(id).unwrap(),
        name: id.to_owned(),
        agent_id: offer.agent_id.clone(),
        resources,
        lots: Lots::NONE,
        command: Some(CommandSpec::shell(line).to_command()),
        executor: None,
        kill_grace_ms: Some(GRACE_MS),
        max_completion_ms: None,
        cpu_limit_milli: None,
        data: Vec::new(),
        labels: Vec::new(),
    }
}

fn launch(framework: &Framework, offer: &Offer, tasks: Vec<TaskInfo>) {
    let offer_id = offer.id.clone();
    framework.ask(move |calls| calls.accept(vec![offer_id], tasks, Filters { refuse_ms: 0 }));
}

/// What a task left in its sandbox.
fn left(cluster: &Cluster, name: &str) -> Option<PathBuf> {
    let mut files = files_below(&cluster.work_dir()).into_iter();
    files.find(|file| file.ends_with(format!("sandbox/{name}")))
}

#[test]
fn whoever_is_in_its_owners_way_is_warned_and_ends_in_order() {
    let _alone = alone();
    let mut cluster = Cluster::new_with(&[], &["--cpus", "1"]);
    cluster.add_agent_settings(SETTINGS);
    cluster.bring_up();
    let address = cluster.address();

    let mut owner = Framework::start(address, "owner", |_| ());
    let whole = owner.offer("the whole agent", |offer| {
        offer.resources.regular.cpu_milli() == 1000
    });
    let gate = cluster.gate("rise");
    // More than the agent has, so that whatever else runs on the machine leaves nothing to lend.
    let line = format!("read go < {}; {SPINNERS}", gate.display());
    let all = Resources::regular(Quantities::cpus_mem(1000, 64 << 20));
    owner.launch(&whole, "service", &line, (all, Lots::NONE));
    owner.state("service", TaskState::Running);

    let mut batch = Framework::start(address, "batch", |config| {
        config
            .info
            .capabilities
            .push(Capability::RevocableResources);
        config.info.capabilities.sort();
    });
    let lent = batch.offer("what the owner leaves idle", |offer| {
        offer.resources.revocable.cpu_milli() >= 2 * BORROWED_MILLI
    });
    let saves = "trap 'cp EVICTION saved; exit 75' USR1; while :; do :; done";
    let finishes = "trap 'cp EVICTION done; exit 0' TERM; while :; do :; done";
    let borrowed = Resources {
        regular: Quantities::cpus_mem(0, 0),
        revocable: Quantities::cpus_mem(BORROWED_MILLI, 0),
    };
    let saves = TaskInfo {
        warn_signal: Some(SIGUSR1),
        ..task(&lent, "saves", saves, borrowed)
    };
    let finishes = task(&lent, "finishes", finishes, borrowed);
    launch(&batch, &lent, vec![saves, finishes]);
    let mut running = 0;
    batch.until("both at work", |heard| {
        running += usize::from(matches!(
            heard,
            Heard::Status(status) if status.state == TaskState::Running
        ));
        (running == 2).then_some(())
    });

    fs::write(&gate, "go\n").unwrap();
    let mut warned = Vec::new();
    let mut ended: Vec<TaskStatus> = Vec::new();
    batch.until("the end of both", |heard| {
        if let Heard::Status(status) = heard {
            if status.state.is_terminal() {
                ended.push(status.clone());
            } else {
                warned.push(status.clone());
            }
        }
        (ended.len() == 2).then_some(())
    });
    let preempted = Some(Reason::ContainerPreempted);
    // A success counts, also after a warning: what did its work must not do it twice.
    let cases = [
        ("saves", "saved", (TaskState::Gone, preempted)),
        ("finishes", "done", (TaskState::Finished, None)),
    ];
    for (task, file, end) in cases {
        let names = |status: &&TaskStatus| status.task_id.as_str() == task;
        let warnings: Vec<_> = warned.iter().filter(names).collect();
        assert_eq!(warnings.len(), 1, "{warned:#?}");
        assert_eq!(warnings[0].reason, preempted, "{warned:#?}");
        let ends: Vec<_> = ended.iter().filter(names).collect();
        assert_eq!((ends[0].state, ends[0].reason), end, "{ended:#?}");
        let text = fs::read_to_string(left(&cluster, file).unwrap()).unwrap();
        let warning: serde_json::Value = serde_json::from_str(&text).unwrap();
        let cause = warning["cause"].as_str().unwrap();
        assert!(
            !cause.is_empty() && warning["ends_at_ms"].is_u64(),
            "{text}"
        );
    }
    // The operator is told who did what to whom, and why; the owner has noticed nothing.
    let agent = cluster.state().agents[0].id.to_string();
    let told = cluster.ebb(&["status", &agent]);
    assert!(told.stdout.contains("evict"), "{told:?}");
    owner.news();
    let lost = owner
        .all
        .iter()
        .any(|heard| matches!(heard, Heard::Status(status) if status.state.is_terminal()));
    assert!(!lost, "{:#?}", owner.all);
    owner.finish();
    batch.finish();
    cluster.finish();
}

/// Reports in which a task's waits were measured, until a baseline can be said to stand.
const REPORTS: usize = 5;

fn usage_of(state: &ClusterState) -> Option<&AgentUsage> {
    state.agents.first()?.usage.as_ref()
}

/// Has one task work for some milliseconds at a time, one stand still for most of the time by its own quota, and one that owns
/// a CPU run `hog`, which takes all there are, once it is known what is normal: the hog is named, and the quota not.
fn hog_is_named(hog: &str) {
    let _alone = alone();
    let cluster = Cluster::start();
    let mut framework = Framework::start(cluster.address(), "mixed", |_| ());
    let gate = cluster.gate("hog");
    let wakes = "while :; do i=0; while [ $i -lt 8000 ]; do i=$((i+1)); done; sleep 0.01; done";
    let hogs = format!("read go < {}; {hog}", gate.display());
    let offer = framework.offer("the agent", |_| true);
    let owns = |cpu_milli| Resources::regular(Quantities::cpus_mem(cpu_milli, 256 << 20));
    let limited = TaskInfo {
        cpu_limit_milli: Some(100),
        ..task(&offer, "limited", "while :; do :; done", owns(100))
    };
    let others = [
        task(&offer, "steady", wakes, owns(600)),
        task(&offer, "hog", &hogs, owns(1_000)),
    ];
    launch(
        &framework,
        &offer,
        [limited].into_iter().chain(others).collect(),
    );
    let mut reports = Vec::new();
    cluster.wait_until("what is normal", |state| {
        let usage = usage_of(state)?;
        let steady = usage
            .tasks
            .iter()
            .find(|task| task.task_id.as_str() == "steady")?;
        if steady.used.run_queue_p99_ns.is_some() && reports.last() != Some(&usage.at) {
            reports.push(usage.at);
        }
        (reports.len() == REPORTS).then_some(())
    });

    fs::write(&gate, "go\n").unwrap();
    let named = cluster.wait_until("a disturbance", |state| {
        let disturbances = &usage_of(state)?.disturbances;
        disturbances.iter().find(|one| !one.by.is_empty()).cloned()
    });
    assert_eq!(named.task_id.as_str(), "steady", "{named:#?}");
    assert_eq!(named.resource, Contended::Cpu, "{named:#?}");
    assert_eq!(named.by[0].task_id.as_str(), "hog", "{named:#?}");
    assert!(named.value > named.baseline, "{named:#?}");
    let told = cluster.ebb(&["neighbours"]);
    assert!(
        told.stdout.contains("steady") && told.stdout.contains("hog"),
        "{told:?}"
    );
    framework.finish();
    cluster.finish();
}

#[test]
fn a_neighbour_that_takes_more_than_it_owns_is_named_and_who_slows_itself_blames_nobody() {
    hog_is_named(SPINNERS);
}

#[test]
fn a_neighbour_that_starts_one_short_process_after_another_is_named() {
    hog_is_named(SHORT_LIVED);
}

#[test]
fn who_keeps_the_disk_from_an_owner_is_frozen_until_that_is_over() {
    let _alone = alone();
    let mut cluster = Cluster::new_with(&[], &["--cpus", "1"]);
    cluster.add_agent_settings(SETTINGS);
    cluster.bring_up();

    let mut owner = Framework::start(cluster.address(), "owner", |_| ());
    let whole = owner.offer("the whole agent", |offer| {
        offer.resources.regular.cpu_milli() == 1000
    });
    // A block a time from the disk itself, some dozen a second.
    let reads = "head -c 16M /dev/urandom > data; sync data
        while :; do dd if=data of=/dev/null bs=4k iflag=direct count=8 2>/dev/null; sleep 0.05; done";
    let all = Resources::regular(Quantities::cpus_mem(1000, 64 << 20));
    owner.launch(&whole, "reader", reads, (all, Lots::NONE));
    owner.state("reader", TaskState::Running);

    let mut batch = Framework::start(cluster.address(), "batch", |config| {
        config
            .info
            .capabilities
            .push(Capability::RevocableResources);
        config.info.capabilities.sort();
    });
    let lent = batch.offer("what the owner leaves idle", |offer| {
        offer.resources.revocable.cpu_milli() >= BORROWED_MILLI
    });
    let gate = cluster.gate("hog");
    // Some hundred megabytes asked of the disk at any time, which takes hardly any CPU.
    let hogs = format!(
        "dd if=/dev/urandom of=big bs=8M count=32 oflag=direct; read go < {}
        for i in $(seq 24); do
            while :; do dd if=big of=/dev/null bs=8M iflag=direct; done &
        done; wait",
        gate.display()
    );
    let borrowed = Resources {
        regular: Quantities::cpus_mem(0, 0),
        revocable: Quantities::cpus_mem(BORROWED_MILLI, 0),
    };
    launch(&batch, &lent, vec![task(&lent, "hog", &hogs, borrowed)]);
    batch.state("hog", TaskState::Running);
    let latency = |state: &ClusterState| {
        let tasks = &usage_of(state)?.tasks;
        let reader = tasks
            .iter()
            .find(|task| task.task_id.as_str() == "reader")?;
        Some((usage_of(state)?.at, reader.used.io_mean_ns?))
    };
    let mut reports = Vec::new();
    cluster.wait_until("what is normal", |state| {
        let (at, _) = latency(state)?;
        if reports.last() != Some(&at) {
            reports.push(at);
        }
        (reports.len() == REPORTS).then_some(())
    });

    fs::write(&gate, "go\n").unwrap();
    let frozen = cluster.wait_until("an answer", |state| {
        let recent = usage_of(state)?.recent.iter();
        let mut freezes = recent.filter(|one| one.action == CorrectionAction::Freeze);
        freezes.next().cloned()
    });
    assert_eq!(frozen.task_id.as_str(), "hog", "{frozen:#?}");
    assert_eq!(frozen.signal, Signal::DiskLatency, "{frozen:#?}");
    let on_behalf_of = frozen.on_behalf_of.as_ref().map(TaskId::as_str);
    assert_eq!(on_behalf_of, Some("reader"), "{frozen:#?}");
    assert_eq!(frozen.choice.rule, ChoiceRule::MostDisk, "{frozen:#?}");
    assert!(frozen.value > frozen.threshold, "{frozen:#?}");
    let threshold = frozen.threshold;
    cluster.wait_until("an owner that has the disk again", |state| {
        let (at, mean_ns) = latency(state)?;
        (at > frozen.at && mean_ns < threshold).then_some(())
    });
    owner.finish();
    batch.finish();
    cluster.finish();
}
