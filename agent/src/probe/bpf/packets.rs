//! The packets of containers: counted, and held to limits, by programs that are attached to the cgroups right above them.
//!
//! A program on a cgroup sees the packets and sockets of all that stands below it, so one set serves all containers side
//! by side. They stay attached when the last container beside goes, since the next one mostly comes to the same place;
//! they go when there are [`MAX_CGROUPS`] of them.

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

/// The programs, and what of a cgroup they are attached to. Pacing comes first, so that it sees the sockets whose packets
/// are limited; it is not there on a kernel that refuses it.
const PROGRAMS: [(&str, u32); 3] = [
    (name::NET_PACE, sys::CGROUP_SOCKETS),
    (name::NET_IN, sys::CGROUP_INGRESS),
    (name::NET_OUT, sys::CGROUP_EGRESS),
];

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
        let name = |program: &str| format!("{program}_{id}");
        let both = [name::NET_IN, name::NET_OUT];
        let is_watched = |probes: &Self| {
            both.map(name)
                .iter()
                .all(|name| probes.links.contains_key(name))
        };
        if is_watched(self) {
            return true;
        }
        let others = self.links.keys().filter(|name| name.starts_with("net_"));
        if others.count() >= PROGRAMS.len() * MAX_CGROUPS {
            self.drop_idle_packets();
        }
        for (program, to) in PROGRAMS {
            if !self.programs.contains_key(program) {
                continue;
            }
            let attached = self
                .program(program)
                .and_then(|program| {
                    sys::attach_to_cgroup(program, folder.as_fd(), to)
                        .map_err(|error| access("packet counter", "attached", &error))
                })
                .and_then(|link| self.keep_link(name(program), link));
            // Its packets are not counted then, and the figure stands at what it was; or they are not paced.
            if attached.is_err() {
                self.detached += 1;
            }
        }
        is_watched(self)
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
