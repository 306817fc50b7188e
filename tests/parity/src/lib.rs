//! Containers for the parity tests: cgroups of their own below a folder of their own, in every hierarchy that this
//! machine has, with a load inside; all of it removed afterwards.

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

/// A container: a cgroup in the v2 tree and, where it is mounted, in `cpuacct`.
#[derive(Debug)]
pub struct Container {
    /// Its folders; the deepest in each hierarchy.
    pub paths: CgroupPaths,
    folders: Vec<PathBuf>,
}

impl Container {
    /// Makes the cgroups.
    pub fn new(facts: &Facts, name: &str) -> io::Result<Self> {
        let below = format!("ebb-parity-{}/{name}", std::process::id());
        let mount = facts
            .cgroup2
            .as_ref()
            .ok_or_else(|| io::Error::other("no cgroup v2 tree"))?;
        let v2 = mount.join(&below);
        fs::create_dir_all(&v2)?;
        let mut folders = vec![v2.clone()];
        let mut paths = CgroupPaths {
            v2: Some(v2),
            ..CgroupPaths::default()
        };
        if facts.has_v1("cpuacct") {
            let cpuacct = Path::new("/sys/fs/cgroup/cpuacct").join(&below);
            fs::create_dir_all(&cpuacct)?;
            folders.push(cpuacct.clone());
            paths.cpuacct = Some(cpuacct);
        }
        Ok(Self { paths, folders })
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
