//! The scheduler side of the SDK: the trait that a framework implements, what it may ask for, and
//! what stands between it and the master.
//!
//! [`Scheduler`] is plain synchronous code: it is told something and pushes what it wants into
//! [`Calls`]. [`Engine`] joins it with the pure [`Session`]; [`Driver`] gives the engine a clock and
//! a connection.

mod calls;
mod config;
mod connection;
mod driver;
mod engine;
mod known;
mod session;
#[cfg(test)]
mod tests;

pub use calls::{Calls, Ending};
pub use config::{Acknowledgement, SchedulerConfig, Timing};
pub(crate) use connection::chain;
pub(crate) use driver::{Clock, seed};
pub use driver::{Driver, DriverError, Handle, run};
pub use engine::{Engine, Finished, Input, Output};
pub use session::{Counters, Session};

use ebb_types::{
    AgentId, ExecutorId, Filters, FrameworkId, InverseOffer, MasterInfo, Offer, OfferId,
    OperationStatus, TaskStatus,
};

/// How long a framework that has answered an inverse offer is not asked again, where it says nothing else.
pub const ASK_AGAIN: Filters = Filters { refuse_ms: 600_000 };

/// How a callback went. An error from [`Scheduler::update`] means that the status was not taken: it
/// is not acknowledged and comes again. Errors from other callbacks are logged and counted.
pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// What the master said when it took the subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// The framework's id from now on.
    pub framework_id: FrameworkId,
    /// Who answers.
    pub master: MasterInfo,
    /// Whether there was a subscription before in this process' life. Offers of the earlier one are
    /// void; the states of all tasks follow.
    pub again: bool,
}

/// A framework's scheduler. Callbacks are made one at a time and should return within milliseconds;
/// longer work belongs in a task of its own that calls [`Handle::wake`] when it has something to say.
pub trait Scheduler: Send {
    /// The subscription stands, for the first time or anew.
    ///
    /// # Errors
    /// Logged and counted.
    fn subscribed(&mut self, _calls: &mut Calls, _subscribed: &Subscribed) -> Outcome {
        Ok(())
    }

    /// Resources are on offer. Each offer is to be used with [`Calls::launch`] or given back with
    /// [`Calls::decline`]; what is neither is held until its deadline.
    ///
    /// # Errors
    /// Offers that no call was made for are declined.
    fn offers(&mut self, calls: &mut Calls, offers: Vec<Offer>) -> Outcome;

    /// An offer that was not used yet is void.
    ///
    /// # Errors
    /// Logged and counted.
    fn rescinded(&mut self, _calls: &mut Calls, _offer_id: &OfferId) -> Outcome {
        Ok(())
    }

    /// Agents on which the framework has tasks will be out of use: it is asked to be gone by then. Without an
    /// implementation it promises that: what still runs there is killed when the time has come.
    ///
    /// # Errors
    /// Logged and counted; the inverse offers stay open.
    fn inverse_offers(&mut self, calls: &mut Calls, offers: &[InverseOffer]) -> Outcome {
        let ids = offers.iter().map(|offer| offer.id.clone()).collect();
        calls.accept_inverse(ids, ASK_AGAIN);
        Ok(())
    }

    /// An inverse offer is void: the agent stays in use, or nothing of the framework is left on it.
    ///
    /// # Errors
    /// Logged and counted.
    fn inverse_rescinded(&mut self, _calls: &mut Calls, _offer_id: &OfferId) -> Outcome {
        Ok(())
    }

    /// The state of a task. Each status that carries a uuid comes once, in the order in which the
    /// agent made them; answers to reconciliation carry none and may repeat what is known.
    ///
    /// # Errors
    /// The status is not acknowledged and comes again.
    fn update(&mut self, calls: &mut Calls, status: &TaskStatus) -> Outcome;

    /// Bytes from the framework's own executor.
    ///
    /// # Errors
    /// Logged and counted.
    fn message(
        &mut self,
        _calls: &mut Calls,
        _agent_id: &AgentId,
        _executor_id: &ExecutorId,
        _data: &[u8],
    ) -> Outcome {
        Ok(())
    }

    /// What became of an operation on lots that was given an id, or, without a uuid, how it stands. Each answer that
    /// carries a uuid comes once; one that the master does not know was never told to it, and may be sent again.
    ///
    /// # Errors
    /// The answer is not acknowledged, and comes again with the next subscription or when it is asked for.
    fn operation(&mut self, _calls: &mut Calls, _status: &OperationStatus) -> Outcome {
        Ok(())
    }

    /// An agent is lost (`executor_id` unset), or one of the framework's own executors has ended.
    ///
    /// # Errors
    /// Logged and counted.
    fn failure(
        &mut self,
        _calls: &mut Calls,
        _agent_id: Option<&AgentId>,
        _executor_id: Option<&ExecutorId>,
        _status: Option<i32>,
    ) -> Outcome {
        Ok(())
    }

    /// [`Handle::wake`] was called, or the time asked for with [`Calls::wake_at`] has come.
    ///
    /// # Errors
    /// Logged and counted.
    fn woken(&mut self, _calls: &mut Calls) -> Outcome {
        Ok(())
    }

    /// The master will not have this framework, and why. It is the last callback.
    fn error(&mut self, _message: &str) {}

    /// The connection broke; a new one is being made. Offers are void.
    ///
    /// # Errors
    /// Logged and counted.
    fn disconnected(&mut self, _calls: &mut Calls, _cause: &str) -> Outcome {
        Ok(())
    }
}
