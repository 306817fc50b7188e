//! A worker that is paused for good, before any atomic step of its path, stops nobody.
//!
//! A course of events is played once to learn which steps workers make; then once for each step and some of its
//! repetitions, with the first worker that comes there held until all is over. From one wake after that on the others must
//! offer every agent, again and again: after declines, after more publications than an inbox holds (so that a copy of the
//! book comes), after batches that the driver does not take, after a quota that holds agents back is lifted, while
//! somebody reads the ledger. Nothing waits for a time:
//! every wait is for an event, and the test fails when none has come for [`PATIENCE`].
//!
//! The steps are those in the sources: one that no course reaches, and an atomic operation without one, fail the test.
//! Steps inside arc-swap and crossbeam-epoch cannot be stopped at; what those may not do is in the rules of
//! `cargo xtask tidy`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex, MutexGuard};

use super::*;
use crate::steps::watch;

const WORKERS: u32 = 3;
/// More than two words of 64.
const AGENTS: usize = 150;
/// Rounds in which everything is declined and offered again: as many before a pause as it takes, up to this, and …
const ROUNDS_BEFORE: usize = 40;
/// … after it.
const ROUNDS_AFTER: usize = 6;
/// Which repetitions of a step are paused at.
const REPETITIONS: [u64; 3] = [1, 2, 7];

const SOURCES: [&str; 7] = [
    include_str!("../wakes.rs"),
    include_str!("../work.rs"),
    include_str!("../inbox.rs"),
    include_str!("../../chain.rs"),
    include_str!("../worker.rs"),
    include_str!("../../ledger/slot.rs"),
    include_str!("../../ledger/mod.rs"),
];

type Target = (&'static str, u64);

#[derive(Default)]
struct Scene {
    /// How often workers have come to each step.
    counts: BTreeMap<&'static str, u64>,
    of_others: BTreeSet<&'static str>,
    /// The step to which each worker came last.
    last: BTreeMap<u32, &'static str>,
    target: Option<Target>,
    paused: Option<u32>,
    /// Whether whoever comes to a step waits until this ends.
    nap: bool,
    napping: BTreeSet<u32>,
    over: bool,
}

#[derive(Default)]
struct Director {
    scene: Mutex<Scene>,
    changed: Condvar,
}

impl Director {
    fn scene(&self) -> MutexGuard<'_, Scene> {
        self.scene.lock().unwrap()
    }

    /// A thread has come to a step.
    fn at(&self, worker: Option<u32>, step: &'static str, tell: &Sender<Event>) {
        let mut scene = self.scene();
        let Some(worker) = worker else {
            scene.of_others.insert(step);
            return;
        };
        let count = scene.counts.entry(step).or_default();
        *count += 1;
        let here = (step, *count);
        scene.last.insert(worker, step);
        if is_parked(step) {
            self.changed.notify_all();
        }
        if scene.target == Some(here) && scene.paused.is_none() && !scene.over {
            scene.paused = Some(worker);
            tell.send(Event::Paused).unwrap();
            self.changed.notify_all();
            drop(self.changed.wait_while(scene, |scene| !scene.over).unwrap());
            return;
        }
        if scene.nap {
            scene.napping.insert(worker);
            self.changed.notify_all();
            let mut scene = self.changed.wait_while(scene, |scene| scene.nap).unwrap();
            scene.napping.remove(&worker);
        }
    }

    /// Waits until every worker that is not paused has parked, so that none has anything in hand.
    fn wait_for_parked(&self) {
        let busy = |scene: &mut Scene| {
            let parked = |worker: &u32| scene.last.get(worker).is_some_and(|step| is_parked(step));
            let at_rest = |worker: &u32| scene.paused == Some(*worker) || parked(worker);
            !(0..WORKERS).all(|worker| at_rest(&worker))
        };
        let waited = self
            .changed
            .wait_timeout_while(self.scene(), PATIENCE, busy);
        assert!(!waited.unwrap().1.timed_out(), "a worker does not park");
    }

    /// Has every worker that is not paused wait at a step; how many.
    fn begin_nap(&self, rouse: impl FnOnce()) -> usize {
        self.scene().nap = true;
        rouse();
        let awake = |scene: &mut Scene| {
            scene.napping.len() + usize::from(scene.paused.is_some()) < WORKERS as usize
        };
        let waited = self
            .changed
            .wait_timeout_while(self.scene(), PATIENCE, awake);
        let (scene, timeout) = waited.unwrap();
        assert!(!timeout.timed_out(), "a worker comes to no step");
        scene.napping.len()
    }

    fn end_nap(&self) {
        self.scene().nap = false;
        self.changed.notify_all();
    }

    fn end(&self) {
        self.scene().over = true;
        self.changed.notify_all();
    }
}

fn is_parked(step: &str) -> bool {
    step.starts_with("park")
}

enum Event {
    Batch(Batch),
    Refused,
    Paused,
}

/// One course of events.
struct Course {
    director: Arc<Director>,
    driver: Driver,
    allocator: Allocator,
    events: Receiver<Event>,
    /// Whether the next batch is not taken.
    refuse: Arc<AtomicBool>,
    held: Vec<Proposal>,
    /// Agents of which the paused worker has offered something and not handed it over.
    in_hand: Option<usize>,
    /// Hears of everything that moves.
    progress: Sender<()>,
    weight: u32,
    /// Whether a quota stands that holds agents back until the first batch of a round.
    limited: bool,
}

impl Course {
    fn start(target: Option<Target>, progress: Sender<()>) -> Self {
        let director = Arc::new(Director::default());
        director.scene().target = target;
        let driver = Driver::new(AGENTS, 3);
        let (sender, events) = channel();
        let (watching, tell) = (Arc::clone(&director), Mutex::new(sender.clone()));
        watch::set(
            None,
            Some(Arc::new(move |worker, step| {
                let tell = tell.lock().unwrap().clone();
                watching.at(worker, step, &tell);
            })),
        );
        let refuse = Arc::new(AtomicBool::new(false));
        let refuses = Arc::clone(&refuse);
        let sink = move |batch| {
            if refuses.swap(false, Ordering::AcqRel) {
                sender.send(Event::Refused).unwrap();
                return Err(batch);
            }
            sender.send(Event::Batch(batch)).unwrap();
            Ok(())
        };
        let allocator =
            Allocator::start(WORKERS, Arc::clone(&driver.ledger), &driver.claims, sink).unwrap();
        Self {
            director,
            driver,
            allocator,
            events,
            refuse,
            held: Vec::new(),
            in_hand: None,
            progress,
            weight: 0,
            limited: false,
        }
    }

    fn publish(&mut self) {
        self.driver.publish(&self.allocator);
        self.progress.send(()).unwrap();
    }

    fn change(&mut self) {
        self.weight = self.weight % 1000 + 1;
        self.driver.claims.set_weight(&role(), self.weight);
        self.publish();
    }

    fn limit(&mut self, cpu_milli: Option<u64>) {
        self.limited = cpu_milli.is_some();
        // Memory too, or agents would be split.
        let mem_bytes = cpu_milli.map(|cpu| cpu / total().cpu_milli() * total().mem_bytes());
        let limits = Limits::NONE
            .with(ResourceKind::Cpus, cpu_milli)
            .with(ResourceKind::Mem, mem_bytes);
        let quota = Quota {
            limits,
            ..Quota::default()
        };
        self.driver.claims.set_quota(&role(), quota);
    }

    fn is_paused(&self) -> bool {
        self.director.scene().paused.is_some()
    }

    /// Everything that is held is declined, and everything must be offered again.
    fn round(&mut self, number: usize) {
        for proposal in std::mem::take(&mut self.held) {
            self.driver.decline(&proposal);
        }
        self.refuse
            .store(!number.is_multiple_of(2), Ordering::Release);
        self.limit(Some(total().cpu_milli() * AGENTS as u64 / 2));
        self.publish();
        if number % 3 == 2 {
            self.fall_behind();
        }
        if number.is_multiple_of(2) {
            self.allocator.wake_all();
        } else {
            let slots = self.driver.ledger.slots();
            self.allocator.wake(slots.values());
        }
        self.offer_all();
        self.refuse.store(false, Ordering::Release);
        let unknown = self.unknown();
        if self.is_paused() {
            let in_hand = *self.in_hand.get_or_insert(unknown);
            assert_eq!(
                unknown, in_hand,
                "offers were lost beside the paused worker's"
            );
        } else {
            assert_eq!(unknown, 0, "offers were lost");
        }
    }

    /// Takes events in until every agent is offered and no worker that goes on has anything in hand.
    fn offer_all(&mut self) {
        loop {
            while self.is_free() {
                let event = self.events.recv_timeout(PATIENCE);
                self.take(event.expect("an agent is free, and nothing comes"));
            }
            self.director.wait_for_parked();
            match self.events.try_recv() {
                Ok(event) => self.take(event),
                Err(_) if self.is_free() => {}
                Err(_) => return,
            }
        }
    }

    fn is_free(&self) -> bool {
        let slots = self.driver.ledger.slots();
        slots.values().any(|slot| !slot.load().free().is_zero())
    }

    /// More is published than an inbox holds while nobody reads.
    fn fall_behind(&mut self) {
        let director = Arc::clone(&self.director);
        let before = self.allocator.figures().copies;
        let napping = director.begin_nap(|| self.change());
        for _ in 0..=MAX_PUBLICATIONS_BEHIND {
            self.change();
        }
        director.end_nap();
        let copies = self.allocator.figures().copies - before;
        assert!(copies >= napping as u64, "{copies} for {napping} workers");
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Batch(batch) => {
                self.driver.take_in(&batch);
                self.held.extend(batch.proposals);
                let was_limited = self.limited;
                self.limit(None);
                self.publish();
                if was_limited {
                    self.allocator.wake_held_back();
                }
            }
            Event::Refused => self.change(),
            // What it had taken is woken once more, and from then on each wake is enough.
            Event::Paused => self.allocator.wake_all(),
        }
        self.progress.send(()).unwrap();
    }

    /// What each agent has out in offers that the driver knows of.
    fn known(&self) -> BTreeMap<AgentId, Resources> {
        let mut known: BTreeMap<AgentId, Resources> = BTreeMap::new();
        for proposal in &self.held {
            let sum = known.entry(self.driver.agent_of(proposal)).or_default();
            *sum = sum.checked_add(&proposal.resources).unwrap();
        }
        known
    }

    /// Agents of which more is offered than the driver knows of.
    fn unknown(&self) -> usize {
        let known = self.known();
        let slots = self.driver.ledger.slots();
        let differs = |id: &AgentId, offered: Resources| {
            offered != known.get(id).copied().unwrap_or_default()
        };
        let offered = slots.iter().map(|(id, slot)| (id, slot.load().offered));
        offered
            .filter(|(id, offered)| differs(id, *offered))
            .count()
    }

    /// Plays it; whether somebody was paused.
    fn play(mut self) -> (bool, Arc<Director>) {
        let (ledger, over) = (
            Arc::clone(&self.driver.ledger),
            Arc::new(AtomicBool::new(false)),
        );
        let reads = Arc::new(AtomicU64::new(0));
        let reader = std::thread::spawn({
            let (reads, over) = (Arc::clone(&reads), Arc::clone(&over));
            move || {
                while !over.load(Ordering::Acquire) {
                    assert_eq!(ledger.check(), Ok(()));
                    assert!(ledger.get(&agent(7)).is_some());
                    reads.fetch_add(1, Ordering::AcqRel);
                    std::thread::yield_now();
                }
            }
        });
        self.publish();
        let recording = self.director.scene().target.is_none();
        let mut rounds = 0;
        while !self.is_paused() && rounds < ROUNDS_BEFORE {
            self.round(rounds);
            rounds += 1;
        }
        let was_paused = self.is_paused();
        let read_before = reads.load(Ordering::Acquire);
        for _ in 0..ROUNDS_AFTER {
            if !recording {
                self.round(rounds);
            }
            rounds += 1;
        }
        while reads.load(Ordering::Acquire) == read_before {
            std::thread::yield_now();
        }
        over.store(true, Ordering::Release);
        reader.join().unwrap();
        self.end();
        (was_paused, self.director)
    }

    /// Lets a paused worker go on, and sees that all books agree in the end.
    fn end(&mut self) {
        self.director.end();
        let none = Allocator::start(1, Arc::default(), &Claims::new(), Err).unwrap();
        let planners = std::mem::replace(&mut self.allocator, none).end();
        while let Ok(event) = self.events.try_recv() {
            if let Event::Batch(batch) = event {
                self.driver.take_in(&batch);
                self.held.extend(batch.proposals);
            }
        }
        assert_eq!(self.unknown(), 0, "an offer was lost");
        assert_eq!(self.driver.ledger.check(), Ok(()));
        assert_eq!(self.driver.claims.fault(), None);
        assert_eq!(planners.len(), WORKERS as usize);
        for mut planner in planners {
            planner.forget_proposals();
            assert_eq!(planner.claims().fault(), None);
        }
    }
}

/// Plays a course on a thread of its own and fails when nothing moves.
fn play(target: Option<Target>) -> (bool, Arc<Director>) {
    let (progress, moves) = channel();
    let thread = std::thread::spawn(move || Course::start(target, progress).play());
    loop {
        match moves.recv_timeout(PATIENCE) {
            Ok(()) => {}
            Err(RecvTimeoutError::Disconnected) => break,
            // The threads are left behind: they cannot be ended.
            Err(RecvTimeoutError::Timeout) => panic!("nothing moves with {target:?} paused"),
        }
    }
    let played = thread.join();
    played.unwrap_or_else(|_| panic!("with {target:?} paused; see above"))
}

/// The sources without their tests.
fn code() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    SOURCES.into_iter().map(|source| {
        let code = source.split("#[cfg(test)]").next().unwrap_or("");
        let code = code
            .split("#[cfg(feature = \"loom\")]\npub mod")
            .next()
            .unwrap_or("");
        (source, code.lines().collect())
    })
}

#[test]
fn a_worker_that_is_paused_before_any_step_stops_nobody() {
    let (_, recorded) = play(None);
    let steps = recorded.scene().counts.clone();
    let of_others = recorded.scene().of_others.clone();
    let declared: BTreeSet<&str> = code()
        .flat_map(|(_, lines)| lines)
        .filter_map(|line| line.trim().strip_prefix("step(\"")?.strip_suffix("\");"))
        .collect();
    let reached: BTreeSet<&str> = steps.keys().copied().chain(of_others).collect();
    assert_eq!(reached, declared, "steps reached, and steps in the sources");
    assert!(steps.len() > 10, "workers reach {steps:?}");
    let mut paused = 0;
    for (step, count) in &steps {
        let mut of_step = 0;
        for repetition in REPETITIONS.into_iter().filter(|one| one <= count) {
            of_step += usize::from(play(Some((step, repetition))).0);
        }
        assert!(of_step > 0, "nobody was paused before `{step}`");
        paused += of_step;
    }
    println!("{paused} pauses at {} steps: {steps:?}", steps.len());
}

/// Operations on atomics but for adding and removing agents, which the driver alone does; and those that need no step of
/// their own: how long a chain is and its end, counters, where the next search begins, a look at a word that is exchanged right after, the flag that ends
/// everything, loads of a slot, whose step stands in the slot, and looks-up by id, which are the driver's.
const OPERATIONS: [&str; 7] = [
    ".swap(",
    ".load(",
    ".load_full(",
    ".store(",
    ".fetch_",
    ".compare_",
    "park(",
];
const EXEMPT: [&str; 10] = [
    "counter.fetch_add",
    "unlink(self.0.swap(None))",
    ".fetch_add(u64::from(conflicts)",
    "load(Ordering::Relaxed),",
    "self.next.",
    "self.words[at].load(",
    "stop.load(",
    "self.published.",
    "slot.load()",
    "self.slots.load()",
];
/// So many lines before an operation its step may stand.
const NEAR: usize = 4;

#[test]
fn every_atomic_operation_of_the_path_has_its_step() {
    let mut found = 0;
    for (_, lines) in code() {
        for (at, line) in lines.iter().enumerate() {
            let text = line.trim();
            let counts = OPERATIONS.iter().any(|operation| text.contains(operation))
                && !text.starts_with("//")
                && !text.starts_with("use ")
                && !text.contains("fn ")
                && !EXEMPT.iter().any(|exempt| text.contains(exempt));
            if !counts {
                continue;
            }
            found += 1;
            let near = &lines[at.saturating_sub(NEAR)..at];
            assert!(
                near.iter().any(|line| line.trim().starts_with("step(\"")),
                "no step before `{text}`"
            );
        }
    }
    assert!(found > 10, "only {found} operations were found");
}
