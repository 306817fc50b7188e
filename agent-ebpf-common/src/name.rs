//! Names of the programs, maps and read-only globals in the object.

/// Program on the `sched_switch` tracepoint.
pub const SCHED_SWITCH: &str = "sched_switch";
/// The same for kernels without BTF.
pub const SCHED_SWITCH_PLAIN: &str = "sched_switch_plain";
/// Program that the agent runs on a CPU to charge the task that is on it.
pub const FLUSH: &str = "flush";
/// The same for kernels without BTF.
pub const FLUSH_PLAIN: &str = "flush_plain";
/// Program on the `sched_process_fork` tracepoint.
pub const PROCESS_FORK: &str = "process_fork";
/// Program on the `sched_process_exit` tracepoint.
pub const PROCESS_EXIT: &str = "process_exit";
/// Program on the `sched_process_free` tracepoint.
pub const PROCESS_FREE: &str = "process_free";
/// Program on the `cgroup_attach_task` tracepoint.
pub const PROCESS_MOVE: &str = "process_move";
/// Program on `mm_vmscan_direct_reclaim_begin`.
pub const RECLAIM_DIRECT_BEGIN: &str = "reclaim_direct_begin";
/// Program on `mm_vmscan_direct_reclaim_end`.
pub const RECLAIM_DIRECT_END: &str = "reclaim_direct_end";
/// Program on `mm_vmscan_memcg_reclaim_begin`.
pub const RECLAIM_LIMIT_BEGIN: &str = "reclaim_limit_begin";
/// Program on `mm_vmscan_memcg_reclaim_end`.
pub const RECLAIM_LIMIT_END: &str = "reclaim_limit_end";
/// Program on `mark_victim` where that names the task.
pub const OOM_VICTIM: &str = "oom_victim";
/// Program on `mark_victim` where that names only a process id (before Linux 6.9).
pub const OOM_VICTIM_PID: &str = "oom_victim_pid";
/// Program on `block_rq_issue`.
pub const BLOCK_ISSUE: &str = "block_issue";
/// Program on `block_rq_complete`.
pub const BLOCK_COMPLETE: &str = "block_complete";
/// Program on the packets that a cgroup receives.
pub const NET_IN: &str = "net_in";
/// Program on the packets that a cgroup sends.
pub const NET_OUT: &str = "net_out";
/// Program on what happens to the TCP sockets of a cgroup.
pub const NET_PACE: &str = "net_pace";

/// Array of [`super::SlotCounters`], mapped into the agent: slot times CPUs plus CPU.
pub const COUNTERS: &str = "COUNTERS";
/// Array of [`super::Current`] by CPU, mapped into the agent.
pub const CURRENT: &str = "CURRENT";
/// Array of [`super::QuotaWatch`], like the counters.
pub const QUOTA_WATCH: &str = "QUOTA_WATCH";
/// Array of [`super::Place`]: CPU times [`super::PLACES`] plus a hash of the id.
pub const PLACE_CACHE: &str = "PLACE_CACHE";
/// Hash of [`super::Registration`], keyed by cgroup v2 id.
pub const REGISTRY: &str = "REGISTRY";
/// Hash of [`super::Registration`], keyed by [`super::OwnerKey`].
pub const OWNERS: &str = "OWNERS";
/// Array with one [`super::Levels`].
pub const LEVELS: &str = "LEVELS";
/// Storage of a [`super::TaskRecord`] with each task.
pub const TASKS: &str = "TASKS";
/// Hash of [`super::IoCounters`], keyed by [`super::IoKey`].
pub const IO: &str = "IO";
/// Hash of [`super::Issued`], keyed by a request's address.
pub const ISSUED: &str = "ISSUED";
/// Hash of the process ids that were marked as victims and have not ended yet.
pub const VICTIMS: &str = "VICTIMS";
/// Ring buffer of [`super::OomKill`].
pub const EVENTS: &str = "EVENTS";
/// Array of [`super::Surge`] by slot, mapped into the agent.
pub const SURGES: &str = "SURGES";
/// Ring buffer of [`super::Alert`].
pub const ALERTS: &str = "ALERTS";
/// Array of [`super::Traffic`] by slot, mapped into the agent.
pub const TRAFFIC: &str = "TRAFFIC";
/// Storage of a [`super::pacing::SocketPace`] with each TCP socket that sends under a limit.
pub const SOCKETS: &str = "SOCKETS";
/// Array with one [`super::Trouble`], mapped into the agent.
pub const TROUBLE: &str = "TROUBLE";

/// Every map, for pinning.
pub const MAPS: [&str; 17] = [
    COUNTERS,
    CURRENT,
    QUOTA_WATCH,
    PLACE_CACHE,
    REGISTRY,
    OWNERS,
    LEVELS,
    TASKS,
    IO,
    ISSUED,
    VICTIMS,
    EVENTS,
    SURGES,
    ALERTS,
    TRAFFIC,
    SOCKETS,
    TROUBLE,
];

/// Every program, for pinning.
pub const PROGRAMS: [&str; 19] = [
    SCHED_SWITCH,
    SCHED_SWITCH_PLAIN,
    FLUSH,
    FLUSH_PLAIN,
    PROCESS_FORK,
    PROCESS_EXIT,
    PROCESS_FREE,
    PROCESS_MOVE,
    RECLAIM_DIRECT_BEGIN,
    RECLAIM_DIRECT_END,
    RECLAIM_LIMIT_BEGIN,
    RECLAIM_LIMIT_END,
    OOM_VICTIM,
    OOM_VICTIM_PID,
    BLOCK_ISSUE,
    BLOCK_COMPLETE,
    NET_IN,
    NET_OUT,
    NET_PACE,
];

/// Possible CPUs.
pub const CPUS: &str = "CPUS";
/// Offset of `task_struct.pid`.
pub const TASK_PID: &str = "TASK_PID";
/// Offset of `task_struct.tgid`.
pub const TASK_TGID: &str = "TASK_TGID";
/// Offset of `task_struct.start_time`.
pub const TASK_START: &str = "TASK_START";
/// Offset of `task_struct.nvcsw`.
pub const TASK_VOLUNTARY: &str = "TASK_VOLUNTARY";
/// Offset of `task_struct.min_flt`.
pub const TASK_FAULTS_MINOR: &str = "TASK_FAULTS_MINOR";
/// Offset of `task_struct.maj_flt`.
pub const TASK_FAULTS_MAJOR: &str = "TASK_FAULTS_MAJOR";
/// Offset of `task_struct.se.sum_exec_runtime`.
pub const TASK_EXEC: &str = "TASK_EXEC";
/// Offset of `task_struct.se.nr_migrations`.
pub const TASK_MIGRATIONS: &str = "TASK_MIGRATIONS";
/// Offset of `task_struct.sched_info.run_delay`.
pub const TASK_WAIT: &str = "TASK_WAIT";
/// Offset of `task_struct.sched_info.pcount`.
pub const TASK_ARRIVALS: &str = "TASK_ARRIVALS";
/// 1 if the kernel keeps `sched_info`: without it there is no run-queue latency.
pub const HAS_WAIT: &str = "HAS_WAIT";
/// Offset of `task_struct.se`.
pub const TASK_ENTITY: &str = "TASK_ENTITY";
/// Offset of `sched_entity.depth`.
pub const ENTITY_DEPTH: &str = "ENTITY_DEPTH";
/// Offset of `sched_entity.parent`.
pub const ENTITY_PARENT: &str = "ENTITY_PARENT";
/// Offset of `sched_entity.cfs_rq`.
pub const ENTITY_QUEUE: &str = "ENTITY_QUEUE";
/// Offset of `cfs_rq.throttled_clock_self_time`, or of `throttled_clock_pelt_time` before Linux 6.6.
pub const QUEUE_HELD: &str = "QUEUE_HELD";
/// Offset of `cfs_rq.runtime_enabled`.
pub const QUEUE_LIMITED: &str = "QUEUE_LIMITED";
/// Offset of `cfs_rq.runtime_remaining`.
pub const QUEUE_REMAINING: &str = "QUEUE_REMAINING";
/// 1 if the kernel has CPU quotas and the fields above.
pub const HAS_QUOTA: &str = "HAS_QUOTA";
/// Offset of `task_struct.cgroups`.
pub const TASK_CSS_SET: &str = "TASK_CSS_SET";
/// Offset of `css_set.dfl_cgrp`.
pub const CSS_SET_CGROUP: &str = "CSS_SET_CGROUP";
/// Offset of `cgroup.kn`.
pub const CGROUP_NODE: &str = "CGROUP_NODE";
/// Offset of `cgroup.level`.
pub const CGROUP_LEVEL: &str = "CGROUP_LEVEL";
/// Offset of `cgroup.ancestors`, or of `cgroup.ancestor_ids` on kernels before 6.1.
pub const CGROUP_ANCESTORS: &str = "CGROUP_ANCESTORS";
/// 1 if the ancestors are pointers to cgroups, 0 if they are ids.
pub const ANCESTORS_ARE_POINTERS: &str = "ANCESTORS_ARE_POINTERS";
/// Offset of `kernfs_node.id`.
pub const NODE_ID: &str = "NODE_ID";
/// Offset of `request.bio`.
pub const REQUEST_BIO: &str = "REQUEST_BIO";
/// Offset of `request.cmd_flags`.
pub const REQUEST_FLAGS: &str = "REQUEST_FLAGS";
/// Offset of `request.__data_len`.
pub const REQUEST_BYTES: &str = "REQUEST_BYTES";
/// Offset of `request.start_time_ns`.
pub const REQUEST_START: &str = "REQUEST_START";
/// Offset of `request.q`.
pub const REQUEST_QUEUE: &str = "REQUEST_QUEUE";
/// Offset of `request_queue.disk`.
pub const QUEUE_DISK: &str = "QUEUE_DISK";
/// Offset of `gendisk.major`.
pub const DISK_MAJOR: &str = "DISK_MAJOR";
/// Offset of `gendisk.first_minor`.
pub const DISK_MINOR: &str = "DISK_MINOR";
/// Offset of `bio.bi_blkg`.
pub const BIO_GROUP: &str = "BIO_GROUP";
/// Offset of `bio.bi_io_vec`.
pub const BIO_PAGES: &str = "BIO_PAGES";
/// Offset of `blkcg_gq.blkcg`.
pub const GROUP_BLKCG: &str = "GROUP_BLKCG";
/// Offset of `blkcg.css.cgroup`.
pub const BLKCG_CGROUP: &str = "BLKCG_CGROUP";
/// Offset of `page.compound_head`.
pub const PAGE_HEAD: &str = "PAGE_HEAD";
/// Offset of `page.memcg_data`.
pub const PAGE_MEMCG: &str = "PAGE_MEMCG";
/// Offset of `mem_cgroup.css.cgroup`.
pub const MEMCG_CGROUP: &str = "MEMCG_CGROUP";
/// 1 if pages tell whose they are.
pub const HAS_MEMCG: &str = "HAS_MEMCG";
/// 1 if requests tell whose they are.
pub const HAS_BLKCG: &str = "HAS_BLKCG";
/// [`super::Tree`] of the memory controller.
pub const MEMORY_TREE: &str = "MEMORY_TREE";
/// [`super::Tree`] of the io controller.
pub const IO_TREE: &str = "IO_TREE";
/// 1 if victims are known by their process ids alone.
pub const VICTIMS_BY_PID: &str = "VICTIMS_BY_PID";
