//! The cluster over time: one queue of happenings, one input after another; messages arrive at once and in order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use ebb_agent::core as agent;
use ebb_master::core::{ConnectionId, Input};
use ebb_types::{
    AgentToMaster, ContainerId, CorrectionAction, ExitStatus, MasterToAgent, Timestamp,
};

use super::frameworks::{Frameworks, Who};
use super::machine::{CORES, Counts, LIFE, Machine, Work};
use super::{Day, Loads, Planted, Report};
use crate::rng::Rng;
use crate::steady::{Master, Said};

/// When everything starts, so that no time is 0.
const EPOCH_MS: u64 = 1_000_000;
const MINUTE_MS: u64 = 60_000;
/// Between the wake of the allocator and its pass.
const PASS_MS: u64 = 1;
/// Between two readings, when all is calm and when not.
const CALM_MS: u64 = 1_000;
const TENSE_MS: u64 = 100;
/// After a jump readings are taken often for so long.
const ALERT_MS: u64 = 3_000;
/// When an agent looks after a jump: as its probes and `agent/src/sampling/pace.rs` have it.
const LOOKS_MS: [u64; 3] = [0, 20, 40];
/// A rise of what a service asks for is a jump from here on, in thousandths of a core.
const JUMP_MILLI: u64 = 250;
/// Longest time until a container runs, and until one that is told to end has.
const START_MS: u64 = 200;
const END_MS: u64 = 1_000;
/// A framework does not come back to an agent within this time after an eviction.
const COOL_DOWN_MS: u64 = ebb_master::core::limits::EVICTION_COOL_DOWN_MS;
/// How long a service lives.
const LIFE_MS: (u64, u64) = (6 * 3_600_000, 72 * 3_600_000);

/// What happens next to somebody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    /// The allocator looks at what was woken.
    Pass,
    /// A reading of an agent's counters; of its regular ones the last that was planned counts.
    Read {
        machine: usize,
        regular: Option<u64>,
    },
    /// An agent's deadline.
    Tick { machine: usize },
    /// A container runs.
    Starts { order: u64 },
    /// A container ends.
    Ends {
        machine: usize,
        container_id: ContainerId,
        signal: Option<i32>,
    },
    /// A service asks for something else.
    Turns {
        machine: usize,
        container_id: ContainerId,
    },
    /// Everything is checked.
    Check,
}

/// Somebody is told something.
enum Told {
    Master(Box<Input>),
    Agent(usize, agent::Input),
}

pub(super) struct Cluster<'a> {
    pub(super) day: Day,
    pub(super) loads: &'a Loads,
    pub(super) rng: Rng,
    pub(super) frameworks: Frameworks,
    now_ms: u64,
    master: Master,
    machines: Vec<Machine>,
    /// What is about to start, by number.
    orders: BTreeMap<u64, (usize, agent::LaunchOrder)>,
    ordered: u64,
    told: VecDeque<Told>,
    queue: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    queued: u64,
    pass_due: bool,
    lost_us: u64,
    report: Report,
}

impl<'a> Cluster<'a> {
    pub(super) fn new(day: Day, loads: &'a Loads) -> Self {
        Self {
            day,
            loads,
            rng: Rng::new(day.seed),
            frameworks: Frameworks::new(day.agents),
            now_ms: EPOCH_MS,
            master: Master::new(EPOCH_MS, "day"),
            machines: (0..day.agents)
                .map(|number| Machine::new(number, EPOCH_MS))
                .collect(),
            orders: BTreeMap::new(),
            ordered: 0,
            told: VecDeque::new(),
            queue: BinaryHeap::new(),
            queued: 0,
            pass_due: false,
            lost_us: 0,
            report: Report {
                digest: FNV_START,
                ..Report::default()
            },
        }
    }

    pub(super) const fn passed_ms(&self) -> u64 {
        self.now_ms - EPOCH_MS
    }

    pub(super) fn go(&mut self) -> Result<Report, String> {
        for number in 0..self.machines.len() {
            let containers = Default::default();
            self.tell_agent(number, agent::Input::Recovered { containers })?;
            let conn = Machine::conn(number);
            self.tell_agent(number, agent::Input::LinkUp { conn })?;
            // Agents do not read at the same moment.
            let after_ms = self.rng.between(1, CALM_MS);
            self.read_again(number, after_ms);
        }
        Who::ALL
            .into_iter()
            .try_for_each(|who| self.subscribe(who))?;
        self.at(MINUTE_MS, Happening::Check);
        let end_ms = EPOCH_MS + self.day.minutes * MINUTE_MS;
        while let Some(Reverse((at_ms, _, happening))) = self.queue.pop() {
            if at_ms > end_ms {
                break;
            }
            while let Some(due_ms) = self.master.due_by(at_ms) {
                self.now_ms = due_ms.max(self.now_ms);
                self.step(Input::Tick)?;
            }
            self.now_ms = at_ms;
            self.happen(happening)?;
        }
        self.check()?;
        Ok(self.sum_up())
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Pass => {
                self.pass_due = false;
                let proposals = self.master.plan();
                if !proposals.is_empty() {
                    let batch = None;
                    self.step(Input::Proposals { batch, proposals })?;
                }
                self.plan_pass();
                Ok(())
            }
            Happening::Read { machine, regular } => self.read(machine, regular),
            Happening::Tick { machine } => {
                let one = &mut self.machines[machine];
                if one.tick_at.take_if(|at| *at == self.now_ms).is_some() {
                    return self.tell_agent(machine, agent::Input::Tick);
                }
                Ok(())
            }
            Happening::Starts { order } => self.starts(order),
            Happening::Ends {
                machine,
                container_id,
                signal,
            } => self.ends(machine, container_id, signal),
            Happening::Turns {
                machine,
                container_id,
            } => {
                self.turns(machine, container_id);
                Ok(())
            }
            Happening::Check => {
                self.at(MINUTE_MS, Happening::Check);
                self.check()
            }
        }
    }

    fn at(&mut self, after_ms: u64, happening: Happening) {
        self.queued += 1;
        let at_ms = self.now_ms + after_ms;
        self.queue.push(Reverse((at_ms, self.queued, happening)));
    }

    fn plan_pass(&mut self) {
        if self.master.has_work() && !std::mem::replace(&mut self.pass_due, true) {
            self.at(PASS_MS, Happening::Pass);
        }
    }

    fn advance(&mut self, number: usize) {
        let (now_ms, loads) = (self.now_ms, self.loads);
        self.machines[number].advance(now_ms, loads);
    }

    fn read_again(&mut self, machine: usize, after_ms: u64) {
        let one = &mut self.machines[machine];
        one.reading += 1;
        let regular = Some(one.reading);
        self.at(after_ms, Happening::Read { machine, regular });
    }

    fn read(&mut self, number: usize, regular: Option<u64>) -> Result<(), String> {
        if regular.is_some_and(|reading| reading != self.machines[number].reading) {
            return Ok(());
        }
        self.advance(number);
        for container_id in self.machines[number].done() {
            self.ends(number, container_id, None)?;
        }
        self.report.samples += 1;
        if regular.is_none() {
            let look = self.machines[number].sample(false);
            return self.tell_agent(number, look);
        }
        // Every tenth of the frequent ones, and each of the others.
        let is_tense = self.machines[number].is_tense(self.now_ms);
        let is_full = !is_tense || self.machines[number].reading.is_multiple_of(10);
        let sample = self.machines[number].sample(is_full);
        self.tell_agent(number, sample)?;
        let is_tense = self.machines[number].is_tense(self.now_ms);
        self.read_again(number, if is_tense { TENSE_MS } else { CALM_MS });
        Ok(())
    }

    /// A service goes on to what it asks for next.
    fn turns(&mut self, number: usize, container_id: ContainerId) {
        self.advance(number);
        let loads = self.loads;
        let machine = &mut self.machines[number];
        let one = machine.containers.get_mut(&container_id);
        let Some(Work::Serve(load)) = one.map(|one| &mut one.work) else {
            return;
        };
        let before = loads.wants_milli(load);
        let after_ms = loads.go_on(load, &mut self.rng);
        if loads.wants_milli(load) >= before + JUMP_MILLI {
            machine.alert_until_ms = self.now_ms + ALERT_MS;
            self.report.jumps += 1;
            for look_ms in LOOKS_MS {
                let regular = None;
                let machine = number;
                // The probe tells of it within 10 ms.
                self.at(10 + look_ms, Happening::Read { machine, regular });
            }
            self.read_again(number, TENSE_MS);
        }
        let machine = number;
        self.at(
            after_ms,
            Happening::Turns {
                machine,
                container_id,
            },
        );
    }

    fn starts(&mut self, order: u64) -> Result<(), String> {
        let order = self.orders.remove(&order);
        let (number, order) = order.ok_or("a container is started twice")?;
        self.advance(number);
        let work = self.read_command(&order.command.value)?;
        let machine = &mut self.machines[number];
        machine.start(&order, work);
        let container_id = order.container_id;
        if let Work::Serve(_) = work {
            self.report.services += 1;
            let life_ms = self.rng.between(LIFE_MS.0, LIFE_MS.1);
            let ends = Happening::Ends {
                machine: number,
                container_id: container_id.clone(),
                signal: None,
            };
            self.at(life_ms, ends);
            let turns = Happening::Turns {
                machine: number,
                container_id: container_id.clone(),
            };
            let after_ms = self.rng.between(1, 5 * MINUTE_MS);
            self.at(after_ms, turns);
        } else {
            self.report.lent_started += 1;
        }
        self.tell_agent(number, agent::Input::Started { container_id })
    }

    fn ends(
        &mut self,
        number: usize,
        container_id: ContainerId,
        signal: Option<i32>,
    ) -> Result<(), String> {
        self.advance(number);
        let Some(one) = self.machines[number].containers.remove(&container_id) else {
            return Ok(());
        };
        match one.work {
            Work::Compute { left_us: 0 } => self.report.lent_finished += 1,
            Work::Compute { .. } => self.lost_us += one.used_us,
            Work::Serve(_) => {}
        }
        let status = signal.map_or(ExitStatus::Code(0), ExitStatus::Signal);
        let exit = agent::Exit {
            status: Some(status),
            ..agent::Exit::default()
        };
        self.tell_agent(number, agent::Input::Exited { container_id, exit })
    }

    /// Tells the master something, and everybody what comes of it.
    pub(super) fn step(&mut self, input: Input) -> Result<(), String> {
        self.tell(Told::Master(Box::new(input)))
    }

    fn tell_agent(&mut self, number: usize, input: agent::Input) -> Result<(), String> {
        self.tell(Told::Agent(number, input))
    }

    fn tell(&mut self, told: Told) -> Result<(), String> {
        self.told.push_back(told);
        if self.told.len() > 1 {
            // Whoever is at it takes it up.
            return Ok(());
        }
        while let Some(told) = self.told.front_mut() {
            match std::mem::replace(told, Told::Master(Box::new(Input::Tick))) {
                Told::Master(input) => {
                    for said in self.master.step(self.now_ms, *input)? {
                        match said {
                            Said::Scheduler(connection, event) => {
                                self.framework_hears(connection, event)?;
                            }
                            Said::Agent(connection, message) => {
                                self.agent_hears(connection, message)?;
                            }
                        }
                    }
                }
                Told::Agent(number, input) => self.agent_step(number, input)?,
            }
            self.told.pop_front();
        }
        self.plan_pass();
        Ok(())
    }

    fn agent_hears(
        &mut self,
        connection: ConnectionId,
        message: MasterToAgent,
    ) -> Result<(), String> {
        let number = connection.0 as usize - 1;
        if let MasterToAgent::Registered { agent_id, .. } = &message {
            self.machines[number].agent_id = Some(agent_id.clone());
        }
        let input = agent::Input::FromMaster {
            conn: Machine::conn(number),
            generation: self.master.core.generation(),
            message,
        };
        self.tell_agent(number, input)
    }

    fn agent_step(&mut self, number: usize, input: agent::Input) -> Result<(), String> {
        let now = Timestamp::from_ms(self.now_ms);
        let effects = self.machines[number].core.step(now, input);
        for effect in effects {
            self.perform(number, effect)?;
        }
        let machine = &mut self.machines[number];
        let due = machine.core.next_deadline().map(Timestamp::as_ms);
        // Those that a regular reading will find need no moment of their own.
        let due = due.filter(|due_ms| *due_ms <= self.now_ms + CALM_MS);
        let due = due.map(|due_ms| due_ms.max(self.now_ms + 1));
        if let Some(due_ms) = due
            && machine
                .tick_at
                .is_none_or(|at| at > due_ms || at <= self.now_ms)
        {
            machine.tick_at = Some(due_ms);
            let machine = number;
            self.at(due_ms - self.now_ms, Happening::Tick { machine });
        }
        Ok(())
    }

    fn perform(&mut self, number: usize, effect: agent::Effect) -> Result<(), String> {
        use agent::Effect;
        match effect {
            Effect::ToMaster { message, .. } => {
                if let AgentToMaster::Oversubscribed(lent) = &*message {
                    self.machines[number].told = *lent;
                }
                self.step(Input::Agent {
                    connection: ConnectionId(1 + number as u64),
                    incarnation: LIFE,
                    message: *message,
                })?;
            }
            Effect::Launch(order) => self.launch(number, *order)?,
            Effect::Throttle { .. } | Effect::Freeze { .. }
                if self.day.planted == Some(Planted::CapsIgnored) => {}
            Effect::Throttle {
                container_id,
                cpu_milli,
            } => {
                self.advance(number);
                self.machines[number].throttle(&container_id, cpu_milli);
            }
            Effect::Freeze { container_id } => {
                self.advance(number);
                self.machines[number].freeze(&container_id, true);
            }
            Effect::Thaw { container_id } => {
                self.advance(number);
                self.machines[number].freeze(&container_id, false);
            }
            Effect::Terminate { container_id } => self.end_soon(number, container_id, 15, END_MS),
            Effect::KillContainer { container_id } => self.end_soon(number, container_id, 9, 10),
            Effect::Observe(agent::Observation::Corrected(correction)) => {
                self.corrected(number, &correction);
            }
            Effect::Persist(_)
            | Effect::Note(_)
            | Effect::Observe(_)
            | Effect::Destroy { .. }
            | Effect::Warn { .. } => {}
            effect => return Err(format!("agent {number}: nothing here asks for {effect:?}")),
        }
        Ok(())
    }

    fn end_soon(&mut self, machine: usize, container_id: ContainerId, signal: i32, within_ms: u64) {
        let after_ms = self.rng.between(1, within_ms);
        let ends = Happening::Ends {
            machine,
            container_id,
            signal: Some(signal),
        };
        self.at(after_ms, ends);
    }

    fn launch(&mut self, number: usize, order: agent::LaunchOrder) -> Result<(), String> {
        let machine = &self.machines[number];
        if order.resources.is_revocable() {
            let evicted_ms = machine.evicted_ms.get(&order.framework_id);
            let too_early = |at_ms: &&u64| self.now_ms < **at_ms + COOL_DOWN_MS;
            if let Some(at_ms) = evicted_ms.filter(too_early) {
                return Err(format!(
                    "{} comes back to agent {number} {} ms after an eviction",
                    order.framework_id,
                    self.now_ms - at_ms
                ));
            }
        }
        self.digest(&[
            number as u64,
            order.resources.total(ebb_types::ResourceKind::Cpus),
        ]);
        self.ordered += 1;
        self.orders.insert(self.ordered, (number, order));
        let (after_ms, order) = (self.rng.between(1, START_MS), self.ordered);
        self.at(after_ms, Happening::Starts { order });
        Ok(())
    }

    fn corrected(&mut self, number: usize, correction: &ebb_types::Correction) {
        let report = &mut self.report;
        match correction.action {
            CorrectionAction::Throttle { .. } => report.throttles += 1,
            CorrectionAction::Freeze => report.freezes += 1,
            CorrectionAction::Release => report.releases += 1,
            // A day's machines have no network, and nobody stands still for memory.
            CorrectionAction::LimitNetwork { .. }
            | CorrectionAction::ReleaseNetwork
            | CorrectionAction::ReclaimMemory { .. }
            | CorrectionAction::ReleaseMemory => {}
            CorrectionAction::Evict => {
                let now_ms = self.now_ms;
                let machine = &mut self.machines[number];
                let framework_id = correction.framework_id.clone();
                machine.evicted_ms.insert(framework_id, now_ms);
                let one = machine.containers.get_mut(&correction.container_id);
                if let Some(one) = one
                    && !std::mem::replace(&mut one.evicted, true)
                {
                    report.evictions += 1;
                }
            }
        }
        self.digest(&[number as u64, correction.action.name().len() as u64]);
    }

    fn check(&mut self) -> Result<(), String> {
        self.report.checks += 1;
        self.master.check()?;
        for (number, machine) in self.machines.iter().enumerate() {
            let in_use = machine.in_use();
            if !Self::whole().regular.contains(&in_use.regular) {
                return Err(format!("agent {number} runs {in_use}"));
            }
            let agent_id = machine.agent_id.as_ref().ok_or("an agent has no id")?;
            let slot = self.master.ledger.get(agent_id);
            let ledger = slot.ok_or("an agent is not in the ledger")?.load();
            // What is being started is allocated already.
            let mut starting = self.orders.values();
            let waits = starting.any(|(of, _)| *of == number);
            if !waits && ledger.allocated != in_use {
                return Err(format!(
                    "{} of agent {number} is allocated, and {in_use} runs",
                    ledger.allocated
                ));
            }
            if ledger.oversubscribed != machine.told {
                return Err(format!(
                    "agent {number} lends {}, and the master knows of {}",
                    machine.told, ledger.oversubscribed
                ));
            }
        }
        Ok(())
    }

    fn sum_up(&mut self) -> Report {
        let mut sum = Counts::default();
        for number in 0..self.machines.len() {
            self.advance(number);
            let counts = self.machines[number].counts;
            sum.passed_ms += counts.passed_ms;
            sum.owned_us += counts.owned_us;
            sum.lent_us += counts.lent_us;
            sum.asked_us += counts.asked_us;
            sum.short_us += counts.short_us;
            sum.shortages += counts.shortages;
            sum.late += counts.late;
            sum.longest_ms = sum.longest_ms.max(counts.longest_ms);
        }
        let could_us = sum.passed_ms * u64::from(CORES) * 1_000;
        let part = |part: u64, whole: u64, of: u64| {
            (u128::from(part) * u128::from(of) / u128::from(whole.max(1))) as u64
        };
        Report {
            owned_permille: part(sum.owned_us, could_us, 1_000),
            busy_permille: part(sum.owned_us + sum.lent_us, could_us, 1_000),
            lent_cpu_s: sum.lent_us / 1_000_000,
            shortages: sum.shortages,
            late: sum.late,
            longest_ms: sum.longest_ms,
            short_ppm: part(sum.short_us, sum.asked_us, 1_000_000),
            lost_ppm: part(self.lost_us, sum.lent_us, 1_000_000),
            ..self.report
        }
    }

    /// Adds numbers to the digest (FNV-1a over their bytes), with when it was.
    fn digest(&mut self, numbers: &[u64]) {
        let now_ms = self.now_ms;
        for byte in [now_ms]
            .iter()
            .chain(numbers)
            .flat_map(|number| number.to_le_bytes())
        {
            self.report.digest = (self.report.digest ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
    }
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;
