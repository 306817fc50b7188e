//! Placeholder.

pub mod cgroup;
pub mod probe;
pub mod runtime;
