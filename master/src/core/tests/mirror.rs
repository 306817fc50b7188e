//! The mirror against the books: sequences by chance, falling behind, and many readers at once.
//!
//! [`World`] compares a copy with the books after every step by itself; here the copy has its thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ebb_types::{
    Advice, AdviceFilter, AgentUsage, ClassKey, ClassUse, ClusterState, Limits, LotLimits, Quota,
    ResourceKind,
};
use proptest::prelude::*;

use super::*;
use crate::core::{OperatorCommand, RequestId};
use crate::driver::Stopped;
use crate::mirror::{Books, Feed, MAX_NEWS_BEHIND, Reading, Reads, start_bounded};

fn block_on<T>(what: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.build().unwrap().block_on(what)
}

/// A world whose news go to a mirror.
struct Mirrored {
    world: World,
    feed: Feed,
    reads: Reads,
    schedulers: Vec<Scheduler>,
    agents: Vec<Played>,
    updates: u64,
}

impl Mirrored {
    fn new(max_news: usize) -> Self {
        let mut world = World::new();
        world.unpublished = Some(Vec::new());
        let (feed, reads) = start_bounded(world.core.master_info(), max_news).unwrap();
        Self {
            world,
            feed,
            reads,
            schedulers: Vec::new(),
            agents: Vec::new(),
            updates: 0,
        }
    }

    /// What the driver does at the end of a step.
    fn push(&mut self) {
        let core = &self.world.core;
        let news = self.world.unpublished.as_mut().map(std::mem::take);
        let news = news.unwrap_or_default();
        self.feed.push(core.now, news, || core.everything());
    }

    /// Reads, and does meanwhile what the driver does.
    fn read(&mut self) -> Reading {
        let reads = self.reads.clone();
        let reading = async move { reads.read().await.unwrap() };
        block_on(async {
            tokio::pin!(reading);
            loop {
                tokio::select! {
                    read = &mut reading => break read,
                    () = self.feed.wanted() => {}
                }
                self.push();
            }
        })
    }

    /// One of a few things that may happen, by number; numbers that mean nothing now do nothing.
    fn act(&mut self, what: u8, which: usize, amount: u64) {
        let world = &mut self.world;
        let is_open = |one: &Scheduler| !world.closed.contains_key(&one.connection);
        self.schedulers.retain(is_open);
        let scheduler = pick(&self.schedulers, which).cloned();
        let agent = pick(&self.agents, which).cloned();
        match (what, scheduler, agent) {
            (0, ..) if self.schedulers.len() < 3 => {
                let role = ["a", "b"][which % 2];
                self.schedulers
                    .push(world.subscribe(framework_info("f", &[role])));
            }
            (1, ..) if self.agents.len() < 4 => {
                self.agents.push(world.register(agent_info(4000, 4096)));
            }
            (2..=6, Some(scheduler), _) => {
                let offers = world.offers(&scheduler);
                if let Some(offer) = pick(&offers, which) {
                    let name = format!("t{}", amount % 6);
                    let size = res(500 + amount % 1000, 64);
                    let task = command_task(&name, &offer.agent_id, size);
                    world.accept(&scheduler, offer, vec![task]);
                }
            }
            (7 | 8, Some(scheduler), _) => {
                let offer_ids = world.offers(&scheduler).into_iter().map(|offer| offer.id);
                let call = Call::Decline {
                    offer_ids: offer_ids.take(which % 3 + 1).collect(),
                    filters: Filters { refuse_ms: amount },
                };
                world.call(&scheduler, call);
            }
            (9..=12, Some(scheduler), _) => self.update(&scheduler, which, amount),
            (13, _, Some(agent)) => world.agent_gone(&agent),
            (14 | 15, _, Some(agent)) => self.come_back(&agent, amount),
            (16, Some(scheduler), _) => world.hang_up(&scheduler),
            (17, Some(scheduler), _) => {
                let mut info = framework_info("f", &["a", "b"]);
                info.id = Some(scheduler.id.clone());
                let (connection, _) = world.try_subscribe(info);
                let id = scheduler.id;
                let place = which % self.schedulers.len();
                self.schedulers[place] = Scheduler { connection, id };
            }
            (18, Some(scheduler), _) if amount.is_multiple_of(4) => {
                self.operate(OperatorCommand::Teardown(scheduler.id));
            }
            (19, ..) => world.pass_ms(amount * 300),
            (20, ..) => {
                let weight = (role(["a", "b", "c"][which % 3]), amount % 3000 + 1);
                self.operate(OperatorCommand::SetWeights(vec![weight]));
            }
            (27, ..) => {
                let limits = Limits::NONE.with(ResourceKind::Cpus, Some(amount * 1000));
                let quota = if amount.is_multiple_of(3) {
                    Quota::default()
                } else {
                    Quota {
                        limits,
                        revocable_limits: Limits::NONE.with(ResourceKind::Mem, Some(amount)),
                        ..Quota::default()
                    }
                };
                self.operate(OperatorCommand::SetQuotas {
                    quotas: vec![(role(["a", "b", "c/d"][which % 3]), quota)],
                    lot_limits: vec![(
                        role(["a", "b", "c/d"][which % 3]),
                        LotLimits::new([(String::from("ports"), amount * 1000)]).unwrap(),
                    )],
                    force: true,
                });
            }
            (21, _, Some(agent)) => {
                let lent = Quantities::cpus_mem(amount, 0);
                world.say(&agent, AgentToMaster::Oversubscribed(lent));
            }
            (22, _, Some(agent)) => {
                let usage = AgentToMaster::Usage(AgentUsage::default());
                world.say(&agent, usage);
            }
            (23, _, Some(agent)) => self.operate(OperatorCommand::Drain {
                agent_id: agent.id,
                max_grace_ms: None,
            }),
            (24, _, Some(agent)) => self.operate(OperatorCommand::Reactivate(agent.id)),
            (25, Some(scheduler), _) => {
                world.call(&scheduler, Call::Suppress { roles: Vec::new() });
            }
            (26, Some(scheduler), _) => {
                world.call(&scheduler, Call::Revive { roles: Vec::new() });
            }
            (28, _, Some(agent)) => {
                let key = ClassKey {
                    framework_id: FrameworkId::new("f").unwrap(),
                    class: format!("c{}", amount % 3),
                };
                let mut seen = ClassUse::new(key, Timestamp::from_ms(amount));
                (seen.tasks, seen.running) = (amount, amount % 7);
                seen.mem.add(amount, amount + 1);
                seen.days[0].mem_bytes = amount;
                world.say(&agent, AgentToMaster::Classes(vec![seen]));
            }
            _ => {}
        }
    }

    /// What is advised, by the books.
    fn advice(&self) -> Advice {
        let mut books = Books::new(self.world.core.master_info());
        books.start_anew(self.world.core.everything());
        let at = self.world.core.cluster_state().at;
        books.show(at).advice(&AdviceFilter::default())
    }

    fn operate(&mut self, command: OperatorCommand) {
        let request = RequestId(0);
        self.world.step(Input::Operator { request, command });
    }

    /// An agent says how a task of it stands, and its framework may acknowledge that.
    fn update(&mut self, scheduler: &Scheduler, which: usize, amount: u64) {
        let state = [TaskState::Running, TaskState::Finished, TaskState::Failed];
        let state = state[which % state.len()];
        let tasks = self.world.core.cluster_state().tasks;
        let own = tasks
            .iter()
            .filter(|task| task.framework_id == scheduler.id);
        let live: Vec<_> = own.filter(|task| !task.state.is_terminal()).collect();
        let Some(task) = pick(&live, which) else {
            return;
        };
        let agent = self.agents.iter().find(|agent| agent.id == task.agent_id);
        let Some(agent) = agent else { return };
        self.updates += 1;
        let (count, name) = (self.updates, task.task_id.as_str());
        let uuid = self.world.update(agent, scheduler, name, state, count);
        if amount.is_multiple_of(2) {
            self.world.acknowledge(scheduler, agent, name, uuid);
        }
    }

    /// An agent registers anew with some of the tasks that it is believed to have.
    fn come_back(&mut self, agent: &Played, amount: u64) {
        let tasks = self.world.core.cluster_state().tasks.into_iter();
        let brought = tasks.filter(|task| task.agent_id == agent.id && !task.state.is_terminal());
        let brought = brought.filter(|_| !amount.is_multiple_of(3)).map(|task| {
            let info = command_task(task.task_id.as_str(), &agent.id, task.resources);
            running(&task.framework_id, info, TaskState::Running)
        });
        let brought = brought.collect();
        let new = self
            .world
            .reregister(agent, agent_info(4000, 4096), brought);
        let place = self.agents.iter().position(|one| one.id == agent.id);
        if let Some(place) = place {
            self.agents[place] = new;
        }
    }
}

fn pick<T>(list: &[T], which: usize) -> Option<&T> {
    list.get(which.checked_rem(list.len())?)
}

/// In every state the sums are those of the parts.
fn check(state: &ClusterState) {
    for agent in &state.agents {
        let offers = state.offers.iter().filter(|one| one.agent_id == agent.id);
        let offered = offers.fold(Resources::ZERO, |sum, one| {
            sum.saturating_add(&one.resources)
        });
        assert_eq!(offered, agent.offered, "{}", agent.id);
        let tasks = state.tasks.iter().filter(|one| one.agent_id == agent.id);
        let sum = |is_meant: &dyn Fn(TaskState) -> bool| {
            let meant = tasks.clone().filter(|one| is_meant(one.state));
            meant.fold(Resources::ZERO, |sum, one| {
                sum.saturating_add(&one.resources)
            })
        };
        let held = sum(&crate::core::holds);
        let allocated = agent.allocated;
        assert!(allocated.contains(&held), "{}: {allocated}", agent.id);
        // The container of a task that has ended in the books may be ending.
        let most = held.saturating_add(&sum(&|state| state.is_terminal()));
        assert!(most.contains(&allocated), "{}: {allocated}", agent.id);
        let promised = agent.offered.saturating_add(&agent.allocated);
        assert!(agent.info.total.contains(&promised.regular), "{}", agent.id);
    }
    let sum = |parts: &mut dyn Iterator<Item = Resources>| {
        parts.fold(Resources::ZERO, |sum, one| sum.saturating_add(&one))
    };
    let by_agent = sum(&mut state.agents.iter().map(|one| one.offered));
    assert_eq!(
        by_agent,
        sum(&mut state.frameworks.iter().map(|one| one.offered))
    );
    assert_eq!(
        by_agent,
        sum(&mut state.roles.iter().map(|one| one.offered))
    );
}

/// How far behind the mirror may fall: never, soon, and with every step.
fn bounds() -> impl Strategy<Value = usize> {
    prop_oneof![Just(MAX_NEWS_BEHIND), 2..20usize, Just(1)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn whoever_reads_sees_all_that_was_done_before(
        bound in bounds(),
        read_each in 1..6usize,
        acts in proptest::collection::vec((0..29u8, 0..12usize, 0..1000u64), 1..80),
    ) {
        let mut mirrored = Mirrored::new(bound);
        mirrored.act(0, 0, 0);
        mirrored.act(1, 0, 0);
        for (number, (what, which, amount)) in acts.into_iter().enumerate() {
            mirrored.act(what, which, amount);
            mirrored.push();
            if number % read_each == 0 {
                let reading = mirrored.read();
                let state = reading.state(Parts::ALL);
                prop_assert_eq!(&state, &mirrored.world.core.cluster_state());
                let advice = reading.advice(&AdviceFilter::default());
                prop_assert_eq!(advice, mirrored.advice());
                check(&state);
            }
        }
        let state = mirrored.read().state(Parts::ALL);
        prop_assert_eq!(state, mirrored.world.core.cluster_state());
    }
}

#[test]
fn a_mirror_that_fell_behind_is_given_everything_once_and_follows_again() {
    let mut mirrored = Mirrored::new(3);
    mirrored.act(0, 0, 0);
    mirrored.push();
    drop(mirrored.read());
    // More than it may be behind by, in one step.
    for _ in 0..4 {
        mirrored.act(1, 0, 0);
    }
    mirrored.push();
    assert_eq!(mirrored.feed.figures().copies, 1);
    mirrored.act(8, 0, 0);
    mirrored.push();
    assert_eq!(
        mirrored.feed.figures().copies,
        1,
        "nothing more is lost than is lost"
    );
    let behind = mirrored.read().state(Parts::ALL);
    assert_eq!(behind, mirrored.world.core.cluster_state());
    mirrored.operate(OperatorCommand::SetWeights(vec![(role("z"), 7)]));
    mirrored.push();
    let reading = mirrored.read();
    assert_eq!(
        reading.state(Parts::ALL),
        mirrored.world.core.cluster_state()
    );
    assert_eq!(mirrored.feed.figures().copies, 1);
    assert_eq!(mirrored.feed.figures().depth, 0);
}

#[test]
fn those_who_watch_are_shown_everything_again_where_changes_were_missed() {
    let mut mirrored = Mirrored::new(3);
    mirrored.act(0, 0, 0);
    mirrored.push();
    drop(mirrored.read());
    let reads = mirrored.reads.clone();
    let (seen, mut changes) = block_on(reads.watch(64, |view| view.version())).unwrap();
    mirrored.act(1, 0, 0);
    mirrored.push();
    let first = block_on(changes.next()).unwrap();
    assert!(matches!(&*first, Change::AgentUpdated(one) if one.id == mirrored.agents[0].id));
    for _ in 0..3 {
        mirrored.act(1, 0, 0);
    }
    mirrored.push();
    assert!(mirrored.read().version() > seen);
    match &*block_on(changes.next()).unwrap() {
        Change::Snapshot(state) => assert_eq!(**state, mirrored.world.core.cluster_state()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_watches_and_does_not_keep_up_is_cut_off() {
    let mut mirrored = Mirrored::new(MAX_NEWS_BEHIND);
    mirrored.push();
    drop(mirrored.read());
    let reads = mirrored.reads.clone();
    let ((), mut changes) = block_on(reads.watch(1, |_| ())).unwrap();
    for _ in 0..3 {
        mirrored.act(1, 0, 0);
        mirrored.push();
    }
    drop(mirrored.read());
    assert_eq!(mirrored.feed.figures().slow_readers_cut, 1);
    assert!(block_on(changes.next()).is_some());
    assert!(block_on(changes.next()).is_none());
    assert!(matches!(changes.cut(), Some(crate::driver::Cut::Slow(_))));
}

#[test]
fn readers_hear_of_the_end() {
    let Mirrored { feed, reads, .. } = Mirrored::new(MAX_NEWS_BEHIND);
    let waiting = thread::spawn({
        let reads = reads.clone();
        move || block_on(reads.read()).map(|reading| reading.version())
    });
    drop(feed);
    assert_eq!(waiting.join().unwrap(), Err(Stopped));
    assert_eq!(
        block_on(reads.read()).map(|reading| reading.version()),
        Err(Stopped)
    );
}

#[test]
fn every_state_read_in_a_storm_adds_up_and_none_is_older_than_the_one_before() {
    const READERS: usize = 6;
    const READINGS: usize = 60;
    let mut mirrored = Mirrored::new(64);
    let done = Arc::new(AtomicUsize::new(0));
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let (reads, done) = (mirrored.reads.clone(), Arc::clone(&done));
            thread::spawn(move || {
                let (mut last, mut seen) = (0, BTreeSet::new());
                let mut readings = 0;
                // Until it has seen something change.
                while readings < READINGS || seen.len() < 2 {
                    let reading = block_on(reads.read()).unwrap();
                    check(&reading.state(Parts::ALL));
                    assert!(reading.version() >= last);
                    last = reading.version();
                    seen.insert(last);
                    readings += 1;
                }
                done.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    let mut chance = 1u64;
    while done.load(Ordering::Relaxed) < READERS {
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let [what, which, amount, _] = (chance >> 32).to_le_bytes()[..4] else {
            unreachable!("four bytes");
        };
        mirrored.act(what % 29, usize::from(which), u64::from(amount));
        mirrored.push();
    }
    for reader in readers {
        reader.join().unwrap();
    }
}
