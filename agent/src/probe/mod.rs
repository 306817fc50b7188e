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

pub use self::bpf::{ProbeCost, Probes, built_in_object};
pub use self::error::ProbeError;
pub use self::figures::{
    ContainerCounters, CpuSplit, Detail, Device, DeviceCounters, DeviceLatency, DiskTotals, Faults,
    Figure, HostCounters, Losses, Memory, Network, OomEvent, Pressure, Processes, Reclaim,
    RunQueue, Sample, Switches, Throttling, disk_totals,
};
pub use self::files::{CgroupPaths, ContainerFiles, HostFiles};
pub use self::plan::{Choice, Plan, plan};
pub use self::sampler::Sampler;
pub use self::support::{Facts, KernelFields};
pub use ebb_agent_ebpf_common::{Class, HIST_BUCKETS};
