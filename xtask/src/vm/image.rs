//! The guest's files: a disk with busybox and the test programs, a disk to work on, and the first files of each boot.
//!
//! The first files (an initramfs) hold what differs from boot to boot: the modules of its kernel, and what is to run.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::binaries::Program;
use super::console::Console;
use super::folder;
use super::kernels::Kernel;
use super::modules;
use super::suites::{Boot, SUITES, Work};

/// The first process, up to the disk.
const FIRST: &str = include_str!("first.sh");
/// The first process, from the disk.
const INIT: &str = include_str!("init.sh");
const SCRATCH_BYTES: u64 = 256 << 20;
/// Room on the disk beside the programs.
const ROOT_SPARE_BYTES: u64 = 64 << 20;
/// Folders that the guest mounts something on, or that programs expect.
const FOLDERS: [&str; 10] = [
    "bin", "dev", "ebb", "etc", "proc", "run", "scratch", "sys", "tmp", "var/tmp",
];
const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// The files that all boots share.
pub struct Images {
    /// The disk with the programs.
    pub root: PathBuf,
    busybox: PathBuf,
    programs: Vec<(String, PathBuf)>,
}

/// What one boot runs: names, and the lines of the guest's script, in order.
pub struct Runs(Vec<(String, String)>);

impl Images {
    /// Makes the disk with the programs.
    pub fn make(busybox: &Path, programs: &[Program]) -> Result<Self> {
        let tree = fresh(&folder().join("root"))?;
        lay_out(&tree, busybox)?;
        for name in FOLDERS {
            make_dir(&tree.join(name))?;
        }
        write(&tree.join("etc/passwd"), PASSWD.as_bytes())?;
        write(&tree.join("etc/group"), GROUP.as_bytes())?;
        write(&tree.join("ebb/init"), INIT.as_bytes())?;
        let mut bytes = ROOT_SPARE_BYTES;
        for program in programs {
            let at = tree.join(program.at.strip_prefix("/").unwrap_or(&program.at));
            make_dir(at.parent().unwrap_or(&tree))?;
            bytes += fs::copy(&program.copy, &at)
                .with_context(|| format!("cannot copy {}", program.copy.display()))?;
        }
        let root = folder().join("root.img");
        make_disk(&root, bytes, Some(&tree))?;
        let programs = programs.iter();
        Ok(Self {
            root,
            busybox: busybox.to_owned(),
            programs: programs
                .map(|program| (program.name.clone(), program.at.clone()))
                .collect(),
        })
    }

    /// An empty disk to work on.
    pub fn scratch(&self) -> Result<PathBuf> {
        let scratch = folder().join("scratch.img");
        make_disk(&scratch, SCRATCH_BYTES, None)?;
        Ok(scratch)
    }

    /// What a boot runs: each test program of the suites, one test at a time, or the one test that the boot is for.
    pub fn runs(&self, series: &str, boot: &Boot, filter: Option<&str>) -> Result<Runs> {
        let mut runs = Runs(Vec::new());
        match boot.work {
            Work::Suites => {
                let is_program =
                    |filter: &str| SUITES.iter().any(|one| one.tests.contains(&filter));
                for suite in SUITES.iter().filter(|one| one.runs_on(series, filter)) {
                    let skips = suite.skipped.iter();
                    let skips: String = skips
                        .map(|skipped| format!(" --skip {}", skipped.test))
                        .collect();
                    for test in suite.tests {
                        let arguments = match filter {
                            Some(program) if is_program(program) && program != *test => continue,
                            Some(word) if !is_program(word) => format!("{skips} '{word}'"),
                            _ => skips.clone(),
                        };
                        let name = format!("{}/{test}", suite.package);
                        runs.add(&name, self.at(&name)?, &arguments);
                    }
                }
            }
            Work::Only { program, test } => {
                let arguments = format!(" --include-ignored --exact {test}");
                runs.add(program, self.at(program)?, &arguments);
            }
        }
        Ok(runs)
    }

    fn at(&self, name: &str) -> Result<&Path> {
        let found = self.programs.iter().find(|(of, _)| of == name);
        found
            .map(|(_, at)| at.as_path())
            .with_context(|| format!("{name} was not built"))
    }

    /// The first files of a boot.
    pub fn initramfs(&self, kernel: &Kernel, boot: &Boot, runs: &Runs) -> Result<PathBuf> {
        let tree = fresh(&folder().join("first"))?;
        lay_out(&tree, &self.busybox)?;
        for name in ["dev", "modules", "system"] {
            make_dir(&tree.join(name))?;
        }
        let mut order = String::new();
        for module in modules::load(&kernel.modules, &self.busybox)? {
            write(&tree.join("modules").join(&module.file), &module.content)?;
            order.push_str(&format!("{}\n", module.file));
        }
        write(&tree.join("modules/order"), order.as_bytes())?;
        let script: String = runs.0.iter().map(|(_, line)| line.as_str()).collect();
        write(&tree.join("runs"), script.as_bytes())?;
        let init = tree.join("init");
        write(&init, FIRST.as_bytes())?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", init.display()))?;
        let archive = folder().join(format!("{}-{}.cpio", kernel.series, boot.name));
        pack(&self.busybox, &tree, &archive)?;
        Ok(archive)
    }
}

impl Runs {
    fn add(&mut self, name: &str, at: &Path, arguments: &str) {
        let line = format!(
            "run '{name}' '{}' --test-threads=1{arguments}\n",
            at.display()
        );
        self.0.push((name.to_owned(), line));
    }

    /// The names, in order.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Those that have not ended in a boot.
    pub fn left(&self, console: &Console) -> Self {
        let runs = self.0.iter().filter(|(name, _)| !console.has_ended(name));
        Self(runs.cloned().collect())
    }
}

/// Busybox, and a shell's name for it; the other names are made in the guest.
fn lay_out(tree: &Path, busybox: &Path) -> Result<()> {
    make_dir(&tree.join("bin"))?;
    let at = tree.join("bin/busybox");
    fs::copy(busybox, &at).with_context(|| format!("cannot copy {}", busybox.display()))?;
    symlink("busybox", tree.join("bin/sh")).context("cannot link busybox")
}

fn fresh(tree: &Path) -> Result<PathBuf> {
    if tree.exists() {
        fs::remove_dir_all(tree).with_context(|| format!("cannot empty {}", tree.display()))?;
    }
    make_dir(tree)?;
    Ok(tree.to_owned())
}

fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// A disk with an ext4 file system, with the content of a folder.
fn make_disk(image: &Path, bytes: u64, tree: Option<&Path>) -> Result<()> {
    drop(fs::remove_file(image));
    File::create(image)
        .and_then(|file| file.set_len(bytes))
        .with_context(|| format!("cannot create {}", image.display()))?;
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args([
        "-q",
        "-F",
        "-m",
        "0",
        "-E",
        "lazy_itable_init=1,root_owner=0:0",
    ]);
    if let Some(tree) = tree {
        mkfs.arg("-d").arg(tree);
    }
    // Where a session's path leaves the system's folders out.
    let path = std::env::var("PATH").unwrap_or_default();
    mkfs.arg(image)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"));
    crate::setup::run(&mut mkfs).with_context(|| format!("cannot format {}", image.display()))
}

/// Packs a folder as the kernel reads it.
fn pack(busybox: &Path, tree: &Path, archive: &Path) -> Result<()> {
    let mut names = Vec::new();
    list(tree, Path::new(""), &mut names)?;
    let out =
        File::create(archive).with_context(|| format!("cannot create {}", archive.display()))?;
    let mut cpio = Command::new(busybox)
        .args(["cpio", "-o", "-H", "newc"])
        .current_dir(tree)
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(Stdio::null())
        .spawn()
        .context("busybox cannot be started")?;
    if let Some(mut input) = cpio.stdin.take() {
        input
            .write_all(names.join("\n").as_bytes())
            .context("busybox's cpio takes no names")?;
    }
    let status = cpio.wait().context("cannot wait for busybox")?;
    ensure!(status.success(), "busybox's cpio failed ({status})");
    Ok(())
}

/// Every file below a folder, a folder before what is in it.
fn list(tree: &Path, below: &Path, names: &mut Vec<String>) -> Result<()> {
    let folder = tree.join(below);
    let entries =
        fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        let path = below.join(entry.file_name());
        names.push(path.to_string_lossy().into_owned());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list(tree, &path, names)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_boot_runs_what_has_not_ended() {
        let mut runs = Runs(Vec::new());
        for name in ["a", "b", "c"] {
            runs.add(name, Path::new("/x"), "");
        }
        let mut console = Console::default();
        for line in ["@@ebb begin a", "@@ebb end a 1", "@@ebb begin b"] {
            console.take(line);
        }
        let left = runs.left(&console);
        assert_eq!(left.names(), ["b", "c"]);
        assert_eq!(left.0[0].1, "run 'b' '/x' --test-threads=1\n");
    }
}
