//! The folder of one run, and its records.
//!
//! `<work>/agents/<agent>/frameworks/<framework>/tasks/<task>/runs/<container>/` holds `sandbox/` (the task's own) and,
//! for the agent and the executor only, `spec.json`, `executor.json`, `started.json`, `exit.json`, `kill` (a forced
//! kill was asked), `retired` (nobody needs the run any more) and `executor.log`.
//!
//! **Invariants.** Records appear whole or not at all (written aside, then renamed or linked). `executor.json` is
//! written at most once: it decides between launching and not launching. `exit.json` is on the disk when it is seen.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::RuntimeError;
use super::record::{Durable, encode, read_record, touch, write_file, write_record};
use super::spec::{
    Claim, ExecutorSpec, ExitRecord, Outcome, RECORD_MAX_BYTES, SPEC_MAX_BYTES, StartedRecord,
};

/// The file in a task's sandbox that says that it is about to be evicted.
pub const WARNING_FILE: &str = "EVICTION";
/// Whoever the task runs as may read it.
const WARNING_MODE: u32 = 0o644;

/// The longest path of a run folder: the system's 4,096 bytes less what a task may want below its sandbox.
pub(super) const RUN_PATH_MAX_BYTES: usize = 3_072;
/// The longest id: a folder's name.
pub(super) const ID_MAX_BYTES: usize = 255;
/// How often making folders is tried while a clean-up removes empty ones above.
const MAKE_ATTEMPTS: u32 = 8;

/// Whose run it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunKey {
    /// The framework.
    pub framework_id: String,
    /// The task.
    pub task_id: String,
    /// The container.
    pub container_id: String,
}

/// The folder of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
    container_id: String,
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// Checks that an id can be a folder's name.
pub(super) fn check_id(what: &'static str, id: &str) -> Result<(), RuntimeError> {
    let rule = if id.is_empty() {
        "it is empty"
    } else if id.len() > ID_MAX_BYTES {
        "it is longer than 255 bytes"
    } else if id == "." || id == ".." {
        "it names a folder above"
    } else if id
        .chars()
        .any(|c| matches!(c, '/' | '\\') || c.is_control() || c.is_whitespace())
    {
        "it holds a slash, a blank or a control character"
    } else {
        return Ok(());
    };
    Err(RuntimeError::BadId {
        what,
        id: id.chars().take(64).collect(),
        rule,
    })
}

/// Lets tasks' users pass through a folder, whatever the agent's umask is: their sandboxes are below.
fn open_to_users(path: &Path) -> Result<(), RuntimeError> {
    fs::set_permissions(path, Permissions::from_mode(0o711))
        .map_err(RuntimeError::file("open", path))
}

/// Makes a folder and those above that are missing.
fn make_open(path: &Path) -> Result<(), RuntimeError> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|above| !above.exists())
        .collect();
    for folder in missing.into_iter().rev() {
        match fs::create_dir(folder) {
            Ok(()) => open_to_users(folder)?,
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound
                ) => {}
            Err(e) => return Err(RuntimeError::file("make", folder)(e)),
        }
    }
    Ok(())
}

/// The folder of all frameworks of an agent.
pub(super) fn frameworks_dir(work_dir: &Path, agent_id: &str) -> PathBuf {
    work_dir.join("agents").join(agent_id).join("frameworks")
}

impl RunDir {
    /// The folder of this run; nothing is made.
    pub fn of(work_dir: &Path, agent_id: &str, key: &RunKey) -> Result<RunDir, RuntimeError> {
        check_id("agent id", agent_id)?;
        check_id("framework id", &key.framework_id)?;
        check_id("task id", &key.task_id)?;
        check_id("container id", &key.container_id)?;
        let task = frameworks_dir(work_dir, agent_id)
            .join(&key.framework_id)
            .join("tasks")
            .join(&key.task_id);
        let path = task.join("runs").join(&key.container_id);
        let bytes = path.as_os_str().len();
        if bytes > RUN_PATH_MAX_BYTES {
            let container_id = key.container_id.clone();
            return Err(RuntimeError::PathTooLong {
                container_id,
                bytes,
                limit: RUN_PATH_MAX_BYTES,
            });
        }
        Ok(RunDir {
            path,
            container_id: key.container_id.clone(),
        })
    }

    /// The run folder that holds this spec: how an executor finds its own.
    pub(super) fn of_spec(spec_path: &Path) -> Option<RunDir> {
        let path = spec_path.parent()?.to_owned();
        let container_id = path.file_name()?.to_str()?.to_owned();
        Some(RunDir { path, container_id })
    }

    /// Makes it, and those above; it must be new.
    pub(super) fn make(&self) -> Result<(), RuntimeError> {
        let above = self.path.parent().unwrap_or(&self.path);
        let mut attempt = 1;
        loop {
            make_open(above)?;
            match fs::create_dir(&self.path) {
                Ok(()) => return open_to_users(&self.path),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(RuntimeError::RunExists {
                        container_id: self.container_id.clone(),
                    });
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound && attempt < MAKE_ATTEMPTS => {
                    attempt += 1
                }
                Err(e) => return Err(RuntimeError::file("make", &self.path)(e)),
            }
        }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The container of this run.
    pub fn container_id(&self) -> &str {
        &self.container_id
    }

    /// The task's own folder.
    pub fn sandbox(&self) -> PathBuf {
        self.path.join("sandbox")
    }

    /// Leaves the warning of an eviction in the task's folder, as one line of JSON. The folder is the task's, so
    /// nothing that lies there is followed or kept: what has the name goes first, and the file is made anew.
    pub fn write_warning(&self, ends_at_ms: u64, cause: &str) -> Result<(), RuntimeError> {
        let path = self.sandbox().join(WARNING_FILE);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(RuntimeError::file("remove", &path)(e));
            }
            _ => {}
        }
        let line = serde_json::json!({"ends_at_ms": ends_at_ms, "cause": cause}).to_string();
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(RuntimeError::file("make", &path))?;
        file.write_all(line.as_bytes())
            .and_then(|()| file.set_permissions(Permissions::from_mode(WARNING_MODE)))
            .map_err(RuntimeError::file("write", &path))
    }

    /// What the executor says when it cannot write records.
    pub fn executor_log(&self) -> PathBuf {
        self.path.join("executor.log")
    }

    pub(super) fn spec_path(&self) -> PathBuf {
        self.path.join("spec.json")
    }

    fn claim_path(&self) -> PathBuf {
        self.path.join("executor.json")
    }

    fn exit_path(&self) -> PathBuf {
        self.path.join("exit.json")
    }

    fn kill_path(&self) -> PathBuf {
        self.path.join("kill")
    }

    pub(super) fn retired_path(&self) -> PathBuf {
        self.path.join("retired")
    }

    pub(super) fn write_spec(&self, spec: &ExecutorSpec) -> Result<(), RuntimeError> {
        write_record(&self.spec_path(), spec, Durable::No)
    }

    /// What the executor was told.
    pub fn spec(&self) -> Result<Option<ExecutorSpec>, RuntimeError> {
        read_record(&self.spec_path(), SPEC_MAX_BYTES)
    }

    /// Decides what becomes of the run; false if that was decided before.
    pub(super) fn claim(&self, claim: &Claim) -> Result<bool, RuntimeError> {
        let target = self.claim_path();
        let aside = self
            .path
            .join(format!("executor.json.{}", std::process::id()));
        write_file(&aside, &encode(&target, claim)?, Durable::No)?;
        let linked = fs::hard_link(&aside, &target);
        fs::remove_file(&aside).map_err(RuntimeError::file("remove", &aside))?;
        match linked {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(RuntimeError::file("make", &target)(e)),
        }
    }

    /// Who decided.
    pub fn claimed(&self) -> Result<Option<Claim>, RuntimeError> {
        read_record(&self.claim_path(), RECORD_MAX_BYTES)
    }

    /// Takes the run back before its executor has begun; true if that came in time: then nothing will run, and the
    /// exit record says so.
    pub(super) fn take_back(&self, reason: &str) -> Result<bool, RuntimeError> {
        if self.claim_path().exists()
            || !self.claim(&Claim::Agent {
                reason: reason.to_owned(),
            })?
        {
            return Ok(false);
        }
        self.record_end(Outcome::NeverStarted {
            reason: reason.to_owned(),
        })
        .map(|_| true)
    }

    /// Writes the exit record of a run that has no executor to write it.
    pub(super) fn record_end(&self, outcome: Outcome) -> Result<ExitRecord, RuntimeError> {
        let record = ExitRecord {
            container_id: self.container_id.clone(),
            outcome,
            started_at_ms: self.started()?.map(|started| started.started_at_ms),
            finished_at_ms: now_ms(),
            oom_kills: None,
            usage: None,
        };
        self.write_exit(&record)?;
        Ok(record)
    }

    /// The exit record of a run whose executor left none. If it cannot be written (a full disk may be why there was none)
    /// it says so and counts all the same.
    pub(super) fn record_lost(&self, reason: String) -> ExitRecord {
        self.record_end(Outcome::Lost {
            reason: reason.clone(),
        })
        .unwrap_or_else(|e| ExitRecord {
            container_id: self.container_id.clone(),
            outcome: Outcome::Lost {
                reason: format!("{reason}; this could not be recorded either: {e}"),
            },
            started_at_ms: None,
            finished_at_ms: now_ms(),
            oom_kills: None,
            usage: None,
        })
    }

    pub(super) fn write_started(&self, record: &StartedRecord) -> Result<(), RuntimeError> {
        write_record(&self.path.join("started.json"), record, Durable::No)
    }

    /// Whether and since when the command runs or ran.
    pub fn started(&self) -> Result<Option<StartedRecord>, RuntimeError> {
        read_record(&self.path.join("started.json"), RECORD_MAX_BYTES)
    }

    pub(super) fn write_exit(&self, record: &ExitRecord) -> Result<(), RuntimeError> {
        write_record(&self.exit_path(), record, Durable::Yes)
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Result<Option<ExitRecord>, RuntimeError> {
        read_record(&self.exit_path(), RECORD_MAX_BYTES)
    }

    /// Notes that a forced kill was asked: an executor that has not let its task go yet will not.
    pub(super) fn mark_killed(&self) -> Result<(), RuntimeError> {
        touch(&self.kill_path())
    }

    pub(super) fn is_marked_killed(&self) -> bool {
        self.kill_path().exists()
    }

    /// Notes that nobody needs the run any more (its end is acknowledged): recovery passes over it, and its sandbox may be
    /// collected when it is old enough.
    pub fn retire(&self) -> Result<(), RuntimeError> {
        touch(&self.retired_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(container_id: &str) -> RunKey {
        RunKey {
            framework_id: "f".into(),
            task_id: "t".into(),
            container_id: container_id.into(),
        }
    }

    #[test]
    fn ids_that_leave_the_folder_are_refused() {
        for bad in ["", "..", ".", "a/b", "a\0", "../../etc", "a\\b", "a b"] {
            assert!(
                RunDir::of(Path::new("/w"), "a", &key(bad)).is_err(),
                "{bad:?} was taken"
            );
        }
        let error =
            RunDir::of(Path::new("/w"), "a", &key(&"x".repeat(65_536))).expect_err("too long");
        assert!(
            error.to_string().len() < 300,
            "an error repeats no more than the beginning of an id"
        );
        let deep = PathBuf::from(format!("/{}", "w/".repeat(1_600)));
        assert!(matches!(
            RunDir::of(&deep, "a", &key("c")),
            Err(RuntimeError::PathTooLong { .. })
        ));
    }

    #[test]
    fn the_first_claim_stands() {
        let dir = tempfile::tempdir().expect("a folder");
        let run = RunDir::of(dir.path(), "a", &key("c")).expect("a run");
        run.make().expect("made");
        assert!(matches!(run.make(), Err(RuntimeError::RunExists { .. })));
        assert!(run.take_back("too late").expect("claimed"));
        let identity = ProcessIdentity {
            pid: 1,
            start_ticks: 2,
            boot_id: "b".into(),
        };
        assert!(!run.claim(&Claim::Executor(identity)).expect("an answer"));
        assert_eq!(
            run.claimed().expect("a record"),
            Some(Claim::Agent {
                reason: "too late".into()
            })
        );
        let exit = run.exit().expect("a record").expect("an end");
        assert_eq!(
            exit.outcome,
            Outcome::NeverStarted {
                reason: "too late".into()
            }
        );
        assert!(!run.take_back("again").expect("an answer"));
    }

    #[test]
    fn a_torn_record_is_an_error_that_names_its_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let run = RunDir::of(dir.path(), "a", &key("c")).expect("a run");
        run.make().expect("made");
        assert_eq!(run.exit().expect("none yet"), None);
        fs::write(run.exit_path(), b"{\"container_id\":\"c\",").expect("written");
        assert!(
            run.exit()
                .expect_err("torn")
                .to_string()
                .contains("exit.json")
        );
    }

    use super::super::spec::ProcessIdentity;
}
