//! What the probes are measured beside, as the kernel runs it: programs that do nothing, and a run-queue monitor as
//! others have one. See `tests/bench-ebpf`, whose object this loads. Beside the agent's own loader the only file that
//! names aya: the yardstick is no part of the agent, which therefore cannot load it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{Map, MapData, RingBuf};
use aya::programs::BtfTracePoint;
use aya::programs::tp_btf::BtfTracePointLinkId;
use aya::sys::{Stats, enable_stats};
use aya::{Btf, Ebpf, EbpfLoader};
use ebb_agent::probe::KernelFields;
use ebb_agent_ebpf_common::name;

use crate::process::{Cost, program_cost};

/// On one CPU the monitor tells user space of a cgroup at most once in this time. Long, so that nearly all switches
/// end at the limit, which is what costs the monitor least.
const EVENT_INTERVAL_NS: u64 = 10_000_000;
const EVENTS: &str = "EVENTS";
/// The kernel's fields that the monitor reads, by the names of its globals.
const FIELDS: [&str; 5] = [
    name::TASK_PID,
    name::TASK_CSS_SET,
    name::CSS_SET_CGROUP,
    name::CGROUP_NODE,
    name::NODE_ID,
];

/// A program of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Does nothing at a wake-up.
    NothingWakeup,
    /// Does nothing at a switch.
    NothingSwitch,
    /// The monitor at a wake-up.
    MonitorWakeup,
    /// The monitor at the first wake-up of a task.
    MonitorWakeupNew,
    /// The monitor at a switch.
    MonitorSwitch,
}

impl Program {
    const ALL: [Self; 5] = [
        Self::NothingWakeup,
        Self::NothingSwitch,
        Self::MonitorWakeup,
        Self::MonitorWakeupNew,
        Self::MonitorSwitch,
    ];
    /// What does nothing.
    pub const NOTHING: [Self; 2] = [Self::NothingWakeup, Self::NothingSwitch];
    /// The monitor.
    pub const MONITOR: [Self; 3] = [
        Self::MonitorWakeup,
        Self::MonitorWakeupNew,
        Self::MonitorSwitch,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        self.names().0
    }

    /// Its name in the object, and its tracepoint.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::NothingWakeup => ("nothing_wakeup", "sched_wakeup"),
            Self::NothingSwitch => ("nothing_switch", "sched_switch"),
            Self::MonitorWakeup => ("monitor_wakeup", "sched_wakeup"),
            Self::MonitorWakeupNew => ("monitor_wakeup_new", "sched_wakeup_new"),
            Self::MonitorSwitch => ("monitor_switch", "sched_switch"),
        }
    }
}

/// The loaded programs. Dropping them detaches.
pub struct Beside {
    ebpf: Ebpf,
    events: RingBuf<MapData>,
    attached: Vec<(Program, BtfTracePointLinkId)>,
}

impl Beside {
    /// Loads the object; nothing is attached.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn load(object: &Path, fields: &KernelFields) -> Result<Self> {
        let bytes =
            std::fs::read(object).with_context(|| format!("cannot read {}", object.display()))?;
        let btf = Btf::from_sys_fs().context("the kernel has no type information")?;
        let mut globals = vec![("EVENT_INTERVAL_NS", EVENT_INTERVAL_NS)];
        for name in FIELDS {
            let offset = fields.offset(name);
            globals.push((
                name,
                offset.with_context(|| format!("no offset of {name}"))?,
            ));
        }
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&btf));
        for (name, value) in &globals {
            loader.override_global(name, value, true);
        }
        let mut ebpf = loader.load(&bytes).context("the object cannot be loaded")?;
        let events = ebpf.take_map(EVENTS).context("the object has no events")?;
        for program in Program::ALL {
            let (name, tracepoint) = program.names();
            find(&mut ebpf, program)?
                .load(tracepoint, &btf)
                .with_context(|| format!("the kernel refuses {name}"))?;
        }
        Ok(Self {
            ebpf,
            events: RingBuf::try_from(events)?,
            attached: Vec::new(),
        })
    }

    /// Attaches programs, which run behind those that are attached already.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach(&mut self, programs: &[Program]) -> Result<()> {
        for &program in programs {
            let link = find(&mut self.ebpf, program)?.attach()?;
            self.attached.push((program, link));
        }
        Ok(())
    }

    /// Detaches these programs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn detach(&mut self, programs: &[Program]) -> Result<()> {
        let (gone, kept) = std::mem::take(&mut self.attached)
            .into_iter()
            .partition(|(program, _)| programs.contains(program));
        self.attached = kept;
        let gone: Vec<_> = gone;
        for (program, link) in gone {
            find(&mut self.ebpf, program)?.detach(link)?;
        }
        Ok(())
    }

    /// What a program has cost since it was loaded, while the kernel kept statistics.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn cost(&self, program: Program) -> Result<Cost> {
        let loaded = self.ebpf.program(program.name());
        let loaded = loaded.context("the object has changed")?;
        program_cost(loaded.fd()?.as_fd().as_raw_fd())
    }

    /// Takes what the monitor has sent, and says how many events those were.
    pub fn take_events(&mut self) -> u64 {
        count(&mut self.events)
    }
}

/// The kernel keeps statistics of all programs for as long as this is held.
///
/// # Errors
/// When it cannot (before 5.8), or may not.
pub fn keep_statistics() -> Result<OwnedFd> {
    enable_stats(Stats::RunTime).context("the kernel keeps no statistics of programs")
}

/// Takes what is in a ring buffer, and says how many events those were.
///
/// # Errors
/// When there is no ring buffer of that id.
pub fn take_events_of(map_id: u32) -> Result<u64> {
    let data = MapData::from_id(map_id).with_context(|| format!("map {map_id} is gone"))?;
    Ok(count(&mut RingBuf::try_from(Map::RingBuf(data))?))
}

fn count<M>(ring: &mut RingBuf<M>) -> u64 {
    let mut count = 0;
    while ring.next().is_some() {
        count += 1;
    }
    count
}

fn find(ebpf: &mut Ebpf, program: Program) -> Result<&mut BtfTracePoint> {
    let (name, _) = program.names();
    let found = ebpf
        .program_mut(name)
        .with_context(|| format!("the object has no {name}; it was built from other sources"))?;
    Ok(found.try_into()?)
}
