//! Ebb's master: pools the resources of agents and offers them to frameworks.
//!
//! ```text
//! api (gRPC, HTTP) → driver → core (pure) → effects → connections, ledger, registry
//!                       ↑                                          ↓
//!                       └────── proposals ←── allocator ←── claims
//! ```
//!
//! Whoever reads the state is answered by the mirror, a copy that follows the core.
//!
//! [`run`] is the whole master; `ebb-master` and `ebb dev` both call it.

pub mod allocator;
mod api;
mod chain;
pub mod config;
pub mod core;
pub mod driver;
pub mod ledger;
pub mod metrics;
pub mod mirror;
mod run;
mod steps;
pub mod store;

#[cfg(feature = "loom")]
pub use chain::model as chain_model;
pub use config::{Config, ConfigError, MasterArgs};
pub use run::{MasterError, run};
