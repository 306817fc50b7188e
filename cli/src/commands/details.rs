//! Everything about one thing, as labelled lines.

pub(crate) mod qos;
mod usage;

use ebb_types::{
    AgentState, ClusterState, Correction, CorrectionAction, FrameworkState, Offer, Quantities,
    RoleState, Signal, TaskRecord, TaskStatus, Timestamp,
};

use super::tasks::usage_of;
use super::{quota, text};
use crate::find::Thing;
use crate::output::json::attribute_value;
use crate::output::quantity::{
    bytes, duration_ms, duration_ns, lots_text, milli, quantities, resources, with_lots,
};

/// One line: a label and its value.
type Line = (&'static str, String);

/// The lines about a thing.
pub(crate) fn of(state: &ClusterState, thing: Thing<'_>) -> Vec<Line> {
    match thing {
        Thing::Agent(agent) => of_agent(state, agent),
        Thing::Framework(framework) => of_framework(state, framework),
        Thing::Task(task) => of_task(state, task),
        Thing::Offer(offer) => of_offer(state, offer),
        Thing::Role(role) => of_role(role),
    }
}

fn ago(now: Timestamp, then: Timestamp) -> String {
    format!("{} ago", duration_ms(now.ms_since(then)))
}

fn of_agent(state: &ClusterState, agent: &AgentState) -> Vec<Line> {
    let info = &agent.info;
    let mut lines = vec![
        ("agent", agent.id.to_string()),
        ("address", format!("{}:{}", info.hostname, info.port)),
        ("status", agent.status.name().to_owned()),
        ("activity", agent.activity.name().to_owned()),
        ("version", info.version.clone()),
        ("registered", ago(state.at, agent.registered_at)),
        ("total", quantities(&info.total)),
        (
            "allocated",
            with_lots(&agent.allocated, &agent.allocated_lots),
        ),
        ("offered", with_lots(&agent.offered, &agent.offered_lots)),
        ("lent", quantities(&agent.oversubscribed)),
    ];
    lines.extend((info.domain.as_ref()).map(|domain| ("domain", domain.to_string())));
    for (key, _) in info.lots.iter() {
        lines.push(("lot", lots_text(&info.lots.only(|other| other == key))));
    }
    for attribute in &info.attributes {
        let value = attribute_value(&attribute.value);
        lines.push(("attribute", format!("{} = {value}", attribute.name)));
    }
    match &agent.usage {
        None => lines.push(("measured", "nothing yet".to_owned())),
        Some(usage) => {
            lines.push(("measured", ago(state.at, usage.at)));
            lines.extend(usage::of_machine(usage));
            let back = Quantities::cpus_mem(usage.taken_back_cpu_milli, 0);
            lines.push(("taken back", quantities(&back)));
            lines.extend(qos::promises(&usage.promises));
            lines.extend(qos::lasting(&usage.lasting));
            let disturbances = usage.disturbances.iter();
            lines.extend(disturbances.map(|d| ("disturbed", qos::disturbance(state.at, d))));
            lines.extend(qos::recent(state.at, usage));
            lines.extend(usage.sources.iter().map(usage::source));
        }
    }
    let tasks = state.tasks.iter().filter(|task| task.agent_id == agent.id);
    lines.extend(
        tasks
            .filter(|task| !task.state.is_terminal())
            .map(task_line),
    );
    lines
}

fn task_line(task: &TaskRecord) -> Line {
    let what = with_lots(&task.resources, &task.lots);
    (
        "task",
        format!("{} {} {what}", task.task_id, task.state.name()),
    )
}

fn of_framework(state: &ClusterState, framework: &FrameworkState) -> Vec<Line> {
    let info = &framework.info;
    let capabilities: Vec<&str> = info.capabilities.iter().map(|c| c.name()).collect();
    let scheduler = match (framework.connected, framework.failover_deadline) {
        (true, _) => "connected".to_owned(),
        (false, Some(deadline)) => {
            let left = duration_ms(deadline.ms_since(state.at));
            format!("away; removed in {left} unless it comes back")
        }
        (false, None) => "away".to_owned(),
    };
    let mut lines = vec![
        ("framework", framework.id.to_string()),
        ("name", info.name.clone()),
        ("scheduler", scheduler),
        ("host", info.hostname.clone()),
        ("user", info.user.clone()),
        ("roles", text::list(&info.roles)),
        ("suppressed", text::list(&framework.suppressed_roles)),
        ("capabilities", capabilities.join(",")),
        ("failover", duration_ms(info.failover_timeout_ms)),
        ("registered", ago(state.at, framework.registered_at)),
        ("allocated", resources(&framework.allocated)),
        ("offered", resources(&framework.offered)),
        ("live tasks", framework.live_tasks.to_string()),
    ];
    lines.retain(|(_, value)| !value.is_empty());
    let tasks = state
        .tasks
        .iter()
        .filter(|task| task.framework_id == framework.id);
    lines.extend(
        tasks
            .filter(|task| !task.state.is_terminal())
            .map(task_line),
    );
    lines
}

fn of_task(state: &ClusterState, task: &TaskRecord) -> Vec<Line> {
    let mut lines = vec![
        ("task", task.task_id.to_string()),
        ("name", task.name.clone()),
        ("state", task.state.name().to_owned()),
        ("framework", task.framework_id.to_string()),
        ("agent", task.agent_id.to_string()),
        ("role", task.role.to_string()),
        ("allocated", with_lots(&task.resources, &task.lots)),
    ];
    if let Some(executor) = &task.executor_id {
        lines.push(("executor", executor.to_string()));
    }
    if let Some(container) = &task.container_id {
        lines.push(("container", container.to_string()));
    }
    if !task.state.is_terminal()
        && let Some(usage) = usage_of(state, task)
    {
        lines.extend(usage::of_task(usage));
    }
    lines.extend(
        task.statuses
            .iter()
            .map(|s| ("history", status(state.at, s))),
    );
    lines
}

fn status(now: Timestamp, status: &TaskStatus) -> String {
    let mut line = format!("{} {}", ago(now, status.timestamp), status.state.name());
    if let Some(reason) = status.reason {
        line.push_str(&format!(" {}", reason.name()));
    }
    if !status.message.is_empty() {
        line.push_str(&format!(": {}", status.message));
    }
    line
}

fn of_offer(state: &ClusterState, offer: &Offer) -> Vec<Line> {
    let lapses = match offer.deadline {
        Some(at) => format!("in {}", duration_ms(at.ms_since(state.at))),
        None => "never".to_owned(),
    };
    let mut lines = vec![
        ("offer", offer.id.to_string()),
        ("framework", offer.framework_id.to_string()),
        ("role", offer.role.to_string()),
        ("agent", offer.agent_id.to_string()),
        ("host", offer.hostname.clone()),
        ("resources", with_lots(&offer.resources, &offer.lots)),
        ("lapses", lapses),
    ];
    lines.extend(qos::lasting(&offer.lasting));
    lines
}

fn of_role(role: &RoleState) -> Vec<Line> {
    let mut lines = vec![
        ("role", role.role.to_string()),
        ("weight", milli(role.weight_milli)),
        ("allocated", resources(&role.allocated)),
        ("offered", resources(&role.offered)),
    ];
    lines.extend(quota::lines(role));
    lines.extend(
        role.frameworks
            .iter()
            .map(|id| ("framework", id.to_string())),
    );
    lines
}

/// A value of a signal in its unit.
fn in_unit(signal: Signal, value: u64) -> String {
    match signal {
        Signal::RunQueueLatency => duration_ns(value),
        Signal::PreemptedByRevocable => format!("{value}/s"),
        Signal::MachineCpu => format!("{} cpus", milli(value)),
        Signal::MachineMemory => bytes(value),
        Signal::MemoryStall => usage::percent(value),
        Signal::DiskLatency => duration_ns(value),
        Signal::MachineNetwork => usage::bytes_per_s(value),
    }
}

/// A correction with its cause in one line.
pub(crate) fn correction(correction: &Correction) -> String {
    let action = match correction.action {
        CorrectionAction::Throttle { cpu_milli } => {
            format!("throttle to {} cpus", milli(cpu_milli))
        }
        CorrectionAction::LimitNetwork { bytes_per_s } => {
            format!("limit network to {}", usage::bytes_per_s(bytes_per_s))
        }
        CorrectionAction::ReclaimMemory { to_bytes } => {
            format!("reclaim memory to {}", bytes(to_bytes))
        }
        other => other.name().to_owned(),
    };
    let whom = match &correction.on_behalf_of {
        Some(task) => format!("task {task}"),
        None => "the machine".to_owned(),
    };
    let normal = match correction.baseline {
        Some(normal) => format!(", normally {}", in_unit(correction.signal, normal)),
        None => String::new(),
    };
    format!(
        "{action} {} for {whom}: {} {} past {}{normal} for {}; {}",
        correction.task_id,
        correction.signal.name(),
        in_unit(correction.signal, correction.value),
        in_unit(correction.signal, correction.threshold),
        duration_ms(correction.duration_ms),
        qos::choice(correction),
    )
}
