//! What this machine has, where the settings do not say it.
//!
//! The rules are those of Mesos: all CPUs; memory less 1 GiB, or half of less than 2 GiB; disk less
//! 5 GiB, or half of less than 10 GiB. Disk bandwidth has no file to be read from: it is measured once
//! by direct writes of a fraction of a second, remembered in the work folder. Network bandwidth is the speed of the
//! device of the default route, where the kernel knows it. Nothing of either is offered where it could not be limited.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ebb_types::{Quantities, ResourceKind};

use crate::cgroup::{BlockDevice, Controller, Mounts};
use crate::config::ConfiguredResources;
use crate::probe::Choice;

const GIB: u64 = 1 << 30;
const BYTES_PER_MEGABIT: u64 = 125_000;
/// One direct write, in bytes.
const BLOCK_BYTES: usize = 1 << 20;
/// What direct writes have to be aligned to, in bytes.
const ALIGN_BYTES: usize = 4_096;
/// Most that the measurement writes, in bytes.
const MEASURE_BYTES: u64 = 128 << 20;
/// Longest time that the measurement writes.
const MEASURE_TIME: Duration = Duration::from_millis(300);

/// What could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A file of the kernel could not be read.
    #[error("cannot find out {what} from {}: {source}; give it in the settings", path.display())]
    Read {
        /// What was sought.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

/// What the machine has, and how each figure was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The figures.
    pub total: Quantities,
    /// How each was found, for the log.
    pub sources: Vec<(ResourceKind, String)>,
}

/// Finds out what the settings do not say. `packets` is where the traffic of tasks is measured.
///
/// # Errors
/// [`MachineError`] names what could not be found.
pub fn find(
    configured: &ConfiguredResources,
    work_dir: &Path,
    mounts: &Mounts,
    packets: &Choice,
) -> Result<Found, MachineError> {
    let given = |value: Option<u64>| value.map(|amount| (amount, "configured".to_owned()));
    let cpus = given(configured.cpu_milli).map_or_else(detect_cpus, Ok)?;
    let mem = given(configured.mem_bytes).map_or_else(detect_mem, Ok)?;
    let disk = given(configured.disk_bytes).map_or_else(|| detect_disk(work_dir), Ok)?;
    let bandwidth = bandwidth(configured, work_dir, mounts);
    let found = [
        (ResourceKind::Cpus, cpus),
        (ResourceKind::Mem, mem),
        (ResourceKind::Disk, disk),
        (ResourceKind::DiskBandwidth, bandwidth),
        (ResourceKind::NetworkBandwidth, network(configured, packets)),
    ];
    Ok(Found {
        total: Quantities::from_pairs(found.iter().map(|(kind, (amount, _))| (*kind, *amount))),
        sources: found
            .into_iter()
            .map(|(kind, (_, source))| (kind, source))
            .collect(),
    })
}

fn detect_cpus() -> Result<(u64, String), MachineError> {
    let count = std::thread::available_parallelism().map_err(|source| MachineError::Read {
        what: "the number of CPUs",
        path: "/proc/self/status".into(),
        source,
    })?;
    Ok((
        count.get() as u64 * 1_000,
        "all CPUs that this process may use".to_owned(),
    ))
}

fn detect_mem() -> Result<(u64, String), MachineError> {
    let path = Path::new("/proc/meminfo");
    let failed = |source| MachineError::Read {
        what: "the memory",
        path: path.to_owned(),
        source,
    };
    let text = fs::read_to_string(path).map_err(failed)?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok())
        .ok_or_else(|| failed(io::Error::from(io::ErrorKind::InvalidData)))?;
    let all = kib * 1_024;
    Ok((
        without(all, GIB),
        "the machine's memory less 1 GiB, or half".to_owned(),
    ))
}

fn detect_disk(work_dir: &Path) -> Result<(u64, String), MachineError> {
    let stat = rustix::fs::statvfs(work_dir).map_err(|source| MachineError::Read {
        what: "the disk space",
        path: work_dir.to_owned(),
        source: source.into(),
    })?;
    let all = stat.f_blocks.saturating_mul(stat.f_frsize);
    Ok((
        without(all, 5 * GIB),
        "the work folder's disk less 5 GiB, or half".to_owned(),
    ))
}

/// All but `kept`, or half where that is more than half.
const fn without(all: u64, kept: u64) -> u64 {
    if all >= 2 * kept { all - kept } else { all / 2 }
}

/// The bandwidth, or 0 and why.
fn bandwidth(configured: &ConfiguredResources, work_dir: &Path, mounts: &Mounts) -> (u64, String) {
    if let Err(error) = BlockDevice::behind(work_dir) {
        return (0, format!("not offered: {error}"));
    }
    if !mounts.has(Controller::Io) {
        return (0, "not offered: no io controller could limit it".to_owned());
    }
    if let Some(rate) = configured.disk_bandwidth_bytes_per_s {
        return (rate, "configured".to_owned());
    }
    let remembered = work_dir.join("bandwidth");
    if let Some(rate) = fs::read_to_string(&remembered)
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
    {
        return (
            rate,
            "measured by direct writes at the first start".to_owned(),
        );
    }
    match measure(work_dir) {
        Ok(rate) => {
            // Where it cannot be remembered it is measured again at the next start.
            let _ = fs::write(&remembered, format!("{rate}\n"));
            (rate, "measured by direct writes".to_owned())
        }
        Err(error) => (
            0,
            format!("not offered: it could not be measured ({error})"),
        ),
    }
}

/// The network bandwidth, or 0 and why.
fn network(configured: &ConfiguredResources, packets: &Choice) -> (u64, String) {
    if packets.source.is_none() {
        return (
            0,
            format!("not offered: nothing could limit it ({})", packets.why),
        );
    }
    if let Some(rate) = configured.network_bandwidth_bytes_per_s {
        return (rate, "configured".to_owned());
    }
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let routes6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let Some(device) = default_device(&routes, &routes6) else {
        return (
            0,
            "not offered: there is no default route; give it in the settings".to_owned(),
        );
    };
    let path = Path::new("/sys/class/net").join(device).join("speed");
    let speed = fs::read_to_string(path).ok();
    match speed.and_then(|text| text.trim().parse::<u64>().ok()) {
        Some(megabits) if megabits > 0 => (
            megabits.saturating_mul(BYTES_PER_MEGABIT),
            format!("the speed of {device}"),
        ),
        _ => (
            0,
            format!("not offered: the speed of {device} is not known; give it in the settings"),
        ),
    }
}

/// The device of the default route, by the kernel's tables of IPv4 and, without one there, of IPv6.
fn default_device<'a>(routes: &'a str, routes6: &'a str) -> Option<&'a str> {
    let metric = |text: &str, radix| u32::from_str_radix(text, radix).ok();
    let four = routes.lines().skip(1).filter_map(|line| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let all = words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000");
        Some((metric(words.get(6)?, 10)?, *words.first()?)).filter(|_| all)
    });
    let six = routes6.lines().filter_map(|line| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let everywhere = words.first()?.bytes().all(|digit| digit == b'0');
        let all = everywhere && words.get(1) == Some(&"00");
        Some((metric(words.get(5)?, 16)?, *words.get(9)?))
            .filter(|(_, device)| all && *device != "lo")
    });
    let first = four.min().or_else(|| six.min());
    first.map(|(_, device)| device)
}

/// Bytes a second that direct writes reach, in whole mebibytes.
fn measure(work_dir: &Path) -> io::Result<u64> {
    let path = work_dir.join("bandwidth.probe");
    let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or_default();
    let result = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(flags)
        .open(&path)
        .and_then(write_for_a_while);
    fs::remove_file(&path)?;
    result
}

fn write_for_a_while(mut file: File) -> io::Result<u64> {
    let buffer = vec![0x5a; BLOCK_BYTES + ALIGN_BYTES];
    let misaligned = buffer.as_ptr().addr() % ALIGN_BYTES;
    let start = if misaligned == 0 {
        0
    } else {
        ALIGN_BYTES - misaligned
    };
    let block = &buffer[start..start + BLOCK_BYTES];
    let since = Instant::now();
    let mut written = 0;
    while written < MEASURE_BYTES && since.elapsed() < MEASURE_TIME {
        file.write_all(block)?;
        written += BLOCK_BYTES as u64;
    }
    file.sync_data()?;
    let micros = since.elapsed().as_micros().max(1);
    let rate = u128::from(written) * 1_000_000 / micros;
    let mebi = BLOCK_BYTES as u64;
    Ok(u64::try_from(rate).unwrap_or(u64::MAX) / mebi * mebi)
}

/// The name under which others reach this machine: the given one, else the machine's if it resolves,
/// else the address that is listened on.
pub fn hostname(configured: Option<&str>, listen: SocketAddr) -> String {
    if let Some(name) = configured {
        return name.to_owned();
    }
    if listen.ip().is_loopback() {
        return listen.ip().to_string();
    }
    let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let own = own.trim();
    let resolves = (own, listen.port())
        .to_socket_addrs()
        .is_ok_and(|mut addresses| addresses.next().is_some());
    match listen.ip() {
        _ if resolves => own.to_owned(),
        ip if !ip.is_unspecified() => ip.to_string(),
        IpAddr::V4(_) | IpAddr::V6(_) => "127.0.0.1".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_of_the_network_stands_where_it_can_be_limited() {
        let configured = ConfiguredResources {
            network_bandwidth_bytes_per_s: Some(5),
            ..ConfiguredResources::default()
        };
        let packets = Choice {
            source: Some(ebb_types::MeasureSource::Ebpf),
            why: String::new(),
        };
        assert_eq!(network(&configured, &packets).0, 5);
    }

    #[test]
    fn the_default_route_is_that_of_the_smallest_metric() {
        let head =
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";
        let far = "wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n";
        let near = "eth1\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n";
        let local = "eth2\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let all = format!("{head}{far}{near}{local}");
        assert_eq!(default_device(&all, ""), Some("eth1"));
        let zero = "0".repeat(32);
        let six = |metric: &str, device: &str| {
            format!("{zero} 00 {zero} 00 {zero} {metric} 00000001 00000000 00000003 {device}\n")
        };
        let six = six("ffffffff", "lo") + &six("00000400", "eth3");
        assert_eq!(
            default_device(&format!("{head}{local}"), &six),
            Some("eth3")
        );
        assert_eq!(default_device(&all, &six), Some("eth1"));
        assert_eq!(default_device("", ""), None);
        assert_eq!(default_device("x\ny 00000000", "0 00 short"), None);
    }

    #[test]
    fn small_machines_keep_half_and_large_ones_a_fixed_part() {
        assert_eq!(without(GIB, GIB), GIB / 2);
        assert_eq!(without(2 * GIB, GIB), GIB);
        assert_eq!(without(64 * GIB, GIB), 63 * GIB);
    }

    #[test]
    fn configured_figures_stand_and_the_others_are_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let configured = ConfiguredResources {
            cpu_milli: Some(1_500),
            ..ConfiguredResources::default()
        };
        let mounts = Mounts::detect().expect("mounts");
        let packets = Choice {
            source: None,
            why: "no probes".to_owned(),
        };
        let found = find(&configured, folder.path(), &mounts, &packets).expect("figures");
        assert_eq!(found.total.cpu_milli(), 1_500);
        assert!(found.total.mem_bytes() > 0 && found.total.get(ResourceKind::Disk) > 0);
        assert_eq!(found.sources.len(), ResourceKind::ALL.len());
        let network = &found.sources[4].1;
        assert!(network.contains("no probes"), "{network}");
        assert!(!folder.path().join("bandwidth.probe").exists());
    }
}
