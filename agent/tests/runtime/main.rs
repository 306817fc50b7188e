//! Containers for real: executors, cgroups, namespaces, signals. Needs root and a cgroup file system; without them the
//! tests fail, they do not pass over anything.

mod devices;
mod hierarchies;
mod host;
mod kill;
mod launch;
mod limits;
mod rate;
mod recover;
