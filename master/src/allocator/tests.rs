//! The allocator beside a driver that is played by the test, on one thread and on many.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use ebb_types::{
    AgentId, FrameworkId, Incarnation, Limits, Quantities, Quota, ResourceKind, Resources, Role,
    Timestamp,
};

use super::{
    Allocator, Batch, MAX_AGENTS_PER_PASS, MAX_PUBLICATIONS_BEHIND, Proposal, StartError, pass,
    pass_all,
};
use crate::core::allocate::Planner;
use crate::core::claims::{Claims, FrameworkTerms};
use crate::core::drf::{Class, Sums};
use crate::ledger::{AgentLedger, Ledger, Transition};

mod pauses;
mod stress;

const LIFE: Incarnation = Incarnation(1);
const NOW: Timestamp = Timestamp::from_ms(1000);
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a test waits for what must not come.
const QUIET: Duration = Duration::from_millis(50);

fn agent(number: usize) -> AgentId {
    AgentId::new(format!("agent-{number:06}")).unwrap()
}

fn framework(number: usize) -> FrameworkId {
    FrameworkId::new(format!("framework-{number}")).unwrap()
}

fn role() -> Role {
    Role::new("role").unwrap()
}

fn total() -> Quantities {
    Quantities::cpus_mem(4000, 8 << 30)
}

/// What a driver owns.
struct Driver {
    ledger: Arc<Ledger>,
    claims: Claims,
}

impl Driver {
    fn new(agents: usize, frameworks: usize) -> Self {
        let mut driver = Self {
            ledger: Arc::new(Ledger::new()),
            claims: Claims::new(),
        };
        for number in 0..agents {
            let (id, first) = (
                agent(number),
                AgentLedger::new(LIFE, total(), Quantities::ZERO),
            );
            driver.claims.set_agent(&id, total(), Quantities::ZERO);
            let of_claims = driver.claims.agent_number(&id).unwrap();
            driver.ledger.insert(id, of_claims, first);
        }
        for number in 0..frameworks {
            let terms = FrameworkTerms {
                roles: BTreeSet::from([role()]),
                active: true,
                ..FrameworkTerms::default()
            };
            driver.claims.set_framework(&framework(number), terms);
        }
        driver
    }

    fn planner(&self) -> Planner {
        Planner::new(self.claims.copy())
    }

    fn publish(&mut self, allocator: &Allocator) {
        let entries = self.claims.publish();
        allocator.publish(&entries, || self.claims.copy());
    }

    fn charge(&mut self, proposals: &[Proposal]) {
        for proposal in proposals {
            self.claims.charge_seat(proposal.seat, &proposal.resources);
        }
    }

    fn take_in(&mut self, batch: &Batch) {
        self.claims.note_batch(batch.id);
        self.charge(&batch.proposals);
    }

    fn decline(&mut self, proposal: &Proposal) {
        let back = Transition::Decline(proposal.resources);
        self.ledger
            .apply_at(proposal.agent, proposal.incarnation, &back)
            .unwrap();
        assert!(self.claims.credit_seat(proposal.seat, &proposal.resources));
    }

    fn agent_of(&self, proposal: &Proposal) -> AgentId {
        self.claims.agent_id(proposal.agent).unwrap().clone()
    }

    fn framework_of(&self, proposal: &Proposal) -> FrameworkId {
        self.claims.in_seat(proposal.seat).unwrap().0.clone()
    }

    /// Starts workers whose batches come out of the channel.
    fn start(&mut self, workers: u32) -> (Allocator, Receiver<Batch>) {
        let (sender, receiver) = channel();
        let sink = move |batch| sender.send(batch).map_err(|error| error.0);
        let allocator =
            Allocator::start(workers, Arc::clone(&self.ledger), &self.claims, sink).unwrap();
        (allocator, receiver)
    }
}

#[test]
fn a_pass_offers_in_the_ledger_what_it_proposes_and_nothing_twice() {
    let mut driver = Driver::new(10, 3);
    let proposals = pass_all(&driver.ledger, &mut driver.planner());
    assert_eq!(proposals.len(), 10);
    for proposal in &proposals {
        let slot = driver.ledger.get_at(proposal.agent).unwrap();
        assert_eq!(slot.load().offered, proposal.resources);
    }
    let mut counts = BTreeMap::new();
    for proposal in &proposals {
        *counts.entry(driver.framework_of(proposal)).or_insert(0) += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [4, 3, 3]);
    driver.charge(&proposals);
    assert_eq!(pass_all(&driver.ledger, &mut driver.planner()), []);
    driver.decline(&proposals[7]);
    let named = [
        driver.agent_of(&proposals[7]),
        AgentId::new("unknown").unwrap(),
    ];
    let again = pass(&driver.ledger, &mut driver.planner(), &named);
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].resources, proposals[7].resources);
}

#[test]
fn the_same_cluster_gives_the_same_proposals() {
    let (one, two) = (Driver::new(50, 7), Driver::new(50, 7));
    let proposals = pass_all(&one.ledger, &mut one.planner());
    assert_eq!(proposals, pass_all(&two.ledger, &mut two.planner()));
    assert_eq!(proposals.len(), 50);
}

#[test]
fn a_worker_plans_on_only_when_its_batch_is_accounted_for() {
    let mut driver = Driver::new(2, 2);
    let (allocator, batches) = driver.start(1);
    driver.publish(&allocator);
    allocator.wake_ids([&agent(0)]);
    let first = batches.recv_timeout(PATIENCE).unwrap();
    assert_eq!(driver.framework_of(&first.proposals[0]), framework(0));
    allocator.wake_ids([&agent(1)]);
    assert_eq!(
        batches.recv_timeout(QUIET).unwrap_err(),
        RecvTimeoutError::Timeout
    );
    driver.take_in(&first);
    driver.publish(&allocator);
    let second = batches.recv_timeout(PATIENCE).unwrap();
    assert_eq!(driver.framework_of(&second.proposals[0]), framework(1));
}

#[test]
fn a_burst_of_wakes_gives_one_pass() {
    let mut driver = Driver::new(2, 1);
    let (allocator, batches) = driver.start(1);
    driver.publish(&allocator);
    allocator.wake_ids([&agent(0)]);
    let first = batches.recv_timeout(PATIENCE).unwrap();
    let slot = driver.ledger.get(&agent(1)).unwrap();
    for _ in 0..1000 {
        allocator.wake([&slot]);
    }
    driver.take_in(&first);
    driver.publish(&allocator);
    let second = batches.recv_timeout(PATIENCE).unwrap();
    driver.take_in(&second);
    let figures = allocator.figures();
    assert_eq!(
        (figures.passes, figures.agents, figures.coalesced),
        (2, 2, 999)
    );
}

#[test]
fn all_agents_can_wait_at_once_and_are_offered_pass_by_pass() {
    let agents = 4 * MAX_AGENTS_PER_PASS + 1000;
    let mut driver = Driver::new(agents, 3);
    let (allocator, batches) = driver.start(1);
    driver.publish(&allocator);
    allocator.wake_ids([&agent(0)]);
    let mut batch = batches.recv_timeout(PATIENCE).unwrap();
    // The worker waits for the publication: nobody takes anything.
    allocator.wake(driver.ledger.slots().values());
    allocator.wake_all();
    let mut offered = 0;
    loop {
        assert!(batch.proposals.len() < MAX_AGENTS_PER_PASS + 64);
        offered += batch.proposals.len();
        driver.take_in(&batch);
        driver.publish(&allocator);
        if offered == agents {
            break;
        }
        batch = batches.recv_timeout(PATIENCE).unwrap();
    }
    assert!(
        driver
            .ledger
            .slots()
            .values()
            .all(|slot| slot.load().free().is_zero())
    );
}

#[test]
fn what_the_driver_does_not_take_is_rescinded_and_offered_after_the_next_publication() {
    let mut driver = Driver::new(3, 1);
    let (sender, batches) = channel();
    let (refused, told) = channel();
    let is_full = Arc::new(AtomicBool::new(true));
    let full = Arc::clone(&is_full);
    let sink = move |batch: Batch| {
        if full.load(Ordering::Acquire) {
            refused.send(batch.proposals.len()).unwrap();
            return Err(batch);
        }
        sender.send(batch).map_err(|error| error.0)
    };
    let allocator = Allocator::start(1, Arc::clone(&driver.ledger), &driver.claims, sink).unwrap();
    driver.publish(&allocator);
    allocator.wake_ids([&agent(0), &agent(1), &agent(2)]);
    let rejected = told.recv_timeout(PATIENCE).unwrap();
    is_full.store(false, Ordering::Release);
    assert_eq!(
        batches.recv_timeout(QUIET).unwrap_err(),
        RecvTimeoutError::Timeout
    );
    assert_eq!(allocator.figures().rejected, rejected as u64);
    let mut offered = 0;
    driver.claims.set_weight(&role(), 2000);
    while offered < 3 {
        driver.publish(&allocator);
        let batch = batches.recv_timeout(PATIENCE).unwrap();
        offered += batch.proposals.len();
        driver.take_in(&batch);
    }
    assert_eq!(driver.ledger.check(), Ok(()));
    assert_eq!(offered, 3);
}

#[test]
fn what_is_little_is_offered_at_once_while_all_workers_stand_still() {
    const AGENTS: usize = 4;
    let mut driver = Driver::new(AGENTS, 3);
    let (allocator, batches) = driver.start(2);
    let mut own = Planner::default();
    let mut book = Box::new(std::mem::take(&mut driver.claims));
    let ids: Vec<AgentId> = (0..AGENTS).map(agent).collect();
    for round in 0..3 {
        let mut charged = Vec::new();
        own.exchange(&mut book);
        let proposals = allocator.plan_at_once(&mut own, &ids);
        own.hand_over(&mut charged);
        own.exchange(&mut book);
        assert_eq!(proposals.len(), AGENTS, "in round {round}");
        assert_eq!(driver.ledger.check(), Ok(()));
        for ((member, resources), proposal) in charged.into_iter().zip(&proposals) {
            assert_eq!(resources, proposal.resources);
            book.adopt(member, &resources);
        }
        // The shares count: of three frameworks none has two more than another one.
        let held = (0..3).map(|number| {
            let standing = book.standing(&framework(number), &role());
            standing.held(Class::Regular).get(ResourceKind::Cpus) / u128::from(total().cpu_milli())
        });
        let held: Vec<u128> = held.collect();
        assert!(
            held.iter().max().unwrap() - held.iter().min().unwrap() <= 1,
            "{held:?}"
        );
        assert_eq!(book.fault(), None);
        for proposal in &proposals {
            let back = Transition::Decline(proposal.resources);
            let made = driver.ledger.apply_at(proposal.agent, LIFE, &back);
            assert_eq!(made, Ok(()));
            assert!(book.credit_seat(proposal.seat, &proposal.resources));
        }
    }
    // Nobody has been woken, and whoever is woken now finds the same book.
    assert!(batches.try_recv().is_err());
    driver.claims = *book;
    driver.publish(&allocator);
    allocator.wake_all();
    let offered = batches.recv_timeout(PATIENCE).unwrap().proposals;
    assert!(!offered.is_empty());
}

/// What frameworks do with their offers.
#[derive(Default)]
struct Frameworks {
    dice: u64,
    kept: VecDeque<Proposal>,
    used: BTreeMap<(FrameworkId, AgentId), Resources>,
}

/// Most offers that are kept for later, and most holdings, so that there is always something free.
const MOST_KEPT: usize = 50;

impl Frameworks {
    /// Takes a batch in: a third is declined and refused for a while, a third is used to the half,
    /// a third is kept for later. The agents to wake.
    fn play(&mut self, driver: &mut Driver, batch: Batch) -> Vec<AgentId> {
        let mut woken = Vec::new();
        driver.take_in(&batch);
        for proposal in batch.proposals {
            self.dice = self
                .dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            woken.push(driver.agent_of(&proposal));
            match (self.dice >> 33) % 3 {
                0 => {
                    driver.decline(&proposal);
                    let until = NOW.plus_ms(1);
                    let (seat, agent) = (proposal.seat, proposal.agent);
                    driver
                        .claims
                        .refuse_seat(seat, agent, &proposal.resources, until);
                }
                1 => self.use_half(driver, &proposal),
                _ => self.kept.push_back(proposal),
            }
        }
        while self.kept.len() > MOST_KEPT
            && let Some(proposal) = self.kept.pop_front()
        {
            driver.decline(&proposal);
            woken.push(driver.agent_of(&proposal));
        }
        while self.used.len() > MOST_KEPT
            && let Some(((framework_id, id), held)) = self.used.pop_first()
        {
            driver
                .ledger
                .apply(&id, LIFE, &Transition::Recover(held))
                .unwrap();
            driver.claims.credit(&framework_id, &role(), &held).unwrap();
            woken.push(id);
        }
        woken
    }

    fn use_half(&mut self, driver: &mut Driver, proposal: &Proposal) {
        let all = proposal.resources;
        let (cpu_milli, mem_bytes) = (all.regular.cpu_milli() / 2, all.regular.mem_bytes() / 2);
        let used = Resources::regular(Quantities::cpus_mem(cpu_milli, mem_bytes));
        let accept = Transition::Accept { offered: all, used };
        driver
            .ledger
            .apply_at(proposal.agent, LIFE, &accept)
            .unwrap();
        let rest = all.checked_sub(&used).unwrap();
        assert!(driver.claims.credit_seat(proposal.seat, &rest));
        let key = (driver.framework_of(proposal), driver.agent_of(proposal));
        let holding = self.used.entry(key).or_default();
        *holding = holding.checked_add(&used).unwrap();
    }
}

#[test]
fn four_workers_and_a_busy_driver_end_with_books_that_agree() {
    const AGENTS: usize = 300;
    const PROPOSALS: usize = 20_000;
    let mut driver = Driver::new(AGENTS, 10);
    let (allocator, batches) = driver.start(4);
    driver.publish(&allocator);
    allocator.wake_all();
    let (mut seen, mut frameworks) = (0, Frameworks::default());
    while seen < PROPOSALS {
        let batch = batches.recv_timeout(PATIENCE).unwrap();
        assert!(!batch.proposals.is_empty());
        seen += batch.proposals.len();
        let mut woken = frameworks.play(&mut driver, batch);
        if driver.claims.refusals() > AGENTS {
            woken.extend(driver.claims.expire(NOW.plus_ms(1)));
        }
        driver.publish(&allocator);
        allocator.wake_ids(&woken);
    }
    allocator.stop();
    while let Ok(batch) = batches.try_recv() {
        driver.take_in(&batch);
    }
    assert_eq!(driver.ledger.check(), Ok(()));
    assert_eq!(driver.claims.fault(), None);
    let mut in_use = Sums::default();
    for slot in driver.ledger.slots().values() {
        in_use.add(&slot.load().in_use().regular);
    }
    let standing = driver.claims.role_standing(&role());
    assert_eq!(standing.held(Class::Regular), &in_use);
}

#[test]
fn a_number_of_threads_out_of_range_is_refused_with_the_range() {
    for asked in [0, 65] {
        let started = Allocator::start(asked, Arc::default(), &Claims::new(), Err);
        let Err(StartError::Number { .. }) = started else {
            panic!("{asked} threads were started");
        };
    }
}

#[test]
fn workers_that_wait_for_a_publication_end_when_they_are_stopped() {
    let mut driver = Driver::new(1, 1);
    let (allocator, batches) = driver.start(2);
    driver.publish(&allocator);
    allocator.wake_all();
    assert_eq!(batches.recv_timeout(PATIENCE).unwrap().proposals.len(), 1);
    allocator.stop();
    assert!(batches.recv().is_err(), "a worker still holds its sink");
}

#[test]
fn a_worker_that_is_far_behind_goes_on_with_a_copy() {
    let mut driver = Driver::new(2, 1);
    let (sender, batches) = channel();
    let (enter, entered) = channel();
    let (leave, left) = channel();
    let pauses = std::sync::Mutex::new((enter, left));
    let sink = move |batch: Batch| {
        let (enter, left) = &*pauses.lock().unwrap();
        enter.send(()).unwrap();
        left.recv().unwrap();
        sender.send(batch).map_err(|error| error.0)
    };
    let allocator = Allocator::start(1, Arc::clone(&driver.ledger), &driver.claims, sink).unwrap();
    driver.publish(&allocator);
    allocator.wake_ids([&agent(0)]);
    entered.recv_timeout(PATIENCE).unwrap();
    // It is held while more is published than an inbox holds.
    for weight in 0..=MAX_PUBLICATIONS_BEHIND as u32 {
        driver.claims.set_weight(&role(), 1000 + weight);
        driver.publish(&allocator);
    }
    assert_eq!(allocator.figures().copies, 1);
    leave.send(()).unwrap();
    let first = batches.recv_timeout(PATIENCE).unwrap();
    driver.take_in(&first);
    driver.publish(&allocator);
    allocator.wake_ids([&agent(1)]);
    entered.recv_timeout(PATIENCE).unwrap();
    leave.send(()).unwrap();
    let second = batches.recv_timeout(PATIENCE).unwrap();
    assert_eq!(driver.agent_of(&second.proposals[0]), agent(1));
}

/// A role at its limit, and agents of which it is offered nothing: once something of the role's ends, they are
/// offered without being woken one by one.
#[test]
fn what_was_left_because_of_a_quota_is_offered_once_quotas_leave_more() {
    for agents in [3, 300] {
        let mut driver = Driver::new(agents, 1);
        let limits = Limits::NONE
            .with(ResourceKind::Cpus, Some(total().cpu_milli()))
            .with(ResourceKind::Mem, Some(total().mem_bytes()));
        let quota = Quota {
            limits,
            ..Quota::default()
        };
        driver.claims.set_quota(&role(), quota);
        let (allocator, batches) = driver.start(1);
        driver.publish(&allocator);
        allocator.wake_all();
        let mut holder: Option<Proposal> = None;
        for round in 0..3 {
            let batch = batches.recv_timeout(PATIENCE).unwrap();
            assert_eq!(batch.proposals.len(), 1, "in round {round}");
            let proposal = batch.proposals[0];
            let is_new = holder.is_none_or(|old| old.agent != proposal.agent);
            assert!(is_new, "only the others were left");
            driver.take_in(&batch);
            driver.publish(&allocator);
            assert_eq!(
                batches.recv_timeout(QUIET).unwrap_err(),
                RecvTimeoutError::Timeout
            );
            // A task of all of it is accepted and ends, and its agent is not looked at.
            let held = &proposal.resources;
            assert!(driver.claims.credit_seat(proposal.seat, held));
            holder = Some(proposal);
            driver.publish(&allocator);
            allocator.wake_held_back();
        }
    }
}
