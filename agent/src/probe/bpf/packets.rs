//! The packets of containers: counted, and held to limits, by two programs that are attached to the cgroups right above them.
//!
//! A program on a cgroup sees the packets of all that stands below it, so one pair serves all containers side by side.
//! Pairs stay attached when the last container beside goes, since the next one mostly comes to the same place; they go
//! when there are [`MAX_CGROUPS`] of them.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ebb_agent_ebpf_common::name;

use super::super::error::access;
use super::{Probes, sys};

/// Cgroups above containers whose packets are counted. Containers of one agent stand below two.
const MAX_CGROUPS: usize = 16;

impl Probes {
    /// Counts the packets of all cgroups below this one, unless they are counted already. Answers whether both directions
    /// are now.
    pub(super) fn watch_packets(&mut self, parent: &Path) -> bool {
        if !self.packets {
            return false;
        }
        let Ok(folder) = File::open(parent) else {
            return false;
        };
        let Ok(id) = folder.metadata().map(|meta| meta.ino()) else {
            return false;
        };
        let names = [name::NET_IN, name::NET_OUT].map(|program| format!("{program}_{id}"));
        if names.iter().all(|name| self.links.contains_key(name)) {
            return true;
        }
        let others = self.links.keys().filter(|name| name.starts_with("net_"));
        if others.count() >= 2 * MAX_CGROUPS {
            self.drop_idle_packets();
        }
        let directions = [
            (name::NET_IN, sys::CGROUP_INGRESS),
            (name::NET_OUT, sys::CGROUP_EGRESS),
        ];
        let mut all = true;
        for ((program, direction), name) in directions.into_iter().zip(names) {
            let attached = self
                .program(program)
                .and_then(|program| {
                    sys::attach_packets(program, folder.as_fd(), direction)
                        .map_err(|error| access("packet counter", "attached", &error))
                })
                .and_then(|link| self.keep_link(name, link));
            // Its packets are not counted then, and the figure stands at what it was.
            if attached.is_err() {
                self.detached += 1;
                all = false;
            }
        }
        all
    }

    /// Detaches from cgroups that no container stands below.
    fn drop_idle_packets(&mut self) {
        let parents: BTreeSet<String> = self
            .slots
            .parents()
            .filter_map(|parent| std::fs::metadata(parent).ok())
            .map(|meta| meta.ino().to_string())
            .collect();
        let idle: Vec<String> = self
            .links
            .keys()
            .filter(|name| name.starts_with("net_"))
            .filter(|name| !parents.iter().any(|id| name.ends_with(&format!("_{id}"))))
            .cloned()
            .collect();
        for name in idle {
            self.links.remove(&name);
            if let Some(pins) = &self.pins {
                pins.drop_link(&name);
            }
        }
    }
}
