//! Kills for want of memory: of whom, and for which cause.
//!
//! The cause shows in the figures of the memory controller. In v2 a limit that could not be kept has counted the attempt.
//! v1 counts at most that the limit was met (and newer kernels not even that): there a limit that was ever reached is
//! taken for the cause, which is wrong where the page cache had filled it before the machine ran out of memory. These
//! figures are dear to read, so that a kill waits for the container's next full reading, at most a second or its last one.

use ebb_types::{ContainerId, MeasureSource};

use super::super::usage::{ContainerSample, MemorySample};
use super::{Holder, Since};

/// Memory that a limit may still have when a single page no longer fits: the kernel charges 64 pages at a time.
const LIMIT_SLACK_BYTES: u64 = 256 << 10;

/// Why a process was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OomCause {
    /// Its container had reached the limit of its memory.
    OwnLimit {
        /// The limit.
        limit_bytes: u64,
    },
    /// The machine had no memory left, or a cgroup around the containers had reached its limit.
    Machine,
    /// The memory of its container was not measured.
    Unknown,
}

impl OomCause {
    /// The name in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OwnLimit { .. } => "its own limit",
            Self::Machine => "the machine has no memory left",
            Self::Unknown => "not known",
        }
    }
}

/// Who was killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OomVictim {
    /// A process of a container.
    Container(ContainerId, Holder),
    /// A process of none that is known.
    Outside,
}

/// A process was killed for want of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomKilled {
    /// Who.
    pub victim: OomVictim,
    /// Its process id; only the probes tell.
    pub pid: Option<u32>,
    /// The process that asked for the memory that there was not; only the probes tell.
    pub asked_by: Option<u32>,
    /// Why.
    pub cause: OomCause,
}

/// A kill whose cause is not known yet.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) container_id: ContainerId,
    pub(super) holder: Holder,
    pub(super) pid: u32,
    pub(super) asked_by: u32,
}

impl Pending {
    pub(super) fn told(self, cause: OomCause) -> OomKilled {
        OomKilled {
            victim: OomVictim::Container(self.container_id, self.holder),
            pid: Some(self.pid),
            asked_by: Some(self.asked_by),
            cause,
        }
    }
}

/// Takes those of one container.
pub(super) fn take(pending: &mut Vec<Pending>, container_id: &ContainerId) -> Vec<Pending> {
    let (taken, left) = std::mem::take(pending)
        .into_iter()
        .partition(|one| one.container_id == *container_id);
    *pending = left;
    taken
}

/// What the memory controller has counted for one container.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    /// Kills that the probes have shown and files have not counted yet.
    pub(super) seen: u64,
    kills: Option<u64>,
    limit_hits: Option<u64>,
    limit_ooms: Option<u64>,
}

impl Watch {
    pub(super) fn new(since: Since) -> Self {
        let begin = (since == Since::Launch).then_some(0);
        Self {
            seen: 0,
            kills: begin,
            limit_hits: begin,
            limit_ooms: begin,
        }
    }

    /// The cause of whatever was killed since the last full reading.
    pub(super) fn cause(&mut self, memory: Option<&MemorySample>) -> OomCause {
        let Some(memory) = memory else {
            return OomCause::Unknown;
        };
        let hit = rose(&mut self.limit_hits, memory.limit_hits);
        let oom = rose(&mut self.limit_ooms, memory.limit_ooms);
        match memory.limit_bytes {
            Some(limit_bytes) if oom.unwrap_or_else(|| hit == Some(true) || is_reached(memory)) => {
                OomCause::OwnLimit { limit_bytes }
            }
            _ => OomCause::Machine,
        }
    }

    /// Kills that only files have counted.
    pub(super) fn unseen(&mut self, reading: &ContainerSample) -> u64 {
        let Some(kills) = reading.oom_kills else {
            return 0;
        };
        let before = self.kills.replace(kills);
        let seen = std::mem::take(&mut self.seen);
        if reading.oom_source == MeasureSource::Ebpf {
            return 0;
        }
        before.map_or(0, |before| {
            kills.saturating_sub(before).saturating_sub(seen)
        })
    }
}

/// Whether the limit was ever reached, as near as single pages and a CPU's reserve of them come to it.
fn is_reached(memory: &MemorySample) -> bool {
    let peak = memory.peak_bytes.zip(memory.limit_bytes);
    peak.is_some_and(|(peak, limit)| peak.saturating_add(LIMIT_SLACK_BYTES) >= limit)
}

/// Whether a counter has risen; `None` if it is not told.
fn rose(last: &mut Option<u64>, now: Option<u64>) -> Option<bool> {
    let now = now?;
    let before = last.replace(now);
    Some(before.is_some_and(|before| now > before))
}
