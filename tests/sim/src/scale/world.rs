//! The master and what happens to it: one queue of happenings by simulated time, one input after another.
//!
//! Units: milliseconds of the simulated clock. A pass of the allocator comes [`PASS_MS`] after something was woken, over
//! as many agents as a pass of a worker thread takes at most; its proposals are the core's next input.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use ebb_master::allocator::{MAX_AGENTS_PER_PASS, pass};
use ebb_master::core::allocate::Planner;
use ebb_master::core::record::Restored;
use ebb_master::core::{Core, CoreConfig, Effect, Input};
use ebb_master::ledger::Ledger;
use ebb_types::{AgentId, Generation, Offer, Timestamp};

use super::peers::{Agent, Framework, Task};
use super::{Broken, Report, Scale};
use crate::rng::Rng;

/// When everything starts, so that no time is 0.
const EPOCH_MS: u64 = 1_000_000;
/// How long after a wake the allocator looks.
const PASS_MS: u64 = 1;
/// Checks on the way, apart from the last one.
const CHECKS: u32 = 10;

/// What happens next to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Happening {
    /// The allocator looks at what was woken.
    Pass,
    /// A framework answers an offer.
    Answer { framework: u32, offer: u64 },
    /// A task begins to run.
    Runs(u32),
    /// A task ends.
    Ends(u32),
    /// A framework acknowledges a status of a task.
    Acknowledge(u32),
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Frameworks place tasks.
    Placing,
    /// All are placed: frameworks want nothing more.
    Ending,
    /// Everything is offered once more, and held.
    Resting,
}

/// A whole cluster.
pub(super) struct World {
    pub(super) scale: Scale,
    pub(super) rng: Rng,
    pub(super) now_ms: u64,
    pub(super) phase: Phase,
    pub(super) core: Core,
    pub(super) ledger: Ledger,
    pub(super) planner: Planner,
    pub(super) agents: Vec<Agent>,
    pub(super) frameworks: Vec<Framework>,
    pub(super) tasks: Vec<Task>,
    pub(super) agent_numbers: HashMap<AgentId, u32>,
    /// Offers that wait for their framework's answer.
    pub(super) held: HashMap<u64, Offer>,
    pub(super) next_offer: u64,
    /// Tasks that are asked for.
    pub(super) placed: u32,
    /// Tasks whose end was acknowledged.
    pub(super) settled: u32,
    pub(super) running: u32,
    pub(super) report: Report,
    pub(super) check_time: Duration,
    awake: BTreeSet<AgentId>,
    all_awake: bool,
    pass_due: bool,
    queue: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    queued: u64,
    inputs: VecDeque<Input>,
}

impl World {
    pub(super) fn new(scale: Scale) -> Self {
        let restored = Restored {
            cluster: "scale".to_owned(),
            generation: Generation(1),
            ..Restored::default()
        };
        let config = CoreConfig::default();
        let core = Core::new(Timestamp::from_ms(EPOCH_MS), config, restored);
        let mut rng = Rng::new(scale.seed);
        Self {
            scale,
            now_ms: EPOCH_MS,
            phase: Phase::Placing,
            planner: Planner::new(core.claims().copy()),
            core,
            ledger: Ledger::new(),
            agents: (0..scale.agents).map(|_| Agent::new(&mut rng)).collect(),
            frameworks: (0..scale.frameworks).map(Framework::new).collect(),
            rng,
            tasks: Vec::with_capacity(scale.placements as usize),
            agent_numbers: HashMap::with_capacity(scale.agents as usize),
            held: HashMap::new(),
            next_offer: 0,
            placed: 0,
            settled: 0,
            running: 0,
            report: Report {
                digest: FNV_START,
                placements: 0,
                offers: 0,
                declined: 0,
                steps: 0,
                most_at_once: 0,
                fewest: 0,
                most: 0,
                checks: 0,
                simulated_ms: 0,
            },
            check_time: Duration::ZERO,
            awake: BTreeSet::new(),
            all_awake: false,
            pass_due: false,
            queue: BinaryHeap::new(),
            queued: 0,
            inputs: VecDeque::new(),
        }
    }

    pub(super) const fn check_time(&self) -> Duration {
        self.check_time
    }

    pub(super) fn go(&mut self) -> Result<Report, Broken> {
        self.join_all()?;
        self.happen_all()?;
        self.expect(self.settled == self.scale.placements, || {
            String::from("nothing happens any more and tasks have not ended")
        })?;
        self.check()?;
        self.phase = Phase::Resting;
        self.revive_all()?;
        self.happen_all()?;
        self.check()?;
        self.check_at_rest()?;
        let placed = self.frameworks.iter().map(|framework| framework.placed);
        self.report.fewest = placed.clone().min().unwrap_or(0);
        self.report.most = placed.max().unwrap_or(0);
        self.report.steps = self.core.counters().steps;
        self.report.simulated_ms = self.now_ms - EPOCH_MS;
        Ok(self.report)
    }

    fn happen_all(&mut self) -> Result<(), Broken> {
        let every = (self.scale.placements / CHECKS).max(1);
        let mut next_check = self.report.placements / every + 1;
        while let Some(Reverse((at_ms, _, happening))) = self.queue.pop() {
            self.tick_until(at_ms)?;
            self.now_ms = at_ms;
            match happening {
                Happening::Pass => self.pass()?,
                Happening::Answer { framework, offer } => self.answer(framework, offer)?,
                Happening::Runs(task) => self.runs(task)?,
                Happening::Ends(task) => self.ends(task)?,
                Happening::Acknowledge(task) => self.acknowledge(task)?,
            }
            if self.report.placements >= next_check * every && next_check < CHECKS {
                next_check += 1;
                self.check()?;
            }
        }
        Ok(())
    }

    /// The core's deadlines up to a time.
    fn tick_until(&mut self, at_ms: u64) -> Result<(), Broken> {
        while let Some(due) = self.core.next_deadline().map(Timestamp::as_ms)
            && due <= at_ms
        {
            self.now_ms = due.max(self.now_ms);
            self.step(Input::Tick)?;
        }
        Ok(())
    }

    /// A pass of the allocator.
    fn pass(&mut self) -> Result<(), Broken> {
        self.pass_due = false;
        if std::mem::take(&mut self.all_awake) {
            self.awake.extend(self.ledger.slots().keys().cloned());
        }
        let now: Vec<AgentId> = std::iter::from_fn(|| self.awake.pop_first())
            .take(MAX_AGENTS_PER_PASS)
            .collect();
        self.planner.follow(&self.core.publish());
        let proposals = pass(&self.ledger, &mut self.planner, &now);
        if !proposals.is_empty() {
            let batch = None;
            self.step(Input::Proposals { batch, proposals })?;
        }
        self.plan_pass();
        Ok(())
    }

    fn plan_pass(&mut self) {
        if !self.pass_due && (self.all_awake || !self.awake.is_empty()) {
            self.pass_due = true;
            self.at(PASS_MS, Happening::Pass);
        }
    }

    /// Hands an input to the core, performs what it answers, and so on with what comes of that.
    pub(super) fn step(&mut self, input: Input) -> Result<(), Broken> {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            let now = Timestamp::from_ms(self.now_ms);
            for effect in self.core.step(now, input) {
                self.perform(effect)?;
            }
        }
        self.plan_pass();
        Ok(())
    }

    /// What is said to the master in answer to what it has just said.
    pub(super) fn reply(&mut self, input: Input) {
        self.inputs.push_back(input);
    }

    fn perform(&mut self, effect: Effect) -> Result<(), Broken> {
        match effect {
            // Nothing is restarted here, so nothing need be durable. What is published is followed before a pass.
            Effect::Persist(_) | Effect::Publish => {}
            Effect::ToScheduler { connection, event } => self.framework_hears(connection, event)?,
            Effect::ToAgent {
                connection,
                message,
            } => self.agent_hears(connection, message)?,
            Effect::InsertSlot {
                agent_id,
                number,
                ledger,
            } => {
                self.ledger.insert(agent_id, number, ledger);
            }
            Effect::Ledger {
                agent_id,
                incarnation,
                transition,
            } => {
                if let Err(refused) = self.ledger.apply(&agent_id, incarnation, &transition) {
                    return self.fail(format!(
                        "the ledger refuses {transition:?} of {agent_id}: {refused}"
                    ));
                }
            }
            Effect::Wake(agents) => self.awake.extend(agents),
            Effect::WakeAll | Effect::WakeHeldBack => self.all_awake = true,
            Effect::Answer {
                outcome: Ok(()), ..
            } => {}
            effect => return self.fail(format!("nothing here asks for {effect:?}")),
        }
        Ok(())
    }

    /// Lets something happen after a while.
    pub(super) fn at(&mut self, after_ms: u64, happening: Happening) {
        self.queued += 1;
        let at_ms = self.now_ms + after_ms;
        self.queue.push(Reverse((at_ms, self.queued, happening)));
    }

    pub(super) fn fail(&self, what: String) -> Result<(), Broken> {
        Err(Broken {
            scale: self.scale,
            at_ms: self.now_ms - EPOCH_MS,
            what,
        })
    }

    pub(super) fn expect(&self, holds: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
        if holds { Ok(()) } else { self.fail(what()) }
    }

    /// Adds numbers to the digest (FNV-1a over their bytes).
    pub(super) fn digest(&mut self, numbers: &[u64]) {
        for byte in numbers.iter().flat_map(|number| number.to_le_bytes()) {
            self.report.digest = (self.report.digest ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
    }

    fn check(&mut self) -> Result<(), Broken> {
        let start = Instant::now();
        self.report.checks += 1;
        self.planner.follow(&self.core.publish());
        let checked = self.check_books();
        self.check_time += start.elapsed();
        checked
    }
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;
