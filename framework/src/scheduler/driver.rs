//! Gives the engine a clock and a connection.

use tokio::sync::mpsc;

use super::{Ending, Scheduler, SchedulerConfig};

/// Why a framework ended before its scheduler said so.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// No master address was given.
    #[error("no master is given; name at least one as host:port")]
    NoMaster,
    /// An address is no address.
    #[error("the master address {address:?} is not valid; write it as host:port")]
    Address {
        /// The address.
        address: String,
        /// The cause.
        #[source]
        source: tonic::transport::Error,
    },
    /// The master will not have the framework.
    #[error("the master refused the framework: {message}")]
    Refused {
        /// What the master said.
        message: String,
    },
    /// No master took the subscription in time.
    #[error(
        "no master took the subscription within {waited_ms} ms; check that one runs at {masters}; last: {cause}"
    )]
    GaveUp {
        /// The addresses.
        masters: String,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
        /// What the last attempt met.
        cause: String,
    },
}

/// Reaches a running scheduler from outside its callbacks.
#[derive(Clone, Debug)]
pub struct Handle {
    orders: mpsc::Sender<Order>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Wake,
    End(Ending),
}

impl Handle {
    /// Calls [`Scheduler::woken`] soon; several calls may become one.
    pub fn wake(&self) {
        let _ = self.orders.try_send(Order::Wake);
    }

    /// Ends the framework with all its tasks.
    pub async fn teardown(&self) {
        let _ = self.orders.send(Order::End(Ending::Teardown)).await;
    }

    /// Leaves the master; the tasks live on until the failover timeout.
    pub async fn detach(&self) {
        let _ = self.orders.send(Order::End(Ending::Detach)).await;
    }
}

/// Runs a scheduler.
#[derive(Debug)]
pub struct Driver<S> {
    scheduler: S,
}

impl<S: Scheduler> Driver<S> {
    /// Joins a scheduler with its configuration; nothing is connected yet.
    pub fn new(scheduler: S, _config: SchedulerConfig) -> Self {
        Self { scheduler }
    }

    /// Reaches the scheduler while it runs.
    pub fn handle(&self) -> Handle {
        unimplemented!()
    }

    /// Runs until the scheduler ends it, and gives the scheduler back.
    ///
    /// # Errors
    /// When the master refuses the framework for good.
    pub async fn run(self) -> Result<S, DriverError> {
        Ok(self.scheduler)
    }
}

/// Runs a scheduler until it ends, and gives it back.
///
/// # Errors
/// When the master refuses the framework for good.
pub async fn run<S: Scheduler>(scheduler: S, config: SchedulerConfig) -> Result<S, DriverError> {
    Driver::new(scheduler, config).run().await
}
