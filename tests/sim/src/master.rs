//! The master's process: its core, ledger and allocator, and its registry, which outlives it.

use std::collections::{BTreeMap, BTreeSet};

use ebb_master::allocator::{MAX_AGENTS_AT_ONCE, Proposal, pass};
use ebb_master::core::allocate::Planner;
use ebb_master::core::record::{Activity, RegistryWrite, Restored};
use ebb_master::core::{ConnectionId, Core, CoreConfig, Effect, Input};
use ebb_master::ledger::{Ledger, Transition};
use ebb_master::mirror::{Books, Parts};
use ebb_types::{AgentId, AgentToMaster, Call, Event, Generation, Limits, MasterToAgent};

use crate::network::{AT_MASTER, AT_PEER, LinkId, Message, Peer};
use crate::planted::Planted;
use crate::world::{Happening, World};

/// The copy of the books is held against them after every so many steps.
const BOOKS_EVERY: u64 = 16;

/// One life of the master.
pub struct Master {
    pub life: u64,
    pub core: Core,
    /// The copy that readers would see.
    books: Books,
    ledger: Ledger,
    planner: Planner,
    awake: BTreeSet<AgentId>,
    pass_due: bool,
    in_flight: BTreeMap<u64, Vec<Proposal>>,
    next_batch: u64,
    tick_at: Option<u64>,
}

fn config() -> CoreConfig {
    CoreConfig {
        heartbeat_interval_ms: 5_000,
        unreachable_after_ms: 20_000,
        agent_reregister_timeout_ms: 40_000,
        framework_recovery_ms: 60_000,
        offer_timeout_ms: Some(30_000),
        domain: "here/z".parse().ok(),
        ..CoreConfig::default()
    }
}

impl World {
    /// Starts the master with what its registry holds.
    pub fn start_master(&mut self) {
        self.master_lives += 1;
        if self.planted != Some(Planted::GenerationReused) || self.registry.generation.0 == 0 {
            self.registry.generation = Generation(self.registry.generation.0 + 1);
        }
        let mut core = Core::new(self.now(), config(), self.registry.clone());
        core.observe(true);
        let mut books = Books::new(core.master_info());
        books.start_anew(core.everything());
        self.master = Some(Master {
            life: self.master_lives,
            planner: Planner::new(core.claims().copy()),
            books,
            core,
            ledger: Ledger::new(),
            awake: BTreeSet::new(),
            pass_due: false,
            in_flight: BTreeMap::new(),
            next_batch: 0,
            tick_at: None,
        });
        self.log(|| "master starts".to_owned());
        self.master_step(Input::Tick);
    }

    /// Ends the master as `kill -9` does.
    pub fn crash_master(&mut self) {
        let Some(master) = self.master.take() else {
            return;
        };
        self.log(|| "master crashes".to_owned());
        let links: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| link.master_life == master.life)
            .map(|(id, _)| *id)
            .collect();
        for link in links {
            self.break_link(link);
        }
        let again = self.now_ms + self.rng.between(10, 15_000);
        self.at(again, Happening::StartMaster);
    }

    /// Hands an input to the master's core and performs what it answers.
    pub fn master_step(&mut self, input: Input) {
        let now = self.now();
        let Some(mut master) = self.master.take() else {
            return;
        };
        self.steps += 1;
        let is_offering = matches!(input, Input::Proposals { .. });
        let before = is_offering.then(|| {
            (
                self.quotas_before(&master.core),
                self.lots_held(&master.core),
            )
        });
        let effects = master.core.step(now, input);
        if let Some((before, lots)) = before {
            self.check_quotas(&before, &master.core);
            self.check_lot_limits(&lots, &master.core);
        }
        let news = master.core.news();
        master.books.follow(news);
        if self.steps.is_multiple_of(BOOKS_EVERY) {
            self.check_books(&mut master);
        }
        // A crash in the middle: what comes after never happens.
        let crash_after =
            (self.faulty() && self.rng.chance(1)).then(|| self.rng.index(effects.len() + 1));
        for (done, effect) in effects.into_iter().enumerate() {
            if crash_after == Some(done) {
                self.master = Some(master);
                self.crash_master();
                return;
            }
            self.perform_master(&mut master, effect);
        }
        self.check_master(&master);
        // Half of what is little is offered at once, as the driver does; the rest of it by a worker.
        let is_little = (1..=MAX_AGENTS_AT_ONCE).contains(&master.awake.len());
        if is_little && !is_offering && self.rng.chance(500) {
            let awake = std::mem::take(&mut master.awake);
            let (ledger, planted) = (&master.ledger, self.planted);
            let proposals =
                (master.core).plan(|planner| propose_from(ledger, planner, &awake, planted));
            if !proposals.is_empty() {
                self.master = Some(master);
                let batch = None;
                self.master_step(Input::Proposals { batch, proposals });
                return;
            }
        }
        if !master.pass_due && !master.awake.is_empty() {
            master.pass_due = true;
            let soon = self.now_ms + self.rng.between(0, 5);
            self.at(soon, Happening::Allocate { life: master.life });
        }
        let deadline = master
            .core
            .next_deadline()
            .map(|at| at.as_ms().max(self.now_ms + 1));
        if deadline.is_some()
            && deadline != master.tick_at
            && self.planted != Some(Planted::NoTicks)
        {
            master.tick_at = deadline;
            self.at(
                deadline.unwrap_or(0),
                Happening::MasterTick { life: master.life },
            );
        }
        self.master = Some(master);
    }

    /// What readers would see is what the core has.
    fn check_books(&mut self, master: &mut Master) {
        let state = master.core.cluster_state();
        if master.books.show(state.at).state(Parts::ALL) != state {
            self.fail("the copy of the books shows another state than the books".to_owned());
        }
    }

    fn check_master(&mut self, master: &Master) {
        let checked = master.core.check().and_then(|()| {
            let in_flight = master.in_flight.values().flatten();
            master.core.check_ledger(
                |id| master.ledger.get(id).map(|slot| slot.load()),
                in_flight,
            )
        });
        if let Err(violation) = checked {
            self.fail(violation.to_string());
        }
        if let Err(imbalance) = master.ledger.check() {
            self.fail(format!("the ledger does not add up: {imbalance:?}"));
        }
    }

    fn perform_master(&mut self, master: &mut Master, effect: Effect) {
        match effect {
            Effect::Persist(writes) => self.persist(writes),
            Effect::ToScheduler {
                connection,
                mut event,
            } => {
                if let Event::Offers(offers) = &mut event {
                    self.check_lots_offered(offers);
                }
                self.send(connection.0, AT_PEER, Message::Event(event));
            }
            Effect::ToAgent {
                connection,
                message,
            } => self.order(master, connection, message),
            Effect::CloseScheduler { connection, .. } | Effect::CloseAgent { connection, .. } => {
                self.close_link(connection.0, AT_MASTER);
            }
            Effect::InsertSlot {
                agent_id,
                number,
                ledger,
            } => {
                master.ledger.insert(agent_id, number, ledger);
            }
            Effect::RemoveSlot { agent_id } => {
                master.ledger.remove(&agent_id);
            }
            Effect::Ledger {
                agent_id,
                incarnation,
                transition,
            } => {
                let times = match (self.planted, transition) {
                    (Some(Planted::MasterLeaksResources), Transition::Recover(_))
                    | (Some(Planted::RescindLeaks), Transition::Rescind(_)) => 0,
                    (Some(Planted::MasterRecoversTwice), Transition::Recover(_)) => 2,
                    _ => 1,
                };
                for _ in 0..times {
                    if let Err(refused) = master.ledger.apply(&agent_id, incarnation, &transition) {
                        self.fail(format!(
                            "the ledger refuses {transition:?} of {agent_id}: {refused}"
                        ));
                    }
                }
            }
            Effect::Publish => master.planner.follow(&master.core.publish()),
            Effect::Wake(agents) => master.awake.extend(agents),
            Effect::WakeAll | Effect::WakeHeldBack => {
                master.awake.extend(master.ledger.slots().keys().cloned())
            }
            Effect::Answer { outcome, .. } => self.note_answer(outcome.is_ok()),
        }
    }

    fn persist(&mut self, writes: Vec<RegistryWrite>) {
        if self.planted == Some(Planted::MasterForgetsPersist) {
            return;
        }
        for mut write in writes {
            if let (Some(Planted::ActivityForgotten), RegistryWrite::PutAgent(record)) =
                (self.planted, &mut write)
            {
                record.activity = Activity::Active;
            }
            let is_window = matches!(write, RegistryWrite::PutWindow(_));
            if is_window && self.planted == Some(Planted::WindowForgotten) {
                continue;
            }
            let is_operation = matches!(write, RegistryWrite::PutOperation(_));
            if is_operation && self.planted == Some(Planted::OperationForgotten) {
                continue;
            }
            let is_limit = matches!(write, RegistryWrite::PutLotLimits { .. });
            if is_limit && self.planted == Some(Planted::LotLimitForgotten) {
                continue;
            }
            let is_quota = matches!(write, RegistryWrite::PutQuota { .. });
            if is_quota && self.planted == Some(Planted::QuotaForgotten) {
                continue;
            }
            if let RegistryWrite::PutQuota { quota, .. } = &mut write
                && self.planted == Some(Planted::RevocableLimitForgotten)
            {
                quota.revocable_limits = Limits::NONE;
            }
            self.registry.apply(write);
        }
    }

    fn order(&mut self, master: &Master, connection: ConnectionId, mut message: MasterToAgent) {
        let peer = self.links.get(&connection.0).map(|link| link.peer);
        if let (MasterToAgent::Lots { dynamic, .. }, Some(Peer::Agent { number, .. })) =
            (&mut message, peer)
        {
            self.check_lots_ordered(number, dynamic);
        }
        let generation = master.core.generation();
        self.send(
            connection.0,
            AT_PEER,
            Message::Down(generation, Box::new(message)),
        );
    }

    /// A pass of the allocator; what it proposes reaches the core a little later.
    pub fn allocate(&mut self, life: u64) {
        let Some(master) = self.master.as_mut().filter(|master| master.life == life) else {
            return;
        };
        master.pass_due = false;
        let awake = std::mem::take(&mut master.awake);
        let (ledger, planner) = (&master.ledger, &mut master.planner);
        let proposals = propose_from(ledger, planner, &awake, self.planted);
        if proposals.is_empty() {
            return;
        }
        master.next_batch += 1;
        let batch = master.next_batch;
        master.in_flight.insert(batch, proposals);
        let soon = self.now_ms + self.rng.between(0, 5);
        self.at(soon, Happening::Propose { life, batch });
    }

    /// Proposals reach the core.
    pub fn propose(&mut self, life: u64, batch: u64) {
        let Some(master) = self.master.as_mut().filter(|master| master.life == life) else {
            return;
        };
        let Some(proposals) = master.in_flight.remove(&batch) else {
            return;
        };
        self.master_step(Input::Proposals {
            batch: None,
            proposals,
        });
    }

    /// A message reaches the master's end of a stream.
    pub fn master_hears(&mut self, link: LinkId, message: Message) {
        let connection = ConnectionId(link);
        match message {
            Message::Call(mut call) => {
                self.lose_terms(&mut call);
                self.note_call(link, &call);
                self.master_step(Input::Scheduler { connection, call });
            }
            Message::Up(incarnation, mut message) => {
                if let (
                    Some(Planted::ReregistrationLeavesOut),
                    AgentToMaster::Reregister { tasks, .. },
                ) = (self.planted, &mut *message)
                {
                    tasks.pop();
                }
                self.log(|| format!("link {link}: {message:?}"));
                let early = self.acknowledges_early(&message);
                self.master_step(Input::Agent {
                    connection,
                    incarnation,
                    message: *message,
                });
                if let Some((order, master)) = early.zip(self.master.as_ref()) {
                    let generation = master.core.generation();
                    self.send(link, AT_PEER, Message::Down(generation, Box::new(order)));
                }
            }
            Message::Event(_) | Message::Down(..) => {}
        }
    }

    /// Terms that are lost on their way, where that is planted.
    fn lose_terms(&self, call: &mut Call) {
        let (Call::Subscribe { terms, .. } | Call::UpdateFramework { terms, .. }) = call else {
            return;
        };
        for of_role in terms.values_mut() {
            match self.planted {
                Some(Planted::ConstraintsLost) => of_role.groups.clear(),
                Some(Planted::MinimumLost) => of_role.minimum = None,
                _ => {}
            }
        }
    }

    fn acknowledges_early(&self, message: &AgentToMaster) -> Option<MasterToAgent> {
        match message {
            AgentToMaster::Update {
                framework_id,
                status,
                ..
            } if self.planted == Some(Planted::MasterAcknowledgesEarly) => {
                Some(MasterToAgent::Acknowledge {
                    framework_id: framework_id.clone(),
                    task_id: status.task_id.clone(),
                    uuid: status.uuid?,
                })
            }
            _ => None,
        }
    }

    /// The master's end of a stream is gone.
    pub fn master_loses(&mut self, link: LinkId) {
        let Some(peer) = self.links.get(&link).map(|link| link.peer) else {
            return;
        };
        let connection = ConnectionId(link);
        self.master_step(match peer {
            Peer::Agent { .. } => Input::AgentGone { connection },
            Peer::Framework { .. } => Input::SchedulerGone { connection },
        });
    }

    /// A deadline of the core may be due.
    pub fn master_tick(&mut self, life: u64) {
        let now_ms = self.now_ms;
        let Some(master) = self.master.as_mut().filter(|master| master.life == life) else {
            return;
        };
        if master.tick_at == Some(now_ms) {
            master.tick_at = None;
            self.master_step(Input::Tick);
        }
    }

    /// What every agent still has allocated, and what is free on it, for the last check.
    pub fn ledger_at_rest(&self) -> Vec<(AgentId, ebb_master::ledger::AgentLedger)> {
        let slots = self.master.as_ref().map(|master| master.ledger.slots());
        slots
            .iter()
            .flat_map(|slots| slots.iter())
            .map(|(id, slot)| (id.clone(), slot.load()))
            .collect()
    }

    fn note_call(&mut self, link: LinkId, call: &Call) {
        self.log(|| format!("link {link}: {call:?}"));
    }
}

/// An empty registry.
pub fn new_registry() -> Restored {
    Restored {
        cluster: "sim".to_owned(),
        ..Restored::default()
    }
}

fn propose_from(
    ledger: &Ledger,
    planner: &mut Planner,
    awake: &BTreeSet<AgentId>,
    planted: Option<Planted>,
) -> Vec<Proposal> {
    let proposals = pass(ledger, planner, awake);
    if planted == Some(Planted::AllocatorSkipsCommit) {
        for proposal in &proposals {
            let back = Transition::Rescind(proposal.resources);
            let undone = ledger.apply_at(proposal.agent, proposal.incarnation, &back);
            debug_assert!(undone.is_ok());
        }
    }
    proposals
}
