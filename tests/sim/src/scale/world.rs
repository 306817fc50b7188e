//! The master and what happens to it: one queue of happenings by simulated time, one input after another.
//!
//! Units: milliseconds of the simulated clock. A pass of the allocator comes [`PASS_MS`] after something was woken, over
//! as many agents as a pass of a worker thread takes at most; its proposals are the core's next input.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use ebb_master::core::Input;
use ebb_types::{AgentId, Offer};

use super::peers::{Agent, Framework, Task};
use super::{Broken, Report, Scale};
use crate::rng::Rng;
use crate::steady::{Master, Said};

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
    pub(super) master: Master,
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
    pass_due: bool,
    queue: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    queued: u64,
    inputs: VecDeque<Input>,
}

impl World {
    pub(super) fn new(scale: Scale) -> Self {
        let mut rng = Rng::new(scale.seed);
        Self {
            scale,
            now_ms: EPOCH_MS,
            phase: Phase::Placing,
            master: Master::new(EPOCH_MS, "scale"),
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
        self.report.steps = self.master.core.counters().steps;
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
        while let Some(due) = self.master.due_by(at_ms) {
            self.now_ms = due.max(self.now_ms);
            self.step(Input::Tick)?;
        }
        Ok(())
    }

    /// A pass of the allocator.
    fn pass(&mut self) -> Result<(), Broken> {
        self.pass_due = false;
        let proposals = self.master.plan();
        if !proposals.is_empty() {
            let batch = None;
            self.step(Input::Proposals { batch, proposals })?;
        }
        self.plan_pass();
        Ok(())
    }

    fn plan_pass(&mut self) {
        if !self.pass_due && self.master.has_work() {
            self.pass_due = true;
            self.at(PASS_MS, Happening::Pass);
        }
    }

    /// Hands an input to the core, performs what it answers, and so on with what comes of that.
    pub(super) fn step(&mut self, input: Input) -> Result<(), Broken> {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            let said = match self.master.step(self.now_ms, input) {
                Ok(said) => said,
                Err(what) => return self.fail(what),
            };
            for said in said {
                match said {
                    Said::Scheduler(connection, event) => {
                        self.framework_hears(connection, event)?;
                    }
                    Said::Agent(connection, message) => self.agent_hears(connection, message)?,
                }
            }
        }
        self.plan_pass();
        Ok(())
    }

    /// What is said to the master in answer to what it has just said.
    pub(super) fn reply(&mut self, input: Input) {
        self.inputs.push_back(input);
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
        let checked = self.check_books();
        self.check_time += start.elapsed();
        checked
    }
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;
