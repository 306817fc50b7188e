//! What the kernel says of a cluster: its cgroups, processes and mounts, read from files, never from Ebb.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// How often the removal of a cgroup is tried whose killed processes are still being taken away.
const REMOVE_ATTEMPTS: u32 = 100;

/// Every mounted hierarchy of cgroups, old and new.
pub fn cgroup_mounts() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("the list of mounts");
    let mounts = text.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let kind = right.split(' ').next()?;
        let at = left.split(' ').nth(4)?;
        matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(at))
    });
    mounts.collect()
}

fn folders_in(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

fn below(path: &Path, all: &mut Vec<PathBuf>) {
    for folder in folders_in(path) {
        below(&folder, all);
    }
    if path.is_dir() {
        all.push(path.to_owned());
    }
}

/// Every cgroup of a base, in every hierarchy, the innermost first. With an instance only those of one agent.
pub fn cgroups(base: &str, instance: Option<&str>) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for mount in cgroup_mounts() {
        for name in [base.to_owned(), format!("{base}-revocable")] {
            let root = mount.join(name);
            below(
                &instance.map_or(root.clone(), |one| root.join(one)),
                &mut all,
            );
        }
    }
    all
}

/// The cgroups of containers: everything below an agent's own folders but that of its executors.
pub fn container_cgroups(base: &str) -> Vec<PathBuf> {
    let depth = |path: &Path| path.components().count();
    let mounts = cgroup_mounts();
    let all = cgroups(base, None).into_iter();
    all.filter(|path| {
        let mount = mounts.iter().filter(|mount| path.starts_with(mount));
        let level = mount.map(|mount| depth(path) - depth(mount)).min();
        level.is_some_and(|level| level >= 3) && !path.ends_with("+executors")
    })
    .collect()
}

/// The cgroups of one container, in every hierarchy.
pub fn cgroups_of(base: &str, container_id: &str) -> Vec<PathBuf> {
    let all = cgroups(base, None).into_iter();
    all.filter(|path| path.ends_with(container_id)).collect()
}

/// The processes of one container, the first ones first.
pub fn processes_of(base: &str, container_id: &str) -> Vec<u32> {
    let mut all: Vec<u32> = Vec::new();
    for cgroup in cgroups_of(base, container_id) {
        all.extend(processes_in(&cgroup));
    }
    all.sort_unstable();
    all.dedup();
    all
}

fn processes_in(cgroup: &Path) -> Vec<u32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// When a process was started, in ticks since boot: with its number this names it for ever. None if it is gone.
pub fn started_at(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = stat.rsplit_once(')')?.1;
    let mut fields = fields.split_ascii_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

/// The command line of a process.
pub fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Time that the processes were on a CPU, by the scheduler's own account, in nanoseconds.
pub fn on_cpu_ns(pids: &[u32]) -> u64 {
    let of = |pid: &u32| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
        text.split(' ').next()?.parse().ok()
    };
    pids.iter().filter_map(of).sum()
}

/// Sends a process a signal; that it is gone already is fine.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = as_pid(pid) {
        let _ = kill_process(pid, signal);
    }
}

fn as_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Waits until processes are gone.
///
/// # Panics
/// When one does not go in time.
pub fn await_gone(pids: &[u32], patience: Duration) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let deadline = Instant::now() + patience;
    for pid in pids {
        let Some(Ok(pidfd)) = as_pid(*pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
            continue;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("a short time");
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        let ready = poll(&mut fds, Some(&timeout)).expect("a pidfd can be polled");
        assert!(
            ready > 0,
            "process {pid} does not end: {}",
            command_line(*pid)
        );
    }
}

/// Processes whose command line, environment or folder names a path; a cluster's folder is in that of all its tasks.
pub fn processes_naming(path: &Path) -> Vec<(u32, String)> {
    let needle = path.to_string_lossy().into_owned();
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").filter_map(Result::ok) {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let says = |file: &str| {
            let bytes = fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).contains(&needle)
        };
        let stands = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(path));
        if pid != own && (says("cmdline") || says("environ") || stands) {
            found.push((pid, command_line(pid)));
        }
    }
    found
}

/// Mounts on, or of, something below a path.
pub fn mounts_naming(path: &Path) -> Vec<String> {
    let needle = path.to_string_lossy().into_owned();
    let text = fs::read_to_string("/proc/self/mountinfo").expect("the list of mounts");
    let lines = text.lines().filter(|line| line.contains(&needle));
    lines.map(ToOwned::to_owned).collect()
}

/// The folders of probes that stay attached, of a base's agents.
fn pins(base: &str, instance: Option<&str>) -> Vec<PathBuf> {
    let prefix = format!("{base}-{}", instance.unwrap_or_default());
    let all = folders_in(Path::new("/sys/fs/bpf/ebb")).into_iter();
    all.filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(&prefix))
    })
    .collect()
}

/// Waits until something holds of a folder, looking again whenever what stands in it changes.
///
/// # Panics
/// When it does not hold in time.
pub fn await_in(folder: &Path, patience: Duration, mut holds: impl FnMut() -> bool) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fs::inotify;
    let notices = inotify::init(inotify::CreateFlags::NONBLOCK).expect("inotify");
    let flags =
        inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVE | inotify::WatchFlags::DELETE;
    inotify::add_watch(&notices, folder, flags).expect("a folder that can be watched");
    let deadline = Instant::now() + patience;
    while !holds() {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("a short time");
        let mut fds = [PollFd::new(&notices, PollFlags::IN)];
        let ready = poll(&mut fds, Some(&timeout)).expect("a watch can be polled");
        assert!(
            ready > 0,
            "{} stays {:?}",
            folder.display(),
            files_below(folder)
        );
        let mut buffer = [0; 4096];
        while rustix::io::read(&notices, &mut buffer).is_ok_and(|read| read > 0) {}
    }
}

/// Every file below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.path()) {
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files
}

/// Everything that a cluster has left on the machine, as sentences; its folder alone may stay.
pub fn leftovers(folder: &Path, base: &str, instance: Option<&str>) -> Vec<String> {
    let cgroups = cgroups(base, instance).into_iter();
    let processes = processes_naming(folder).into_iter();
    let mounts = mounts_naming(folder).into_iter();
    let pins = pins(base, instance).into_iter();
    cgroups
        .map(|path| format!("the cgroup {}", path.display()))
        .chain(processes.map(|(pid, line)| format!("process {pid}: {line}")))
        .chain(mounts.map(|line| format!("the mount {line}")))
        .chain(pins.map(|path| format!("the probes {}", path.display())))
        .collect()
}

/// Takes away all that a failed test has left: never asked for while a test may still succeed.
pub fn sweep(folder: &Path, base: &str, instance: Option<&str>) {
    let cgroups = cgroups(base, instance);
    for cgroup in &cgroups {
        // Whatever is frozen dies only when it thaws.
        let _ = fs::write(cgroup.join("freezer.state"), "THAWED");
        let _ = fs::write(cgroup.join("cgroup.kill"), "1");
        for pid in processes_in(cgroup) {
            signal(pid, Signal::KILL);
        }
    }
    for (pid, _) in processes_naming(folder) {
        signal(pid, Signal::KILL);
    }
    for pins in pins(base, instance) {
        for probes in folders_in(&pins) {
            for pin in fs::read_dir(&probes).into_iter().flatten().flatten() {
                let _ = fs::remove_file(pin.path());
            }
            let _ = fs::remove_dir(probes);
        }
        let _ = fs::remove_dir(pins);
    }
    for cgroup in &cgroups {
        let mut attempts = 0;
        while fs::remove_dir(cgroup).is_err_and(|error| {
            error.kind() != std::io::ErrorKind::NotFound && attempts < REMOVE_ATTEMPTS
        }) {
            attempts += 1;
            thread::sleep(Duration::from_millis(20));
        }
    }
}
