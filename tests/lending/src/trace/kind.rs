//! What is known of each kind of trace: its clock, its machines, what of it is scored.

use super::Task;

/// A kind of trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// CPU of virtual machines of a hosting provider.
    BitbrainsCpu,
    /// Their active memory.
    BitbrainsMem,
    /// CPU of slices of a research network.
    PlanetLab,
    /// CPU of jobs of a computing centre.
    Surf,
    /// Memory of inference pods.
    GenAi,
}

/// Whether limits are as in the trace or close to what is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Regime {
    /// Limits as in the trace.
    Provisioned,
    /// A tenth more than the task ever used, at least a fiftieth of its limit.
    RightSized,
}

impl Regime {
    /// Sets the limit, and cuts what was used to it.
    pub fn apply(self, task: &mut Task) {
        let cut = |task: &mut Task| {
            for used in &mut task.used {
                *used = used.min(task.limit);
            }
        };
        cut(task);
        if self == Self::RightSized {
            let most = task.used.iter().copied().fold(0.0, f64::max);
            task.limit = (1.1 * most).max(0.02 * task.limit);
            cut(task);
        }
    }
}

const GIB: f64 = (1u64 << 30) as f64;

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::BitbrainsCpu,
        Self::BitbrainsMem,
        Self::PlanetLab,
        Self::Surf,
        Self::GenAi,
    ];

    /// What the name of a file of this kind begins with, and has in it.
    pub const fn pattern(self) -> (&'static str, &'static str) {
        match self {
            Self::BitbrainsCpu => ("bitbrains", "cpu"),
            Self::BitbrainsMem => ("bitbrains", "mem"),
            Self::PlanetLab => ("planetlab", "cpu"),
            Self::Surf => ("surf", "cpu"),
            Self::GenAi => ("alibaba_genai", "mem"),
        }
    }

    /// The length of a bin, in seconds.
    pub const fn step_s(self) -> u64 {
        match self {
            Self::Surf => 30,
            Self::GenAi => 57,
            _ => 300,
        }
    }

    /// Whole bins in so many hours.
    pub fn bins(self, hours: f64) -> usize {
        (hours * 3600.0 / self.step_s() as f64) as usize
    }

    /// Samples until a task is no longer cold: two hours.
    pub fn warm(self) -> usize {
        self.bins(2.0)
    }

    /// Whether it is memory.
    pub const fn is_memory(self) -> bool {
        matches!(self, Self::BitbrainsMem | Self::GenAi)
    }

    /// What a machine has.
    pub const fn capacity(self) -> f64 {
        match self {
            Self::BitbrainsCpu => 100_000.0,
            Self::BitbrainsMem => 128.0 * GIB,
            Self::PlanetLab => 2_400.0,
            Self::Surf => 537_600.0,
            Self::GenAi => 16.0,
        }
    }

    /// What a revocable task of the closed loop takes.
    pub const fn unit(self) -> f64 {
        match self {
            Self::BitbrainsCpu => 2_500.0,
            Self::BitbrainsMem => self.capacity() / 40.0,
            Self::PlanetLab => 100.0,
            Self::Surf => 2_100.0,
            Self::GenAi => 0.05,
        }
    }

    /// The regimes that it is run in.
    pub const fn regimes(self) -> &'static [Regime] {
        match self {
            Self::BitbrainsCpu | Self::BitbrainsMem => &[Regime::RightSized, Regime::Provisioned],
            _ => &[Regime::Provisioned],
        }
    }

    /// Hours at the beginning and at the end that are not scored.
    const fn margins_hours(self) -> (f64, f64) {
        match self {
            Self::BitbrainsCpu | Self::BitbrainsMem => (24.0, 24.0),
            Self::PlanetLab => (6.0, 3.0),
            Self::Surf => (24.0, 1.0),
            Self::GenAi => (6.0, 1.0),
        }
    }

    /// The bins that are scored, of an era of so many.
    pub fn scored(self, bins: usize) -> std::ops::Range<usize> {
        let (begin, end) = self.margins_hours();
        self.bins(begin)..bins.saturating_sub(self.bins(end))
    }

    /// Horizons of the violations, in bins: a step or five minutes, an hour, the longest.
    pub fn horizons(self) -> Vec<usize> {
        match self {
            Self::BitbrainsCpu | Self::BitbrainsMem => vec![1, self.hour(), 288],
            Self::PlanetLab => vec![1, self.hour(), 36],
            Self::Surf => vec![10, self.hour()],
            Self::GenAi => vec![5, self.hour()],
        }
    }

    /// Bins in an hour.
    pub fn hour(self) -> usize {
        self.bins(1.0)
    }
}
