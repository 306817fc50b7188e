//! Bounds on what the master keeps, and on what it offers. What passes one of the first is refused or forgotten, and
//! counted.

use ebb_types::Quantities;

/// Most frameworks that are not completed.
pub const MAX_FRAMEWORKS: usize = 10_000;
/// Most agents that are registered.
pub const MAX_AGENTS: usize = 50_000;
/// Most agents remembered as recovered or unreachable; beyond it the longest unreachable are forgotten.
pub const MAX_ABSENT_AGENTS: usize = 102_400;
/// Most tasks of one framework that are live or whose end is not acknowledged.
pub const MAX_TASKS_PER_FRAMEWORK: usize = 200_000;
/// Most tasks on unreachable agents remembered for one framework; beyond it the first are forgotten.
pub const MAX_UNREACHABLE_TASKS_PER_FRAMEWORK: usize = 10_000;
/// Most ended tasks remembered for one framework; beyond it the oldest are forgotten.
pub const MAX_COMPLETED_TASKS_PER_FRAMEWORK: usize = 1_000;
/// Most completed frameworks remembered; beyond it the oldest are forgotten. As in Mesos.
pub const MAX_COMPLETED_FRAMEWORKS: usize = 50;
/// Most statuses remembered for one task; beyond it the oldest are forgotten.
pub const MAX_STATUSES_PER_TASK: usize = 6;
/// Most kills remembered for one disconnected agent; beyond it they are dropped.
pub const MAX_PENDING_KILLS_PER_AGENT: usize = 10_000;
/// Most executors of frameworks' own on one agent.
pub const MAX_EXECUTORS_PER_AGENT: usize = 10_000;
/// Most tasks that one agent may bring along.
pub const MAX_TASKS_PER_AGENT: usize = 100_000;
/// Most entries of what agents have seen of classes of tasks, each of one agent and class.
pub const MAX_CLASSES_KEPT: usize = 200_000;
/// Most weights of roles.
pub const MAX_WEIGHTS: usize = 10_000;
/// Most roles with a quota.
pub const MAX_QUOTAS: usize = 10_000;
/// Most frameworks in roles that have constraints: each takes a bit for each agent, in every copy of the book.
pub const MAX_CONSTRAINED_CLAIMS: usize = 10_000;
/// Most patterns in the constraints of all frameworks.
pub const MAX_PATTERNS_IN_ALL: usize = 2_000;
/// Most machines with a maintenance window.
pub const MAX_WINDOWS: usize = 1_000;
/// Most inverse offers outstanding at once; beyond it nobody is asked until some are answered (counted).
pub const MAX_INVERSE_OFFERS: usize = 100_000;
/// The least time between an answer to an inverse offer and the next one, in milliseconds, whatever the filter says.
pub const MIN_INVERSE_REFUSE_MS: u64 = 1_000;
/// Largest weight of a role, in thousandths.
pub const MAX_WEIGHT_MILLI: u32 = 1_000_000_000;
/// Most offers outstanding at once.
pub const MAX_OFFERS: usize = 200_000;
/// What is reserved for a role is offered by itself when no plain offer has taken it along for so long, in milliseconds.
pub const LOTS_WAIT_MS: u64 = 200;
/// Most ranges of one lot in one offer; the others stay free.
pub const MAX_RANGES_PER_OFFER: usize = 1_024;
/// Most operations on lots of one agent that it has not confirmed.
pub const MAX_PENDING_OPERATIONS: usize = 10_000;
/// Most operations of one framework that have no answer which it has acknowledged; more are refused, with an answer that
/// comes once (counted).
pub const MAX_OPERATIONS_PER_FRAMEWORK: usize = 1_000;
/// Most refusals of lots that are remembered; beyond that what was refused may be offered again at once (counted).
pub const MAX_LOT_REFUSALS: usize = 200_000;
/// How long nothing revocable of an agent is offered to a framework, in the role, of which a task was evicted there, in
/// milliseconds. Koordinator's figure; longer than an agent holds back what it lends after a correction.
pub const EVICTION_COOL_DOWN_MS: u64 = 20_000;
/// Most agents on which one framework cools down; beyond that it may be offered what it was evicted from (counted).
pub const MAX_COOLING: usize = 1_000;
/// A debug build checks its invariants after every step while it holds at most this many things;
/// above it, after every [`CHECK_EVERY`]th step.
pub const CHECK_ALWAYS_BELOW: usize = 300;
/// See [`CHECK_ALWAYS_BELOW`].
pub const CHECK_EVERY: u64 = 256;

/// Resources are offered where they hold at least this much CPU, in thousandths of a core …
pub const MIN_CPU_MILLI: u64 = 10;
/// … or at least this much memory, in bytes. Both as in Mesos.
pub const MIN_MEM_BYTES: u64 = 32 * 1024 * 1024;

/// Whether a part is large enough to be offered by itself.
pub const fn is_allocatable(part: &Quantities) -> bool {
    part.cpu_milli() >= MIN_CPU_MILLI || part.mem_bytes() >= MIN_MEM_BYTES
}
