//! What a launch is measured beside: a bare fork and exec, and a container of runc.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::monotonic_ns;

/// Another way to run a program. `arguments` hold the program first.
pub trait Yardstick: Sync {
    /// Its name in the rows.
    fn name(&self) -> &'static str;

    /// Runs a program to its end.
    ///
    /// # Errors
    /// When it cannot be run, or does not succeed.
    fn run(&self, arguments: &[&str]) -> Result<Output>;

    /// The time until the program's first instruction, in nanoseconds: it writes when that was.
    ///
    /// # Errors
    /// When it cannot be run, or does not write a time.
    fn first_instruction_ns(&self, arguments: &[&str]) -> Result<u64> {
        let start_ns = monotonic_ns();
        let output = self.run(arguments)?;
        let text = String::from_utf8(output.stdout)?;
        let first_ns: u64 = text.trim().parse().context("the program wrote no time")?;
        first_ns
            .checked_sub(start_ns)
            .context("the program ran before it was started")
    }

    /// Programs run a second, with as many at a time as there are CPUs.
    ///
    /// # Errors
    /// When one does not succeed.
    fn per_second(&self, count: usize, arguments: &[&str]) -> Result<f64> {
        let threads = std::thread::available_parallelism()?.get();
        let next = AtomicUsize::new(0);
        let start = Instant::now();
        std::thread::scope(|scope| {
            let work = || -> Result<()> {
                while next.fetch_add(1, Ordering::Relaxed) < count {
                    self.run(arguments)?;
                }
                Ok(())
            };
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            for worker in workers {
                worker
                    .join()
                    .map_err(|_panic| anyhow::anyhow!("a thread panicked"))??;
            }
            anyhow::Ok(())
        })?;
        Ok(count as f64 / start.elapsed().as_secs_f64())
    }
}

fn successful(command: &mut Command) -> Result<Output> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output)
}

/// A bare fork and exec.
pub struct ForkExec;

impl Yardstick for ForkExec {
    fn name(&self) -> &'static str {
        "fork+exec"
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let (program, rest) = arguments.split_first().context("no program is named")?;
        successful(Command::new(program).args(rest))
    }
}

/// `runc run` with runc's own standard container, on the machine's own /usr.
pub struct Runc {
    folder: PathBuf,
    number: AtomicUsize,
}

impl Runc {
    /// Prepares bundles in a folder for the programs that will be run.
    ///
    /// # Errors
    /// When runc is not installed, or does not work on this machine.
    pub fn prepare(folder: &Path, programs: &[&[&str]]) -> Result<Self> {
        let runc = Self {
            folder: folder.to_owned(),
            number: AtomicUsize::new(0),
        };
        for arguments in programs {
            runc.bundle(arguments)?;
            runc.run(arguments).context("runc does not work here")?;
        }
        Ok(runc)
    }

    /// Where the bundle of a program is: the folder has the program's own name.
    fn bundle_path(&self, arguments: &[&str]) -> Result<PathBuf> {
        let program = arguments.first().context("no program is named")?;
        let name = Path::new(program).file_name();
        Ok(self.folder.join(name.context("the program has no name")?))
    }

    fn bundle(&self, arguments: &[&str]) -> Result<()> {
        let bundle = self.bundle_path(arguments)?;
        let root = bundle.join("rootfs");
        fs::create_dir_all(&root)?;
        for name in ["bin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), root.join(name))?;
        }
        successful(Command::new("runc").arg("spec").current_dir(&bundle))
            .context("runc is not installed")?;
        let path = bundle.join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
        let program = arguments[0];
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["/program"]);
        for argument in &arguments[1..] {
            let all = config["process"]["args"].as_array_mut();
            all.context("the list of arguments is lost")?
                .push(json!(argument));
        }
        let mounts = config["mounts"].as_array_mut();
        mounts
            .context("runc's configuration has no mounts")?
            .extend([
                json!({"destination": "/usr", "source": "/usr", "options": ["bind", "ro"]}),
                json!({"destination": "/program", "source": program, "options": ["bind", "ro"]}),
            ]);
        fs::write(&path, serde_json::to_vec(&config)?)?;
        Ok(())
    }
}

impl Yardstick for Runc {
    fn name(&self) -> &'static str {
        "runc"
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        successful(
            Command::new("runc")
                .arg("--root")
                .arg(self.folder.join("state"))
                .args(["run", "--bundle"])
                .arg(self.bundle_path(arguments)?)
                .arg(format!("ebb-bench-{}-{number}", std::process::id())),
        )
    }
}
