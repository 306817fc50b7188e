//! The SDK for frameworks, and the frameworks that ship with Ebb.
//!
//! A framework is a [`Scheduler`]: it is told of offers and of its tasks' states, and answers with
//! [`Calls`]. Everything between it and the master is done by [`run`]: connecting and re-connecting
//! with back-off, subscribing anew under the same id, acknowledging, reconciling, filtering
//! duplicates, noticing a silent master. A framework that wants its tasks run by a program of its own
//! writes an [`executor::Executor`].
//!
//! Decisions are pure everywhere: [`scheduler::Engine`] joins a scheduler and the session with the
//! master into one state machine that is handed the time and what arrived, and answers with what to
//! send; [`scheduler::Driver`] does the sending. A simulator runs the engine alone.
//!
//! # Units
//! CPU in thousandths of a core (`cpu_milli`), memory and disk in bytes, times in milliseconds (`_ms`).

pub mod backoff;
pub mod batch;
pub mod command;
mod digest;
pub mod executor;
pub mod fate;
pub mod offers;
mod run_one;
pub mod scheduler;
pub mod service;
#[cfg(test)]
mod testing;

pub use command::{CommandSpec, Program};
pub use offers::{Claim, Demand, fit};
pub use run_one::{RunConfig, RunEvent, RunHandle, run_command};
pub use scheduler::{
    Calls, Driver, DriverError, Handle, Outcome, Scheduler, SchedulerConfig, Subscribed, run,
};
