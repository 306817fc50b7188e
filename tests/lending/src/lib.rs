//! Replays traces of real machines through the estimator, beside the rules that others lend by.
pub mod backlog;
pub mod ebb;
pub mod golden;
pub mod place;
pub mod rolling;
pub mod rules;
pub mod score;
pub mod set;
pub mod timeline;
pub mod trace;
