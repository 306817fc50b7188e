//! Sandboxes: made for the task's user, read for whoever asks for logs, removed when old.
//!
//! A sandbox is the task's to fill, so nothing in it is trusted: files are opened only below it (no `..`, no absolute
//! path, no link that leads out, no link of `/proc`), only plain ones, and without waiting for a writer of a named pipe.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::error::RuntimeError;
use super::recover::keys;
use super::rundir::{RunDir, frameworks_dir};
use super::spec::User;

/// Makes a run's sandbox, readable by the task's user alone.
pub(super) fn make(run: &RunDir, user: Option<&User>) -> Result<(), RuntimeError> {
    let path = run.sandbox();
    DirBuilder::new()
        .mode(0o700)
        .create(&path)
        .map_err(RuntimeError::file("make", &path))?;
    if let Some(user) = user {
        std::os::unix::fs::chown(&path, Some(user.uid), Some(user.gid))
            .map_err(RuntimeError::file("give away", &path))?;
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
        .map_err(RuntimeError::file("close", &path))
}

/// Opens a plain file inside a sandbox for reading. `relative` comes from outside and may be anything.
pub fn open_file(run: &RunDir, relative: &Path) -> Result<File, RuntimeError> {
    let sandbox = run.sandbox();
    let path = sandbox.join(relative);
    let dir = File::open(&sandbox).map_err(RuntimeError::file("open", &sandbox))?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let opened = openat2(dir.as_fd(), relative, flags, Mode::empty(), resolve);
    let file = File::from(opened.map_err(|e| RuntimeError::file("open", &path)(e.into()))?);
    let meta = file
        .metadata()
        .map_err(RuntimeError::file("look at", &path))?;
    if meta.is_file() {
        Ok(file)
    } else {
        Err(RuntimeError::NotAFile { path })
    }
}

/// What a clean-up did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Run folders removed.
    pub removed: u64,
    /// Run folders that could not be removed, and why.
    pub failed: Vec<(std::path::PathBuf, String)>,
}

/// Removes the folders of runs that were retired at least `age` before `now`, and folders above that become empty.
pub(super) fn collect(
    work_dir: &Path,
    agent_id: &str,
    now: SystemTime,
    age: Duration,
) -> Result<Collected, RuntimeError> {
    let mut collected = Collected::default();
    for key in keys(&frameworks_dir(work_dir, agent_id))? {
        let run = RunDir::of(work_dir, agent_id, &key)?;
        if !is_old(&run, now, age)? {
            continue;
        }
        match remove(&run) {
            Ok(()) => collected.removed += 1,
            Err(e) => collected
                .failed
                .push((run.path().to_owned(), e.to_string())),
        }
    }
    Ok(collected)
}

fn is_old(run: &RunDir, now: SystemTime, age: Duration) -> Result<bool, RuntimeError> {
    let path = run.retired_path();
    match fs::metadata(&path).and_then(|meta| meta.modified()) {
        Ok(retired) => Ok(now.duration_since(retired).is_ok_and(|since| since >= age)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(RuntimeError::file("look at", &path)(e)),
    }
}

/// Removes a run folder (links inside are removed, not followed) and the empty folders above it.
pub(super) fn remove(run: &RunDir) -> io::Result<()> {
    fs::remove_dir_all(run.path())?;
    // runs, the task, tasks, the framework: each goes if this was the last in it.
    for above in run.path().ancestors().skip(1).take(4) {
        if fs::remove_dir(above).is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::rundir::RunKey;
    use super::*;
    use std::os::unix::fs::symlink;

    fn run(work: &Path, container: &str) -> RunDir {
        let key = RunKey {
            framework_id: "f".into(),
            task_id: "t".into(),
            container_id: container.into(),
        };
        let run = RunDir::of(work, "a", &key).expect("a run");
        run.make().expect("made");
        make(&run, None).expect("a sandbox");
        run
    }

    #[test]
    fn nothing_outside_a_sandbox_is_opened() {
        let work = tempfile::tempdir().expect("a folder");
        let run = run(work.path(), "c");
        let sandbox = run.sandbox();
        fs::write(sandbox.join("plain"), "text").expect("written");
        fs::write(run.path().join("secret"), "secret").expect("written");
        fs::create_dir(sandbox.join("dir")).expect("made");
        symlink("plain", sandbox.join("inside")).expect("linked");
        symlink("../secret", sandbox.join("outside")).expect("linked");
        symlink("/etc/passwd", sandbox.join("absolute")).expect("linked");
        symlink("/proc/self/root/etc/passwd", sandbox.join("magic")).expect("linked");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            sandbox.join("fifo"),
            rustix::fs::FileType::Fifo,
            Mode::RWXU,
            0,
        )
        .expect("made");
        for good in ["plain", "inside", "./plain", "dir/../plain"] {
            assert_eq!(
                io::read_to_string(open_file(&run, Path::new(good)).expect(good)).expect("read"),
                "text"
            );
        }
        for bad in [
            "outside",
            "absolute",
            "magic",
            "../secret",
            "/etc/passwd",
            "dir",
            "",
            "none",
            "fifo",
            "plain/x",
            "a\0b",
        ] {
            assert!(
                open_file(&run, Path::new(bad)).is_err(),
                "{bad:?} was opened"
            );
        }
        assert!(open_file(&run, Path::new(&"x/".repeat(40_000))).is_err());
    }

    #[test]
    fn only_old_retired_runs_are_collected_and_links_are_not_followed() {
        let work = tempfile::tempdir().expect("a folder");
        let (old, fresh) = (run(work.path(), "old"), run(work.path(), "fresh"));
        let kept = work.path().join("kept");
        fs::create_dir(&kept).expect("made");
        fs::write(kept.join("file"), "x").expect("written");
        symlink(&kept, old.sandbox().join("link")).expect("linked");
        let age = Duration::from_secs(60);
        let none = collect(work.path(), "a", SystemTime::now() + age * 2, age).expect("collected");
        assert_eq!(
            none,
            Collected::default(),
            "a run that is not retired is kept"
        );
        old.retire().expect("retired");
        let early = collect(work.path(), "a", SystemTime::now(), age).expect("collected");
        assert_eq!(early.removed, 0);
        let done = collect(work.path(), "a", SystemTime::now() + age * 2, age).expect("collected");
        assert_eq!((done.removed, done.failed.len()), (1, 0));
        assert!(!old.path().exists() && fresh.path().exists() && kept.join("file").exists());
        fresh.retire().expect("retired");
        collect(work.path(), "a", SystemTime::now() + age * 2, age).expect("collected");
        assert!(
            !frameworks_dir(work.path(), "a").join("f").exists(),
            "empty folders go too"
        );
    }
}
