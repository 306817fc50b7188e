//! Folders on the bpf file system, in which a sampler's probes stay attached when it is dropped.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};

use ebb_agent::probe::{BPF_MOUNT, Options, mount_bpf};

/// A folder for pins; removed with what is left in it when a test fails.
#[derive(Debug)]
pub struct PinFolder(pub PathBuf);

impl PinFolder {
    /// A folder that is made when probes are kept in it.
    pub fn new(name: &str) -> Self {
        mount_bpf().unwrap();
        let name = format!("ebb-parity-{}-{name}", std::process::id());
        Self(Path::new(BPF_MOUNT).join(name))
    }

    /// Options of a sampler that keeps its probes in it.
    pub fn options(&self, slots: u32) -> Options {
        Options {
            slots,
            pins: Some(self.0.clone()),
        }
    }

    /// The folders of probes that stand in it.
    pub fn kept(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }
}

impl Drop for PinFolder {
    fn drop(&mut self) {
        for folder in self.kept() {
            for file in fs::read_dir(&folder).into_iter().flatten().flatten() {
                drop(fs::remove_file(file.path()));
            }
            drop(fs::remove_dir(folder));
        }
        drop(fs::remove_dir(&self.0));
    }
}
