//! What is counted of each slot on each CPU.

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

/// The slot to which everything is charged that belongs to no container.
pub const UNMANAGED_SLOT: u32 = 0;

/// Slots when the loader asks for no other number: the unmanaged one and 1,023 containers.
pub const DEFAULT_SLOTS: u32 = 1024;

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
const _: () = assert!(Preemptor::Quota as usize + 1 == PREEMPTORS);
const _: () = assert!(UNMANAGED_SLOT < DEFAULT_SLOTS);

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
