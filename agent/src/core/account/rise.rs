//! By how much absolute counters have risen.

use ebb_types::MeasureSource;

use super::super::usage::ContainerSample;
use super::Since;

/// What containers have used in all. `None` was never measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameworkTotals {
    /// Time on CPUs, in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Bytes read from block devices.
    pub disk_read_bytes: Option<u64>,
    /// Bytes written to block devices.
    pub disk_write_bytes: Option<u64>,
    /// Bytes of IP packets received.
    pub net_in_bytes: Option<u64>,
    /// Bytes of IP packets sent.
    pub net_out_bytes: Option<u64>,
    /// Bytes received through network devices other than loopback.
    pub traffic_in_bytes: Option<u64>,
    /// Bytes sent through them.
    pub traffic_out_bytes: Option<u64>,
    /// Packets that were dropped for exceeding the network bandwidth of their container.
    pub dropped_packets: Option<u64>,
    /// Processes killed for want of memory.
    pub oom_kills: Option<u64>,
    /// New processes.
    pub forks: Option<u64>,
}

impl FrameworkTotals {
    fn each(&mut self) -> [&mut Option<u64>; FIGURES] {
        [
            &mut self.cpu_ns,
            &mut self.disk_read_bytes,
            &mut self.disk_write_bytes,
            &mut self.net_in_bytes,
            &mut self.net_out_bytes,
            &mut self.traffic_in_bytes,
            &mut self.traffic_out_bytes,
            &mut self.dropped_packets,
            &mut self.oom_kills,
            &mut self.forks,
        ]
    }

    /// Adds what has risen.
    pub(super) fn add(&mut self, risen: &Self) {
        let mut risen = *risen;
        for (total, risen) in self.each().into_iter().zip(risen.each()) {
            if let Some(risen) = risen {
                *total = Some(total.unwrap_or(0).saturating_add(*risen));
            }
        }
    }
}

const FIGURES: usize = 10;

/// The last reading of each counter, and its source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last {
    since: Since,
    readings: [Option<(u64, MeasureSource)>; FIGURES],
}

impl Last {
    pub(super) fn new(since: Since) -> Self {
        Self {
            since,
            readings: [None; FIGURES],
        }
    }

    /// What has risen since the last reading.
    pub(super) fn rise(&mut self, reading: &ContainerSample, full: bool) -> FrameworkTotals {
        let ebpf = |value: Option<u64>| value.map(|value| (value, MeasureSource::Ebpf));
        let disk = reading.disk.filter(|_| full);
        let disk = |bytes: fn(&super::super::usage::IoSample) -> u64| {
            disk.as_ref().map(|disk| (bytes(disk), reading.disk_source))
        };
        let now = [
            reading.cpu_ns.map(|ns| (ns, reading.cpu_source)),
            disk(|disk| disk.read_bytes),
            disk(|disk| disk.write_bytes),
            ebpf(reading.net_bytes.map(|net| net.0)),
            ebpf(reading.net_bytes.map(|net| net.1)),
            ebpf(reading.traffic.map(|traffic| traffic.in_bytes)),
            ebpf(reading.traffic.map(|traffic| traffic.out_bytes)),
            ebpf(reading.traffic.map(|traffic| traffic.dropped_packets)),
            reading.oom_kills.map(|kills| (kills, reading.oom_source)),
            ebpf(reading.forks),
        ];
        let mut risen = FrameworkTotals::default();
        let places = risen.each().into_iter().zip(&mut self.readings);
        for ((risen, last), now) in places.zip(now) {
            let Some(now) = now else { continue };
            *risen = Some(step(*last, now, self.since));
            *last = Some(now);
        }
        risen
    }
}

fn step(last: Option<(u64, MeasureSource)>, now: (u64, MeasureSource), since: Since) -> u64 {
    match (last, since) {
        (None, Since::Launch) => now.0,
        (None, Since::Before) => 0,
        (Some((last, source)), _) if source == now.1 => now.0.checked_sub(last).unwrap_or(now.0),
        // Both sources count from the launch.
        (Some((last, _)), Since::Launch) => now.0.saturating_sub(last),
        (Some(_), Since::Before) => 0,
    }
}
