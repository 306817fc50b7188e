//! The master's decisions: pure functions and data without clocks, files, sockets or threads.

pub mod allocate;
pub mod drf;
pub mod snapshot;
