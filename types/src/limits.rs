//! Limits on everything that arrives from outside. Each bound has one name and stands here.

/// Longest id (framework, agent, offer, task, executor, container, role), in bytes. As in Mesos.
pub const MAX_ID_BYTES: usize = 255;
/// Longest display name, user, host name or URL, in bytes.
pub const MAX_NAME_BYTES: usize = 1024;
/// Longest command line: the value, and each argument, in bytes.
pub const MAX_COMMAND_BYTES: usize = 128 * 1024;
/// Most arguments of a command.
pub const MAX_ARGUMENTS: usize = 4096;
/// Most environment variables of a command.
pub const MAX_ENVIRONMENT: usize = 1024;
/// Most labels on a framework or task.
pub const MAX_LABELS: usize = 128;
/// Most roles of one framework.
pub const MAX_ROLES: usize = 64;
/// Most attributes of one agent.
pub const MAX_ATTRIBUTES: usize = 256;
/// Largest opaque payload (task data, framework messages), in bytes.
pub const MAX_DATA_BYTES: usize = 512 * 1024;
/// Longest free text in a status or error, in bytes; longer text is cut.
pub const MAX_MESSAGE_BYTES: usize = 4096;
/// Most offers one ACCEPT or DECLINE may name.
pub const MAX_OFFERS_PER_CALL: usize = 4096;
/// Most tasks one ACCEPT may launch.
pub const MAX_TASKS_PER_CALL: usize = 4096;
/// Most tasks one RECONCILE may name.
pub const MAX_RECONCILE_TASKS: usize = 100_000;
/// Most operations one RECONCILE_OPERATIONS may name.
pub const MAX_RECONCILE_OPERATIONS: usize = 10_000;
/// Largest frame on any stream, in bytes.
pub const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;
/// Largest quantity of any resource: 2^60, in its own unit. Sums of a million such still fit in a u128
/// and sums of eight in a u64, so a single addition of two valid quantities cannot overflow.
pub const MAX_QUANTITY: u64 = 1 << 60;
/// Longest time a decline can filter offers: 365 days, as in Mesos.
pub const MAX_REFUSE_MS: u64 = 365 * 24 * 3600 * 1000;
/// Shortest time for which a decline filters, in milliseconds: the neediest framework is asked first, so without one it
/// would be offered the same again for ever, and nobody else. (In Mesos it is the allocation interval, a second.) What is left of an accepted offer may come at once.
pub const MIN_DECLINE_MS: u64 = 100;
/// What a decline filters for when it does not say: 5 seconds, as in Mesos.
pub const DEFAULT_REFUSE_MS: u64 = 5_000;
/// Longest failover timeout of a framework: ten years.
pub const MAX_FAILOVER_MS: u64 = 10 * 365 * 24 * 3600 * 1000;
/// Longest grace period of a kill: one day.
pub const MAX_GRACE_MS: u64 = 24 * 3600 * 1000;
/// Grace of a kill where neither the call nor the task names one: 3 seconds, as in Mesos.
pub const DEFAULT_GRACE_MS: u64 = 3_000;
/// Most claims (a framework in a role) of one explanation; the others are counted. All of one framework fit.
pub const MAX_EXPLAINED_CLAIMS: usize = MAX_ROLES;
/// Most agents that an explanation names for one claim.
pub const MAX_EXPLAINED_AGENTS: usize = 3;
/// Most levels of the tree of roles: each part of the longest role, its own frameworks, the framework.
pub const MAX_PLACES: usize = MAX_ID_BYTES.div_ceil(2) + 2;
/// Most groups of constraints that a framework states for one role.
pub const MAX_CONSTRAINT_GROUPS: usize = 64;
/// Most constraints that a framework states, in all groups of all roles.
pub const MAX_CONSTRAINTS: usize = 512;
/// Most of them that have a pattern.
pub const MAX_PATTERNS: usize = 64;
/// Longest pattern of a constraint, in bytes.
pub const MAX_PATTERN_BYTES: usize = 1024;
/// Most memory that the program of a pattern takes, in bytes.
pub const PATTERN_PROGRAM_BYTES: usize = 64 * 1024;
/// Most memory that matching a pattern keeps to be faster, in bytes.
pub const PATTERN_CACHE_BYTES: usize = 64 * 1024;
/// Most machines of one call about maintenance.
pub const MAX_MACHINES_PER_CALL: usize = 1000;
/// Longest maintenance of a machine, and the longest time until it starts: ten years.
pub const MAX_MAINTENANCE_MS: u64 = 10 * 365 * 24 * 3600 * 1000;
/// Most alternatives of the least that a framework wants in an offer, for one role.
pub const MAX_MINIMA: usize = 16;
/// Most lots in one description of resources.
pub const MAX_LOTS: usize = 512;
/// Most ranges in one lot.
pub const MAX_RANGES: usize = 16_384;
/// Most items in one lot that is a set.
pub const MAX_SET_ITEMS: usize = 4_096;
/// Longest stack of reservations of one lot.
pub const MAX_RESERVATIONS: usize = 8;
/// Most labels of one reservation.
pub const MAX_RESERVATION_LABELS: usize = 16;
/// Longest name of a lot, item of a set, volume's id, disk's id or profile, principal of a reservation, and longest key
/// or value of its labels, in bytes.
pub const MAX_LOT_TEXT_BYTES: usize = 255;
/// Longest path of a disk's root or of a volume in its container, in bytes.
pub const MAX_LOT_PATH_BYTES: usize = 1024;

/// Most named lots of which a role has a limit.
pub const MAX_LOT_LIMITS: usize = 32;

/// Most corrections of one agent that the master keeps to show.
pub const MAX_RECENT_CORRECTIONS: usize = 32;
/// Most disturbed tasks in one report of an agent, the longest disturbed first.
pub const MAX_DISTURBANCES: usize = 64;
/// Most neighbours that are named for one disturbed task.
pub const MAX_DISTURBERS: usize = 4;
/// Most times of which an agent says how much of what it lends stays so long.
pub const MAX_LASTING_POINTS: usize = 8;
/// Largest number of a signal that a task may choose as its warning.
pub const MAX_SIGNAL: u32 = 31;
/// Longest class of tasks, in bytes; longer ones are cut.
pub const MAX_CLASS_BYTES: usize = 128;
/// Most classes of tasks of which an agent, and the master of one agent, keeps what was seen.
pub const MAX_CLASSES_PER_AGENT: usize = 1_024;
/// Most classes in one report of an agent.
pub const MAX_CLASSES_PER_REPORT: usize = 16;
/// Most classes of which is said at once what they should ask for.
pub const MAX_ADVISED_CLASSES: usize = 10_000;
