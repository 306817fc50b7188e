//! What one read of each file costs here. Run by hand, as root; the figures stand at the head of `mod.rs`.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::super::figures::{ContainerCounters, Detail, Figure};
use super::kept::Kept;
use super::{CgroupPaths, ContainerFiles};

const READS: u32 = 20_000;

/// A cgroup of this test's own in every hierarchy, with this process's child in it.
struct Place {
    child: std::process::Child,
    paths: CgroupPaths,
}

impl Place {
    fn make() -> Self {
        let name = format!("ebb-prices-{}", std::process::id());
        let child = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        let root = Path::new("/sys/fs/cgroup");
        let make = |at: PathBuf| {
            let folder = at.join(&name);
            fs::create_dir(&folder).ok()?;
            fs::write(folder.join("cgroup.procs"), child.id().to_string()).unwrap();
            Some(folder)
        };
        let v2 = [root.join("unified"), root.to_owned()]
            .into_iter()
            .find(|at| at.join("cgroup.controllers").exists());
        let paths = CgroupPaths {
            v2: v2.and_then(make),
            cpu: make(root.join("cpu")),
            cpuacct: make(root.join("cpuacct")),
            memory: make(root.join("memory")),
            blkio: make(root.join("blkio")),
        };
        Self { child, paths }
    }

    fn folders(&self) -> Vec<&PathBuf> {
        let paths = &self.paths;
        let all = [
            &paths.v2,
            &paths.cpu,
            &paths.cpuacct,
            &paths.memory,
            &paths.blkio,
        ];
        all.into_iter().flatten().collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        for folder in self.folders() {
            fs::remove_dir(folder).unwrap();
        }
    }
}

fn nanoseconds(mut what: impl FnMut()) -> u128 {
    let since = Instant::now();
    for _ in 0..READS {
        what();
    }
    since.elapsed().as_nanos() / u128::from(READS)
}

#[test]
#[ignore = "a measurement; needs root and cgroups of its own"]
fn prices() {
    let place = Place::make();
    let mut measured = 0;
    for folder in place.folders() {
        for name in [
            "cpu.stat",
            "cpuacct.usage",
            "cpuacct.usage_user",
            "memory.usage_in_bytes",
            "memory.stat",
            "memory.failcnt",
            "memory.oom_control",
            "memory.current",
            "memory.events",
            "blkio.throttle.io_service_bytes_recursive",
            "io.stat",
            "cpu.pressure",
            "memory.pressure",
        ] {
            let Some(kept) = Kept::open(Some(folder), name) else {
                continue;
            };
            measured += 1;
            let read = nanoseconds(|| {
                black_box(kept.read(|text| Some(text.len())));
            });
            let path = folder.join(name);
            let anew = nanoseconds(|| {
                black_box(fs::read_to_string(&path).unwrap().len());
            });
            println!("{}: {read} ns kept open, {anew} ns opened", path.display());
        }
    }
    assert!(measured > 5, "there are cgroups to read");
    let mut files = ContainerFiles::open(&place.paths);
    let mut time = 0;
    let mut reading = |step: u64, files: &mut ContainerFiles| {
        time += step;
        let mut counters = ContainerCounters {
            on_cpu_ns: Some(Figure::ebpf(time)),
            disk: Some(Figure::ebpf(Vec::new())),
            ..ContainerCounters::default()
        };
        files.fill(&mut counters, Detail::Full);
        black_box(&counters);
    };
    let busy = nanoseconds(|| reading(1, &mut files));
    let idle = nanoseconds(|| reading(0, &mut files));
    println!(
        "full reading beside the probes: {busy} ns of a busy container, {idle} ns of an idle one"
    );
    assert!(idle < busy, "an idle container is cheaper");
}
