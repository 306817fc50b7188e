//! What each class of tasks uses, for advice on what it should ask for and for what to expect of the next one.
//!
//! **Problem.** Tasks come and go, and rates forget. What instances of one thing need shows over days and on all
//! machines: each agent keeps what it has seen of each class, and the master adds it up.
//!
//! **Way.** Once in [`FOLD_MS`] what each running task uses is taken into its class: CPU over the last second, memory at
//! the last full sample. Who is lent CPU gets what others leave; what it used then says nothing of what it needs, and only
//! its memory counts. In a second in which its own ceiling held a task back its use is noted as a lower bound.
//!
//! **Invariants.** Nothing is counted that was not measured: after a gap the time in between is not. Time counts for at
//! most [`MAX_FOLD_MS`] a reading. What is told to the master is absolute, so that a message that is lost harms nobody.
//!
//! **Price.** Per task and second two searches by key and two in a histogram; at most [`MAX_CLASSES_PER_AGENT`] classes of
//! at most 9 KiB, 1 to 2 KiB as a rule. When there are more, the one that was idle for longest leaves; while all run, new
//! ones are not followed. Both are counted.

use std::collections::BTreeMap;

use ebb_types::limits::{MAX_CLASSES_PER_AGENT, MAX_CLASSES_PER_REPORT};
use ebb_types::{ClassKey, ClassUse, ContainerId, Quantities, ResourceKind, TaskUsage, Timestamp};

use super::account::{Holder, OomCause, OomKilled, OomVictim, Since};
use super::running::RunningView;
use super::siblings::Siblings;

/// How often what tasks use is taken in, in milliseconds: the length of the window over which CPU is measured.
pub const FOLD_MS: u64 = 1_000;
/// What one reading stands for at most, in milliseconds.
pub const MAX_FOLD_MS: u64 = 2_000;
/// How often the master is told of a class at most, but for kills, in milliseconds.
pub const TELL_EVERY_MS: u64 = 60_000;
/// A task counts as held back in a second in which its ceiling did so for a tenth of it, over all its threads.
const HELD_BACK_PERMILLE: u64 = 100;
const HOUR_MS: u64 = 3_600_000;

/// What went wrong; these only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCounters {
    /// Classes that left for want of room.
    pub dropped: u64,
    /// Tasks whose class could not be followed, since as many run as there may be.
    pub unfollowed: u64,
}

#[derive(Clone, Debug)]
struct Slot {
    seen: ClassUse,
    told_at: Option<Timestamp>,
    /// Since it was told.
    has_changed: bool,
}

/// A container of a class.
#[derive(Clone, Debug)]
struct Member {
    key: ClassKey,
    /// What was known of the class when it began.
    siblings: Option<Siblings>,
    /// When it was launched; not known of one that was found running.
    launched_at: Option<Timestamp>,
}

/// How a container's end came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By itself, and well: its task lived as long as such tasks do.
    Finished,
    /// In any other way.
    Other,
}

/// What this agent has seen of each class.
#[derive(Clone, Debug, Default)]
pub(super) struct Classes {
    classes: BTreeMap<ClassKey, Slot>,
    /// All containers that run.
    containers: BTreeMap<ContainerId, Member>,
    folded_at: Option<Timestamp>,
    counters: ClassCounters,
}

fn key_of(holder: &Holder) -> ClassKey {
    ClassKey {
        framework_id: holder.framework_id.clone(),
        class: holder.class.clone(),
    }
}

impl Classes {
    /// A container is launched, or was found running.
    pub(super) fn begin(
        &mut self,
        now: Timestamp,
        container_id: &ContainerId,
        holder: &Holder,
        since: Since,
    ) {
        self.end(now, container_id, End::Other);
        let key = key_of(holder);
        let is_new = !self.classes.contains_key(&key);
        if is_new && !self.make_room() {
            self.counters.unfollowed += 1;
            return;
        }
        let slot = self.classes.entry(key.clone()).or_insert_with(|| Slot {
            seen: ClassUse::new(key.clone(), now),
            told_at: None,
            has_changed: false,
        });
        slot.seen.advance(now);
        let siblings = siblings(&slot.seen);
        slot.seen.running += 1;
        slot.seen.tasks += u64::from(since == Since::Launch);
        // Of a new one there is nothing to tell before it is measured, a second later.
        slot.has_changed |= !is_new;
        let member = Member {
            key,
            siblings,
            launched_at: (since == Since::Launch).then_some(now),
        };
        self.containers.insert(container_id.clone(), member);
    }

    /// A container is gone; one that is not known is fine.
    pub(super) fn end(&mut self, now: Timestamp, container_id: &ContainerId, end: End) {
        let Some(member) = self.containers.remove(container_id) else {
            return;
        };
        let Some(slot) = self.classes.get_mut(&member.key) else {
            return;
        };
        slot.seen.running = slot.seen.running.saturating_sub(1);
        slot.has_changed = true;
        if let (End::Finished, Some(launched_at)) = (end, member.launched_at) {
            slot.seen.advance(now);
            let [today, ..] = &mut slot.seen.days;
            today.finished += 1;
            today.life_ms = today.life_ms.max(now.ms_since(launched_at));
        }
    }

    /// What was known of others of a container's class when it began.
    pub(super) fn siblings(&self, container_id: &ContainerId) -> Option<Siblings> {
        self.containers.get(container_id)?.siblings
    }

    /// Room for one more, if need be by dropping the one that was idle for longest.
    fn make_room(&mut self) -> bool {
        if self.classes.len() < MAX_CLASSES_PER_AGENT {
            return true;
        }
        let idle = self.classes.values().map(|slot| &slot.seen);
        let idle = idle.filter(|seen| seen.running == 0);
        let last_used = |seen: &&ClassUse| seen.at.as_ms().saturating_sub(seen.idle_ms);
        let Some(key) = idle.min_by_key(last_used).map(|seen| seen.key.clone()) else {
            return false;
        };
        self.counters.dropped += 1;
        self.classes.remove(&key).is_some()
    }

    /// Takes in what tasks use, if it is time.
    pub(super) fn fold<'a>(
        &mut self,
        now: Timestamp,
        tasks: impl Iterator<Item = (&'a RunningView, &'a TaskUsage)>,
    ) {
        let Some(before) = self.folded_at else {
            self.folded_at = Some(now);
            return;
        };
        let passed_ms = now.ms_since(before);
        if passed_ms < FOLD_MS {
            return;
        }
        self.folded_at = Some(now);
        if now.as_ms() / HOUR_MS != before.as_ms() / HOUR_MS {
            self.forget_spent(now);
        }
        let ms = passed_ms.min(MAX_FOLD_MS);
        for (view, usage) in tasks {
            let known = self.containers.get(&view.container_id);
            if let Some(slot) = known.and_then(|member| self.classes.get_mut(&member.key)) {
                slot.seen.advance(now);
                slot.has_changed |= take_in(&mut slot.seen, view, usage, ms);
            }
        }
    }

    fn forget_spent(&mut self, now: Timestamp) {
        self.classes.retain(|_, slot| {
            slot.seen.advance(now);
            !slot.seen.is_spent()
        });
    }

    /// Processes were killed for want of memory.
    pub(super) fn on_kill(&mut self, now: Timestamp, killed: &OomKilled) {
        let (OomVictim::Container(_, holder), OomCause::OwnLimit { limit_bytes }) =
            (&killed.victim, killed.cause)
        else {
            return;
        };
        if let Some(slot) = self.classes.get_mut(&key_of(holder)) {
            slot.seen.advance(now);
            let [today, ..] = &mut slot.seen.days;
            today.ooms += 1;
            today.oom_limit_bytes = today.oom_limit_bytes.max(limit_bytes);
            // That is worth telling at once.
            (slot.told_at, slot.has_changed) = (None, true);
        }
    }

    /// What the master is to be told now: of those that have changed the ones that it was told of longest ago.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<ClassUse> {
        let is_due = |slot: &Slot| {
            let is_time = |at| now.ms_since(at) >= TELL_EVERY_MS;
            slot.has_changed && slot.told_at.is_none_or(is_time)
        };
        let mut due: Vec<_> = self.classes.values_mut().collect();
        due.retain(|slot| is_due(slot));
        due.sort_by_key(|slot| slot.told_at);
        due.truncate(MAX_CLASSES_PER_REPORT);
        let told = due.into_iter().map(|slot| {
            slot.seen.advance(now);
            slot.told_at = Some(now);
            slot.has_changed = false;
            slot.seen.clone()
        });
        told.collect()
    }

    /// The master may know nothing: it is told of all of them.
    pub(super) fn tell_all(&mut self) {
        for slot in self.classes.values_mut() {
            (slot.told_at, slot.has_changed) = (None, true);
        }
    }

    /// What to keep over a restart.
    pub(super) fn kept(&self) -> Vec<ClassUse> {
        let seen = self.classes.values().map(|slot| &slot.seen);
        seen.cloned().collect()
    }

    /// Takes up what was kept before a restart, before any container began. What was not running since is none the less
    /// older; where the clock has gone backward it is as of now.
    pub(super) fn take_up(&mut self, now: Timestamp, kept: Vec<ClassUse>) {
        for seen in kept.into_iter().take(MAX_CLASSES_PER_AGENT) {
            let mut seen = match seen.at > now {
                true => seen.by_clock(now),
                false => seen,
            };
            seen.advance(now);
            seen.running = 0;
            let slot = Slot {
                seen,
                told_at: None,
                has_changed: true,
            };
            self.classes.insert(slot.seen.key.clone(), slot);
        }
    }

    /// How many are followed.
    pub(super) fn len(&self) -> usize {
        self.classes.len()
    }

    pub(super) const fn counters(&self) -> ClassCounters {
        self.counters
    }
}

/// What those of a class that have ended say of the next one.
fn siblings(seen: &ClassUse) -> Option<Siblings> {
    let ended = seen.tasks.checked_sub(seen.running)?;
    let peaks = seen.peaks();
    (ended > 0).then(|| Siblings {
        ended,
        life_ms: seen.seen_ms / seen.tasks,
        asked: Quantities::cpus_mem(seen.asked_cpu_milli, seen.asked_mem_bytes),
        most: Quantities::cpus_mem(peaks.cpu_milli, peaks.mem_bytes),
        finished: peaks.finished,
        longest_ms: peaks.life_ms,
    })
}

/// What one task has used for so long; whether anything of it was measured.
fn take_in(seen: &mut ClassUse, view: &RunningView, usage: &TaskUsage, ms: u64) -> bool {
    let used = &usage.used;
    let [today, ..] = &mut seen.days;
    let mem_bytes = used.mem_bytes;
    if let Some(bytes) = mem_bytes {
        seen.mem.add(bytes, ms);
        seen.seen_ms = seen.seen_ms.saturating_add(ms);
        today.mem_bytes = today.mem_bytes.max(bytes);
    }
    let is_lent_cpu = view.allocated.revocable.cpu_milli() > 0;
    let cpu_milli = used.cpu_milli.filter(|_| !is_lent_cpu);
    if let Some(milli) = cpu_milli {
        seen.cpu.add(milli, ms);
        seen.cpu_seen_ms = seen.cpu_seen_ms.saturating_add(ms);
        today.cpu_milli = today.cpu_milli.max(milli);
        let held_back = used.throttled_permille.unwrap_or(0);
        if view.cpu_limit_milli.is_some() && held_back >= HELD_BACK_PERMILLE {
            seen.throttled_ms = seen.throttled_ms.saturating_add(ms);
        }
    }
    let is_measured = cpu_milli.is_some() || mem_bytes.is_some();
    if is_measured {
        seen.idle_ms = 0;
        seen.asked_cpu_milli = view.allocated.total(ResourceKind::Cpus);
        seen.asked_mem_bytes = view.allocated.total(ResourceKind::Mem);
        seen.cpu_limit_milli = view.cpu_limit_milli;
    }
    is_measured
}

#[cfg(test)]
mod tests;
