//! Scenarios: what the agent does when.

use ebb_types::limits::DEFAULT_GRACE_MS;
use ebb_types::{
    AgentId, AgentToMaster, CommandInfo, ContainerId, Correction, CorrectionAction, ExecutorId,
    ExecutorInfo, ExitStatus, FrameworkId, Generation, Incarnation, MasterToAgent, Quantities,
    Reason, Resources, Signal, TaskId, TaskInfo, TaskKey, TaskState, TaskStatus, Timestamp,
    UpdateUuid,
};

use super::*;

const GIB: u64 = 1 << 30;

/// A core with a disk that keeps records and a machine that runs what it is told to.
struct World {
    core: Core,
    disk: Restored,
    now_ms: u64,
    conn: u64,
    effects: Vec<Effect>,
}

fn config() -> CoreConfig {
    CoreConfig {
        hostname: "host".to_owned(),
        port: 5051,
        total: Quantities::cpus_mem(4000, 8 * GIB),
        attributes: Vec::new(),
        version: "1".to_owned(),
        container_prefix: "c".to_owned(),
        lending: lending::Config::default(),
    }
}

fn framework() -> FrameworkId {
    FrameworkId::new("f").expect("valid")
}

fn key(task: &str) -> TaskKey {
    (framework(), TaskId::new(task).expect("valid"))
}

fn task(name: &str) -> TaskInfo {
    TaskInfo {
        task_id: TaskId::new(name).expect("valid"),
        name: name.to_owned(),
        agent_id: AgentId::new("a1").expect("valid"),
        resources: Resources::regular(Quantities::cpus_mem(1000, GIB)),
        command: Some(CommandInfo {
            value: "true".to_owned(),
            shell: true,
            ..CommandInfo::default()
        }),
        executor: None,
        kill_grace_ms: None,
        max_completion_ms: None,
        cpu_limit_milli: None,
        data: Vec::new(),
        labels: Vec::new(),
    }
}

fn executor_task(name: &str) -> TaskInfo {
    TaskInfo {
        command: None,
        executor: Some(ExecutorInfo {
            executor_id: ExecutorId::new("e").expect("valid"),
            name: "e".to_owned(),
            command: CommandInfo::default(),
            resources: Resources::regular(Quantities::cpus_mem(100, 0)),
            data: Vec::new(),
        }),
        ..task(name)
    }
}

fn executor_key() -> ExecutorKey {
    (framework(), ExecutorId::new("e").expect("valid"))
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            core: Core::new(config(), Restored::default(), Incarnation(1)),
            disk: Restored::default(),
            now_ms: 1_000_000,
            conn: 0,
            effects: Vec::new(),
        };
        world.step(Input::Recovered {
            containers: BTreeMap::new(),
        });
        world
    }

    fn registered() -> Self {
        let mut world = Self::new();
        world.connect();
        world
    }

    fn step(&mut self, input: Input) -> &[Effect] {
        self.effects = self.core.step(Timestamp::from_ms(self.now_ms), input);
        for effect in &self.effects {
            if let Effect::Persist(records) | Effect::Note(records) = effect {
                for record in records {
                    self.disk.apply(record.clone());
                }
            }
        }
        let mut replayed = Restored::default();
        for record in self.core.snapshot() {
            replayed.apply(record);
        }
        assert_eq!(replayed, self.disk, "the disk and the core disagree");
        &self.effects
    }

    fn connect(&mut self) -> Vec<AgentToMaster> {
        self.conn += 1;
        self.step(Input::LinkUp {
            conn: Conn(self.conn),
        });
        let mut said = self.said();
        self.order(MasterToAgent::Registered {
            agent_id: AgentId::new("a1").expect("valid"),
            generation: Generation(1),
            heartbeat_interval_ms: 15_000,
            unreachable_after_ms: 75_000,
        });
        said.extend(self.said());
        said
    }

    fn order(&mut self, message: MasterToAgent) {
        let conn = Conn(self.conn);
        self.step(Input::FromMaster {
            conn,
            generation: Generation(1),
            message,
        });
    }

    fn launch(&mut self, info: TaskInfo) {
        let incarnation = self.core.incarnation();
        self.order(MasterToAgent::Launch {
            framework_id: framework(),
            user: String::new(),
            incarnation,
            task: Box::new(info),
        });
    }

    fn kill(&mut self, name: &str, grace_ms: Option<u64>) {
        self.order(MasterToAgent::Kill {
            framework_id: framework(),
            task_id: key(name).1,
            grace_ms,
        });
    }

    fn container(&self, name: &str) -> ContainerId {
        let key = key(name);
        let view = self.core.tasks().find(|view| view.key == key);
        view.expect("the task is known").container_id
    }

    fn started(&mut self, name: &str) {
        let container_id = self.container(name);
        self.step(Input::Started { container_id });
    }

    fn exited(&mut self, name: &str, status: ExitStatus) {
        self.exited_with(
            name,
            Exit {
                status: Some(status),
                ..Exit::default()
            },
        );
    }

    fn exited_with(&mut self, name: &str, exit: Exit) {
        let container_id = self.container(name);
        self.step(Input::Exited { container_id, exit });
    }

    fn run(&mut self, name: &str) {
        self.launch(task(name));
        self.acknowledge(name);
        self.started(name);
        self.acknowledge(name);
    }

    /// Acknowledges the oldest status of a task as it stands on disk.
    fn acknowledge(&mut self, name: &str) -> TaskStatus {
        let status = self.disk.tasks[&key(name)].updates[0].clone();
        self.acknowledge_uuid(name, status.uuid.expect("a uuid"));
        status
    }

    fn acknowledge_uuid(&mut self, name: &str, uuid: UpdateUuid) {
        self.order(MasterToAgent::Acknowledge {
            framework_id: framework(),
            task_id: key(name).1,
            uuid,
        });
    }

    fn said(&self) -> Vec<AgentToMaster> {
        self.effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::ToMaster { message, .. } => Some((**message).clone()),
                _ => None,
            })
            .collect()
    }

    fn updates(&self) -> Vec<TaskStatus> {
        self.said()
            .into_iter()
            .filter_map(|message| match message {
                AgentToMaster::Update { status, .. } => Some(status),
                _ => None,
            })
            .collect()
    }

    fn states(&self) -> Vec<TaskState> {
        self.updates().iter().map(|status| status.state).collect()
    }

    /// The last status of a task on disk.
    fn last(&self, name: &str) -> TaskStatus {
        let task = &self.disk.tasks[&key(name)];
        task.updates.last().expect("a status").clone()
    }

    fn wait(&mut self, ms: u64) {
        self.now_ms += ms;
        self.step(Input::Tick);
    }

    fn did(&self, wanted: impl Fn(&Effect) -> bool) -> bool {
        self.effects.iter().any(wanted)
    }

    /// The agent is killed and started again.
    fn restart(&mut self, containers: &[(&ContainerId, Found)]) {
        let incarnation = Incarnation(self.core.incarnation().0 + 1);
        self.core = Core::new(config(), self.disk.clone(), incarnation);
        let containers = containers
            .iter()
            .map(|(id, found)| ((*id).clone(), found.clone()))
            .collect();
        self.step(Input::Recovered { containers });
    }

    fn events(&self) -> Vec<ExecutorEvent> {
        self.effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::ToExecutor { event, .. } => Some((**event).clone()),
                _ => None,
            })
            .collect()
    }

    fn executor_says(&mut self, session: u64, call: ExecutorCall) {
        let (framework_id, executor_id) = executor_key();
        self.step(Input::FromExecutor {
            session: Session(session),
            framework_id,
            executor_id,
            call,
        });
    }

    fn subscribe(&mut self, session: u64, has: &[&str]) {
        let unacknowledged_tasks = has.iter().map(|name| key(name).1).collect();
        self.executor_says(
            session,
            ExecutorCall::Subscribe {
                framework_id: framework(),
                executor_id: executor_key().1,
                unacknowledged_tasks,
                unacknowledged_updates: Vec::new(),
            },
        );
    }

    fn executor_update(&mut self, session: u64, name: &str, state: TaskState, uuid: u8) {
        let mut status = TaskStatus::new(
            key(name).1,
            state,
            ebb_types::Source::Executor,
            Timestamp::default(),
        );
        status.uuid = Some(UpdateUuid([uuid; 16]));
        self.executor_says(session, ExecutorCall::Update(status));
    }
}

fn is_kill(effect: &Effect) -> bool {
    matches!(effect, Effect::KillContainer { .. })
}

fn is_terminate(effect: &Effect) -> bool {
    matches!(effect, Effect::Terminate { .. })
}

#[test]
fn a_new_agent_registers_and_keeps_the_id_that_it_is_given() {
    let mut world = World::new();
    let said = world.connect();
    assert!(matches!(said[0], AgentToMaster::Register { .. }));
    assert_eq!(world.disk.agent_id, AgentId::new("a1").ok());
    let said = world.connect();
    assert!(matches!(
        &said[0],
        AgentToMaster::Reregister { info, .. } if info.id == AgentId::new("a1").ok()
    ));
}

#[test]
fn a_task_is_on_disk_before_it_is_launched_and_its_status_before_it_is_sent() {
    let mut world = World::registered();
    world.launch(task("t"));
    let kinds: Vec<_> = world
        .effects
        .iter()
        .map(|effect| match effect {
            Effect::Persist(records) => format!("persist {}", records.len()),
            Effect::Launch(_) => "launch".to_owned(),
            Effect::ToMaster { .. } => "tell".to_owned(),
            Effect::Observe(_) => "observe".to_owned(),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["persist 2", "launch", "observe", "tell"]);
}

#[test]
fn a_command_task_goes_from_starting_over_running_to_finished_one_acknowledged_status_at_a_time() {
    let mut world = World::registered();
    world.launch(task("t"));
    assert_eq!(world.states(), [TaskState::Starting]);
    world.started("t");
    assert_eq!(world.states(), [], "the first is not acknowledged yet");
    assert_eq!(world.acknowledge("t").state, TaskState::Starting);
    assert_eq!(world.states(), [TaskState::Running]);
    world.exited("t", ExitStatus::Code(0));
    assert!(world.did(|effect| matches!(effect, Effect::Destroy { .. })));
    assert_eq!(world.core.held(), Resources::ZERO);
    assert_eq!(world.acknowledge("t").state, TaskState::Running);
    assert_eq!(world.states(), [TaskState::Finished]);
    let last = world.acknowledge("t");
    assert_eq!(last.exit, Some(ExitStatus::Code(0)));
    assert!(world.disk.tasks.is_empty() && world.core.tasks().next().is_none());
}

#[test]
fn an_exit_code_or_signal_makes_a_task_fail_with_the_sentence_of_mesos() {
    for (status, sentence) in [
        (ExitStatus::Code(3), "Command exited with status 3"),
        (ExitStatus::Signal(11), "Command terminated with signal 11"),
    ] {
        let mut world = World::registered();
        world.run("t");
        world.exited("t", status);
        let last = world.last("t");
        assert_eq!((last.state, last.exit), (TaskState::Failed, Some(status)));
        assert_eq!(last.message, sentence);
        assert_eq!(last.reason, None);
    }
}

#[test]
fn a_task_that_the_kernel_ended_for_its_memory_names_the_limit() {
    let mut world = World::registered();
    world.run("t");
    world.exited_with(
        "t",
        Exit {
            status: Some(ExitStatus::Signal(9)),
            oom: true,
            launch_error: None,
        },
    );
    let last = world.last("t");
    assert_eq!(last.state, TaskState::Failed);
    assert_eq!(last.reason, Some(Reason::ContainerLimitationMemory));
    let limit = last.limitation.expect("a limitation").resources;
    assert_eq!(limit, Resources::regular(Quantities::cpus_mem(0, GIB)));
}

#[test]
fn a_program_that_cannot_be_started_fails_with_the_cause() {
    let mut world = World::registered();
    world.launch(task("t"));
    let container_id = world.container("t");
    world.step(Input::StartFailed {
        container_id,
        cancelled: false,
        message: "no such user".to_owned(),
    });
    let last = world.last("t");
    assert_eq!(last.reason, Some(Reason::ContainerLaunchFailed));
    assert_eq!(last.message, "no such user");

    let mut world = World::registered();
    world.run("t");
    world.exited_with(
        "t",
        Exit {
            status: Some(ExitStatus::Code(127)),
            oom: false,
            launch_error: Some("no such file".to_owned()),
        },
    );
    assert_eq!(world.last("t").reason, Some(Reason::ContainerLaunchFailed));
    assert_eq!(world.last("t").message, "no such file");
}

#[test]
fn a_launch_that_comes_twice_starts_one_container() {
    let mut world = World::registered();
    world.launch(task("t"));
    world.launch(task("t"));
    assert!(world.effects.is_empty());
    assert_eq!(world.core.counters().duplicate_launches, 1);
}

#[test]
fn an_order_for_an_earlier_life_is_dropped_with_a_status() {
    let mut world = World::registered();
    world.order(MasterToAgent::Launch {
        framework_id: framework(),
        user: String::new(),
        incarnation: Incarnation(0),
        task: Box::new(task("t")),
    });
    assert!(!world.did(|effect| matches!(effect, Effect::Launch(_))));
    let status = &world.updates()[0];
    assert_eq!(status.state, TaskState::Dropped);
    assert_eq!(status.reason, Some(Reason::AgentRestarted));
    world.acknowledge("t");
    assert!(world.disk.tasks.is_empty());
}

#[test]
fn a_task_that_does_not_fit_is_dropped_and_one_that_does_is_not() {
    let mut world = World::registered();
    for name in ["a", "b", "c", "d"] {
        world.launch(task(name));
        assert_eq!(world.states(), [TaskState::Starting]);
    }
    world.launch(task("e"));
    assert_eq!(world.updates()[0].reason, Some(Reason::ResourcesUnknown));
    world.launch(TaskInfo {
        resources: Resources::revocable(Quantities::cpus_mem(4000, 0)),
        ..task("lent")
    });
    assert_eq!(world.states(), [TaskState::Starting], "lent ones are apart");
    world.launch(TaskInfo {
        resources: Resources::revocable(Quantities::cpus_mem(1, 0)),
        ..task("too much")
    });
    assert_eq!(world.states(), [TaskState::Dropped]);
}

#[test]
fn a_status_is_sent_again_after_10_s_doubling_to_10_minutes_until_it_is_acknowledged() {
    let mut world = World::registered();
    world.launch(task("t"));
    let uuid = world.updates()[0].uuid;
    let mut waited = Vec::new();
    let mut since = 0;
    while waited.len() < 8 {
        world.wait(1_000);
        since += 1;
        let conn = Conn(world.conn);
        world.step(Input::FromMaster {
            conn,
            generation: Generation(1),
            message: MasterToAgent::Heartbeat,
        });
        // The tick before may have sent it.
        if world.core.counters().updates_retried > waited.len() as u64 {
            waited.push(since);
            since = 0;
        }
    }
    assert_eq!(waited, [10, 20, 40, 80, 160, 320, 600, 600]);
    world.acknowledge_uuid("t", uuid.expect("a uuid"));
    assert_eq!(world.core.pending_updates(), 0);
}

#[test]
fn an_acknowledgement_that_names_another_status_changes_nothing() {
    let mut world = World::registered();
    world.launch(task("t"));
    world.acknowledge_uuid("t", UpdateUuid([9; 16]));
    assert_eq!(world.core.counters().acknowledgements_ignored, 1);
    assert_eq!(world.core.pending_updates(), 1);
}

#[test]
fn on_a_new_registration_every_oldest_status_is_sent_at_once() {
    let mut world = World::registered();
    world.launch(task("a"));
    world.launch(task("b"));
    let conn = Conn(world.conn);
    world.step(Input::LinkDown { conn });
    world.started("a");
    assert_eq!(world.said(), [], "nobody listens");
    let said = world.connect();
    let AgentToMaster::Reregister { tasks, .. } = &said[0] else {
        panic!("{said:?}");
    };
    let states: Vec<_> = tasks.iter().map(|task| task.state).collect();
    assert_eq!(states, [TaskState::Running, TaskState::Starting]);
    assert_eq!(world.states(), [TaskState::Starting, TaskState::Starting]);
}

#[test]
fn a_registration_leaves_out_what_only_programs_need() {
    let mut world = World::registered();
    let mut info = task("t");
    info.data = vec![7; 500_000];
    info.command.as_mut().expect("a command").environment = vec![("A".to_owned(), "b".to_owned())];
    world.launch(info.clone());
    assert_eq!(
        world.disk.tasks[&key("t")].info,
        info,
        "the disk has all of it"
    );
    let said = world.connect();
    let AgentToMaster::Reregister { tasks, .. } = &said[0] else {
        panic!("{said:?}");
    };
    let mut expected = info;
    expected.data.clear();
    expected
        .command
        .as_mut()
        .expect("a command")
        .environment
        .clear();
    assert_eq!(tasks[0].info, expected);
}

#[test]
fn a_kill_asks_first_and_uses_force_after_the_grace() {
    let mut world = World::registered();
    world.run("t");
    world.kill("t", None);
    assert!(world.did(is_terminate) && !world.did(is_kill));
    world.wait(DEFAULT_GRACE_MS - 1);
    assert!(!world.did(is_kill));
    world.wait(1);
    assert!(world.did(is_kill));
    world.wait(FORCED_KILL_RETRY_MS);
    assert!(world.did(is_kill), "force is repeated until it has worked");
    world.exited("t", ExitStatus::Signal(9));
    assert_eq!(world.last("t").state, TaskState::Killed);
    world.wait(FORCED_KILL_RETRY_MS);
    assert!(!world.did(is_kill));
}

#[test]
fn a_repeated_kill_may_only_bring_force_forward() {
    let mut world = World::registered();
    world.run("t");
    world.kill("t", Some(10_000));
    world.kill("t", Some(60_000));
    world.kill("t", Some(2_000));
    assert!(!world.did(is_terminate), "it has been asked already");
    world.wait(2_000);
    assert!(world.did(is_kill));
}

#[test]
fn the_grace_of_the_task_counts_where_the_call_names_none() {
    let mut world = World::registered();
    world.launch(TaskInfo {
        kill_grace_ms: Some(100),
        ..task("t")
    });
    world.started("t");
    world.kill("t", None);
    world.wait(100);
    assert!(world.did(is_kill));
}

#[test]
fn a_task_that_exits_with_success_after_a_kill_is_killed() {
    let mut world = World::registered();
    world.run("t");
    world.kill("t", None);
    world.exited("t", ExitStatus::Code(0));
    assert_eq!(world.last("t").state, TaskState::Killed);
}

#[test]
fn a_task_killed_before_it_starts_is_killed_during_launch_or_right_after_its_start() {
    let mut world = World::registered();
    world.launch(task("t"));
    world.kill("t", None);
    assert!(world.did(|effect| matches!(effect, Effect::CancelLaunch { .. })));
    let container_id = world.container("t");
    world.step(Input::StartFailed {
        container_id,
        cancelled: true,
        message: String::new(),
    });
    let last = world.last("t");
    assert_eq!(last.state, TaskState::Killed);
    assert_eq!(last.reason, Some(Reason::TaskKilledDuringLaunch));

    let mut world = World::registered();
    world.launch(task("t"));
    world.kill("t", None);
    world.started("t");
    assert!(world.did(is_terminate));
    world.exited("t", ExitStatus::Signal(15));
    assert_eq!(world.last("t").state, TaskState::Killed);
}

#[test]
fn a_task_that_runs_for_too_long_fails_with_that_reason() {
    let mut world = World::registered();
    world.launch(TaskInfo {
        max_completion_ms: Some(5_000),
        ..task("t")
    });
    world.started("t");
    world.wait(5_000);
    assert!(world.did(is_terminate));
    world.exited("t", ExitStatus::Signal(15));
    let last = world.last("t");
    assert_eq!(last.state, TaskState::Failed);
    assert_eq!(last.reason, Some(Reason::MaxCompletionTimeReached));
}

#[test]
fn messages_of_an_earlier_connection_or_generation_are_refused_and_counted() {
    let mut world = World::registered();
    let old = Conn(world.conn);
    world.connect();
    world.step(Input::FromMaster {
        conn: old,
        generation: Generation(1),
        message: MasterToAgent::ShutdownFramework {
            framework_id: framework(),
        },
    });
    assert_eq!(world.core.counters().stale_messages, 1);
    let conn = Conn(world.conn);
    world.step(Input::FromMaster {
        conn,
        generation: Generation(0),
        message: MasterToAgent::Heartbeat,
    });
    assert_eq!(world.core.counters().stale_messages, 2);
    assert!(world.did(|effect| matches!(effect, Effect::Reconnect { .. })));
}

#[test]
fn the_generation_is_remembered_across_a_restart() {
    let mut world = World::registered();
    world.restart(&[]);
    assert_eq!(world.core.generation(), Generation(1));
}

#[test]
fn orders_before_the_registration_is_answered_are_refused() {
    let mut world = World::new();
    world.conn = 1;
    world.step(Input::LinkUp { conn: Conn(1) });
    world.launch(task("t"));
    assert!(world.effects.is_empty());
    assert_eq!(world.core.counters().early_messages, 1);
}

#[test]
fn a_silent_master_is_given_up_and_a_heartbeat_keeps_it() {
    let mut world = World::registered();
    for _ in 0..10 {
        world.wait(15_000);
        assert_eq!(world.said(), [AgentToMaster::Heartbeat]);
        world.order(MasterToAgent::Heartbeat);
    }
    let mut gave_up = false;
    for _ in 0..5 {
        world.wait(15_000);
        gave_up |= world.did(|effect| matches!(effect, Effect::Reconnect { .. }));
    }
    assert!(gave_up);
    let mut world = World::new();
    world.step(Input::LinkUp { conn: Conn(1) });
    world.wait(REGISTRATION_TIMEOUT_MS);
    assert!(world.did(|effect| matches!(effect, Effect::Reconnect { .. })));
}

#[test]
fn a_refusal_stops_the_agent() {
    let mut world = World::registered();
    world.order(MasterToAgent::Refused {
        message: "gone".to_owned(),
    });
    assert!(world.did(|effect| matches!(effect, Effect::Stop { .. })));
}

#[test]
fn the_end_of_a_framework_ends_its_tasks_and_nothing_waits_for_acknowledgements() {
    let mut world = World::registered();
    world.run("runs");
    world.run("ended");
    world.exited("ended", ExitStatus::Code(0));
    world.order(MasterToAgent::ShutdownFramework {
        framework_id: framework(),
    });
    assert!(world.did(is_terminate));
    assert!(!world.disk.tasks.contains_key(&key("ended")));
    world.exited("runs", ExitStatus::Signal(15));
    assert_eq!(world.states(), [TaskState::Killed]);
    assert!(world.disk.tasks.is_empty());
    assert_eq!(world.core.pending_updates(), 0);
}

#[test]
fn a_restarted_agent_adopts_what_runs() {
    let mut world = World::registered();
    world.launch(task("seen"));
    world.started("seen");
    world.launch(task("unseen"));
    let seen = world.container("seen");
    let unseen = world.container("unseen");
    world.restart(&[(&seen, Found::Running), (&unseen, Found::Running)]);
    assert!(!world.did(|effect| is_kill(effect) || is_terminate(effect)));
    assert_eq!(world.last("unseen").state, TaskState::Running);
    assert_eq!(world.core.counters().adopted, 2);
    assert_eq!(world.core.held().regular.cpu_milli(), 2000);
    let said = world.connect();
    assert!(
        matches!(&said[0], AgentToMaster::Reregister { tasks, incarnation, .. }
            if tasks.len() == 2 && *incarnation == Incarnation(2))
    );
    world.exited("seen", ExitStatus::Code(0));
    assert_eq!(world.last("seen").state, TaskState::Finished);
}

#[test]
fn a_restarted_agent_reports_what_ended_and_what_never_started() {
    let mut world = World::registered();
    world.run("ended");
    world.launch(task("never"));
    world.run("lost");
    let ended = world.container("ended");
    let exit = Exit {
        status: Some(ExitStatus::Code(7)),
        ..Exit::default()
    };
    world.restart(&[(&ended, Found::Ended(exit))]);
    assert_eq!(world.last("ended").exit, Some(ExitStatus::Code(7)));
    let never = world.last("never");
    assert_eq!(never.state, TaskState::Dropped);
    assert_eq!(never.reason, Some(Reason::AgentRestarted));
    let lost = world.last("lost");
    assert_eq!(lost.state, TaskState::Failed);
    assert_eq!(lost.reason, Some(Reason::ExecutorTerminated));
    assert_eq!(world.core.held(), Resources::ZERO);
}

#[test]
fn a_kill_goes_on_after_a_restart() {
    let mut world = World::registered();
    world.run("t");
    world.kill("t", Some(10_000));
    let container = world.container("t");
    world.restart(&[(&container, Found::Running)]);
    assert!(world.did(is_terminate));
    world.wait(10_000);
    assert!(world.did(is_kill));
    world.exited("t", ExitStatus::Signal(9));
    assert_eq!(world.last("t").state, TaskState::Killed);
}

#[test]
fn containers_of_no_known_task_are_killed_and_removed() {
    let mut world = World::registered();
    let orphan = ContainerId::new("c-0-1").expect("valid");
    world.restart(&[(&orphan, Found::Running)]);
    assert!(world.did(is_kill));
    assert!(
        world.did(|effect| matches!(effect, Effect::Destroy { container_id }
        if *container_id == orphan))
    );
}

#[test]
fn container_ids_and_uuids_of_two_lives_differ() {
    let mut world = World::registered();
    world.launch(task("a"));
    let first = (world.container("a"), world.last("a").uuid);
    world.restart(&[(&first.0, Found::Running)]);
    world.connect();
    world.launch(task("b"));
    let second = (world.container("b"), world.last("b").uuid);
    assert!(first.0 != second.0 && first.1 != second.1);
}

#[test]
fn shutting_down_ends_every_task_and_takes_no_more() {
    let mut world = World::registered();
    world.run("t");
    world.step(Input::ShutDown);
    assert!(world.did(is_terminate));
    world.launch(task("late"));
    assert_eq!(world.states(), [TaskState::Dropped]);
    world.exited("t", ExitStatus::Signal(15));
    assert!(world.core.is_idle());
    assert_eq!(world.last("t").state, TaskState::Killed);
}

#[test]
fn shutting_down_waits_for_no_grace_above_its_own_limit() {
    let mut world = World::registered();
    world.launch(TaskInfo {
        kill_grace_ms: Some(24 * 3600 * 1000),
        ..task("slow")
    });
    world.started("slow");
    world.step(Input::ShutDown);
    assert!(world.did(is_terminate) && !world.did(is_kill));
    world.wait(SHUTDOWN_GRACE_MAX_MS);
    assert!(world.did(is_kill));
}

#[test]
fn an_executor_is_started_once_and_given_its_tasks_when_it_subscribes() {
    let mut world = World::registered();
    world.launch(executor_task("a"));
    assert!(world.did(|effect| matches!(effect, Effect::Launch(order)
        if order.executor_id == Some(executor_key().1)
            && order.resources.regular.cpu_milli() == 1100)));
    world.launch(executor_task("b"));
    assert!(!world.did(|effect| matches!(effect, Effect::Launch(_))));
    world.started("a");
    world.subscribe(1, &[]);
    let launched = |world: &World| {
        let events = world.events();
        let launches = events
            .iter()
            .filter(|event| matches!(event, ExecutorEvent::Launch(_)));
        launches.count()
    };
    assert_eq!(launched(&world), 2);
    world.executor_update(1, "a", TaskState::Running, 1);
    assert_eq!(world.states(), [TaskState::Running]);
    assert!(matches!(
        world.events()[0],
        ExecutorEvent::Acknowledged { .. }
    ));
    world.launch(executor_task("c"));
    assert_eq!(launched(&world), 1);
    world.executor_update(1, "a", TaskState::Finished, 2);
    assert_eq!(world.core.held().regular.cpu_milli(), 2100);
    world.acknowledge("a");
    assert_eq!(world.states(), [TaskState::Finished]);
    world.acknowledge("a");
    assert!(!world.disk.tasks.contains_key(&key("a")));
}

#[test]
fn a_status_that_an_executor_sends_twice_is_forwarded_once() {
    let mut world = World::registered();
    world.launch(executor_task("a"));
    world.started("a");
    world.subscribe(1, &[]);
    world.executor_update(1, "a", TaskState::Running, 1);
    world.executor_update(1, "a", TaskState::Running, 1);
    assert!(matches!(
        world.events()[0],
        ExecutorEvent::Acknowledged { .. }
    ));
    assert_eq!(world.core.pending_updates(), 1);
}

#[test]
fn the_tasks_of_an_executor_that_ends_fail_and_its_framework_hears_of_it() {
    let mut world = World::registered();
    world.launch(executor_task("a"));
    world.started("a");
    world.subscribe(1, &[]);
    world.executor_update(1, "a", TaskState::Running, 1);
    let container_id = world.container("a");
    world.step(Input::Exited {
        container_id,
        exit: Exit {
            status: Some(ExitStatus::Code(1)),
            ..Exit::default()
        },
    });
    assert_eq!(world.last("a").reason, Some(Reason::ExecutorTerminated));
    assert!(
        world
            .said()
            .iter()
            .any(|message| matches!(message, AgentToMaster::ExecutorExited { status: 256, .. }))
    );
    assert_eq!(world.core.held(), Resources::ZERO);
}

#[test]
fn an_executor_that_does_not_subscribe_in_time_is_ended() {
    let mut world = World::registered();
    world.launch(executor_task("a"));
    world.started("a");
    world.wait(EXECUTOR_REGISTRATION_TIMEOUT_MS);
    assert!(world.did(is_kill));
    let last = world.last("a");
    assert_eq!(last.state, TaskState::Failed);
    assert_eq!(last.reason, Some(Reason::ExecutorRegistrationTimeout));
}

#[test]
fn an_executor_comes_back_after_a_restart_and_no_task_is_given_twice() {
    let mut world = World::registered();
    world.launch(executor_task("given"));
    let container = world.container("given");
    world.started("given");
    world.subscribe(1, &[]);
    world.launch(executor_task("second"));
    world.restart(&[(&container, Found::Running)]);
    world.connect();
    world.subscribe(1, &["given"]);
    let launched: Vec<_> = world
        .events()
        .into_iter()
        .filter_map(|event| match event {
            ExecutorEvent::Launch(info) => Some(info.name),
            _ => None,
        })
        .collect();
    assert_eq!(launched, ["second"]);
}

#[test]
fn a_kill_of_an_executors_task_reaches_the_executor_or_ends_a_task_it_never_had() {
    let mut world = World::registered();
    world.launch(executor_task("a"));
    world.kill("a", None);
    let last = world.last("a");
    assert_eq!(last.state, TaskState::Killed);
    assert_eq!(last.reason, Some(Reason::TaskKilledDuringLaunch));
    let executors: Vec<_> = world.core.executors().collect();
    let container_id = executors[0].container_id.clone();
    world.step(Input::Started { container_id });
    world.subscribe(1, &[]);
    assert!(world.events().contains(&ExecutorEvent::Shutdown));

    let mut world = World::registered();
    world.launch(executor_task("a"));
    world.started("a");
    world.subscribe(1, &[]);
    world.kill("a", Some(7));
    assert!(matches!(
        world.events()[..],
        [ExecutorEvent::Kill { grace_ms: 7, .. }]
    ));
}

/// A correction of a task's container, carried out as if a sample had led to it.
fn correct(world: &mut World, container_id: ContainerId, action: CorrectionAction) {
    let correction = Correction {
        at: Timestamp::from_ms(world.now_ms),
        container_id,
        task_id: key("lent").1,
        framework_id: framework(),
        action,
        signal: Signal::RunQueueLatency,
        on_behalf_of: TaskId::new("owner").ok(),
        value: 9,
        threshold: 5,
        duration_ms: 200,
    };
    let mut out = super::state::Outbox::default();
    world.core.correct(&correction, &mut out);
    world.effects = out.into_effects();
    for effect in &world.effects {
        if let Effect::Persist(records) = effect {
            for record in records {
                world.disk.apply(record.clone());
            }
        }
    }
    world.core.check().expect("the invariants hold");
}

fn with_lent_task() -> World {
    let mut world = World::registered();
    world.launch(TaskInfo {
        resources: Resources::revocable(Quantities::cpus_mem(1000, GIB)),
        ..task("lent")
    });
    world.started("lent");
    world
}

#[test]
fn an_eviction_uses_force_at_once_and_names_its_cause() {
    let mut world = with_lent_task();
    let container = world.container("lent");
    correct(&mut world, container, CorrectionAction::Evict);
    assert!(world.did(is_kill) && !world.did(is_terminate));
    assert!(world.did(|effect| matches!(effect, Effect::Observe(Observation::Corrected(_)))));
    assert_eq!(world.core.counters().evictions, 1);
    world.exited("lent", ExitStatus::Signal(9));
    let last = world.last("lent");
    assert_eq!(last.state, TaskState::Gone);
    assert_eq!(last.reason, Some(Reason::ContainerPreempted));
    for word in ["task owner", "run_queue_latency", "9", "5", "200 ms"] {
        assert!(last.message.contains(word), "{}", last.message);
    }
}

#[test]
fn a_correction_of_a_container_that_is_gone_or_not_revocable_does_nothing() {
    let mut world = with_lent_task();
    let gone = ContainerId::new("c-0-9").expect("valid");
    correct(&mut world, gone, CorrectionAction::Evict);
    assert!(world.effects.is_empty());
    world.run("owner");
    let owner = world.container("owner");
    correct(&mut world, owner, CorrectionAction::Freeze);
    assert!(world.effects.is_empty());
    assert_eq!(world.core.counters().stale_corrections, 2);
    assert_eq!(world.core.counters().evictions, 0);
}

#[test]
fn a_frozen_task_is_thawed_under_its_cap_and_before_it_is_asked_to_end() {
    let mut world = with_lent_task();
    let container = world.container("lent");
    correct(&mut world, container.clone(), CorrectionAction::Freeze);
    assert!(world.did(|effect| matches!(effect, Effect::Freeze { .. })));
    correct(
        &mut world,
        container.clone(),
        CorrectionAction::Throttle { cpu_milli: 100 },
    );
    assert!(matches!(
        world.effects[..2],
        [
            Effect::Throttle {
                cpu_milli: Some(100),
                ..
            },
            Effect::Thaw { .. }
        ]
    ));
    correct(&mut world, container, CorrectionAction::Freeze);
    world.kill("lent", None);
    let order: Vec<_> = world
        .effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Thaw { .. }) || is_terminate(effect))
        .map(is_terminate)
        .collect();
    assert_eq!(order, [false, true]);
}

#[test]
fn without_samples_nothing_is_lent_and_the_use_is_reported_once_a_second() {
    let mut world = World::registered();
    world.run("t");
    let container = world.container("t");
    let mut reports = 0;
    for count in 0..100_u64 {
        world.now_ms += 100;
        let mut sample = usage::Sample {
            taken_ns: count * 100_000_000,
            full: count % 10 == 0,
            ..usage::Sample::default()
        };
        let mut counters = usage::ContainerSample::absent(ebb_types::MeasureSource::Files);
        counters.cpu_ns = Some(count * 50_000_000);
        sample.containers.insert(container.clone(), counters);
        world.step(Input::Sample(Box::new(sample)));
        for message in world.said() {
            if let AgentToMaster::Usage(usage) = message {
                reports += 1;
                if count > 20 {
                    assert_eq!(usage.tasks[0].used.cpu_milli, Some(500));
                }
            }
        }
    }
    assert_eq!(reports, 10);
    world.wait(SAMPLE_STALE_MS * 3);
    assert!(world.core.counters().stale_samples > 0);
    assert!(world.core.lent().is_zero());
}
