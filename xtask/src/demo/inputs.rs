//! The real input of the demo's batch: files of this machine, to be compressed and checked.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::shell::{command, read};

/// Where to look for files that every machine has.
const TREES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/gcc",
    "/usr/bin",
    "/usr/lib/python3",
];
/// Sizes of the files that are taken, in bytes: large enough to be work, small enough to be many.
const FILE_BYTES: std::ops::Range<u64> = 2_000_000..16_000_000;

/// Up to `count` files, the same on every run.
///
/// # Errors
/// When the machine has too few.
pub fn find(count: usize) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for tree in TREES {
        collect(Path::new(tree), &mut files);
    }
    files.sort();
    files.dedup();
    ensure!(
        files.len() >= 8,
        "this machine has only {} files between {} and {} bytes below {}; the batch needs at least 8",
        files.len(),
        FILE_BYTES.start,
        FILE_BYTES.end,
        TREES.join(", ")
    );
    Ok(files.iter().cycle().take(count).cloned().collect())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let path = entry.path();
        if kind.is_dir() {
            collect(&path, files);
        } else if kind.is_file()
            && entry
                .metadata()
                .is_ok_and(|meta| FILE_BYTES.contains(&meta.len()))
        {
            files.push(path);
        }
    }
}

/// The command of one input: compresses it and keeps the checksum of what it read.
pub fn command_line(number: usize, input: &Path, output: &Path) -> String {
    let (input, output) = (input.display(), output.display());
    format!(
        "set -e; gzip -9 -c '{input}' > '{output}/{number}.gz'; sha256sum < '{input}' > '{output}/{number}.sha256'"
    )
}

/// Unpacks what the batch compressed and compares it with the checksum it kept and with the input.
///
/// # Errors
/// When a result is missing or differs.
pub fn verify(inputs: &[PathBuf], output: &Path) -> Result<()> {
    for (number, input) in inputs.iter().enumerate() {
        let script = format!(
            "gzip -dc '{0}/{number}.gz' | sha256sum; sha256sum < '{1}'; cat '{0}/{number}.sha256'",
            output.display(),
            input.display()
        );
        let sums = read(&mut command("sh", &["-c", &script]))?;
        let sums: Vec<&str> = sums.lines().collect();
        let same = sums.len() == 3 && sums.iter().all(|sum| sum == &sums[0]);
        ensure!(
            same,
            "the result for {} differs from its input: {sums:?}",
            input.display()
        );
    }
    Ok(())
}

/// How many bytes the inputs have in all.
///
/// # Errors
/// When one cannot be read.
pub fn total_bytes(inputs: &[PathBuf]) -> Result<u64> {
    inputs.iter().try_fold(0, |sum, input| {
        let meta =
            fs::metadata(input).with_context(|| format!("cannot read {}", input.display()))?;
        Ok(sum + meta.len())
    })
}
