//! What an agent finds after a restart: runs that ended meanwhile, runs that go on, and runs that nobody watched.
//!
//! **Invariants.** No run is adopted by its process number alone (see [`super::identity`]). A run that has no
//! executor yet is claimed here, so that an executor that begins late launches nothing. Every run that is reported has
//! either a live executor or an exit record on the disk; asking again gives the same answer.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::RuntimeError;
use super::identity;
use super::reap::Executor;
use super::rundir::{RunDir, RunKey, check_id, frameworks_dir};
use super::spec::{Claim, ExecutorSpec, ExitRecord, Outcome, ProcessIdentity, StartedRecord};
use crate::cgroup::{CgroupRoot, Container, Listed};

/// One run that was not retired.
#[derive(Debug)]
pub struct Recovered {
    /// Whose it is.
    pub key: RunKey,
    /// What was to run, as it was launched.
    pub spec: ExecutorSpec,
    /// Its cgroups, to be destroyed when it has ended.
    pub container: Container,
    /// How it stands.
    pub state: RunState,
}

/// How a run stands.
#[derive(Debug)]
pub enum RunState {
    /// It goes on; the executor is adopted.
    Running {
        /// The executor.
        executor: Executor,
        /// Its start record; `None` if the command has not been executed yet.
        started: Option<StartedRecord>,
    },
    /// It ended. [`Outcome::Lost`]: nobody recorded how; everything left of it has been killed.
    Finished {
        /// How.
        record: ExitRecord,
    },
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Recovery {
    /// The runs that were not retired.
    pub runs: Vec<Recovered>,
    /// Run folders without a readable spec, and why: nothing runs from them.
    pub broken: Vec<(RunDir, String)>,
    /// Containers in the cgroup tree that belong to no run above: to be destroyed.
    pub orphans: Vec<Listed>,
}

/// Looks at every run folder of the agent and at its cgroups.
pub(super) fn recover(
    work_dir: &Path,
    agent_id: &str,
    cgroups: &CgroupRoot,
) -> Result<Recovery, RuntimeError> {
    let mut recovery = Recovery::default();
    for key in keys(&frameworks_dir(work_dir, agent_id))? {
        let run = RunDir::of(work_dir, agent_id, &key)?;
        if run.retired_path().exists() {
            continue;
        }
        match run.spec() {
            Ok(Some(spec)) => {
                let container = cgroups.open(&key.container_id, &spec.limits)?;
                let state = state(&run, &container)?;
                recovery.runs.push(Recovered {
                    key,
                    spec,
                    container,
                    state,
                });
            }
            Ok(None) => give_up(
                &mut recovery,
                run,
                "the agent stopped before it was launched".to_owned(),
            )?,
            Err(e) => give_up(&mut recovery, run, e.to_string())?,
        }
    }
    let known = |listed: &Listed| {
        recovery
            .runs
            .iter()
            .any(|r| r.key.container_id == listed.id && r.spec.limits.revocable == listed.revocable)
    };
    recovery.orphans = cgroups
        .list()?
        .into_iter()
        .filter(|listed| !known(listed))
        .collect();
    Ok(recovery)
}

fn give_up(recovery: &mut Recovery, run: RunDir, reason: String) -> Result<(), RuntimeError> {
    run.take_back(&reason)?;
    recovery.broken.push((run, reason));
    Ok(())
}

fn state(run: &RunDir, container: &Container) -> Result<RunState, RuntimeError> {
    if let Some(record) = run.exit()? {
        return Ok(RunState::Finished { record });
    }
    run.take_back("the agent stopped before the executor had begun")?;
    match run.claimed()? {
        Some(Claim::Executor(process)) => adopt(run, container, &process),
        Some(Claim::Agent { reason }) => match run.exit()? {
            Some(record) => Ok(RunState::Finished { record }),
            // The agent stopped between claiming and recording.
            None => Ok(RunState::Finished {
                record: run.record_end(Outcome::NeverStarted { reason })?,
            }),
        },
        None => {
            let reason = "the claim on the run vanished".to_owned();
            Ok(RunState::Finished {
                record: run.record_end(Outcome::Lost { reason })?,
            })
        }
    }
}

fn adopt(
    run: &RunDir,
    container: &Container,
    process: &ProcessIdentity,
) -> Result<RunState, RuntimeError> {
    if let Some(pidfd) = identity::open(process)? {
        let executor = Executor::new(run.clone(), process.pid, pidfd);
        return Ok(match executor.try_exit()? {
            Some(record) => RunState::Finished { record },
            None => RunState::Running {
                executor,
                started: run.started()?,
            },
        });
    }
    // It may have ended between the two looks.
    if let Some(record) = run.exit()? {
        return Ok(RunState::Finished { record });
    }
    container.kill_all()?;
    let reason = format!(
        "its executor (pid {}) is gone and left no record: it was killed, or the machine was restarted",
        process.pid
    );
    Ok(RunState::Finished {
        record: run.record_end(Outcome::Lost { reason })?,
    })
}

/// Every run folder below, in order.
pub(super) fn keys(frameworks: &Path) -> Result<Vec<RunKey>, RuntimeError> {
    let mut keys = Vec::new();
    for (framework_id, path) in folders(frameworks)? {
        for (task_id, path) in folders(&path.join("tasks"))? {
            for (container_id, _) in folders(&path.join("runs"))? {
                keys.push(RunKey {
                    framework_id: framework_id.clone(),
                    task_id: task_id.clone(),
                    container_id,
                });
            }
        }
    }
    keys.sort();
    Ok(keys)
}

fn folders(path: &Path) -> Result<Vec<(String, PathBuf)>, RuntimeError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(RuntimeError::file("list", path)(e)),
    };
    let dirs = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let named =
        dirs.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
    // What this agent did not name is not its own.
    Ok(named
        .filter(|(name, _)| check_id("folder", name).is_ok())
        .collect())
}
