//! Worker threads, as many as a large master has, under every change that a driver makes, for as many transitions of the
//! ledger as are asked for ([`VARIABLE`]).
//!
//! The workers pause at random, from a seed of each: at every atomic step they may yield or sleep. The driver takes in
//! batches and declines, accepts, ends tasks, withdraws; it resizes, retires and re-inserts agents, and changes
//! frameworks and weights. In between, everything is let come to rest, and checked: on every agent what is offered,
//! allocated and free adds up and is what the driver knows of; the book of claims has no fault and says what the driver
//! holds, and so does every worker's copy; and nothing that somebody wants is left free.

use std::cell::Cell;
use std::time::Instant;

use super::*;
use crate::core::claims::NotHeld;
use crate::core::limits::is_allocatable;
use crate::ledger::Refused;
use crate::steps::watch;

/// How many transitions, in all.
const VARIABLE: &str = "EBB_STRESS_TRANSITIONS";
/// What fits into a run of all tests.
const USUALLY: u64 = 3_000_000;
/// Times at which everything comes to rest.
const RESTS: u64 = 5;
const WORKERS: u32 = 8;
const AGENTS: usize = 1_000;
const FRAMEWORKS: usize = 40;
const ROLES: usize = 5;
/// Most tasks and offers that are held, so that there is always something free.
const MOST_HELD: usize = 2_000;
/// One step in so many a worker yields, and one in so many it sleeps.
const YIELDS: u64 = 64;
const SLEEPS: u64 = 20_000;
const SLEEP: Duration = Duration::from_micros(300);

/// Numbers from a seed (SplitMix64).
#[derive(Clone, Copy)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % sides
    }

    fn index(&mut self, len: usize) -> usize {
        self.roll(len as u64) as usize
    }
}

/// Has the workers that this thread starts pause at random.
fn pause_at_random() {
    thread_local! {
        static DICE: Cell<Option<Dice>> = const { Cell::new(None) };
    }
    let watcher = |worker: Option<u32>, _step: &'static str| {
        let Some(worker) = worker else { return };
        let mut dice = DICE.get().unwrap_or(Dice(u64::from(worker)));
        if dice.roll(SLEEPS) == 0 {
            std::thread::sleep(SLEEP);
        } else if dice.roll(YIELDS) == 0 {
            std::thread::yield_now();
        }
        DICE.set(Some(dice));
    };
    watch::set(None, Some(Arc::new(watcher)));
}

fn role_of(framework: usize) -> Role {
    Role::new(format!("role-{}", framework % ROLES)).unwrap()
}

/// A proposal, its numbers looked up.
#[derive(Clone, Debug)]
struct Named {
    agent_id: AgentId,
    incarnation: Incarnation,
    framework_id: FrameworkId,
    role: Role,
}

/// Resources that a framework holds on an agent: an offer or a task.
#[derive(Clone)]
struct Held {
    by: Named,
    resources: Resources,
}

/// The driver, with books of its own.
struct Play {
    ledger: Arc<Ledger>,
    claims: Claims,
    dice: Dice,
    now: Timestamp,
    /// The lives of the agents that there are.
    lives: Vec<Option<Incarnation>>,
    next_life: u64,
    offers: Vec<Held>,
    tasks: Vec<Held>,
    woken: BTreeSet<AgentId>,
    wake_all: bool,
    figures: BTreeMap<&'static str, u64>,
}

impl Play {
    fn new() -> Self {
        let mut play = Self {
            ledger: Arc::default(),
            claims: Claims::new(),
            dice: Dice(7),
            now: NOW,
            lives: vec![None; AGENTS],
            next_life: 1,
            offers: Vec::new(),
            tasks: Vec::new(),
            woken: BTreeSet::new(),
            wake_all: true,
            figures: BTreeMap::new(),
        };
        (0..AGENTS).for_each(|number| play.insert(number));
        play.want_everything();
        play
    }

    fn count(&mut self, what: &'static str) {
        *self.figures.entry(what).or_default() += 1;
    }

    fn size(&mut self) -> (Quantities, Quantities) {
        let (cpus, lent) = (4 + self.dice.roll(12), self.dice.roll(4));
        (
            Quantities::cpus_mem(cpus * 1000, cpus << 30),
            Quantities::cpus_mem(lent * 1000, lent << 30),
        )
    }

    fn insert(&mut self, number: usize) {
        let (id, life, (total, lent)) = (agent(number), Incarnation(self.next_life), self.size());
        self.next_life += 1;
        self.lives[number] = Some(life);
        self.claims.set_agent(&id, total, lent);
        let of_claims = self.claims.agent_number(&id).unwrap();
        let first = AgentLedger::new(life, total, lent);
        self.ledger.insert(id.clone(), of_claims, first);
        self.woken.insert(id);
    }

    /// Every framework is active and suppresses nothing; the first two of each role take what is lent.
    fn want_everything(&mut self) {
        (0..FRAMEWORKS).for_each(|number| self.set_framework(number, true, false));
    }

    fn set_framework(&mut self, number: usize, active: bool, suppressed: bool) {
        let roles = BTreeSet::from([role_of(number)]);
        let terms = FrameworkTerms {
            suppressed: roles.iter().filter(|_| suppressed).cloned().collect(),
            roles,
            active,
            revocable: number < 2 * ROLES,
            ..FrameworkTerms::default()
        };
        self.claims.set_framework(&framework(number), terms);
        self.wake_all |= active && !suppressed;
    }

    fn life(&self, id: &AgentId) -> Option<Incarnation> {
        let number: usize = id.as_str().strip_prefix("agent-")?.parse().ok()?;
        self.lives[number]
    }

    fn transit(&mut self, by: &Named, transition: Transition) {
        let made = self.ledger.apply(&by.agent_id, by.incarnation, &transition);
        assert_eq!(made, Ok(()), "{transition:?} of {by:?}");
    }

    fn credit(&mut self, by: &Named, resources: &Resources) {
        let credited: Result<(), NotHeld> =
            self.claims.credit(&by.framework_id, &by.role, resources);
        assert_eq!(credited, Ok(()));
        self.woken.insert(by.agent_id.clone());
    }

    /// Takes a batch in as the core does: what no longer holds is taken back.
    fn take_in(&mut self, batch: Batch) {
        self.claims.note_batch(batch.id);
        for proposal in batch.proposals {
            let agent_id = self.claims.agent_id(proposal.agent).cloned();
            let life = |id: &AgentId| self.life(id) == Some(proposal.incarnation);
            let Some(agent_id) = agent_id.filter(life) else {
                self.count("proposals of agents that were gone");
                continue;
            };
            let Proposal {
                incarnation,
                resources,
                ..
            } = proposal;
            let who = self.claims.in_seat(proposal.seat);
            let wanted = who.filter(|(id, _)| {
                let terms = self.claims.framework(id);
                terms.is_some_and(|terms| terms.active && terms.suppressed.is_empty())
            });
            let Some((framework_id, role)) = wanted else {
                self.count("proposals to frameworks that were gone");
                let back = Transition::Rescind(resources);
                let made = self.ledger.apply(&agent_id, incarnation, &back);
                assert_eq!(made, Ok(()), "{proposal:?}");
                self.woken.insert(agent_id);
                continue;
            };
            let by = Named {
                agent_id,
                incarnation,
                framework_id: framework_id.clone(),
                role: role.clone(),
            };
            self.count("offers");
            self.claims.charge(&by.framework_id, &by.role, &resources);
            self.offers.push(Held { by, resources });
        }
    }

    fn end_offer(&mut self, at: usize, transition: fn(Resources) -> Transition) -> Held {
        let offer = self.offers.swap_remove(at);
        self.transit(&offer.by, transition(offer.resources));
        self.credit(&offer.by, &offer.resources);
        offer
    }

    fn answer(&mut self, at: usize) {
        match self.dice.roll(8) {
            0..=2 => {
                let Held { by, resources } = self.end_offer(at, Transition::Decline);
                let until = self.now.plus_ms(1 + self.dice.roll(20));
                let (who, on) = (&by.framework_id, &by.agent_id);
                self.claims.refuse(who, &by.role, on, &resources, until);
            }
            3 => {
                self.end_offer(at, Transition::Rescind);
            }
            _ => self.accept(at),
        }
    }

    /// Uses some or all of an offer.
    fn accept(&mut self, at: usize) {
        let Held { by, resources } = self.offers.swap_remove(at);
        let part = |quantities: &Quantities, dice: &mut Dice| {
            let parts = 1 + dice.roll(3);
            Quantities::cpus_mem(
                quantities.cpu_milli() / parts,
                quantities.mem_bytes() / parts,
            )
        };
        let used = Resources {
            regular: part(&resources.regular, &mut self.dice),
            revocable: part(&resources.revocable, &mut self.dice),
        };
        let offered = resources;
        self.transit(&by, Transition::Accept { offered, used });
        let rest = resources.checked_sub(&used).unwrap();
        self.credit(&by, &rest);
        self.count("tasks");
        self.tasks.push(Held {
            by,
            resources: used,
        });
    }

    fn end_task(&mut self, at: usize) {
        let task = self.tasks.swap_remove(at);
        self.transit(&task.by, Transition::Recover(task.resources));
        self.credit(&task.by, &task.resources);
    }

    /// An agent has or lends another amount.
    fn resize(&mut self, number: usize) {
        let Some(incarnation) = self.lives[number] else {
            return;
        };
        let (id, (total, oversubscribed)) = (agent(number), self.size());
        let resize = Transition::Resize {
            total,
            oversubscribed,
        };
        match self.ledger.apply(&id, incarnation, &resize) {
            Ok(()) => {
                self.count("agents resized");
                self.claims.set_agent(&id, total, oversubscribed);
                self.woken.insert(id);
            }
            Err(Refused::InUse { .. }) => self.count("resizes refused"),
            Err(refused) => panic!("{refused}"),
        }
    }

    /// An agent goes with all that was on it, or comes back.
    fn retire_or_return(&mut self, number: usize) {
        if self.lives[number].is_none() {
            self.count("agents returned");
            self.insert(number);
            return;
        }
        self.count("agents retired");
        let id = agent(number);
        self.lives[number] = None;
        let last = self.ledger.remove(&id).unwrap();
        let mut known = [Resources::ZERO; 2];
        let held = [&mut self.offers, &mut self.tasks];
        for (held, known) in held.into_iter().zip(&mut known) {
            for one in held.extract_if(.., |one| one.by.agent_id == id) {
                *known = known.checked_add(&one.resources).unwrap();
                let (who, role) = (&one.by.framework_id, &one.by.role);
                self.claims.credit(who, role, &one.resources).unwrap();
            }
        }
        // What is on its way to the driver is offered too.
        assert!(last.offered.contains(&known[0]), "{last:?}, {known:?}");
        assert_eq!(last.allocated, known[1]);
        self.claims.remove_agent(&id);
    }

    /// A framework goes, comes back, or wants nothing for a while; a role gets another weight.
    fn change_framework(&mut self) {
        let number = self.dice.index(FRAMEWORKS);
        let id = framework(number);
        match self.dice.roll(5) {
            0 => {
                self.count("frameworks removed");
                self.withdraw(&id);
                self.claims.remove_framework(&id);
            }
            1 => {
                self.withdraw(&id);
                self.set_framework(number, false, false);
            }
            2 => self.set_framework(number, true, true),
            3 => self.set_framework(number, true, false),
            _ => {
                self.count("weights changed");
                let weight = 500 + self.dice.roll(3000) as u32;
                self.claims.set_weight(&role_of(number), weight);
            }
        }
    }

    /// All offers of a framework are withdrawn.
    fn withdraw(&mut self, id: &FrameworkId) {
        let mut at = 0;
        while at < self.offers.len() {
            if self.offers[at].by.framework_id == *id {
                self.end_offer(at, Transition::Rescind);
            } else {
                at += 1;
            }
        }
    }

    /// What a driver does between two publications.
    fn act(&mut self) {
        self.now = self.now.plus_ms(1);
        let until = self.offers.len() / 4;
        while self.offers.len() > until {
            let at = self.dice.index(self.offers.len());
            self.answer(at);
        }
        let until = self.tasks.len() - self.tasks.len() / 3;
        while self.tasks.len() > until.min(MOST_HELD) {
            let at = self.dice.index(self.tasks.len());
            self.end_task(at);
        }
        let number = self.dice.index(AGENTS);
        match self.dice.roll(20) {
            0..=3 => self.resize(number),
            4 | 5 => self.retire_or_return(number),
            6 => self.change_framework(),
            _ => {}
        }
        let expired = self.claims.expire(self.now);
        self.woken.extend(expired);
    }

    fn announce(&mut self, allocator: &Allocator) {
        let entries = self.claims.publish();
        allocator.publish(&entries, || self.claims.copy());
        if std::mem::take(&mut self.wake_all) {
            self.woken.clear();
            allocator.wake_all();
        } else {
            allocator.wake_ids(&std::mem::take(&mut self.woken));
        }
    }

    /// Plays until so many transitions were made.
    fn go_on(&mut self, allocator: &Allocator, batches: &Receiver<Batch>, until: u64) {
        self.announce(allocator);
        while self.ledger.stats().figures().applied < until {
            // With offers in hand there is something to do; without, something must come.
            if self.offers.is_empty() && self.tasks.is_empty() {
                let batch = batches.recv_timeout(PATIENCE);
                self.take_in(batch.expect("everything is free, and nothing comes"));
            }
            while let Ok(batch) = batches.try_recv() {
                self.take_in(batch);
            }
            self.act();
            self.announce(allocator);
        }
    }

    /// What the driver knows to be offered and allocated of an agent.
    fn known(&self) -> BTreeMap<AgentId, [Resources; 2]> {
        let mut known: BTreeMap<AgentId, [Resources; 2]> = BTreeMap::new();
        for (part, held) in [&self.offers, &self.tasks].into_iter().enumerate() {
            for one in held {
                let sum = &mut known.entry(one.by.agent_id.clone()).or_default()[part];
                *sum = sum.checked_add(&one.resources).unwrap();
            }
        }
        known
    }

    /// What is not as it must be when nothing moves any more.
    fn unrest(&self) -> Option<String> {
        let known = self.known();
        for (id, slot) in self.ledger.slots().iter() {
            let ledger = slot.load();
            let [offered, allocated] = known.get(id).copied().unwrap_or_default();
            let free = ledger.free();
            if is_allocatable(&free.regular) || is_allocatable(&free.revocable) {
                return Some(format!("{id} is free: {ledger:?}"));
            }
            if ledger.offered != offered || ledger.allocated != allocated {
                return Some(format!(
                    "{id}: {ledger:?}, but known {offered}, {allocated}"
                ));
            }
        }
        None
    }

    /// Everything is wanted, and nothing is done but taking in batches, until nothing moves any more.
    fn rest(&mut self, allocator: &Allocator, batches: &Receiver<Batch>) {
        self.want_everything();
        let far = self.now.plus_ms(1 << 20);
        self.claims.expire(far);
        for number in 0..AGENTS {
            if self.lives[number].is_none() {
                self.insert(number);
            }
        }
        self.wake_all = true;
        self.announce(allocator);
        while let Some(unrest) = self.unrest() {
            let batch = batches.recv_timeout(PATIENCE);
            self.take_in(batch.unwrap_or_else(|_| panic!("nothing comes, and {unrest}")));
            self.announce(allocator);
        }
        let outstanding = batches.try_iter().count();
        assert_eq!(outstanding, 0, "a batch of what the driver already knows");
    }

    /// The books at rest, the workers' included.
    fn check(&self, planners: Vec<Planner>) {
        assert_eq!(self.ledger.check(), Ok(()));
        assert_eq!(planners.len(), WORKERS as usize);
        let mut books: Vec<Claims> = Vec::new();
        for mut planner in planners {
            planner.forget_proposals();
            books.push(planner.claims().copy());
        }
        books.push(self.claims.copy());
        for book in &books {
            assert_eq!(book.fault(), None);
        }
        let mut held: BTreeMap<(FrameworkId, Role), [Sums; 2]> = BTreeMap::new();
        for one in self.offers.iter().chain(&self.tasks) {
            let key = (one.by.framework_id.clone(), one.by.role.clone());
            let sums = held.entry(key).or_default();
            for (sum, class) in sums.iter_mut().zip(Class::ALL) {
                sum.add(class.part(&one.resources));
            }
        }
        for number in 0..FRAMEWORKS {
            let (id, role) = (framework(number), role_of(number));
            let sums = held.remove(&(id.clone(), role.clone())).unwrap_or_default();
            for book in &books {
                let standing = book.standing(&id, &role);
                for (sum, class) in sums.iter().zip(Class::ALL) {
                    assert_eq!(standing.held(class), sum, "{id} {class:?}");
                }
            }
        }
        assert!(held.is_empty(), "{held:?}");
    }
}

#[test]
fn eight_workers_under_every_change_end_with_books_that_agree() {
    let asked = std::env::var(VARIABLE).ok();
    let transitions = asked.map_or(USUALLY, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{VARIABLE} is {text:?}, no number"))
    });
    let start = Instant::now();
    pause_at_random();
    let mut play = Play::new();
    let mut passes = 0;
    for part in 1..=RESTS {
        let (sender, batches) = channel();
        let sink = move |batch| sender.send(batch).map_err(|error| error.0);
        let ledger = Arc::clone(&play.ledger);
        let allocator = Allocator::start(WORKERS, ledger, &play.claims, sink).unwrap();
        play.go_on(&allocator, &batches, transitions * part / RESTS);
        play.rest(&allocator, &batches);
        passes += allocator.figures().passes;
        play.check(allocator.end());
        assert_eq!(play.unrest(), None, "something came after the rest");
    }
    let (seconds, figures) = (start.elapsed().as_secs_f64(), play.ledger.stats().figures());
    for what in [
        "agents resized",
        "agents returned",
        "frameworks removed",
        "weights changed",
    ] {
        assert!(play.figures.contains_key(what), "{what}: never");
    }
    assert!(figures.applied >= transitions);
    assert!(figures.conflicts > 0, "no exchange was ever lost");
    assert_eq!(figures.contended, 0);
    println!("\n{figures:?}, {passes} passes, {:?}", play.figures);
    let case = format!("{WORKERS} workers, {AGENTS} agents");
    for (metric, value, unit) in [
        ("transitions", figures.applied as f64, "transitions"),
        ("time", seconds, "s"),
        ("rate", figures.applied as f64 / seconds, "1/s"),
    ] {
        println!(r#"{{"case":"{case}","metric":"{metric}","value":{value:.3},"unit":"{unit}"}}"#);
    }
}
