//! Scenarios on the core, each named by the rule that it holds.
