//! What `ebb top` shows at one moment, and prints as JSON with `--json`.

use ebb_types::{AgentStatus, TaskState};
use serde::Serialize;

use crate::output::json::{CorrectionJson, ResourcesJson};

/// One kind of resource on one agent. What was not measured is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Amount {
    /// What there is.
    pub(crate) total: u64,
    /// Allocated to tasks as their own.
    pub(crate) allocated: u64,
    /// Used by those.
    pub(crate) used: Option<u64>,
    /// Lent in all, in use and not.
    pub(crate) lent: u64,
    /// Of that, allocated to revocable tasks.
    pub(crate) lent_allocated: u64,
    /// Used by revocable tasks.
    pub(crate) lent_used: Option<u64>,
    /// Used on the whole machine, whoever by.
    pub(crate) machine_used: Option<u64>,
}

/// One agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct AgentRow {
    pub(crate) id: String,
    #[serde(skip)]
    pub(crate) short_id: String,
    pub(crate) hostname: String,
    pub(crate) status: &'static str,
    #[serde(skip)]
    pub(crate) status_kind: AgentStatus,
    /// Whether it has lately told what it measures.
    pub(crate) measured: bool,
    pub(crate) tasks: usize,
    pub(crate) cpu_milli: Amount,
    pub(crate) mem_bytes: Amount,
    pub(crate) taken_back_cpu_milli: Option<u64>,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TaskRow {
    pub(crate) framework_id: String,
    pub(crate) framework: String,
    pub(crate) task_id: String,
    pub(crate) name: String,
    pub(crate) agent_id: String,
    #[serde(skip)]
    pub(crate) short_agent_id: String,
    pub(crate) state: &'static str,
    #[serde(skip)]
    pub(crate) state_kind: TaskState,
    pub(crate) revocable: bool,
    pub(crate) allocated: ResourcesJson,
    pub(crate) allocated_cpu_milli: u64,
    pub(crate) allocated_mem_bytes: u64,
    pub(crate) used_cpu_milli: Option<u64>,
    pub(crate) used_mem_bytes: Option<u64>,
    pub(crate) used_disk_bytes_per_s: Option<u64>,
    pub(crate) run_queue_p99_ns: Option<u64>,
    pub(crate) cpu_source: Option<&'static str>,
    pub(crate) throttled_to_milli: Option<u64>,
    pub(crate) frozen: bool,
}

/// Everything that is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct View {
    pub(crate) at_ms: u64,
    pub(crate) master_id: String,
    /// Why no changes come for now; what is shown is the last that is known.
    pub(crate) trouble: Option<String>,
    pub(crate) agents: Vec<AgentRow>,
    pub(crate) tasks: Vec<TaskRow>,
    /// The latest corrections, oldest first.
    pub(crate) corrections: Vec<CorrectionJson>,
    /// How many corrections were seen since the view began.
    pub(crate) corrections_total: u64,
    /// The same corrections as sentences.
    #[serde(skip)]
    pub(crate) notes: Vec<String>,
}
