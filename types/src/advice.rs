//! What classes of tasks ask for and what they use, and what they should ask for.
//!
//! **Units.** CPU in thousandths of a core, memory in bytes, times in milliseconds.
//!
//! **Invariants.** What two agents have seen of a class is added up, never averaged. Everything is as of
//! [`ClassUse::at`], the clock of whoever holds it: what travels says how long ago, never when.

mod class;
mod histogram;
mod rule;

pub use class::{executor_class, task_class};
pub use histogram::{HALF_LIFE_HOURS, Histogram};
pub use rule::{
    BUMP_PERCENT, DEAD_BAND_PERCENT, ENOUGH_MS, MARGIN_PERCENT, THROTTLED_PERMILLE, advise,
};

use crate::ids::FrameworkId;
use crate::time::Timestamp;

/// Days for which peaks and kills for want of memory are remembered, the present one included. The window of Kubernetes'
/// Vertical Pod Autoscaler.
pub const ADVICE_DAYS: usize = 8;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Names a class of tasks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassKey {
    /// Whose tasks they are.
    pub framework_id: FrameworkId,
    /// What they have in common ([`task_class`], [`executor_class`]).
    pub class: String,
}

/// The most of a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DayPeaks {
    /// Most CPU that a task used over a second, in thousandths of a core.
    pub cpu_milli: u64,
    /// Most memory that a task held, in bytes.
    pub mem_bytes: u64,
    /// Processes that were killed because their task had reached its own limit of memory.
    pub ooms: u64,
    /// The highest limit at which one was, in bytes.
    pub oom_limit_bytes: u64,
    /// Tasks that ended by themselves and well.
    pub finished: u64,
    /// The longest that one of them had run, in milliseconds.
    pub life_ms: u64,
}

impl DayPeaks {
    fn merge(&mut self, other: &Self) {
        self.cpu_milli = self.cpu_milli.max(other.cpu_milli);
        self.mem_bytes = self.mem_bytes.max(other.mem_bytes);
        self.ooms = self.ooms.saturating_add(other.ooms);
        self.oom_limit_bytes = self.oom_limit_bytes.max(other.oom_limit_bytes);
        self.finished = self.finished.saturating_add(other.finished);
        self.life_ms = self.life_ms.max(other.life_ms);
    }
}

/// What was seen of a class, by one agent or by several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassUse {
    /// The class.
    pub key: ClassKey,
    /// When it was like this.
    pub at: Timestamp,
    /// Tasks that were seen.
    pub tasks: u64,
    /// Tasks that run.
    pub running: u64,
    /// For how long they were measured, each for itself, in milliseconds.
    pub seen_ms: u64,
    /// The part of it in which their CPU counts, in milliseconds.
    pub cpu_seen_ms: u64,
    /// The part of what [`ClassUse::cpu`] holds in which their own ceiling of CPU held them back, in milliseconds. It
    /// fades as they do.
    pub throttled_ms: u64,
    /// For how long none was measured, in milliseconds.
    pub idle_ms: u64,
    /// CPU that the last one asked for, in thousandths of a core.
    pub asked_cpu_milli: u64,
    /// The ceiling of CPU that the last one had, in thousandths of a core, if it had one.
    pub cpu_limit_milli: Option<u64>,
    /// Memory that the last one asked for, in bytes.
    pub asked_mem_bytes: u64,
    /// CPU in use, in thousandths of a core, while it was not held back for somebody else's sake.
    pub cpu: Histogram,
    /// Memory in use without reclaimable page cache, in bytes.
    pub mem: Histogram,
    /// The most of each day, the present one first.
    pub days: [DayPeaks; ADVICE_DAYS],
}

impl ClassUse {
    /// A class of which nothing was seen yet.
    pub fn new(key: ClassKey, at: Timestamp) -> Self {
        Self {
            key,
            at,
            tasks: 0,
            running: 0,
            seen_ms: 0,
            cpu_seen_ms: 0,
            throttled_ms: 0,
            idle_ms: 0,
            asked_cpu_milli: 0,
            cpu_limit_milli: None,
            asked_mem_bytes: 0,
            cpu: Histogram::default(),
            mem: Histogram::default(),
            days: [DayPeaks::default(); ADVICE_DAYS],
        }
    }

    /// Time passes; nothing happens where it would run backward.
    pub fn advance(&mut self, now: Timestamp) {
        let (then_ms, now_ms) = (self.at.as_ms(), now.as_ms());
        if now_ms <= then_ms {
            return;
        }
        let hours = now_ms / HOUR_MS - then_ms / HOUR_MS;
        if hours > 0 {
            self.cpu.fade(hours);
            self.mem.fade(hours);
            self.throttled_ms = histogram::faded(self.throttled_ms, hours);
        }
        let days = now_ms / DAY_MS - then_ms / DAY_MS;
        let days = usize::try_from(days).unwrap_or(ADVICE_DAYS);
        let days = days.min(ADVICE_DAYS);
        self.days.rotate_right(days);
        self.days[..days].fill(DayPeaks::default());
        self.idle_ms = self.idle_ms.saturating_add(now_ms - then_ms);
        self.at = now;
    }

    /// The same by another clock.
    #[must_use]
    pub fn by_clock(self, now: Timestamp) -> Self {
        Self { at: now, ..self }
    }

    /// Takes in what was seen elsewhere of the same class. Both are as of the later time then.
    pub fn merge(&mut self, mut other: Self) {
        self.advance(other.at);
        other.advance(self.at);
        // Of two that are equally new the one that asks for more.
        let newness = |one: &Self| {
            let asked = (one.asked_cpu_milli, one.asked_mem_bytes);
            (std::cmp::Reverse(one.idle_ms), asked, one.cpu_limit_milli)
        };
        if newness(&other) > newness(self) {
            self.asked_cpu_milli = other.asked_cpu_milli;
            self.asked_mem_bytes = other.asked_mem_bytes;
            self.cpu_limit_milli = other.cpu_limit_milli;
        }
        self.tasks = self.tasks.saturating_add(other.tasks);
        self.running = self.running.saturating_add(other.running);
        self.seen_ms = self.seen_ms.saturating_add(other.seen_ms);
        self.cpu_seen_ms = self.cpu_seen_ms.saturating_add(other.cpu_seen_ms);
        self.throttled_ms = self.throttled_ms.saturating_add(other.throttled_ms);
        self.idle_ms = self.idle_ms.min(other.idle_ms);
        self.cpu.merge(&other.cpu);
        self.mem.merge(&other.mem);
        for (day, other) in self.days.iter_mut().zip(&other.days) {
            day.merge(other);
        }
    }

    /// The most of all days.
    pub fn peaks(&self) -> DayPeaks {
        let mut most = DayPeaks::default();
        self.days.iter().for_each(|day| most.merge(day));
        most
    }

    /// In so many thousandths of the time in which their CPU counts their own ceiling has held tasks back.
    pub fn throttled_permille(&self) -> u64 {
        let total_ms = u128::from(self.cpu.total_ms()).max(1);
        let permille = u128::from(self.throttled_ms) * 1_000 / total_ms;
        u64::try_from(permille).unwrap_or(u64::MAX).min(1_000)
    }

    /// Whether none runs and nothing of what was seen counts any more.
    pub fn is_spent(&self) -> bool {
        self.running == 0
            && self.cpu.is_empty()
            && self.mem.is_empty()
            && self.peaks() == DayPeaks::default()
    }
}

/// How what a class asks for stands to what it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fit {
    /// It asks for more than it needs.
    OverAsked,
    /// It asks for less than it needs.
    UnderAsked,
    /// It asks for what it needs.
    Right,
    /// Too little was seen of it to say.
    NotEnoughSeen,
}

impl Fit {
    /// Every one of them.
    pub const ALL: [Self; 4] = [
        Self::OverAsked,
        Self::UnderAsked,
        Self::Right,
        Self::NotEnoughSeen,
    ];

    /// The word for people and tools.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OverAsked => "over-asked",
            Self::UnderAsked => "under-asked",
            Self::Right => "right",
            Self::NotEnoughSeen => "not enough seen",
        }
    }

    /// What holds of both of two kinds of resources: what is lacking comes before what is too much, and what is known
    /// before what is not.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::UnderAsked, _) | (_, Self::UnderAsked) => Self::UnderAsked,
            (Self::OverAsked, _) | (_, Self::OverAsked) => Self::OverAsked,
            (Self::Right, _) | (_, Self::Right) => Self::Right,
            (Self::NotEnoughSeen, Self::NotEnoughSeen) => Self::NotEnoughSeen,
        }
    }
}

/// What is advised of one kind of resource, in its unit. What is not known is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindAdvice {
    /// What a task asks for.
    pub asked: u64,
    /// What it does not use more than half of the time.
    pub p50: Option<u64>,
    /// What it does not use more than 95 % of the time.
    pub p95: Option<u64>,
    /// The most that any of them used within [`ADVICE_DAYS`].
    pub peak: Option<u64>,
    /// What it should ask for.
    pub advice: Option<u64>,
    /// How the two stand to one another.
    pub fit: Fit,
}

impl KindAdvice {
    /// What so many tasks would ask for less if the advice were followed; below 0 if they would ask for more. Nothing
    /// while there is no advice, or what is asked for is right.
    pub fn spared(&self, tasks: u64) -> i128 {
        let advice = match self.fit {
            Fit::OverAsked | Fit::UnderAsked => self.advice.unwrap_or(self.asked),
            Fit::Right | Fit::NotEnoughSeen => self.asked,
        };
        (i128::from(self.asked) - i128::from(advice)).saturating_mul(i128::from(tasks))
    }
}

/// What is advised of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassAdvice {
    /// The class.
    pub key: ClassKey,
    /// Tasks that were seen.
    pub tasks: u64,
    /// Tasks that run now.
    pub running: u64,
    /// For how long they were measured, each for itself, in milliseconds.
    pub seen_ms: u64,
    /// CPU, in thousandths of a core.
    pub cpu: KindAdvice,
    /// Memory, in bytes.
    pub mem: KindAdvice,
    /// In so many thousandths of the time their own ceiling of CPU has held tasks back.
    pub throttled_permille: u64,
    /// Processes that were killed because their task had reached its own limit of memory, within [`ADVICE_DAYS`].
    pub ooms: u64,
    /// The highest limit at which one was, in bytes; none where none was.
    pub oom_limit_bytes: Option<u64>,
    /// Tasks that ended by themselves and well, within [`ADVICE_DAYS`].
    pub finished: u64,
    /// The longest that one of them had run, in milliseconds; none where none has ended.
    pub life_ms: Option<u64>,
}

impl ClassAdvice {
    /// How what it asks for stands to what it uses.
    pub const fn fit(&self) -> Fit {
        self.cpu.fit.and(self.mem.fit)
    }
}

/// Of which classes advice is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdviceFilter {
    /// Those of this framework; of all if it is not given.
    pub framework_id: Option<FrameworkId>,
    /// Those of exactly this name; all if it is not given.
    pub class: Option<String>,
}

impl AdviceFilter {
    /// Whether this one is meant.
    pub fn admits(&self, key: &ClassKey) -> bool {
        let framework = self.framework_id.as_ref();
        framework.is_none_or(|id| *id == key.framework_id)
            && self.class.as_ref().is_none_or(|class| *class == key.class)
    }
}

/// What is advised of all classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// When this was true.
    pub at: Timestamp,
    /// The classes, by framework and class.
    pub classes: Vec<ClassAdvice>,
    /// How many there are more.
    pub left_out: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(at_ms: u64) -> ClassUse {
        let framework_id = FrameworkId::new("f").expect("valid");
        let class = String::from("web");
        ClassUse::new(
            ClassKey {
                framework_id,
                class,
            },
            Timestamp::from_ms(at_ms),
        )
    }

    #[test]
    fn a_days_peak_counts_for_eight_days_and_no_longer() {
        let mut seen = class(DAY_MS - 1);
        seen.days[0].mem_bytes = 700;
        seen.mem.add(700, 1);
        seen.advance(Timestamp::from_ms(DAY_MS));
        assert_eq!((seen.days[0].mem_bytes, seen.days[1].mem_bytes), (0, 700));
        seen.days[0].ooms = 2;
        seen.advance(Timestamp::from_ms(8 * DAY_MS - 1));
        assert_eq!(seen.peaks().mem_bytes, 700);
        seen.advance(Timestamp::from_ms(8 * DAY_MS));
        assert_eq!((seen.peaks().mem_bytes, seen.peaks().ooms), (0, 2));
        assert!(!seen.is_spent());
        seen.advance(Timestamp::from_ms(u64::MAX));
        assert!(seen.is_spent());
        assert_eq!(seen.idle_ms, u64::MAX - (DAY_MS - 1));
    }

    #[test]
    fn the_share_of_the_time_that_was_held_back_fades_with_that_time() {
        let mut seen = class(0);
        seen.cpu.add(500, 8_000_000);
        seen.throttled_ms = 2_000_000;
        assert_eq!(seen.throttled_permille(), 250);
        seen.advance(Timestamp::from_ms(2 * DAY_MS));
        assert_eq!(seen.throttled_permille(), 250);
        seen.cpu.add(500, 2_000_000);
        assert_eq!(seen.throttled_permille(), 125);
        seen.throttled_ms = u64::MAX;
        assert_eq!(seen.throttled_permille(), 1_000);
    }

    #[test]
    fn time_that_runs_backward_changes_nothing() {
        let mut seen = class(5 * DAY_MS);
        seen.cpu.add(3, 1_000_000);
        let before = seen.clone();
        seen.advance(Timestamp::from_ms(0));
        assert_eq!(seen, before);
    }

    #[test]
    fn what_two_agents_have_seen_is_added_up_as_of_the_later_time() {
        let (mut a, mut b) = (class(10 * DAY_MS), class(11 * DAY_MS));
        a.cpu.add(1_000, 4_000_000);
        b.cpu.add(100, 4_000_000);
        (a.tasks, b.tasks) = (2, 3);
        (a.seen_ms, b.seen_ms) = (10, 20);
        (a.asked_cpu_milli, b.asked_cpu_milli) = (2_000, 1_500);
        a.days[0].mem_bytes = 7;
        b.days[0].mem_bytes = 5;
        (a.days[0].ooms, b.days[0].ooms) = (1, 1);
        let mut forth = a.clone();
        forth.merge(b.clone());
        let mut back = b;
        back.merge(a);
        assert_eq!(forth, back);
        assert_eq!((forth.tasks, forth.seen_ms), (5, 30));
        // The one that was measured last says what is asked for.
        assert_eq!((forth.asked_cpu_milli, forth.idle_ms), (1_500, 0));
        assert_eq!((forth.days[0].mem_bytes, forth.days[1].mem_bytes), (5, 7));
        assert_eq!((forth.peaks().mem_bytes, forth.peaks().ooms), (7, 2));
        // The older half has faded to a third of the whole.
        assert_eq!(forth.cpu.percentile(660), forth.cpu.percentile(1));
        assert_eq!(forth.cpu.percentile(680), forth.cpu.percentile(1_000));
    }

    #[test]
    fn what_is_lacking_comes_before_what_is_too_much() {
        use Fit::{NotEnoughSeen, OverAsked, Right, UnderAsked};
        assert_eq!(OverAsked.and(UnderAsked), UnderAsked);
        assert_eq!(Right.and(OverAsked), OverAsked);
        assert_eq!(NotEnoughSeen.and(Right), Right);
        assert_eq!(NotEnoughSeen.and(NotEnoughSeen), NotEnoughSeen);
    }

    #[test]
    fn what_is_spared_is_of_all_tasks_and_negative_where_they_lack_it() {
        let kind = |asked, advice| KindAdvice {
            asked,
            p50: None,
            p95: None,
            peak: None,
            advice,
            fit: Fit::OverAsked,
        };
        assert_eq!(kind(1_000, Some(200)).spared(3), 2_400);
        assert_eq!(kind(100, Some(250)).spared(2), -300);
        assert_eq!(kind(100, None).spared(2), 0);
        let right = KindAdvice {
            fit: Fit::Right,
            ..kind(100, Some(95))
        };
        assert_eq!(right.spared(7), 0);
        assert_eq!(kind(0, Some(u64::MAX)).spared(u64::MAX), i128::MIN);
    }
}
