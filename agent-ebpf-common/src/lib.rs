//! What the probe and the agent say to each other.
//!
//! The probe runs in the kernel and adds; the agent reads. They share nothing but the records of this crate, which
//! both compile: one for the bpf target, one for the machine. Every record is `#[repr(C)]`, has no padding (asserted
//! below) and is written by one side only, as its comment says.
//!
//! Units: nanoseconds and counts, absolute since the slot was handed out. Nothing here is ever reset while in use.
#![no_std]

/// Buckets of the run-queue latency histogram: bucket `i` counts waits of `2^i <= ns < 2^(i+1)`, bucket 0 also 0 ns,
/// the last one everything from 34 s on.
pub const HIST_BUCKETS: usize = 36;

/// Who ran when a task was taken off a CPU against its will: an index into [`SlotCounters::preempted_by`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preemptor {
    /// A task of the same container.
    Same = 0,
    /// A task of a revocable container.
    Revocable = 1,
    /// A task of a container that is not revocable.
    Owned = 2,
    /// A task of no container: the system, a kernel thread.
    Unmanaged = 3,
    /// Nobody: the container's own CPU quota was used up, or the CPU went idle.
    Quota = 4,
}

/// The number of values of [`Preemptor`].
pub const PREEMPTORS: usize = 5;

/// Depths of the cgroup tree at which containers may stand at the same time.
pub const MAX_LEVELS: usize = 4;

/// The slot to which everything is charged that belongs to no container.
pub const UNMANAGED_SLOT: u32 = 0;

/// Stands in [`Current::slot`] while a CPU is idle.
pub const IDLE_SLOT: u32 = u32::MAX;

/// Slots when the loader asks for no other number: the unmanaged one and 1,023 containers.
pub const DEFAULT_SLOTS: u32 = 1024;

/// Buckets of the latency histograms of block devices: bucket `i` counts `2^i <= us < 2^(i+1)` in units of 1,024 ns,
/// bucket 0 also everything shorter, the last one everything from 8.6 s on.
pub const IO_BUCKETS: usize = 24;

/// A process that lives for less is short-lived.
pub const SHORT_LIFE_NS: u64 = 5_000_000;

/// The counters of one slot on one CPU. Written by the probes on that CPU alone; by the agent only while no container
/// has the slot. The array of them is mapped into the agent, which reads it without a system call.
///
/// The fields up to `wait_hist` are written by `sched_switch` and `flush` alone, with interrupts off; the others by
/// probes that another may interrupt, with atomic additions.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotCounters {
    /// Time on this CPU.
    pub on_cpu_ns: u64,
    /// What `on_cpu_ns` is ahead of the scheduler's account; later time on this CPU pays it off first.
    pub ahead_ns: u64,
    /// Time between becoming runnable and running, of all arrivals on this CPU.
    pub wait_ns: u64,
    /// The part of `wait_ns` in which the container's own CPU quota held the task back.
    pub wait_own_ns: u64,
    /// Arrivals on this CPU.
    pub wait_count: u64,
    /// Departures of tasks that blocked, slept or exited.
    pub voluntary: u64,
    /// Moves of tasks between CPUs.
    pub migrations: u64,
    /// Page faults that needed no disk.
    pub faults_minor: u64,
    /// Page faults that needed a disk.
    pub faults_major: u64,
    /// Departures of tasks that were still runnable, by [`Preemptor`]; their sum is the involuntary switches.
    pub preempted_by: [u64; PREEMPTORS],
    /// Arrivals by the logarithm of the part of their wait that was not the container's own quota's.
    pub wait_hist: [u64; HIST_BUCKETS],
    /// New processes.
    pub forks: u64,
    /// New threads of processes that were there.
    pub threads: u64,
    /// Ended processes.
    pub exits: u64,
    /// Ended processes that had lived for less than [`SHORT_LIFE_NS`].
    pub short_lived: u64,
    /// Times that a task had to free memory before it got some, because the machine had none.
    pub reclaim_direct: u64,
    /// Time that this took.
    pub reclaim_direct_ns: u64,
    /// Times that a task had to free memory before it got some, because its cgroup's limit was reached.
    pub reclaim_limit: u64,
    /// Time that this took.
    pub reclaim_limit_ns: u64,
    /// Tasks killed for want of memory.
    pub oom_kills: u64,
    /// Bytes of IP packets received.
    pub net_in_bytes: u64,
    /// IP packets received.
    pub net_in_packets: u64,
    /// Bytes of IP packets sent.
    pub net_out_bytes: u64,
    /// IP packets sent.
    pub net_out_packets: u64,
    /// Time on a CPU of ended tasks whose last departure the kernel did not show: told when it frees them, on any CPU.
    pub ended_ns: u64,
}

impl SlotCounters {
    /// Counters of a slot that was never charged.
    pub const ZERO: Self = Self {
        on_cpu_ns: 0,
        ahead_ns: 0,
        wait_ns: 0,
        wait_own_ns: 0,
        wait_count: 0,
        voluntary: 0,
        migrations: 0,
        faults_minor: 0,
        faults_major: 0,
        preempted_by: [0; PREEMPTORS],
        wait_hist: [0; HIST_BUCKETS],
        forks: 0,
        threads: 0,
        exits: 0,
        short_lived: 0,
        reclaim_direct: 0,
        reclaim_direct_ns: 0,
        reclaim_limit: 0,
        reclaim_limit_ns: 0,
        oom_kills: 0,
        net_in_bytes: 0,
        net_in_packets: 0,
        net_out_bytes: 0,
        net_out_packets: 0,
        ended_ns: 0,
    };

    /// Adds what was counted on another CPU.
    pub fn add(&mut self, other: &Self) {
        let Self {
            on_cpu_ns,
            ahead_ns,
            wait_ns,
            wait_own_ns,
            wait_count,
            voluntary,
            migrations,
            faults_minor,
            faults_major,
            preempted_by,
            wait_hist,
            forks,
            threads,
            exits,
            short_lived,
            reclaim_direct,
            reclaim_direct_ns,
            reclaim_limit,
            reclaim_limit_ns,
            oom_kills,
            net_in_bytes,
            net_in_packets,
            net_out_bytes,
            net_out_packets,
            ended_ns,
        } = other;
        self.on_cpu_ns += on_cpu_ns;
        self.ahead_ns += ahead_ns;
        self.wait_ns += wait_ns;
        self.wait_own_ns += wait_own_ns;
        self.wait_count += wait_count;
        self.voluntary += voluntary;
        self.migrations += migrations;
        self.faults_minor += faults_minor;
        self.faults_major += faults_major;
        for (sum, one) in self.preempted_by.iter_mut().zip(preempted_by) {
            *sum += one;
        }
        for (sum, one) in self.wait_hist.iter_mut().zip(wait_hist) {
            *sum += one;
        }
        self.forks += forks;
        self.threads += threads;
        self.exits += exits;
        self.short_lived += short_lived;
        self.reclaim_direct += reclaim_direct;
        self.reclaim_direct_ns += reclaim_direct_ns;
        self.reclaim_limit += reclaim_limit;
        self.reclaim_limit_ns += reclaim_limit_ns;
        self.oom_kills += oom_kills;
        self.net_in_bytes += net_in_bytes;
        self.net_in_packets += net_in_packets;
        self.net_out_bytes += net_out_bytes;
        self.net_out_packets += net_out_packets;
        self.ended_ns += ended_ns;
    }
}

/// Whose traffic with which block device.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IoKey {
    /// [`Registration::stamp`] of the container; 0 for all that belongs to none. Not its slot, which may have passed to
    /// another container by the time that a request ends.
    pub stamp: u64,
    /// The whole disk: major number times 2^20 plus minor number, as the kernel's `dev_t`.
    pub device: u64,
}

/// Traffic with one block device. Made by the probes at the first request, removed by the agent with the container;
/// the probes add atomically, since requests end on any CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoCounters {
    /// Bytes that the device was to read.
    pub read_bytes: u64,
    /// Bytes that it was to write.
    pub write_bytes: u64,
    /// Requests that read.
    pub read_count: u64,
    /// Requests that wrote.
    pub write_count: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Time that requests waited in the kernel before the device got them.
    pub queue_ns: u64,
    /// Time that the device took.
    pub device_ns: u64,
    /// Requests by the logarithm of their time in the kernel's queue; see [`io_bucket`].
    pub queue_hist: [u64; IO_BUCKETS],
    /// Requests by the logarithm of the device's time; see [`io_bucket`].
    pub device_hist: [u64; IO_BUCKETS],
}

/// A task was killed for want of memory. Sent through the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomKill {
    /// [`Registration::stamp`] of the victim's container; 0 if it is in none.
    pub stamp: u64,
    /// The kernel's monotonic clock.
    pub at_ns: u64,
    /// Process id of the victim.
    pub pid: u32,
    /// The process that asked for the memory that there was not.
    pub asked_by: u32,
}

/// How much of a task's accounts has been charged.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charged {
    /// [`Registration::stamp`] of the container that it was charged to; 0 if to none yet.
    pub stamp: u64,
    /// Running time. While the task is on a CPU it may be ahead of the scheduler's account; see [`Current::seen_ns`].
    pub exec_ns: u64,
    /// Waiting time.
    pub wait_ns: u64,
    /// Arrivals on a CPU.
    pub arrivals: u64,
    /// Voluntary departures.
    pub voluntary: u64,
    /// Moves between CPUs.
    pub migrations: u64,
    /// Page faults that needed no disk.
    pub faults_minor: u64,
    /// Page faults that needed a disk.
    pub faults_major: u64,
}

impl Charged {
    /// Nothing of a task's accounts.
    pub const ZERO: Self = Self {
        stamp: 0,
        exec_ns: 0,
        wait_ns: 0,
        arrivals: 0,
        voluntary: 0,
        migrations: 0,
        faults_minor: 0,
        faults_major: 0,
    };
}

/// What the kernel keeps with each task of a container.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskRecord {
    /// How much of its accounts has been charged. Written on the CPU that it is on, with interrupts off.
    pub charged: Charged,
    /// When it began to free memory; 0 if it does not. Written by the task itself.
    pub reclaim_since_ns: u64,
}

/// The task on one CPU and what was known of it when it came. Written by the probe on that CPU alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// Thread id of the task; meaningless before the first switch, when `armed` is 0.
    pub pid: u32,
    /// The slot it is charged to, or [`IDLE_SLOT`].
    pub slot: u32,
    /// 1 once this CPU has switched since the probe was attached.
    pub armed: u32,
    /// [`Class`] of the slot.
    pub class: u32,
    /// [`Registration::stamp`] of the slot.
    pub stamp: u64,
    /// Switches of this CPU.
    pub switches: u64,
    /// Switches of this CPU that the kernel did not show to the probe.
    pub missed: u64,
    /// Tasks that the kernel had no memory for to keep a [`TaskRecord`] with.
    pub storage_misses: u64,
    /// The account of its running time at the last reading that saw it change (all ones before the first), and when
    /// that was by the monotonic clock: where the tick is stopped for a task that is alone on its CPU, the clock stands
    /// in for the account.
    pub seen_exec_ns: u64,
    /// See `seen_exec_ns`. Without BTF: when the task came.
    pub seen_ns: u64,
    /// When the task came, where its container's quota has lately held back tasks on this CPU; else 0.
    pub arrived_ns: u64,
    /// When the last hold by the container's quota was seen to have ended; see [`QuotaWatch`].
    pub held_until_ns: u64,
    /// How long that was.
    pub held_ns: u64,
    /// Without BTF: the slot whose task was pushed out by the one that runs now, [`IDLE_SLOT`] if none was.
    pub pushed_out: u32,
    /// 1 while a probe charges that may be interrupted: the one at the end of a task. A reading then leaves it alone.
    pub charging: u32,
    /// Its accounts when it came. `sched_info` counts the arrival itself only afterwards.
    pub base: Charged,
}

/// How long a container's own CPU quota has held back its tasks on one CPU. Written by the probe on that CPU alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaWatch {
    /// The container's run queue on this CPU, by its address.
    pub queue: u64,
    /// [`Registration::stamp`] of the container, since addresses are used again.
    pub stamp: u64,
    /// The kernel's account of the time for which that queue was held back.
    pub account_ns: u64,
    /// When the account was last seen to have grown.
    pub held_until_ns: u64,
    /// By how much.
    pub held_ns: u64,
}

/// What a container is to its neighbours.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// No container at all.
    Unmanaged = 0,
    /// Runs on resources of its own.
    Owned = 1,
    /// Runs on lent resources.
    Revocable = 2,
}

/// Which slot a cgroup is charged to. Written by the agent when a container comes, keyed by the cgroup's v2 id.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Index into the counters.
    pub slot: u32,
    /// [`Class`] of the container.
    pub class: u16,
    /// Depth of the container's cgroup in the tree of the cpu controller; 0 if not known.
    pub cpu_depth: u16,
    /// Another number for each registration, never 0: a slot is used again, a stamp is not.
    pub stamp: u64,
}

/// A cgroup in a tree other than the v2 one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerKey {
    /// Its id.
    pub id: u64,
    /// [`Tree`].
    pub tree: u64,
}

/// A tree of cgroups.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// The one tree of v2.
    V2 = 0,
    /// The v1 tree of the memory controller.
    Memory = 1,
    /// The v1 tree of the blkio controller.
    Io = 2,
}

/// The number of values of [`Tree`].
pub const TREES: usize = 3;

/// Depths of the cgroup trees at which containers stand. Written by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Grows with every change of a registration, so that what was remembered before is known to be old.
    pub epoch: u64,
    /// The depths by [`Tree`], deepest first, 0 after the last; the root has depth 0.
    pub depth: [[u32; MAX_LEVELS]; TREES],
}

/// Cgroups that a CPU remembers, with their slots.
pub const PLACES: u32 = 64;

/// Where a cgroup was found to belong. Written by the probe on one CPU alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The cgroup's v2 id.
    pub id: u64,
    /// [`Levels::epoch`] when it was found.
    pub epoch: u64,
    /// What was found.
    pub registration: Registration,
}

/// A request that a block device has. Keyed by the request's address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issued {
    /// When the device got it, by the monotonic clock.
    pub at_ns: u64,
    /// When the kernel began it; 0 if the kernel keeps no accounts of the device.
    pub began_ns: u64,
    /// Whose it is, and with which device.
    pub key: IoKey,
}

/// What the probes could not do. Written by all of them, with atomic additions.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Events for which the ring buffer had no room.
    pub events_lost: u64,
    /// Requests to block devices that found no room in a map.
    pub io_untracked: u64,
}

/// Names of the programs, maps and read-only globals in the object.
pub mod name {
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
    /// Array with one [`super::Trouble`], mapped into the agent.
    pub const TROUBLE: &str = "TROUBLE";

    /// Every map, for pinning.
    pub const MAPS: [&str; 13] = [
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
        TROUBLE,
    ];

    /// Every program, for pinning.
    pub const PROGRAMS: [&str; 18] = [
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
}

/// The bucket of a latency of a block device.
#[inline(always)]
pub const fn io_bucket(ns: u64) -> usize {
    let log = bucket(ns >> 10);
    if log < IO_BUCKETS {
        log
    } else {
        IO_BUCKETS - 1
    }
}

/// The bucket of a wait.
#[inline(always)]
pub const fn bucket(wait_ns: u64) -> usize {
    // By halves, since the bpf target has no instruction that counts leading zeros.
    let mut rest = wait_ns;
    let mut log = 0;
    let mut half = 32;
    while half > 0 {
        if rest >> half > 0 {
            rest >>= half;
            log += half;
        }
        half /= 2;
    }
    if log < HIST_BUCKETS {
        log
    } else {
        HIST_BUCKETS - 1
    }
}

const _: () = assert!(size_of::<SlotCounters>() == 512);
const _: () = assert!(size_of::<IoKey>() == 16);
const _: () = assert!(size_of::<IoCounters>() == 8 * (7 + 2 * IO_BUCKETS));
const _: () = assert!(size_of::<OomKill>() == 24);
const _: () = assert!(size_of::<Charged>() == 8 * 8);
const _: () = assert!(size_of::<TaskRecord>() == size_of::<Charged>() + 8);
const _: () = assert!(size_of::<Current>() == 4 * 6 + 8 * 9 + size_of::<Charged>());
const _: () = assert!(size_of::<QuotaWatch>() == 40);
const _: () = assert!(size_of::<Registration>() == 16);
const _: () = assert!(size_of::<OwnerKey>() == 16);
const _: () = assert!(size_of::<Levels>() == 8 + 4 * MAX_LEVELS * TREES);
const _: () = assert!(size_of::<Place>() == 32);
const _: () = assert!(size_of::<Issued>() == 32);
const _: () = assert!(size_of::<Trouble>() == 16);
const _: () = assert!(Preemptor::Quota as usize + 1 == PREEMPTORS);
const _: () = assert!(UNMANAGED_SLOT < DEFAULT_SLOTS);
const _: () = assert!(PLACES.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_the_floor_of_the_logarithm() {
        assert_eq!(bucket(0), 0);
        for shift in 0..64u32 {
            let low = 1u64 << shift;
            let high = low + (low - 1);
            let expected = (shift as usize).min(HIST_BUCKETS - 1);
            assert_eq!(bucket(low), expected, "2^{shift}");
            assert_eq!(bucket(high), expected, "2^{}-1", shift + 1);
        }
    }
}
