//! Builds the probes' object into the agent, if there is one.
//!
//! `cargo xtask build-ebpf` puts it at `target/bpf/ebb-probes.o`; `EBB_PROBES_OBJECT` names another
//! one. Without it the agent builds too, and says that it measures by files.

use std::env;
use std::fs;
use std::path::PathBuf;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(ebb_probes)");
    println!("cargo::rerun-if-env-changed=EBB_PROBES_OBJECT");
    let object = match env::var_os("EBB_PROBES_OBJECT") {
        Some(path) => PathBuf::from(path),
        None => {
            let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
            let folder = manifest.join("../target/bpf");
            // Cargo builds anew every time while a file that it watches is absent, so it watches the folder.
            // Where none can be made, that is the price.
            drop(fs::create_dir_all(&folder));
            println!("cargo::rerun-if-changed={}", folder.display());
            folder.join("ebb-probes.o")
        }
    };
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(object) = object.canonicalize() {
        println!("cargo::rerun-if-changed={}", object.display());
        println!("cargo::rustc-cfg=ebb_probes");
        println!("cargo::rustc-env=EBB_PROBES_BUILT={}", object.display());
    }
}
