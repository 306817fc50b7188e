//! Joins a scheduler and its session into one pure state machine: inputs with the time go in, what to
//! send comes out. A driver gives it a connection, a simulator a simulated one.
//!
//! # Invariants
//! * What a callback asks for is sent only when it returned `Ok`; of one that failed nothing is sent.
//! * A status is acknowledged after its callback returned `Ok`, and before anything that the callback
//!   asked for.

use std::collections::VecDeque;

use ebb_types::{Event, Filters, Offer, OfferId, OperationStatus, TaskStatus, Timestamp};

use super::config::Acknowledgement;
use super::session::Delivery;
pub use super::session::{Finished, Output};
use super::{Calls, Ending, Outcome, Scheduler, SchedulerConfig, Session};

/// What happened.
#[expect(
    clippy::large_enum_variant,
    reason = "handed over once and never kept; a box would only cost an allocation"
)]
#[derive(Clone, Debug)]
pub enum Input {
    /// An event came over a connection.
    Event {
        /// The number of the connection.
        attempt: u64,
        /// The event.
        event: Event,
    },
    /// A connection could not be made, or broke.
    Broken {
        /// The number of the connection.
        attempt: u64,
        /// Why, as a sentence.
        cause: String,
        /// Whether another attempt would meet the same.
        fatal: bool,
    },
    /// The scheduler is to be woken.
    Wake,
    /// The framework is to end.
    End(Ending),
    /// Nothing but the passing of time.
    Tick,
}

/// A scheduler with its session.
#[derive(Debug)]
pub struct Engine<S> {
    scheduler: S,
    session: Session,
    wake_at: Option<Timestamp>,
    /// Statuses that the session itself made, for the next step.
    local: VecDeque<Event>,
}

impl<S: Scheduler> Engine<S> {
    /// Joins them; the first [`Input::Tick`] connects.
    pub fn new(scheduler: S, config: &SchedulerConfig, now: Timestamp, seed: u64) -> Self {
        Self {
            scheduler,
            session: Session::new(config, now, seed),
            wake_at: None,
            local: VecDeque::new(),
        }
    }

    /// The scheduler.
    pub const fn scheduler(&self) -> &S {
        &self.scheduler
    }

    /// The scheduler, for whoever runs the engine and changes something between two steps.
    pub const fn scheduler_mut(&mut self) -> &mut S {
        &mut self.scheduler
    }

    /// The session.
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// Gives the scheduler back.
    pub fn into_scheduler(self) -> S {
        self.scheduler
    }

    /// When the next [`Input::Tick`] is due; may be in the past.
    pub fn next_wake(&self) -> Option<Timestamp> {
        if self.session.is_ended() {
            return None;
        }
        let local = (!self.local.is_empty()).then_some(Timestamp::from_ms(0));
        [self.session.next_wake(), self.wake_at, local]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes what happened and says what to do, in order.
    pub fn step(&mut self, now: Timestamp, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        if self.session.is_ended() {
            return out;
        }
        match input {
            Input::Event { attempt, event } => {
                let delivery = self.session.event(now, attempt, event, &mut out);
                self.deliver(now, delivery, &mut out);
            }
            Input::Broken {
                attempt,
                cause,
                fatal,
            } => {
                let lost = self.session.broken(now, attempt, cause, fatal, &mut out);
                self.lost(now, lost, &mut out);
                self.tell_refusal(&out);
            }
            Input::Wake => {
                self.callback(now, &mut out, |scheduler, calls| scheduler.woken(calls));
            }
            Input::End(ending) => self.session.end(now, ending, &mut out),
            Input::Tick => {
                let lost = self.session.tick(now, &mut out);
                self.lost(now, lost, &mut out);
            }
        }
        self.due(now, &mut out);
        out
    }

    /// Wakes the scheduler if it asked for it, and tells it what the session found by itself.
    fn due(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        for _ in 0..self.local.len() {
            if let Some(event) = self.local.pop_front()
                && !self.session.is_ended()
            {
                self.event(now, event, out);
            }
        }
        if self.wake_at.is_some_and(|at| at <= now) && !self.session.is_ended() {
            self.wake_at = None;
            self.callback(now, out, |scheduler, calls| scheduler.woken(calls));
        }
    }

    fn lost(&mut self, now: Timestamp, cause: Option<String>, out: &mut Vec<Output>) {
        if let Some(cause) = cause {
            self.callback(now, out, |scheduler, calls| {
                scheduler.disconnected(calls, &cause)
            });
        }
    }

    fn tell_refusal(&mut self, out: &[Output]) {
        for output in out {
            if let Output::Finished(Finished::Refused { message }) = output {
                self.scheduler.error(message);
            }
        }
    }

    fn deliver(&mut self, now: Timestamp, delivery: Delivery, out: &mut Vec<Output>) {
        match delivery {
            Delivery::Nothing => {}
            Delivery::Error(message) => self.scheduler.error(&message),
            Delivery::Subscribed(subscribed) => {
                self.callback(now, out, |s, calls| s.subscribed(calls, &subscribed));
            }
            Delivery::Event(event) => self.event(now, event, out),
        }
    }

    fn event(&mut self, now: Timestamp, event: Event, out: &mut Vec<Output>) {
        match event {
            Event::Offers(offers) => self.offers(now, offers, out),
            Event::Update(status) => self.update(now, &status, out),
            Event::Rescind(offer_id) => {
                self.callback(now, out, |s, calls| s.rescinded(calls, &offer_id));
            }
            Event::InverseOffers(offers) => {
                self.callback(now, out, |s, calls| s.inverse_offers(calls, &offers));
            }
            Event::RescindInverseOffer(offer_id) => {
                self.callback(now, out, |s, calls| s.inverse_rescinded(calls, &offer_id));
            }
            Event::Message {
                agent_id,
                executor_id,
                data,
            } => {
                self.callback(now, out, |s, calls| {
                    s.message(calls, &agent_id, &executor_id, &data)
                });
            }
            Event::Failure {
                agent_id,
                executor_id,
                status,
            } => {
                self.callback(now, out, |s, calls| {
                    s.failure(calls, agent_id.as_ref(), executor_id.as_ref(), status)
                });
            }
            Event::Operation(status) => self.operation(now, &status, out),
            Event::Subscribed { .. } | Event::Error(_) | Event::Heartbeat => {}
        }
    }

    fn offers(&mut self, now: Timestamp, offers: Vec<Offer>, out: &mut Vec<Output>) {
        let ids: Vec<OfferId> = offers.iter().map(|offer| offer.id.clone()).collect();
        let went_well = self.callback(now, out, |s, calls| s.offers(calls, offers));
        if !went_well {
            let mut calls = self.calls(now);
            calls.decline_all(ids, Filters::default());
            self.absorb(now, calls, out);
        }
    }

    fn update(&mut self, now: Timestamp, status: &TaskStatus, out: &mut Vec<Output>) {
        let mut calls = self.calls(now);
        match self.scheduler.update(&mut calls, status) {
            Ok(()) => {
                if self.session.acknowledgement() == Acknowledgement::AfterCallback
                    || status.uuid.is_none()
                {
                    self.session.taken(status, out);
                }
                self.absorb(now, calls, out);
            }
            Err(error) => {
                self.session.counters_mut().failed_callbacks += 1;
                tracing::warn!(%error, task_id = %status.task_id, state = status.state.name(),
                    "the scheduler did not take a status; it will come again");
                self.session.not_taken(now, status);
            }
        }
    }

    fn operation(&mut self, now: Timestamp, status: &OperationStatus, out: &mut Vec<Output>) {
        let mut calls = self.calls(now);
        match self.scheduler.operation(&mut calls, status) {
            Ok(()) => {
                if self.session.acknowledgement() == Acknowledgement::AfterCallback
                    || status.uuid.is_none()
                {
                    self.session.taken_answer(status, out);
                }
                self.absorb(now, calls, out);
            }
            Err(error) => {
                self.session.counters_mut().failed_callbacks += 1;
                tracing::warn!(%error, operation_id = %status.id, state = status.state.name(),
                    "the scheduler did not take an answer; it comes again with the next subscription");
            }
        }
    }

    fn calls(&self, now: Timestamp) -> Calls {
        Calls::new(now, self.session.framework_id().cloned())
    }

    /// Makes a callback and sends what it asked for. Says whether it went well.
    fn callback(
        &mut self,
        now: Timestamp,
        out: &mut Vec<Output>,
        callback: impl FnOnce(&mut S, &mut Calls) -> Outcome,
    ) -> bool {
        let mut calls = self.calls(now);
        match callback(&mut self.scheduler, &mut calls) {
            Ok(()) => {
                self.absorb(now, calls, out);
                true
            }
            Err(error) => {
                self.session.counters_mut().failed_callbacks += 1;
                tracing::warn!(%error, "a callback of the scheduler failed; nothing that it asked for is sent");
                false
            }
        }
    }

    fn absorb(&mut self, now: Timestamp, calls: Calls, out: &mut Vec<Output>) {
        for task in calls.watched {
            self.session.watch(now, task);
        }
        for call in calls.calls {
            let dropped = self.session.call(now, call, out);
            self.local.extend(dropped);
        }
        if let Some(at) = calls.wake_at {
            self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
        }
        if let Some(ending) = calls.ending {
            self.session.end(now, ending, out);
        }
    }
}
