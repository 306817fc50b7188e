//! Placeholder.

pub mod cgroup;
pub mod core;
pub mod probe;
pub mod runtime;
