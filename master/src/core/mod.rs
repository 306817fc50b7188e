//! The master's decisions: pure functions and data without clocks, files, sockets or threads.
//!
//! [`Core`] is the whole state of a master; [`Core::step`] takes one [`Input`] at a given time and
//! answers with the [`Effect`]s to perform, in order. The driver in production and the simulator
//! both own one core, one ledger and one allocator, and treat the core in the same way:
//!
//! 1. `core.step(now, input)`; perform the effects in order, `Persist` durably before what follows it;
//! 2. `Publish` hands `core.publish()` to the allocator, `Wake`/`WakeAll` has it look at agents;
//! 3. what the allocator proposes comes back as [`Input::Proposals`];
//! 4. at [`Core::next_deadline`], `step(now, Input::Tick)`;
//! 5. who keeps a copy to be read calls [`Core::observe`] and has it follow [`Core::news`] after each step.
//!
//! # Invariants
//! Checked after every step of a debug build by [`Core::check`], and against the ledger by
//! [`Core::check_ledger`]: what is in offers and what tasks and executors hold adds up to what the
//! agent, framework and role accounts say; no task is in two places; every offer has a live
//! framework and a connected agent.

mod absence;
mod accept;
mod activity;
mod adopt;
mod agent;
pub mod allocate;
mod bits;
mod check;
pub mod claims;
mod classes;
mod constraints;
mod counters;
pub mod drf;
mod explain;
mod filter;
mod framework;
mod ids;
mod input;
pub mod limits;
mod lots;
mod maintenance;
mod news;
mod offer;
mod operate;
mod quota;
mod reconcile;
pub mod record;
mod registration;
mod remains;
mod removal;
mod role;
mod state;
mod step;
mod task;
mod timers;
mod update;
mod validate;
mod view;

#[cfg(test)]
mod tests;

pub use check::Violation;
pub use classes::ClassBook;
pub use counters::Counters;
pub use input::{ConnectionId, Effect, Input, OperatorCommand, OperatorError, RequestId};
pub(crate) use lots::{NamedSums, reserved_by_role};
pub use news::{AgentLine, ExecutorLine, FrameworkLine, News, TaskLine};
pub use state::{Core, CoreConfig, OfferRecord};
pub(crate) use state::{Holding, Part};
pub(crate) use task::holds;
