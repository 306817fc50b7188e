//! `cargo xtask setup`: finds or installs what building the probes takes.
//!
//! Two things: a compiler that comes with the sources of `core` (there is no built `core` for the
//! bpf target), and `bpf-linker`, which reads the compiler's LLVM bitcode and so must understand its
//! LLVM. In this order: a rustup nightly with `rust-src`; Debian's `rustc-web` with
//! `rust-web-src`; if there is neither, the Debian packages are installed with apt, else a pinned
//! nightly with rustup. Nothing is asked; what was found and done is printed; where none of it
//! works, the error has the commands to run.
//!
//! Price: well below a second when everything is there; about a minute and a half on two cores to
//! build the linker.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The version of the linker, which the object format depends on.
const LINKER_VERSION: &str = "0.10.0";
/// The LLVM that this linker understands.
const LLVM_MAJOR: &str = "22";
/// A nightly with that LLVM, for machines that have rustup and neither of the two compilers.
const NIGHTLY: &str = "nightly-2026-05-20";
/// Debian's packages.
const PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

const HELP: &str = "building the probes takes one of these, as root or with rustup:\n  \
    apt-get update && apt-get install -y --no-install-recommends rustc-web rust-web-src\n  \
    rustup toolchain install nightly-2026-05-20 --profile minimal --component rust-src\n\
    and then: cargo xtask setup";

/// What builds the probes.
#[derive(Debug, Clone)]
pub(crate) struct Toolchain {
    /// A compiler with the sources of `core`.
    pub(crate) rustc: PathBuf,
    /// The linker.
    pub(crate) linker: PathBuf,
    /// Folders with the LLVM library that the linker opens when it runs.
    pub(crate) library_path: Vec<PathBuf>,
}

/// The root of the repository.
pub(crate) fn workspace_root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(Path::to_path_buf).unwrap_or(manifest)
}

/// Finds or installs the tool chain.
pub(crate) fn setup() -> Result<Toolchain> {
    let rustc = match find_rustc() {
        Some(rustc) => rustc,
        None => install_rustc()?,
    };
    let linker = match find_linker() {
        Some(linker) => {
            println!("setup: linker {} ({LINKER_VERSION})", linker.display());
            linker
        }
        None => install_linker()?,
    };
    let mut library_path = Vec::new();
    for compiler in [OsStr::new("rustc"), rustc.as_os_str()] {
        if let Some(root) = sysroot(Path::new(compiler)) {
            library_path.push(root.join("lib"));
        }
    }
    Ok(Toolchain {
        rustc,
        linker,
        library_path,
    })
}

/// A compiler that has the library's sources and an LLVM that the linker understands.
fn find_rustc() -> Option<PathBuf> {
    let toolchains = output("rustup", ["toolchain", "list"]).unwrap_or_default();
    let nightlies = toolchains
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("nightly"))
        .filter_map(|name| output("rustup", ["which", "--toolchain", name, "rustc"]));
    let candidates = nightlies.map(|path| PathBuf::from(path.trim()));
    for rustc in candidates.chain([PathBuf::from("/usr/bin/rustc")]) {
        match usable(&rustc) {
            Ok(version) => {
                println!("setup: compiler {} ({version})", rustc.display());
                return Some(rustc);
            }
            Err(why) => println!("setup: not {}: {why}", rustc.display()),
        }
    }
    None
}

/// The version of a compiler, or why it does not serve.
fn usable(rustc: &Path) -> Result<String, String> {
    let version = output(rustc, ["-vV"]).ok_or("it does not run")?;
    let llvm = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .unwrap_or("?");
    if llvm.split('.').next() != Some(LLVM_MAJOR) {
        return Err(format!(
            "it has LLVM {llvm}, and bpf-linker {LINKER_VERSION} needs {LLVM_MAJOR}"
        ));
    }
    let root = sysroot(rustc).ok_or("it does not tell its sysroot")?;
    if !root
        .join("lib/rustlib/src/rust/library/core/Cargo.toml")
        .exists()
    {
        return Err("it has no library sources".to_owned());
    }
    Ok(version.lines().next().unwrap_or_default().to_owned())
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    Some(PathBuf::from(output(rustc, ["--print", "sysroot"])?.trim()))
}

fn install_rustc() -> Result<PathBuf> {
    let mut failures = Vec::new();
    type Install = fn() -> Result<()>;
    let ways: [(&str, Install); 2] = [("apt", install_packages), ("rustup", install_nightly)];
    for (name, install) in ways {
        match install() {
            Ok(()) => match find_rustc() {
                Some(rustc) => return Ok(rustc),
                None => failures.push(format!("{name}: what it installed does not serve")),
            },
            Err(error) => failures.push(format!("{name}: {error:#}")),
        }
    }
    bail!(
        "no compiler for the probes ({}); {HELP}",
        failures.join("; ")
    )
}

/// Sees to it that programs are there, each given with the Debian package that brings it.
pub(crate) fn need(programs: &[(&str, &str)]) -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let folders: Vec<PathBuf> = env::split_paths(&path).chain(system).collect();
    let is_there = |name: &str| folders.iter().any(|folder| folder.join(name).is_file());
    let missing = || programs.iter().filter(|(name, _)| !is_there(name));
    let packages: Vec<&str> = missing().map(|(_, package)| *package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    let help = || {
        format!(
            "install them as root: apt-get update && apt-get install -y --no-install-recommends {}",
            packages.join(" ")
        )
    };
    apt_install(&packages).with_context(help)?;
    if let Some((name, _)) = missing().next() {
        bail!("{name} is still missing; {}", help());
    }
    Ok(())
}

fn install_packages() -> Result<()> {
    apt_install(&PACKAGES)
}

fn apt_install(packages: &[&str]) -> Result<()> {
    println!("setup: installing {} with apt", packages.join(" and "));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(arguments);
        run(&mut command)
    };
    apt(&["-q", "update"])?;
    apt(&[
        &["-q", "install", "-y", "--no-install-recommends"][..],
        packages,
    ]
    .concat())
}

fn install_nightly() -> Result<()> {
    println!("setup: installing {NIGHTLY} with rustup");
    let arguments = [
        "toolchain",
        "install",
        NIGHTLY,
        "--profile",
        "minimal",
        "--component",
        "rust-src",
    ];
    run(Command::new("rustup").args(arguments))
}

/// Where `cargo install` puts the linker: inside the repository, so that no other project's is touched.
fn tools() -> PathBuf {
    workspace_root().join("target/tools")
}

fn find_linker() -> Option<PathBuf> {
    let own = tools().join("bin/bpf-linker");
    let path = env::var_os("PATH").unwrap_or_default();
    let others = env::split_paths(&path).map(|folder| folder.join("bpf-linker"));
    [own]
        .into_iter()
        .chain(others)
        .filter(|path| path.exists())
        .find(|linker| {
            let version = linker_version(linker);
            version.as_deref() == Some(LINKER_VERSION)
        })
}

fn linker_version(linker: &Path) -> Option<String> {
    let text = output(linker, ["--version"])?;
    text.split_whitespace().nth(1).map(str::to_owned)
}

fn install_linker() -> Result<PathBuf> {
    println!("setup: building bpf-linker {LINKER_VERSION} (a minute or two)");
    let root = tools();
    fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    let mut cargo = Command::new("cargo");
    cargo
        .args([
            "install",
            "bpf-linker",
            "--version",
            LINKER_VERSION,
            "--locked",
            "--quiet",
        ])
        .arg("--root")
        .arg(&root)
        // The linker is not of this workspace: neither its flags nor its target folder are meant for it.
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(workspace_root());
    run(&mut cargo).with_context(|| {
        format!("bpf-linker cannot be built; try: cargo install bpf-linker --version {LINKER_VERSION} --locked")
    })?;
    let linker = root.join("bin/bpf-linker");
    if linker_version(&linker).as_deref() != Some(LINKER_VERSION) {
        bail!("{} was built and does not run", linker.display());
    }
    println!("setup: linker {} ({LINKER_VERSION})", linker.display());
    Ok(linker)
}

/// What a command prints; `None` if it cannot be run or fails.
fn output<const N: usize>(program: impl AsRef<OsStr>, arguments: [&str; N]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("{name} cannot be run"))?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}
