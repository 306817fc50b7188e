//! Reading and writing cgroup files: each error names the file. Nothing is created by opening: a file that the kernel
//! did not put there is an error, not an empty file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::CgroupError;

/// How often removing a busy directory is tried.
const RMDIR_ATTEMPTS: u32 = 50;
/// The pause between two attempts. The kernel announces no end of "busy", so there is nothing to wait on.
const RMDIR_PAUSE: Duration = Duration::from_millis(2);
/// The deepest nesting of cgroups that is walked: the kernel's own default bound is far above what tasks make.
const DEPTH_MAX: usize = 64;
/// How many directories of one container are walked at most.
const SUBTREE_MAX: usize = 65_536;

/// An error about a file.
pub(super) fn error(operation: &'static str, path: &Path, source: io::Error) -> CgroupError {
    CgroupError::File {
        operation,
        path: path.to_owned(),
        source,
    }
}

/// Writes one value.
pub(super) fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    let mut file = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(|e| error("open", path, e))?;
    file.write_all(value.as_bytes())
        .map_err(|e| error("write", path, e))
}

/// Writes one value if the kernel has that file; whether it has.
pub(super) fn write_if_present(path: &Path, value: &str) -> Result<bool, CgroupError> {
    if !path.exists() {
        return Ok(false);
    }
    write(path, value).map(|()| true)
}

/// The whole content.
pub(super) fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|e| error("read", path, e))
}

/// The number after `key` in a file of `key number` lines.
pub(super) fn read_key(path: &Path, key: &str) -> Result<Option<u64>, CgroupError> {
    let content = read(path)?;
    find_key(&content, key)
        .map(|value| {
            value.parse().map_err(|_| CgroupError::Content {
                path: path.to_owned(),
                content: value.to_owned(),
                expected: "a number",
            })
        })
        .transpose()
}

fn find_key<'a>(content: &'a str, key: &str) -> Option<&'a str> {
    content
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ').map(str::trim))
}

/// The inode number: for a cgroup v2 directory, its id.
pub(super) fn inode(path: &Path) -> Result<u64, CgroupError> {
    fs::metadata(path)
        .map(|meta| meta.ino())
        .map_err(|e| error("look at", path, e))
}

/// Makes one directory; its being there already is success. Whether it was made.
pub(super) fn make_dir(path: &Path) -> Result<bool, CgroupError> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(error("make", path, e)),
    }
}

/// The directory and all below it, each parent before its children. Those that vanish meanwhile are left out.
pub(super) fn subtree(dir: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let mut found = Vec::new();
    let mut left = vec![(dir.to_owned(), 0)];
    while let Some((path, depth)) = left.pop() {
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(error("list", &path, e)),
        };
        if depth < DEPTH_MAX && found.len() < SUBTREE_MAX {
            let dirs = entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            left.extend(dirs.map(|entry| (entry.path(), depth + 1)));
        }
        found.push(path);
    }
    Ok(found)
}

/// The processes of a directory and all below it.
pub(super) fn procs(dir: &Path) -> Result<Vec<u32>, CgroupError> {
    let mut pids = Vec::new();
    for dir in subtree(dir)? {
        let path = dir.join("cgroup.procs");
        match fs::read_to_string(&path) {
            Ok(content) => pids.extend(content.lines().filter_map(|line| line.parse::<u32>().ok())),
            // Gone meanwhile (ENODEV: removed between open and read), or a threaded cgroup, whose processes its parent lists.
            Err(e)
                if is_gone(&e)
                    || e.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => {}
            Err(e) => return Err(error("read", &path, e)),
        }
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Whether the error says that the cgroup has been removed.
pub(super) fn is_gone(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound
        || e.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// Whether the error, inside, says that the cgroup has been removed.
pub(super) fn says_gone(e: &CgroupError) -> bool {
    matches!(e, CgroupError::File { source, .. } if is_gone(source))
}

/// Removes a directory of cgroups and all below it, children first; that it is gone already is success.
pub(super) fn remove_tree(dir: &Path) -> Result<(), CgroupError> {
    for path in subtree(dir)?.iter().rev() {
        let mut attempt = 1;
        loop {
            match fs::remove_dir(path) {
                Ok(()) => break,
                Err(e) if is_gone(&e) => break,
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy && attempt < RMDIR_ATTEMPTS => {
                    attempt += 1;
                    std::thread::sleep(RMDIR_PAUSE);
                }
                Err(e) => return Err(error("remove", path, e)),
            }
        }
    }
    Ok(())
}

/// Removes a directory if nothing is in it; whether it is gone.
pub(super) fn remove_if_empty(dir: &Path) -> Result<bool, CgroupError> {
    match fs::remove_dir(dir) {
        Ok(()) => Ok(true),
        Err(e) if is_gone(&e) => Ok(true),
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Ok(false)
        }
        Err(e) => Err(error("remove", dir, e)),
    }
}

/// Waits until `key` of a `cgroup.events` file has `value`; false when `timeout` has passed. A removed cgroup has no
/// processes: for it the answer is whether `value` is 0.
pub(super) fn wait_event(
    events: &Path,
    key: &str,
    value: u64,
    timeout: Duration,
) -> Result<bool, CgroupError> {
    let mut file = match File::open(events) {
        Ok(file) => file,
        Err(e) if is_gone(&e) => return Ok(value == 0),
        Err(e) => return Err(error("open", events, e)),
    };
    let deadline = Instant::now() + timeout;
    loop {
        let mut content = String::new();
        let read = file
            .seek(SeekFrom::Start(0))
            .and_then(|_| file.read_to_string(&mut content));
        match read {
            Ok(_) => {}
            Err(e) if is_gone(&e) => return Ok(value == 0),
            Err(e) => return Err(error("read", events, e)),
        }
        if find_key(&content, key).and_then(|found| found.parse().ok()) == Some(value) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let mut fds = [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::PRI)];
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(error("wait on", events, e.into())),
        }
    }
}

/// A duration as the kernel takes it.
pub(super) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs() as i64,
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_whole_words() {
        let content = "oom 4\noom_kill 7\noom_kill_disable 0\n";
        assert_eq!(find_key(content, "oom_kill"), Some("7"));
        assert_eq!(find_key(content, "oom"), Some("4"));
        assert_eq!(find_key(content, "kill"), None);
    }

    #[test]
    fn writing_creates_no_file_and_the_error_names_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("cpu.idle");
        let error = write(&path, "1").expect_err("no such file");
        assert!(error.to_string().contains("cpu.idle"), "{error}");
        assert!(!path.exists());
        assert!(!write_if_present(&path, "1").expect("absence is an answer"));
    }

    #[test]
    fn trees_are_walked_parents_first_and_removed_children_first() {
        let dir = tempfile::tempdir().expect("a folder");
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("a/b/c")).expect("folders");
        fs::create_dir_all(top.join("d")).expect("folders");
        let all = subtree(&top).expect("a walk");
        assert_eq!(all.len(), 5);
        for (i, path) in all.iter().enumerate() {
            assert!(
                all[i..]
                    .iter()
                    .all(|later| !path.starts_with(later) || path == later)
            );
        }
        remove_tree(&top).expect("removed");
        assert!(!top.exists());
        remove_tree(&top).expect("removing what is gone succeeds");
    }
}
