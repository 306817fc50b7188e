//! What the rule keeps over a restart of the agent, and takes up again.
//!
//! **Problem.** An agent that has forgotten everything counts every task's limit for two hours, and misses a daily peak for
//! three days. What it knew is in numbers that it can write down. But it was away for a while, and what tasks used then
//! nobody knows.
//!
//! **Invariants.**
//! - Bins in which the agent was away count for each task as high as any that is known of it, and for two hours not less is
//!   kept than before: not knowing frees nothing.
//! - After more than [`MAX_AWAY_BINS`], or if time has run backwards, or if any number cannot be, all of it is refused, and
//!   every task is cold.
//! - A task that is no longer there leaves with all of its past; one that is new is cold.
//!
//! **Price.** Two bytes a bin and task, and [`MAX_KEPT_TASKS`] of them; beyond that tasks are cold after a restart.

use ebb_types::Timestamp;

use super::mistakes::{self, Mistakes};
use super::sums::Sums;
use super::task::Task;
use super::{BIN_MS, BINS, Peaks, RECENT};

/// Bins that the agent may have been away: then all that is recent would have been guessed.
pub const MAX_AWAY_BINS: u64 = RECENT as u64;
/// Most tasks of which the past is kept, of each kind.
pub const MAX_KEPT_TASKS: usize = 2_000;
/// Mistakes that are kept.
pub const MISTAKES: usize = mistakes::KEPT;

/// One task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptTask<K> {
    /// Which.
    pub key: K,
    /// What it was allocated.
    pub limit: u64,
    /// Its first bin.
    pub born: u64,
    /// The bin of its last value.
    pub last: u64,
    /// Bins in which it was measured.
    pub seen_bins: u64,
    /// Its largest value ever, fading.
    pub remembered: u64,
    /// The share of its limit in each slot, of [`BINS`].
    pub shares: Vec<u16>,
}

/// All that is kept of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept<K> {
    /// The bin of the last sample.
    pub bin: u64,
    /// What was kept at the last complete sample.
    pub keep: u64,
    /// By how much the rule has been wrong, of [`MISTAKES`] bins.
    pub mistakes: Vec<u64>,
    /// The tasks.
    pub tasks: Vec<KeptTask<K>>,
}

/// Why what was kept is thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It was written later than now.
    #[error("it is from the future: the clock has gone backward; tasks are learnt anew")]
    Future,
    /// It was written too long ago.
    #[error(
        "it is older than two hours: what tasks have used since is not known; they are learnt anew"
    )]
    Old,
    /// A number in it cannot be.
    #[error("its numbers contradict one another; tasks are learnt anew")]
    Absurd,
}

impl<K: Ord + Clone> Peaks<K> {
    /// What to keep over a restart; nothing before the first sample.
    pub fn kept(&self) -> Option<Kept<K>> {
        let tasks = self.tasks.iter();
        Some(Kept {
            bin: self.bin?,
            keep: self.complete,
            mistakes: self.mistakes.kept().to_vec(),
            tasks: tasks
                .filter_map(|(key, task)| task.kept(key.clone()))
                .take(MAX_KEPT_TASKS)
                .collect(),
        })
    }

    /// Takes up what was kept, instead of all that is known now.
    ///
    /// # Errors
    /// [`Unfit`] if it is of no use; then nothing has changed.
    pub fn take_up(&mut self, now: Timestamp, kept: Kept<K>) -> Result<(), Unfit> {
        let bin = now.as_ms() / BIN_MS;
        let away = bin.checked_sub(kept.bin).ok_or(Unfit::Future)?;
        if away > MAX_AWAY_BINS {
            return Err(Unfit::Old);
        }
        let mistakes = <[u64; MISTAKES]>::try_from(kept.mistakes).map_err(|_| Unfit::Absurd)?;
        let count = kept.tasks.len();
        let mut tasks = std::collections::BTreeMap::new();
        for task in kept.tasks {
            if !is_sound(&task, kept.bin) {
                return Err(Unfit::Absurd);
            }
            let again = Task::again(&task).ok_or(Unfit::Absurd)?;
            tasks.insert(task.key, again);
        }
        if count > MAX_KEPT_TASKS || tasks.len() != count {
            return Err(Unfit::Absurd);
        }
        let oldest = tasks.values().map(Task::born).min().unwrap_or(kept.bin);
        self.sums = Sums::again(tasks.values(), kept.bin - oldest + 1);
        self.mistakes = Mistakes::again(mistakes);
        self.tasks = tasks;
        self.bin = Some(kept.bin);
        self.complete = kept.keep;
        self.floor = Some((bin + RECENT as u64, kept.keep));
        Ok(())
    }
}

/// Whether the numbers of a task agree with one another.
fn is_sound<K>(task: &KeptTask<K>, bin: u64) -> bool {
    task.born <= task.last
        && task.last <= bin
        && (1..=task.last - task.born + 1).contains(&task.seen_bins)
        && task.remembered <= task.limit
        && task.shares.len() == BINS
}
