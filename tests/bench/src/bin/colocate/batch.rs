//! The batch: endless shells, one for each kind of work, that do it in units and keep count of them in a file.
//!
//! Real programs, each bound by something else: compression, arithmetic, memory, caches, writes that are synced. A unit
//! is a fraction of a second of CPU, so that a phase has many. They end by themselves after the unit in which the stop
//! file appears.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ebb_agent::cgroup::Limits;
use ebb_tests_bench::Containers;

/// What is compressed and written: a file that every machine has.
const INPUT_BYTES: u64 = 2 << 20;
/// Kinds of work with the shell line of one unit; `$IN` is the input, `$OUT` a file of its own.
const KINDS: [(&str, &str); 5] = [
    ("compress", "gzip -6 -c \"$IN\" > /dev/null"),
    (
        "cpu",
        "stress-ng -q --cpu 1 --cpu-method matrixprod --cpu-ops 20",
    ),
    (
        "vm",
        "stress-ng -q --vm 1 --vm-bytes 32M --vm-method incdec --vm-ops 8000",
    ),
    ("cache", "stress-ng -q --cache 1 --cache-ops 10"),
    (
        "io",
        "dd if=\"$IN\" of=\"$OUT\" bs=64k conv=fsync status=none",
    ),
];
/// Weight of the batch where it competes on equal terms: that of the service, which owns the machine.
pub const EQUAL_CPU_MILLI_PER_CPU: u64 = 1_000;
/// How long the last units may take.
const GRACE: Duration = Duration::from_secs(20);
/// Between two looks at whether they have ended.
const LOOK: Duration = Duration::from_millis(10);

/// Where the units of a batch are counted.
#[derive(Clone, Debug)]
pub struct Work {
    folder: PathBuf,
}

impl Work {
    /// Prepares inputs in a folder.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn prepare(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let own = fs::read(std::env::current_exe()?).context("cannot read this program")?;
        let length = usize::try_from(INPUT_BYTES)?.min(own.len());
        fs::write(folder.join("input"), &own[..length])?;
        let work = Self {
            folder: folder.to_owned(),
        };
        for (kind, _) in KINDS {
            fs::write(work.count_file(kind), "")?;
        }
        Ok(work)
    }

    fn count_file(&self, kind: &str) -> PathBuf {
        self.folder.join(format!("{kind}.units"))
    }

    fn stop_file(&self) -> PathBuf {
        self.folder.join("stop")
    }

    /// The shell's lines, one a kind.
    pub fn lines(&self) -> Vec<String> {
        let folder = self.folder.display();
        let line = |(kind, unit): (&str, &str)| {
            format!(
                "cd / && IN='{folder}/input' OUT='{folder}/{kind}.out'; while [ ! -e '{folder}/stop' ]; \
                 do {unit} && printf . >> '{folder}/{kind}.units'; done"
            )
        };
        KINDS.into_iter().map(line).collect()
    }

    /// Units of each kind so far.
    pub fn units(&self) -> BTreeMap<&'static str, u64> {
        let count = |kind| fs::metadata(self.count_file(kind)).map_or(0, |meta| meta.len());
        KINDS
            .into_iter()
            .map(|(kind, _)| (kind, count(kind)))
            .collect()
    }

    /// Lets the next shells begin.
    ///
    /// # Errors
    /// When the stop file stays.
    pub fn clear(&self) -> Result<()> {
        match fs::remove_file(self.stop_file()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("the batch cannot be started")
            }
            _ => Ok(()),
        }
    }
}

/// A batch outside of Ebb. Dropping it ends it.
pub struct Batch {
    work: Work,
    shells: Vec<Child>,
    /// Where it competes on equal terms.
    containers: Option<Containers>,
}

impl Batch {
    /// In ordinary cgroups with the same weight as the service.
    ///
    /// # Errors
    /// When the kernel refuses the cgroups.
    pub fn on_equal_terms(work: &Work, cpus: usize) -> Result<Self> {
        let limits = Limits {
            cpu_milli: EQUAL_CPU_MILLI_PER_CPU * cpus as u64,
            ..Limits::default()
        };
        let containers = Containers::with(1, &limits)?;
        let mut enter = String::new();
        for door in containers.doors(0) {
            enter.push_str(&format!("echo $$ > '{}'; ", door.display()));
        }
        Self::start(work, &["sh", "-c"], &enter, Some(containers))
    }

    /// Bare processes with the kernel's lowest claim.
    ///
    /// # Errors
    /// When they cannot be started.
    pub fn bare_idle(work: &Work) -> Result<Self> {
        Self::start(work, &["chrt", "--idle", "0", "sh", "-c"], "", None)
    }

    fn start(
        work: &Work,
        words: &[&str],
        enter: &str,
        containers: Option<Containers>,
    ) -> Result<Self> {
        work.clear()?;
        let mut batch = Self {
            work: work.clone(),
            shells: Vec::new(),
            containers,
        };
        for line in work.lines() {
            let shell = Command::new(words[0])
                .args(&words[1..])
                .arg(format!("{enter}{line}"))
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .with_context(|| format!("cannot start {}", words[0]))?;
            batch.shells.push(shell);
        }
        Ok(batch)
    }

    /// What its cgroups are called, if it has any.
    pub fn base(&self) -> Option<String> {
        let has_any = self.containers.is_some();
        has_any.then(|| format!("ebb-bench-{}", std::process::id()))
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if let Err(error) = fs::write(self.work.stop_file(), "") {
            eprintln!("the batch cannot be told to end: {error}");
        }
        let until = Instant::now() + GRACE;
        for shell in &mut self.shells {
            // Ended, or not to be waited for: then it is killed, and its last unit ends by itself.
            while matches!(shell.try_wait(), Ok(None)) {
                if Instant::now() >= until {
                    let _ = shell.kill();
                }
                std::thread::sleep(LOOK);
            }
        }
    }
}
