//! Where the probes of one agent are kept while no agent runs: a folder on the bpf file system, named after the cgroup
//! below which the agent's containers stand.
//!
//! **Invariant.** Probes stay attached only while there are cgroups that they count: an agent that ends with no
//! containers takes its probes along, and every agent that starts removes those of agents whose cgroups are gone. So a
//! machine on which an agent was killed and its containers ended is not slowed down by probes that nobody reads for
//! longer than until the next agent comes.

use std::fs;
use std::path::{Path, PathBuf};

use crate::probe::{BPF_MOUNT, mount_bpf};

/// The folder in which every agent of the machine has one.
const FOLDER: &str = "ebb";

/// The folder for an agent's probes; `None`, with a warning in the log, where there can be none. The probes then end
/// with the agent.
pub(crate) fn folder(base: &str, instance: &str, cgroup2: Option<&Path>) -> Option<PathBuf> {
    let cgroup2 = cgroup2?;
    if let Err(error) = mount_bpf() {
        tracing::warn!(
            %error,
            "there is no bpf file system at {BPF_MOUNT} and none can be mounted; the probes end with the agent, and the \
             next one counts from zero"
        );
        return None;
    }
    let all = Path::new(BPF_MOUNT).join(FOLDER);
    let has_cgroups = |instance: &str| cgroup2.join(base).join(instance).exists();
    let removed = sweep(&all, base, &has_cgroups);
    if removed > 0 {
        tracing::info!(removed, "probes of agents that are gone were removed");
    }
    Some(all.join(name(base, instance)))
}

fn name(base: &str, instance: &str) -> String {
    format!("{base}-{instance}")
}

/// Removes the probes of agents below this base that have no cgroups any more, and says of how many.
fn sweep(all: &Path, base: &str, has_cgroups: &dyn Fn(&str) -> bool) -> usize {
    let mut removed = 0;
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let file_name = entry.file_name();
        let instance = file_name
            .to_str()
            .and_then(|name| name.strip_prefix(base))
            .and_then(|rest| rest.strip_prefix('-'))
            // A dash is in bases and in no instance: what is left of another base's is none.
            .filter(|instance| !instance.contains('-'));
        if instance.is_some_and(|instance| !has_cgroups(instance)) && remove(&entry.path()) {
            removed += 1;
        }
    }
    removed
}

/// Removes a folder and what is in it, two levels deep; links that go detach.
fn remove(folder: &Path) -> bool {
    for inner in fs::read_dir(folder).into_iter().flatten().flatten() {
        for file in fs::read_dir(inner.path()).into_iter().flatten().flatten() {
            // What cannot be removed keeps its folder, which is then found again.
            let _ = fs::remove_file(file.path());
        }
        let _ = fs::remove_dir(inner.path());
    }
    fs::remove_dir(folder).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_probes_of_gone_agents_below_the_same_base_are_removed() {
        let all = tempfile::tempdir().unwrap();
        for name in ["ebb-gone", "ebb-here", "ebb-other-gone", "other-gone"] {
            let inner = all.path().join(name).join("0123");
            fs::create_dir_all(&inner).unwrap();
            fs::write(inner.join("link_sched_switch"), "").unwrap();
        }
        assert_eq!(sweep(all.path(), "ebb", &|instance| instance == "here"), 1);
        let mut left: Vec<_> = fs::read_dir(all.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["ebb-here", "ebb-other-gone", "other-gone"]);
    }
}
