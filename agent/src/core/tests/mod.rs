//! Scenarios: what the agent does when.
//!
//! [`World`] is a driver without a machine: it keeps what is to be kept, and holds after each step that the records on
//! its disk and those of the core are the same.

mod corrections;
mod executors;
mod kill;
mod launch;
mod link;
mod lots;
mod restart;
mod samples;
mod updates;

use ebb_types::{
    AgentId, AgentToMaster, CommandInfo, ContainerId, ExecutorId, ExecutorInfo, ExitStatus,
    FrameworkId, Generation, Incarnation, MasterToAgent, Quantities, Reason, Resources, TaskId,
    TaskInfo, TaskKey, TaskState, TaskStatus, Timestamp, UpdateUuid,
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
        lots: Lots::NONE,
        work_dir: "/var/ebb".to_owned(),
        attributes: Vec::new(),
        domain: None,
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
        lots: ebb_types::Lots::NONE,
        resources: Resources::regular(Quantities::cpus_mem(1000, GIB)),
        command: Some(CommandInfo {
            value: "true".to_owned(),
            shell: true,
            ..CommandInfo::default()
        }),
        executor: None,
        kill_grace_ms: None,
        warn_signal: None,
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
            lots: ebb_types::Lots::NONE,
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
        self.answer_registration();
        said.extend(self.said());
        said
    }

    fn answer_registration(&mut self) {
        self.order(MasterToAgent::Registered {
            agent_id: AgentId::new("a1").expect("valid"),
            generation: Generation(1),
            heartbeat_interval_ms: 15_000,
            unreachable_after_ms: 75_000,
        });
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
            call: Box::new(call),
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
