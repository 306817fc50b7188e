//! Replays traces of real machines through the estimator, beside the rules that others lend by.
//!
//! **Problem.** Whether a rule for lending is good shows on days of real machines: what it frees, in how many hours it was
//! wrong, and what becomes of a backlog of revocable tasks that takes all that it lends. [`trace`] reads, [`place`] puts
//! tasks on machines, [`timeline`] adds up, [`rules`] and [`ebb`] say what to keep, [`score`] and [`backlog`] judge.
//!
//! **Units.** Those of a trace; shares of one. Here floats are fine: what production runs counts in integers, and stands in
//! the agent.
//!
//! **Invariants.** No rule but the oracle sees a later bin; [`ebb`] runs the agent's own code.

pub mod backlog;
pub mod ebb;
pub mod golden;
pub mod lasting;
pub mod names;
pub mod place;
pub mod rolling;
pub mod rows;
pub mod rules;
pub mod run;
pub mod score;
pub mod set;
pub mod timeline;
pub mod trace;

#[cfg(test)]
mod tests;
