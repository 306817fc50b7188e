//! The rules that a task must keep to be launched, in the order in which Mesos checks them.
//!
//! Pure: what is known of the offer, the agent and the framework comes in as [`Ground`]; the answer
//! is what the task takes from the offer, or the rule that it broke as a sentence. Each task is
//! judged on its own, so that a bad one spoils nothing for the others.

use ebb_types::limits::{
    MAX_ARGUMENTS, MAX_COMMAND_BYTES, MAX_DATA_BYTES, MAX_ENVIRONMENT, MAX_GRACE_MS, MAX_LABELS,
    MAX_NAME_BYTES,
};
use ebb_types::{AgentId, CommandInfo, ExecutorInfo, Lots, ResourceKind, Resources, TaskInfo};

mod lots;

/// What a task is judged against.
pub(super) struct Ground<'a> {
    /// The agent of the offers.
    pub(super) agent_id: &'a AgentId,
    /// What is left of the offers.
    pub(super) remaining: &'a Resources,
    /// What is left of their lots.
    pub(super) remaining_lots: &'a Lots,
    /// What the tasks before it use of them.
    pub(super) used_lots: &'a Lots,
    /// Whether the framework has a live or unreachable task of that id.
    pub(super) id_in_use: bool,
    /// The executor of the id that the task names, where it runs on the agent already.
    pub(super) running_executor: Option<&'a ExecutorInfo>,
}

/// What a valid task takes from the offer: its own resources, and those of an executor that has to
/// be started for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Charge {
    pub(super) task: Resources,
    pub(super) executor: Option<Resources>,
    /// The lots of both.
    pub(super) lots: Lots,
}

impl Charge {
    pub(super) fn sum(&self) -> Resources {
        self.task
            .saturating_add(&self.executor.unwrap_or(Resources::ZERO))
    }
}

/// Judges a task.
pub(super) fn judge(task: &TaskInfo, ground: &Ground<'_>) -> Result<Charge, String> {
    let id = &task.task_id;
    if ground.id_in_use {
        return Err(format!(
            "the framework already has a task {id} that has not ended; choose another id"
        ));
    }
    if task.agent_id != *ground.agent_id {
        return Err(format!(
            "task {id} names agent {}, but the offer is of agent {}; name the agent of the offer",
            task.agent_id, ground.agent_id
        ));
    }
    check_texts(task)?;
    check_resources(&format!("task {id}"), &task.resources, &task.lots)?;
    check_limit(task)?;
    let executor = check_runner(task, ground)?;
    let all = task
        .resources
        .checked_add(&executor.unwrap_or(Resources::ZERO))
        .ok_or_else(|| format!("task {id} asks for more than can be counted; ask for less"))?;
    if let Some(kind) = all.mixed_kind() {
        return Err(format!(
            "task {id} and its executor use {} both as revocable and as regular; use one of the two",
            kind.name()
        ));
    }
    if !ground.remaining.contains(&all) {
        return Err(format!(
            "task {id} uses {all}, but {} is left of the offer; ask for no more than that",
            ground.remaining
        ));
    }
    let own = executor.and(task.executor.as_ref()).map(|own| &own.lots);
    let lots = lots::judge(task, own, ground)?;
    Ok(Charge {
        task: task.resources,
        executor,
        lots,
    })
}

fn check_texts(task: &TaskInfo) -> Result<(), String> {
    let id = &task.task_id;
    if task.kill_grace_ms.is_some_and(|grace| grace > MAX_GRACE_MS) {
        return Err(format!(
            "task {id} has a kill grace above one day; at most {MAX_GRACE_MS} ms are allowed"
        ));
    }
    if task.max_completion_ms == Some(0) {
        return Err(format!(
            "task {id} may run for 0 ms at most; leave the time out or allow at least 1 ms"
        ));
    }
    if task.name.len() > MAX_NAME_BYTES {
        return Err(format!(
            "task {id} has a name above {MAX_NAME_BYTES} bytes; shorten it"
        ));
    }
    if task.labels.len() > MAX_LABELS {
        return Err(format!(
            "task {id} has more than {MAX_LABELS} labels; drop some"
        ));
    }
    if task.data.len() > MAX_DATA_BYTES {
        return Err(format!(
            "task {id} carries more than {MAX_DATA_BYTES} bytes of data; send less"
        ));
    }
    Ok(())
}

fn check_resources(whose: &str, resources: &Resources, lots: &Lots) -> Result<(), String> {
    if resources.is_zero() && lots.is_none() {
        return Err(format!("{whose} asks for no resources; ask for some"));
    }
    if !resources.regular.is_within_bounds() || !resources.revocable.is_within_bounds() {
        return Err(format!(
            "{whose} asks for more than can be counted; ask for less"
        ));
    }
    match resources.mixed_kind() {
        Some(kind) => Err(format!(
            "{whose} asks for {} both as revocable and as regular; ask for one of the two",
            kind.name()
        )),
        None => Ok(()),
    }
}

fn check_limit(task: &TaskInfo) -> Result<(), String> {
    let Some(limit_milli) = task.cpu_limit_milli else {
        return Ok(());
    };
    let asked_milli = task.usable().total(ResourceKind::Cpus);
    if asked_milli == 0 {
        return Err(format!(
            "task {} limits its cpus but asks for none; ask for some or leave the limit out",
            task.task_id
        ));
    }
    if limit_milli < asked_milli {
        return Err(format!(
            "task {} limits its cpus to {limit_milli} thousandths, below the {asked_milli} that it asks for; raise the limit",
            task.task_id
        ));
    }
    Ok(())
}

fn check_command(whose: &str, command: &CommandInfo) -> Result<(), String> {
    if command.value.is_empty() && (command.shell || command.arguments.is_empty()) {
        return Err(format!(
            "{whose} has an empty command; name a program or a line for the shell"
        ));
    }
    let too_long = |text: &String| text.len() > MAX_COMMAND_BYTES;
    if too_long(&command.value) || command.arguments.iter().any(too_long) {
        return Err(format!(
            "{whose} has a command above {MAX_COMMAND_BYTES} bytes; shorten it"
        ));
    }
    if command.arguments.len() > MAX_ARGUMENTS || command.environment.len() > MAX_ENVIRONMENT {
        return Err(format!(
            "{whose} has more than {MAX_ARGUMENTS} arguments or {MAX_ENVIRONMENT} variables; use fewer"
        ));
    }
    let texts = [&command.value].into_iter().chain(&command.arguments);
    let variables = command
        .environment
        .iter()
        .flat_map(|(name, value)| [name, value]);
    if texts.chain(variables).any(|text| text.contains('\0')) {
        return Err(format!(
            "{whose} has a NUL byte in its command or environment; remove it"
        ));
    }
    if command
        .environment
        .iter()
        .any(|(name, _)| name.is_empty() || name.contains('='))
    {
        return Err(format!(
            "{whose} has a variable whose name is empty or holds '='; rename it"
        ));
    }
    Ok(())
}

/// Checks what runs the task; the resources of an executor that has to be started for it.
fn check_runner(task: &TaskInfo, ground: &Ground<'_>) -> Result<Option<Resources>, String> {
    let id = &task.task_id;
    let whose = format!("task {id}");
    match (&task.command, &task.executor) {
        (Some(command), None) => check_command(&whose, command).map(|()| None),
        (None, Some(executor)) => check_executor(task, executor, ground),
        (None, None) => Err(format!(
            "task {id} has neither a command nor an executor; set exactly one"
        )),
        (Some(_), Some(_)) => Err(format!(
            "task {id} has both a command and an executor; set exactly one"
        )),
    }
}

fn check_executor(
    task: &TaskInfo,
    executor: &ExecutorInfo,
    ground: &Ground<'_>,
) -> Result<Option<Resources>, String> {
    let whose = format!("executor {} of task {}", executor.executor_id, task.task_id);
    check_command(&whose, &executor.command)?;
    if !executor.resources.is_zero() {
        check_resources(&whose, &executor.resources, &executor.lots)?;
    }
    match ground.running_executor {
        Some(running) if running != executor => Err(format!(
            "{whose} differs from the one of that id that runs on agent {}; describe it in the same way or choose another id",
            ground.agent_id
        )),
        Some(_) => Ok(None),
        None => Ok(Some(executor.resources)),
    }
}
