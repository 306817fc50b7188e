//! Kernels and busybox out of Debian's packages: downloaded with apt, unpacked below `target/vm`, never installed.
//!
//! The newest package of a series is taken that has both a kernel and modules; its version is found when it is needed,
//! as old ones leave the archive. What is unpacked is kept: delete the folder to have a newer one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::folder;
use crate::setup::run;
use crate::shell::read;

/// The kernels' series.
pub const SERIES: [&str; 2] = ["6.1", "6.12"];
/// How many packages of a series are tried, from the newest.
const TRIED_MAX: usize = 4;
const NO_KERNEL: &str =
    "enable the archive that has it (6.12 is in Debian 12's backports) and run: apt-get update";

/// An unpacked kernel.
#[derive(Debug)]
pub struct Kernel {
    /// Its series, as `6.1`.
    pub series: &'static str,
    /// Its version in full.
    pub version: String,
    /// What is booted.
    pub image: PathBuf,
    /// The folder of its modules.
    pub modules: PathBuf,
}

/// The newest kernel of a series; from the last run, if there was one.
pub fn get(series: &'static str) -> Result<Kernel> {
    let unpacked = folder().join(format!("linux-{series}"));
    if let Some(kernel) = find(series, &unpacked) {
        println!("vm: kernel {} (kept)", kernel.version);
        return Ok(kernel);
    }
    let mut packages = candidates(series, &search(series)?);
    if packages.is_empty() {
        update()?;
        packages = candidates(series, &search(series)?);
    }
    let mut failures = Vec::new();
    for package in packages.iter().take(TRIED_MAX) {
        match unpack(package, &unpacked) {
            Ok(()) => match find(series, &unpacked) {
                Some(kernel) => {
                    println!("vm: kernel {} (downloaded)", kernel.version);
                    return Ok(kernel);
                }
                None => failures.push(format!("{package} has no kernel or no modules")),
            },
            Err(error) => failures.push(format!("{package}: {error:#}")),
        }
    }
    bail!(
        "apt has no kernel {series} for clouds ({}); {NO_KERNEL}",
        failures.join("; ")
    )
}

/// The static busybox, which is all of the guest's user space.
pub fn busybox() -> Result<PathBuf> {
    let unpacked = folder().join("busybox");
    let program = || {
        ["bin/busybox", "usr/bin/busybox"]
            .map(|path| unpacked.join(path))
            .into_iter()
            .find(|path| path.is_file())
    };
    if let Some(program) = program() {
        return Ok(program);
    }
    unpack("busybox-static", &unpacked)?;
    program().context("the package busybox-static has no busybox")
}

fn search(series: &str) -> Result<String> {
    let pattern = format!("^linux-image-{}\\.", series.replace('.', "\\."));
    read(Command::new("apt-cache").args(["search", "--names-only", &pattern]))
}

fn update() -> Result<()> {
    println!("vm: apt-get update");
    run(Command::new("apt-get").args(["-q", "update"]))
}

/// Packages of a series with a cloud's kernel, from the newest, out of what `apt-cache search` prints. Of one version
/// the signed one comes first; packages without a kernel (debugging symbols, and those that only name another one) are
/// left out.
fn candidates(series: &str, found: &str) -> Vec<String> {
    let mut packages: Vec<(Vec<u64>, bool, String)> = found
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter_map(|package| {
            let rest = package.strip_prefix(&format!("linux-image-{series}."))?;
            let (version, ending) = rest.split_once("-cloud-amd64")?;
            let signed = match ending {
                "" => true,
                "-unsigned" => false,
                _ => return None,
            };
            Some((numbers(version), signed, package.to_owned()))
        })
        .collect();
    packages.sort();
    packages.dedup();
    packages
        .into_iter()
        .rev()
        .map(|(_, _, name)| name)
        .collect()
}

fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

/// Downloads and unpacks; the folder appears whole or not at all.
fn unpack(package: &str, to: &Path) -> Result<()> {
    println!("vm: downloading {package}");
    let partial = folder().join("partial");
    drop(fs::remove_dir_all(&partial));
    fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    let download = || {
        // As root apt would fetch as a user that cannot write here, and warn of it.
        let options = ["-q", "-o", "APT::Sandbox::User=root", "download", package];
        run(Command::new("apt-get").args(options).current_dir(&partial))
    };
    if download().is_err() {
        // What the lists name may have left the archive.
        update()?;
        download()?;
    }
    let entries =
        fs::read_dir(&partial).with_context(|| format!("cannot list {}", partial.display()))?;
    let archive = entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|ending| ending == "deb"))
        .context("apt-get downloaded no package")?;
    let content = partial.join("content");
    run(Command::new("dpkg").arg("-x").arg(&archive).arg(&content))?;
    drop(fs::remove_dir_all(to));
    fs::rename(&content, to)
        .with_context(|| format!("cannot move {} into place", content.display()))?;
    fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))
}

/// The kernel in an unpacked package, if it has one with modules.
fn find(series: &'static str, unpacked: &Path) -> Option<Kernel> {
    let entries = fs::read_dir(unpacked.join("boot")).ok()?.flatten();
    let version = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .find_map(|file| file.strip_prefix("vmlinuz-").map(str::to_owned))?;
    let modules = ["lib/modules", "usr/lib/modules"]
        .map(|path| unpacked.join(path).join(&version))
        .into_iter()
        .find(|path| path.join("kernel").is_dir())?;
    Some(Kernel {
        series,
        image: unpacked.join("boot").join(format!("vmlinuz-{version}")),
        version,
        modules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_of_its_series_comes_first_and_no_package_without_one() {
        let found = "\
linux-image-6.1.0-9-cloud-amd64 - Linux for x86-64 cloud (signed)
linux-image-6.1.0-56-cloud-amd64-unsigned - Linux 6.1 for x86-64 cloud
linux-image-6.1.0-56-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)
linux-image-6.1.0-56-cloud-amd64-dbg - Debug symbols
linux-image-6.1.0-57-amd64 - Linux 6.1 for 64-bit PCs
linux-image-6.12-cloud-amd64 - Linux for x86-64 cloud (meta-package)
linux-image-6.12.9+deb12-cloud-amd64 - Linux for x86-64 cloud (signed)
linux-image-6.12.117+deb12-cloud-amd64 - Linux for x86-64 cloud (signed)
nonsense
";
        assert_eq!(
            candidates("6.1", found),
            [
                "linux-image-6.1.0-56-cloud-amd64",
                "linux-image-6.1.0-56-cloud-amd64-unsigned",
                "linux-image-6.1.0-9-cloud-amd64",
            ]
        );
        assert_eq!(
            candidates("6.12", found),
            [
                "linux-image-6.12.117+deb12-cloud-amd64",
                "linux-image-6.12.9+deb12-cloud-amd64",
            ]
        );
        assert_eq!(candidates("6.18", found), Vec::<String>::new());
    }

    #[test]
    fn an_unpacked_package_counts_with_a_kernel_and_its_modules_only() {
        let folder = std::env::temp_dir().join(format!("ebb-xtask-{}", std::process::id()));
        let make = |path: &str| fs::create_dir_all(folder.join(path)).unwrap();
        make("boot");
        assert!(find("6.1", &folder).is_none());
        fs::write(folder.join("boot/vmlinuz-6.1.0-9-x"), "").unwrap();
        assert!(find("6.1", &folder).is_none());
        make("lib/modules/6.1.0-9-x/kernel");
        let kernel = find("6.1", &folder).unwrap();
        assert_eq!(kernel.version, "6.1.0-9-x");
        assert!(kernel.image.exists() && kernel.modules.exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
