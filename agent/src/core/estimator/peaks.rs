//! How much of what is allocated will be used within the next hour, at most, by all tasks together.
//!
//! **Problem.** What is lent for an hour must be free for an hour. The peak of an hour is not in the last five minutes: it
//! comes when several tasks rise at once, often at the same time of day as yesterday. The sum of every task's own peak is
//! far too much, because few rise at once; the machine's recent peak is too little, because it has forgotten last night.
//!
//! **Rule.** Time is cut into bins of five minutes; of each task the largest value of each bin is kept for three days, and
//! of the tasks present the sum. What to keep is a weighted sum ([`Weights`]) of
//! - what they use now, and their largest sum within two hours;
//! - how much larger it was within twelve hours, and at this time of day, give or take half an hour, on the last three days;
//! - how much single tasks have used before beyond their last two hours (all but the largest of these gaps: it is mostly
//!   in the sums already), fading with a half-life of 72 hours;
//! - how much the sum has swayed within an hour;
//! - the largest distance of a task from its limit;
//! - of each task younger than two hours all of that distance: it counts its limit until it has shown itself;
//! - by how much this very rule has been wrong within twelve hours: it watches its own past.
//!
//! The weights are relative, know no unit and no machine. Of all that save enough they are those with which the rule is
//! wrong least often where it is wrong most, by trace and by month: in fewer than one of a hundred hours on all of the
//! traces that `cargo xtask bench lending` replays.
//!
//! Against the next five minutes less will do ([`Weights::soon`]). That may be counted on beside work of which it is known
//! when it ends ([`ends`]), and never by itself.
//!
//! **Units.** Any amount; limits and use in the same. Weights in thousandths. Integers only, rounded so that more is kept.
//!
//! **Invariants.**
//! - What is kept is never below what is used, nor above the sum of the limits; against the next bin never more than
//!   against the hour, and where a task is not measured, or shortly after a restart, as much.
//! - The order of the members does not matter.
//! - Use beyond a limit counts as the limit; a member that is not measured counts its limit, and while there is one, not
//!   less is kept than at the last complete sample. Time that runs backwards stands still; bins without a sample are taken
//!   to have been as high as the higher of the two beside them.
//!
//! **Price.** A task costs two bytes a bin (about 1.8 KiB) for each kind, and a look at its last 24 bins a sample. What is
//! known is kept over a restart of the agent ([`kept`]). A lower weight of a young task's distance, once others of
//! its class have shown themselves, saves a fifth more on a machine with many short jobs and is wrong half as often again:
//! such jobs start together and rise together.

pub mod ends;
pub mod kept;

mod mistakes;
#[cfg(test)]
mod restart;
mod sums;
mod task;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ebb_types::Timestamp;

use self::mistakes::Mistakes;
use self::sums::Sums;
use self::task::Task;

/// The length of a bin.
pub const BIN_MS: u64 = 300_000;
/// Bins in an hour: that much lies ahead.
pub const HOUR: usize = 12;
/// Bins in two hours: what is recent, and after which a task has shown itself.
pub const RECENT: usize = 2 * HOUR;
/// Bins in a day.
pub const DAY: usize = 24 * HOUR;
/// Days on which the time of day is looked up.
pub const DAYS: usize = 3;
/// Bins that are kept: enough to look [`DAYS`] back and half an hour before that.
pub const BINS: usize = DAYS * DAY + HOUR;

/// What each part counts, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// What is used now.
    pub now: u64,
    /// The largest sum of two hours.
    pub recent: u64,
    /// How much larger it was within twelve hours.
    pub half_day: u64,
    /// How much larger it was at this time of day.
    pub time_of_day: u64,
    /// What tasks used before beyond their last two hours, but for the largest.
    pub gaps: u64,
    /// The standard deviation of the last hour.
    pub sway: u64,
    /// The largest distance from a limit.
    pub room: u64,
    /// The largest mistake of twelve hours.
    pub mistakes: u64,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            now: 111,
            recent: 883,
            half_day: 200,
            time_of_day: 594,
            gaps: 271,
            sway: 1_241,
            room: 169,
            mistakes: 189,
        }
    }
}

impl Weights {
    /// What to keep against the next five minutes. Of the hour's mistakes nothing counts here. On machines that are full of
    /// production a backlog of revocable tasks that end within the hour is then in its way in less than one of a
    /// thousand bins.
    pub const fn soon() -> Self {
        Self {
            now: 93,
            recent: 902,
            half_day: 276,
            time_of_day: 495,
            gaps: 238,
            sway: 495,
            room: 64,
            mistakes: 0,
        }
    }
}

/// One task at one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<K> {
    /// Which task.
    pub key: K,
    /// What it is allocated.
    pub limit: u64,
    /// What it counts until it has shown itself; its limit at most.
    pub unknown: u64,
    /// What it uses; `None` where that was not measured.
    pub used: Option<u64>,
}

/// What follows from a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// What to keep for the tasks.
    pub keep: u64,
    /// What to keep against the next bin.
    pub soon: u64,
    /// The largest sum of all bins that are kept.
    pub longest: u64,
    /// Tasks that have shown themselves.
    pub shown: usize,
}

/// The rule and what it remembers of the tasks present.
#[derive(Clone, Debug)]
pub struct Peaks<K> {
    weights: Weights,
    tasks: BTreeMap<K, Task>,
    sums: Sums,
    mistakes: Mistakes,
    bin: Option<u64>,
    sample: u64,
    complete: u64,
    /// Up to which bin not less than what is kept, after a restart.
    floor: Option<(u64, u64)>,
}

impl<K: Ord + Clone> Peaks<K> {
    /// A rule that has seen nothing.
    pub fn new(weights: Weights) -> Self {
        Self {
            weights,
            tasks: BTreeMap::new(),
            sums: Sums::default(),
            mistakes: Mistakes::default(),
            bin: None,
            sample: 0,
            complete: 0,
            floor: None,
        }
    }

    /// Bytes that it holds for each task, without the map's own.
    pub const fn bytes_a_task() -> usize {
        std::mem::size_of::<Task>() + std::mem::size_of::<[u16; BINS]>()
    }

    /// Takes a sample of every task present in, each once, and says what to keep for them.
    pub fn step(&mut self, now: Timestamp, members: &[Member<K>]) -> Peak {
        let bin = (now.as_ms() / BIN_MS).max(self.bin.unwrap_or(0));
        self.open(bin);
        self.sample += 1;
        let mut facts = Facts::default();
        for member in members {
            self.take(bin, member, &mut facts);
        }
        self.forget_absent();
        let parts = self.parts(bin, &facts);
        let base = parts.weighed(&self.weights).min(facts.limits);
        self.mistakes.predict(bin, base);
        let wrong = weighted(self.mistakes.largest(), self.weights.mistakes);
        let mut keep = base.saturating_add(wrong).max(facts.now);
        let mut soon = parts.weighed(&Weights::soon()).max(facts.now);
        if facts.missing > 0 {
            keep = keep.saturating_add(facts.missing).max(self.complete);
            soon = keep;
        }
        if let Some((until, floor)) = self.floor
            && bin < until
        {
            keep = keep.max(floor);
            soon = keep;
        }
        let keep = keep.min(facts.limits);
        if facts.missing == 0 {
            self.complete = keep;
        }
        Peak {
            keep,
            soon: soon.min(keep),
            longest: self.sums.longest().max(facts.now).min(facts.limits),
            shown: facts.shown,
        }
    }

    /// Goes on to a bin: what came in those before is held against what was expected an hour before each.
    fn open(&mut self, bin: u64) {
        let Some(last) = self.bin.replace(bin) else {
            return;
        };
        if bin == last {
            return;
        }
        self.sums.advance(last, bin);
        for task in self.tasks.values_mut() {
            task.advance(last, bin);
        }
        self.mistakes.learn(last, bin, &self.tasks);
    }

    /// Takes one member in.
    fn take(&mut self, bin: u64, member: &Member<K>, facts: &mut Facts) {
        facts.limits = facts.limits.saturating_add(member.limit);
        let Some(used) = member.used else {
            facts.missing = facts.missing.saturating_add(member.limit);
            if let Some(task) = self.tasks.get_mut(&member.key) {
                task.sample = self.sample;
            }
            return;
        };
        if !self.tasks.contains_key(&member.key) {
            let task = Task::new(bin, member.limit);
            self.tasks.insert(member.key.clone(), task);
        }
        let Some(task) = self.tasks.get_mut(&member.key) else {
            return;
        };
        task.sample = self.sample;
        if task.limit() != member.limit {
            self.sums.remove(task);
            task.resize(member.limit);
            self.sums.add(task);
        }
        task.push(bin, used.min(member.limit), &mut self.sums);
        facts.add(bin, task, member, used);
    }

    /// Tasks that are no longer there leave the sums with all of their past.
    fn forget_absent(&mut self) {
        let (sample, sums) = (self.sample, &mut self.sums);
        self.tasks.retain(|_, task| {
            let stays = task.sample == sample;
            if !stays {
                sums.remove(task);
            }
            stays
        });
    }

    /// What is weighed.
    fn parts(&self, bin: u64, facts: &Facts) -> Parts {
        let recent = self.sums.largest(bin, 0, RECENT);
        let beyond = |amount: u64| amount.saturating_sub(recent);
        let same_time = (1..=DAYS)
            .map(|day| self.sums.around(bin, day))
            .max()
            .unwrap_or(0);
        Parts {
            now: facts.now,
            recent,
            half_day: beyond(self.sums.largest(bin, 0, DAY / 2)),
            time_of_day: beyond(same_time),
            gaps: facts.gaps.rest(),
            sway: self.sums.sway(bin),
            room: facts.room,
            unknown: facts.unknown,
        }
    }
}

/// The parts that [`Weights`] weigh, and what counts in full.
#[derive(Clone, Copy, Debug)]
struct Parts {
    now: u64,
    recent: u64,
    half_day: u64,
    time_of_day: u64,
    gaps: u64,
    sway: u64,
    room: u64,
    unknown: u64,
}

impl Parts {
    /// The weighted sum without the mistakes.
    fn weighed(&self, weights: &Weights) -> u64 {
        let parts = [
            (self.now, weights.now),
            (self.recent, weights.recent),
            (self.half_day, weights.half_day),
            (self.time_of_day, weights.time_of_day),
            (self.gaps, weights.gaps),
            (self.sway, weights.sway),
            (self.room, weights.room),
            (self.unknown, 1_000),
        ];
        parts.into_iter().fold(0, |sum, (amount, weight)| {
            sum.saturating_add(weighted(amount, weight))
        })
    }
}

/// A sum, and the largest of what is in it.
#[derive(Clone, Copy, Debug, Default)]
struct Several {
    sum: u64,
    largest: u64,
}

impl Several {
    fn add(&mut self, amount: u64) {
        self.sum = self.sum.saturating_add(amount);
        self.largest = self.largest.max(amount);
    }

    fn rest(&self) -> u64 {
        self.sum.saturating_sub(self.largest)
    }
}

/// What is known of the members of one sample.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    limits: u64,
    now: u64,
    missing: u64,
    unknown: u64,
    room: u64,
    gaps: Several,
    shown: usize,
}

impl Facts {
    fn add<K>(&mut self, bin: u64, task: &Task, member: &Member<K>, used: u64) {
        self.now = self.now.saturating_add(used.min(member.limit));
        let recent = task.recent(bin);
        let room = member.limit.saturating_sub(recent);
        self.room = self.room.max(room);
        self.gaps.add(task.remembered().saturating_sub(recent));
        if task.seen_bins() >= RECENT as u64 {
            self.shown += 1;
        } else {
            let counts = member.unknown.min(member.limit);
            self.unknown = self.unknown.saturating_add(counts.saturating_sub(recent));
        }
    }
}

/// So many thousandths, rounded up.
fn weighted(amount: u64, permille: u64) -> u64 {
    super::permille_of(amount, permille)
}
