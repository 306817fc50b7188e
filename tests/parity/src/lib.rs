//! Containers for the parity tests: cgroups of their own below a folder of their own, in every hierarchy that this
//! machine has, with a load inside; all of it removed afterwards.
//!
//! On a machine with v1 controllers a container has a folder in the hierarchies of `cpu`, `cpuacct`, `memory` and
//! `blkio` and one in the v2 tree beside them. On a pure v2 machine it has the one folder, and the controllers are
//! switched on along the path to it. Limits are set where the machine holds them.

pub mod disk;
pub mod measured;
pub mod namespaces;
pub mod pins;
pub mod rows;
pub mod switches;
pub mod tools;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ebb_agent::probe::{CgroupPaths, Facts};

/// A cgroup that cannot be removed after this is reported.
const REMOVAL_DEADLINE: Duration = Duration::from_secs(10);
const REMOVAL_PAUSE: Duration = Duration::from_millis(5);
/// What the tests measure and limit, by its v2 name.
const V2_CONTROLLERS: [&str; 3] = ["cpu", "memory", "io"];

/// How many times slower this machine is than those that the tests' rates are meant for: `EBB_SLOWDOWN`, which machines
/// with an emulated processor set.
pub fn slowdown() -> f64 {
    let told = std::env::var("EBB_SLOWDOWN").ok();
    told.and_then(|number| number.parse().ok()).unwrap_or(1.0)
}

/// A container: a cgroup in the v2 tree and in each v1 hierarchy that is measured or limited.
#[derive(Debug)]
pub struct Container {
    /// Its folders; the deepest in each hierarchy.
    pub paths: CgroupPaths,
    folders: Vec<PathBuf>,
}

impl Container {
    /// Makes the cgroups.
    pub fn new(facts: &Facts, name: &str) -> io::Result<Self> {
        let own = format!("ebb-parity-{}", std::process::id());
        let mount = facts
            .cgroup2
            .as_ref()
            .ok_or_else(|| io::Error::other("no cgroup v2 tree"))?;
        let v2 = mount.join(&own).join(name);
        fs::create_dir_all(&v2)?;
        for folder in [mount, &mount.join(&own)] {
            switch_controllers_on(folder)?;
        }
        let mut container = Self {
            folders: vec![v2.clone()],
            paths: CgroupPaths {
                v2: Some(v2),
                ..CgroupPaths::default()
            },
        };
        let paths = &mut container.paths;
        for (controller, path) in [
            ("cpu", &mut paths.cpu),
            ("cpuacct", &mut paths.cpuacct),
            ("memory", &mut paths.memory),
            ("blkio", &mut paths.blkio),
        ] {
            if let Some(mount) = facts.v1.get(controller) {
                let folder = mount.join(&own).join(name);
                fs::create_dir_all(&folder)?;
                // Two controllers may share a hierarchy: entering it twice does no harm.
                container.folders.push(folder.clone());
                *path = Some(folder);
            }
        }
        Ok(container)
    }

    /// Limits its memory; what it swaps counts towards the limit.
    pub fn limit_memory(&self, bytes: u64) -> io::Result<()> {
        let bytes = bytes.to_string();
        if let Some(folder) = &self.paths.memory {
            write(folder, "memory.limit_in_bytes", &bytes)?;
            // Absent where the kernel accounts no swap.
            return write_if_present(folder, "memory.memsw.limit_in_bytes", &bytes);
        }
        let folder = self.v2()?;
        write_if_present(folder, "memory.swap.max", "0")?;
        write(folder, "memory.max", &bytes)
    }

    /// Limits its CPU time to a quota in each period, both in microseconds.
    pub fn limit_cpu(&self, quota_us: u64, period_us: u64) -> io::Result<()> {
        if let Some(folder) = &self.paths.cpu {
            write(folder, "cpu.cfs_period_us", &period_us.to_string())?;
            return write(folder, "cpu.cfs_quota_us", &quota_us.to_string());
        }
        write(self.v2()?, "cpu.max", &format!("{quota_us} {period_us}"))
    }

    /// Gives it the strongest claim to the CPUs beside others that a cgroup can have, and the cgroup above it too.
    pub fn favour(&self) -> io::Result<()> {
        let (folder, file, most) = match &self.paths.cpu {
            Some(folder) => (folder.as_path(), "cpu.shares", "262144"),
            None => (self.v2()?, "cpu.weight", "10000"),
        };
        if let Some(parent) = folder.parent() {
            write(parent, file, most)?;
        }
        write(folder, file, most)
    }

    fn v2(&self) -> io::Result<&Path> {
        let folder = self.paths.v2.as_deref();
        folder.ok_or_else(|| io::Error::other("the container has no cgroup in the v2 tree"))
    }

    /// The folders, one in each hierarchy.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Starts a program in it: a shell enters the cgroups and becomes the program.
    pub fn spawn(&self, program: &str, arguments: &[&str]) -> io::Result<Child> {
        self.spawn_below("", program, arguments)
    }

    /// Starts a program in cgroups that it makes below its own.
    pub fn spawn_below(&self, below: &str, program: &str, arguments: &[&str]) -> io::Result<Child> {
        // The hierarchies are entered in one write each, one right after the other: what runs between them is in one
        // and not yet in the other.
        let mut script = String::from("set -e; ");
        for folder in &self.folders {
            script.push_str(&format!("mkdir -p '{}/{below}'; ", folder.display()));
        }
        for folder in &self.folders {
            script.push_str(&format!(
                "echo $$ > '{}/{below}/cgroup.procs'; ",
                folder.display()
            ));
        }
        script.push_str("exec \"$0\" \"$@\"");
        Command::new("sh")
            .args(["-c", &script, program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
    }
}

/// Switches on, for the cgroups below this one, the controllers that it has and the tests use.
fn switch_controllers_on(folder: &Path) -> io::Result<()> {
    let present = fs::read_to_string(folder.join("cgroup.controllers"))?;
    let used = V2_CONTROLLERS.into_iter();
    let names = used.filter(|name| present.split_whitespace().any(|word| word == *name));
    let words: Vec<String> = names.map(|name| format!("+{name}")).collect();
    if words.is_empty() {
        return Ok(());
    }
    write(folder, "cgroup.subtree_control", &words.join(" "))
}

/// Writes one value; the error names the file and the value.
fn write(folder: &Path, file: &str, value: &str) -> io::Result<()> {
    let path = folder.join(file);
    fs::write(&path, value).map_err(|error| {
        let told = format!("`{value}` cannot be written to {}: {error}", path.display());
        io::Error::new(error.kind(), told)
    })
}

fn write_if_present(folder: &Path, file: &str, value: &str) -> io::Result<()> {
    if folder.join(file).exists() {
        return write(folder, file, value);
    }
    Ok(())
}

impl Drop for Container {
    fn drop(&mut self) {
        let deadline = Instant::now() + REMOVAL_DEADLINE;
        for folder in &self.folders {
            // Ends what a failed test has left running; absent on v1 and before 5.14.
            drop(fs::write(folder.join("cgroup.kill"), "1"));
            while let Err(error) = remove_tree(folder) {
                if Instant::now() > deadline {
                    eprintln!("{} cannot be removed: {error}", folder.display());
                    break;
                }
                // A dead task holds its cgroup until it is reaped, which no file of it announces.
                thread::sleep(REMOVAL_PAUSE);
            }
            if let Some(parent) = folder.parent() {
                // Fails while another test's container stands there; the last one takes it along.
                drop(fs::remove_dir(parent));
            }
        }
    }
}

/// Removes a cgroup and those below it, which takes removing folders alone.
fn remove_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}
