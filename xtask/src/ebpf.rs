//! `cargo xtask build-ebpf`: builds the probes into `target/bpf/ebb-probes.o`; benchmarks build what
//! the probes are measured beside into a folder of its own.
//!
//! An object always stands at the same place, whatever `CARGO_TARGET_DIR` says, because the agent's
//! build script looks there. It is only written when its content has changed, so that nothing that
//! includes it is built anew without need.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::setup::{Toolchain, run, setup, workspace_root};

const TARGET: &str = "bpfel-unknown-none";

/// A crate for the bpf target, which builds into one object. Folders are below the repository's root.
struct Crate {
    folder: &'static str,
    binary: &'static str,
    /// Where the object goes. The agent's build script watches the probes' folder, so nothing else
    /// belongs there.
    object_folder: &'static str,
}

const PROBES: Crate = Crate {
    folder: "agent-ebpf",
    binary: "ebb-probes",
    object_folder: "target/bpf",
};

const BENCH_PROBES: Crate = Crate {
    folder: "tests/bench-ebpf",
    binary: "ebb-bench-probes",
    object_folder: "target/bpf-bench",
};

/// Builds the probes and returns where they are.
pub(crate) fn build_ebpf() -> Result<PathBuf> {
    build(&PROBES)
}

/// Builds what the probes are measured beside, and returns where it is.
pub(crate) fn build_bench_ebpf() -> Result<PathBuf> {
    build(&BENCH_PROBES)
}

fn build(what: &Crate) -> Result<PathBuf> {
    let toolchain = setup()?;
    let root = workspace_root();
    let build = root.join("target/bpf-build");
    run(&mut cargo(&toolchain, what, &build)?)
        .with_context(|| format!("{} cannot be built", what.binary))?;
    let built = build.join(TARGET).join("release").join(what.binary);
    let content = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let folder = root.join(what.object_folder);
    let object = folder.join(what.binary).with_extension("o");
    if fs::read(&object).ok().as_ref() == Some(&content) {
        println!("build-ebpf: {} is up to date", object.display());
        return Ok(object);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // Renamed into place, so that nobody ever includes half of it.
    let partial = object.with_extension("partial");
    fs::write(&partial, &content)
        .and_then(|()| fs::rename(&partial, &object))
        .with_context(|| format!("cannot write {}", object.display()))?;
    println!(
        "build-ebpf: wrote {} ({} bytes)",
        object.display(),
        content.len()
    );
    Ok(object)
}

fn cargo(toolchain: &Toolchain, what: &Crate, build: &PathBuf) -> Result<Command> {
    let flags = [
        "--cfg",
        &format!("bpf_target_arch=\"{}\"", env::consts::ARCH),
        "-C",
        "debuginfo=2",
        "-C",
        "link-arg=--btf",
    ]
    .join("\u{1f}");
    let before = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let libraries = env::join_paths(
        toolchain
            .library_path
            .iter()
            .cloned()
            .chain(env::split_paths(&before)),
    )
    .context("a folder of the compiler has a colon in its name")?;
    let mut cargo = Command::new("cargo");
    cargo
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "-Z",
            "build-std=core",
        ])
        .args(["--target", TARGET])
        .arg("--target-dir")
        .arg(build)
        .current_dir(workspace_root().join(what.folder))
        .env("RUSTC", &toolchain.rustc)
        // A stable compiler takes `-Z` as well with this.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker)
        .env("LD_LIBRARY_PATH", libraries)
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET");
    Ok(cargo)
}
