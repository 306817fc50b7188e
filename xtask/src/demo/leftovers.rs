//! What a demo must not leave behind.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Where probes are kept that stay attached.
const PINS: &str = "/sys/fs/bpf/ebb";

/// Fails if a cgroup, mount, probe or process of the demo is still there.
///
/// # Errors
/// Names what is left.
pub fn check(base: &str, folder: &Path) -> Result<()> {
    let mut left: Vec<String> = cgroups(Path::new("/sys/fs/cgroup"), base)
        .into_iter()
        .map(|path| format!("cgroup {}", path.display()))
        .collect();
    let folder = folder.display().to_string();
    let mounts =
        fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    left.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&folder))
            .map(|line| format!("mount {line}")),
    );
    left.extend(processes(&folder));
    let pins = fs::read_dir(PINS).into_iter().flatten().flatten();
    left.extend(
        pins.filter(|entry| {
            let name = entry.file_name();
            name.to_string_lossy().starts_with(&format!("{base}-"))
        })
        .map(|entry| format!("probes {}", entry.path().display())),
    );
    ensure!(
        left.is_empty(),
        "the demo leaves something behind: {}",
        left.join("; ")
    );
    Ok(())
}

/// The demo's own cgroups, in every hierarchy; they stand at most two levels below the mounts' root.
fn cgroups(root: &Path, base: &str) -> Vec<PathBuf> {
    let names = [base.to_owned(), format!("{base}-revocable")];
    let mut places = vec![root.to_owned()];
    places.extend(
        fs::read_dir(root)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path()),
    );
    let candidates = places
        .iter()
        .flat_map(|place| names.iter().map(move |name| place.join(name)));
    candidates.filter(|path| path.is_dir()).collect()
}

fn processes(folder: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut left = Vec::new();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == own || !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let Ok(line) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(folder) {
            left.push(format!("process {name}: {}", line.trim()));
        }
    }
    left
}
