//! Network namespaces of a test's own, joined by a pair of interfaces, with what the kernel counts there.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::process::{Child, Command, Stdio};

use ebb_agent::probe::Network;

use crate::Container;

/// Two network namespaces that a pair of interfaces joins, removed at the end.
#[derive(Debug)]
pub struct Namespaces {
    names: [String; 2],
}

/// The addresses of the interfaces.
pub const ADDRESSES: [&str; 2] = ["10.213.7.1", "10.213.7.2"];

impl Namespaces {
    /// Where frames are not cut, the interfaces get each packet as it passes a wire; else they get packets of many
    /// times that size, which a network card would cut.
    pub fn new(cut: bool) -> Self {
        let names = ["one", "other"].map(|end| format!("ebb-parity-{}-{end}", std::process::id()));
        let made = Self { names };
        let [one, other] = &made.names;
        for name in &made.names {
            ip(&["netns", "add", name]);
        }
        ip(&[
            "-n", one, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns",
            other,
        ]);
        for (name, address) in made.names.iter().zip(ADDRESSES) {
            ip(&[
                "-n",
                name,
                "addr",
                "add",
                &format!("{address}/30"),
                "dev",
                "eth0",
            ]);
            if !cut {
                ip(&["-n", name, "link", "set", "eth0", "gso_max_segs", "1"]);
            }
            ip(&["-n", name, "link", "set", "eth0", "up"]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        made
    }

    /// Starts a load in a container and in one of the namespaces.
    pub fn spawn(
        &self,
        at: usize,
        container: &Container,
        program: &str,
        arguments: &[&str],
    ) -> Child {
        let enter = ["netns", "exec", &self.names[at], program];
        container
            .spawn("ip", &[&enter[..], arguments].concat())
            .unwrap()
    }

    /// Starts a load in one of the namespaces and in no container.
    pub fn spawn_outside(&self, at: usize, program: &str, arguments: &[&str]) -> Child {
        Command::new("ip")
            .args(["netns", "exec", &self.names[at], program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// What the interface of a namespace has counted.
    pub fn counted(&self, at: usize) -> Network {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.names[at], "cat", "/proc/net/dev"])
            .output()
            .unwrap();
        interface(&String::from_utf8(output.stdout).unwrap(), "eth0")
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            // Absent if it could not be made.
            drop(Command::new("ip").args(["netns", "del", name]).status());
        }
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status();
    let status =
        status.expect("ip cannot be started; cargo xtask parity installs what these tests need");
    assert!(status.success(), "ip {} failed", arguments.join(" "));
}

/// A line of `/proc/net/dev`.
fn interface(text: &str, name: &str) -> Network {
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
    let numbers: Vec<u64> = line
        .unwrap_or_else(|| panic!("there is no {name} in {text}"))
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    Network {
        in_bytes: numbers[0],
        in_packets: numbers[1],
        out_bytes: numbers[8],
        out_packets: numbers[9],
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn interfaces_are_read_as_the_kernel_writes_them() {
        let text = fs::read_to_string("/proc/net/dev").unwrap();
        let lo = interface(&text, "lo");
        assert_eq!(lo.in_bytes, lo.out_bytes, "what loopback sends it receives");
    }
}
