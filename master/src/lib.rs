//! Ebb's master: pools the resources of agents and offers them to frameworks.

pub mod allocator;
pub mod core;
pub mod ledger;
