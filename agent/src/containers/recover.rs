//! What earlier lives of the agent have left behind.

use std::collections::BTreeMap;

use ebb_types::ContainerId;

use super::{chain, exit_of};
use crate::cgroup::{Container, Limits};
use crate::core::Found;
use crate::devices::{Devices, number_at};
use crate::runtime::{self, Executor, Outcome, RunDir, RunState, Runtime, RuntimeError};

/// One run that was found.
#[derive(Debug)]
pub struct FoundRun {
    /// Its executor, if it goes on.
    pub(super) executor: Option<Executor>,
    /// Its cgroups.
    pub(super) container: Container,
    /// Its folder.
    pub(super) run: RunDir,
}

/// All runs that were found.
#[derive(Debug, Default)]
pub struct Recovered {
    pub(super) runs: BTreeMap<ContainerId, FoundRun>,
    /// How each stands, for the core. Runs that never began are not named.
    pub found: BTreeMap<ContainerId, Found>,
    /// Containers that belong to no run, which were removed.
    pub orphans_removed: usize,
}

/// Looks at every run folder and cgroup of the agent. Cgroups of no run are emptied and removed.
///
/// # Errors
/// [`RuntimeError`] if the work folder or the cgroups cannot be read, or a container has a device that is not its disk's now.
pub fn recover(runtime: &Runtime, devices: &Devices) -> Result<Recovered, RuntimeError> {
    let recovery = runtime.recover()?;
    let mut recovered = Recovered::default();
    for run in recovery.runs {
        let Ok(container_id) = ContainerId::new(&run.key.container_id) else {
            continue;
        };
        if matches!(run.state, RunState::Running { .. }) {
            keep_apart(runtime, &run, devices)?;
        }
        let folder = runtime.run_dir(&run.key)?;
        let (executor, found) = match run.state {
            RunState::Running { executor, .. } => (Some(executor), Some(Found::Running)),
            RunState::Finished { record } => match record.outcome {
                Outcome::NeverStarted { .. } => (None, None),
                _ => (None, Some(Found::Ended(exit_of(&record)))),
            },
        };
        if let Some(found) = found {
            recovered.found.insert(container_id.clone(), found);
        }
        recovered.runs.insert(
            container_id,
            FoundRun {
                executor,
                container: run.container,
                run: folder,
            },
        );
    }
    for (run, reason) in recovery.broken {
        tracing::warn!(container = run.container_id(), reason, "a run was given up");
        if let Err(error) = run.retire() {
            tracing::warn!(container = run.container_id(), error = %chain(&error),
                "a run that was given up cannot be retired");
        }
    }
    for orphan in recovery.orphans {
        let limits = Limits {
            revocable: orphan.revocable,
            ..Limits::default()
        };
        let removed = runtime
            .cgroups()
            .open(&orphan.id, &limits)
            .and_then(|container| container.destroy());
        match removed {
            Ok(()) => recovered.orphans_removed += 1,
            Err(error) => tracing::warn!(container = orphan.id, error = %chain(&error),
                "a container of no known run cannot be removed"),
        }
    }
    Ok(recovered)
}

/// Sees to it that a container that goes on has no device that is, by now, another's.
fn keep_apart(
    runtime: &Runtime,
    run: &runtime::Recovered,
    devices: &Devices,
) -> Result<(), RuntimeError> {
    let Some(view) = &run.spec.devices else {
        if devices.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            container = run.key.container_id,
            "it was started before there were devices for tasks and has no /dev of its own; from now on it can open none of \
             them, but if it runs as root and is not trusted, end it"
        );
        return runtime.confine(&run.container);
    };
    for (disk, number) in view.own() {
        let now = devices.get(disk).and_then(|path| number_at(path));
        if now != Some(number) {
            return Err(RuntimeError::OtherDevice {
                container_id: run.key.container_id.clone(),
                disk: disk.to_owned(),
            });
        }
    }
    Ok(())
}
