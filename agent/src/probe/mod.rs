//! The agent's measurements: what each container uses and waits for, and what the machine has.
//!
//! **Problem.** Every later decision (what to lend, when to take it back) rests on these figures, on
//! machines of which some have eBPF and all controllers, and some little of either.
//!
//! **Way.** [`Facts`] says what is so here, [`plan`](plan::plan) decides once from where each figure
//! comes, [`Sampler`] reads. Where the kernel refuses the probes, or has no slot left for a
//! container, the same figure comes from cgroup files, and says so.
//!
//! **Invariants.** Figures are absolute counters in nanoseconds, bytes and counts, or momentary
//! sizes; taking differences is the reader's task. A figure that was not measured is `None`, never
//! 0. A figure whose source has changed since the last sample starts anew. Nothing here blocks but
//! for the system calls, keeps a clock of its own, or remembers a sample.
//!
//! **Price.** A quick sample of 100 containers costs about 100 system calls; a full one ten times as
//! many, of which those of `memory.stat` are the dearest.

mod bpf;
mod btf;
mod error;
mod figures;
mod files;
mod plan;
mod sampler;
mod support;
mod surge;

pub use self::bpf::{
    BPF_MOUNT, DeviceRule, ProbeCost, built_in_object, check_device_filter, confine_devices,
    mount_bpf,
};
pub use self::error::ProbeError;
pub use self::figures::{
    ContainerCounters, CpuSplit, Detail, Device, DeviceCounters, DeviceLatency, DiskTotals, Faults,
    Figure, HostCounters, Losses, Memory, Network, OomEvent, Pressure, Processes, Reclaim,
    RunQueue, Sample, Switches, Throttling, Traffic, disk_totals,
};
pub use self::files::{CgroupPaths, ContainerFiles, HostFiles};
pub use self::plan::{Attach, Choice, Hook, Part, PartPlan, Plan, Program, plan};
pub use self::sampler::{Options, Sampler};
pub use self::support::{Facts, FieldGroup, KernelFields};
pub use ebb_agent_ebpf_common::{Class, HIST_BUCKETS};

/// The kernel's monotonic clock.
pub(crate) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * 1_000_000_000 + nanoseconds
}
