//! Ebb's wire formats, and their conversion to and from the vocabulary of `ebb-types`.
//!
//! This is the edge: whatever comes over a wire is checked here, once, against the limits of
//! `ebb_types::limits`, and refused with a sentence that names the field and the rule. Inside, only
//! the vocabulary is used. No other crate names a wire type's encoding.
//!
//! Conversions out (`From`) cannot fail; conversions in (`TryFrom`) give [`Invalid`].

mod advice;
mod check;
mod common;
mod executor;
mod explain;
mod lasting;
mod link;
mod lots;
mod maintenance;
mod operator;
mod scheduler;
mod stored;
mod task;
mod terms;
mod usage;

pub use check::Invalid;
pub use link::{AgentEnvelope, MasterEnvelope};
pub use maintenance::{machines, windows};
pub use operator::ConvertLots;
pub use stored::Stored;

/// The messages and services of the native gRPC API, generated from `proto/`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    reason = "generated from proto/, which carries the documentation"
)]
pub mod proto {
    tonic::include_proto!("ebb.v1");
}
