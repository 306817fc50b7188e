//! Traces: what tasks used over time, read from files of four kinds.
//!
//! **Problem.** Each source has its own columns, units and clock. Here all become the same: tasks with a limit, a start
//! and one value a bin, in eras that are scored apart.
//!
//! **Invariants.** A task's use never exceeds its limit. Bins are numbered from the era's first.

mod kind;
mod read;

pub use kind::{Kind, Regime};
pub use read::{Found, find, read};

/// One task: it exists in `used.len()` bins from `start` on.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Its name, which places it.
    pub key: String,
    /// Its first bin.
    pub start: usize,
    /// What it is allocated.
    pub limit: f64,
    /// What it used in each bin.
    pub used: Vec<f64>,
}

impl Task {
    /// The bin after its last.
    pub fn end(&self) -> usize {
        self.start + self.used.len()
    }

    /// What it used in a bin; nothing where it did not exist.
    pub fn used_at(&self, bin: usize) -> f64 {
        bin.checked_sub(self.start)
            .and_then(|at| self.used.get(at))
            .copied()
            .unwrap_or(0.0)
    }
}

/// Tasks that are placed together.
#[derive(Clone, Debug, PartialEq)]
pub struct Era {
    /// Which month or day.
    pub name: String,
    /// Its tasks.
    pub tasks: Vec<Task>,
    /// How many bins it has.
    pub bins: usize,
}
