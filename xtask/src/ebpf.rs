//! `cargo xtask build-ebpf`: builds the probes into `target/bpf/ebb-probes.o`.
//!
//! The object always stands there, whatever `CARGO_TARGET_DIR` says, because the agent's build
//! script looks there. It is only written when its content has changed, so that nothing that
//! includes it is built anew without need.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::setup::{Toolchain, run, setup, workspace_root};

const TARGET: &str = "bpfel-unknown-none";

/// Builds the probes and returns where they are.
pub(crate) fn build_ebpf() -> Result<PathBuf> {
    let toolchain = setup()?;
    let root = workspace_root();
    let build = root.join("target/bpf-build");
    run(&mut cargo(&toolchain, &build)?).context("the probes cannot be built")?;
    let built = build.join(TARGET).join("release/ebb-probes");
    let content = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let object = root.join("target/bpf/ebb-probes.o");
    if fs::read(&object).ok().as_ref() == Some(&content) {
        println!("build-ebpf: {} is up to date", object.display());
        return Ok(object);
    }
    fs::create_dir_all(root.join("target/bpf")).context("cannot create target/bpf")?;
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

fn cargo(toolchain: &Toolchain, build: &PathBuf) -> Result<Command> {
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
        .current_dir(workspace_root().join("agent-ebpf"))
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
