//! Which source each figure has on this machine: a pure function of the facts.
//!
//! The best source that works is taken: the probes, else files of the kernel, else none. Each
//! choice says why it is not the best one, in a sentence for the log, the metrics and the API. A
//! part of the probes that the kernel refuses later ([`Plan::refuse`]) leaves the others in place.

use ebb_agent_ebpf_common::{Tree, name};
use ebb_types::MeasureSource;

use super::figures::Available;
use super::support::{Facts, FieldGroup, KernelFields};

/// The source of one figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Where it comes from; `None` if it is not measured.
    pub source: Option<MeasureSource>,
    /// Why it does not come from a better place; empty if it does.
    pub why: String,
}

impl Choice {
    fn of(source: Option<MeasureSource>, why: &str) -> Self {
        let why = why.to_owned();
        Self { source, why }
    }
}

/// How the probes look at the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attach {
    /// Not at all.
    No,
    /// By BTF tracepoints, with these offsets.
    Btf(KernelFields),
    /// By raw tracepoints and helpers alone, since the kernel has no BTF.
    Plain,
}

/// A part of the probes, which is attached as a whole or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Time, waits, switches and faults. Without it there are no probes.
    Cpu,
    /// Forks and exits.
    Processes,
    /// Stalls for want of memory.
    Reclaim,
    /// Kills for want of memory.
    Oom,
    /// Traffic with block devices.
    Disk,
    /// IP traffic, and the limits of that with network devices.
    Network,
    /// Sending at an even pace under these limits.
    Pacing,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// To a BTF tracepoint of this name.
    Tracepoint(&'static str),
    /// To a raw tracepoint of this name.
    Raw(&'static str),
    /// Nowhere: the agent runs it.
    Run,
    /// To cgroups, for the packets that come in.
    PacketsIn,
    /// To cgroups, for the packets that go out.
    PacketsOut,
    /// To cgroups, for what happens to TCP sockets.
    Sockets,
}

/// A program of the probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name in the object.
    pub name: &'static str,
    /// Where it is attached.
    pub hook: Hook,
}

const fn program(name: &'static str, hook: Hook) -> Program {
    Program { name, hook }
}

const CPU: &[Program] = &[
    program(name::FLUSH, Hook::Run),
    program(name::SCHED_SWITCH, Hook::Tracepoint("sched_switch")),
];
const CPU_PLAIN: &[Program] = &[
    program(name::FLUSH_PLAIN, Hook::Run),
    program(name::SCHED_SWITCH_PLAIN, Hook::Raw("sched_switch")),
];
const PROCESSES: &[Program] = &[
    program(name::PROCESS_FORK, Hook::Tracepoint("sched_process_fork")),
    program(name::PROCESS_EXIT, Hook::Tracepoint("sched_process_exit")),
    program(name::PROCESS_FREE, Hook::Tracepoint("sched_process_free")),
    program(name::PROCESS_MOVE, Hook::Tracepoint("cgroup_attach_task")),
];
const RECLAIM: &[Program] = &[
    program(
        name::RECLAIM_DIRECT_BEGIN,
        Hook::Tracepoint("mm_vmscan_direct_reclaim_begin"),
    ),
    program(
        name::RECLAIM_DIRECT_END,
        Hook::Tracepoint("mm_vmscan_direct_reclaim_end"),
    ),
    program(
        name::RECLAIM_LIMIT_BEGIN,
        Hook::Tracepoint("mm_vmscan_memcg_reclaim_begin"),
    ),
    program(
        name::RECLAIM_LIMIT_END,
        Hook::Tracepoint("mm_vmscan_memcg_reclaim_end"),
    ),
];
const OOM: &[Program] = &[program(name::OOM_VICTIM, Hook::Tracepoint("mark_victim"))];
const OOM_BY_PID: &[Program] = &[program(
    name::OOM_VICTIM_PID,
    Hook::Tracepoint("mark_victim"),
)];
const DISK: &[Program] = &[
    program(name::BLOCK_ISSUE, Hook::Tracepoint("block_rq_issue")),
    program(name::BLOCK_COMPLETE, Hook::Tracepoint("block_rq_complete")),
];
const NETWORK: &[Program] = &[
    program(name::NET_IN, Hook::PacketsIn),
    program(name::NET_OUT, Hook::PacketsOut),
];
const PACING: &[Program] = &[program(name::NET_PACE, Hook::Sockets)];

/// Whether a part of the probes is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartPlan {
    /// The part.
    pub part: Part,
    /// Its programs.
    pub programs: &'static [Program],
    /// Why it is not attached; `None` if it is.
    pub off: Option<String>,
}

/// What is measured, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How the probes look at the kernel.
    pub attach: Attach,
    /// Every part of the probes.
    pub parts: Vec<PartPlan>,
    facts: Facts,
}

/// Decides. `has_object` says whether the probes were built into this program.
pub fn plan(facts: &Facts, has_object: bool) -> Plan {
    match usable(facts, has_object) {
        Err(why) => Plan::without_probes(facts, &why),
        Ok(()) => match &facts.fields {
            Ok(fields) => Plan::with(facts, Attach::Btf(fields.clone())),
            Err(why) => Plan::plain(facts, why),
        },
    }
}

/// Whether there can be probes of any kind.
fn usable(facts: &Facts, has_object: bool) -> Result<(), String> {
    if !has_object {
        return Err(
            "this agent was built without the probes (see `cargo xtask build-ebpf`)".to_owned(),
        );
    }
    if facts.cgroup2.is_none() {
        return Err(
            "no cgroup v2 tree is mounted, by which the probes tell containers apart".to_owned(),
        );
    }
    if !facts.cgroup2_is_root {
        return Err(
            "the agent runs in a cgroup namespace and cannot see the depth of its cgroups"
                .to_owned(),
        );
    }
    facts.may_load.clone()
}

impl Plan {
    /// The plan without the probes, when the kernel has refused them for this reason.
    pub fn without_probes(facts: &Facts, why: &str) -> Self {
        let mut plan = Self::with(facts, Attach::No);
        for part in &mut plan.parts {
            part.off = Some(why.to_owned());
        }
        plan
    }

    /// The plan with what works without BTF, which is not to be had for this reason.
    pub fn plain(facts: &Facts, why: &str) -> Self {
        let mut plan = Self::with(facts, Attach::Plain);
        for part in &mut plan.parts {
            match part.part {
                Part::Cpu => part.programs = CPU_PLAIN,
                Part::Network | Part::Pacing => {}
                _ => part.off = Some(why.to_owned()),
            }
        }
        plan
    }

    fn with(facts: &Facts, attach: Attach) -> Self {
        let off = |part: Part| match &attach {
            Attach::Btf(fields) => lack(fields, part),
            _ => None,
        };
        let by_pid = matches!(&attach, Attach::Btf(fields) if !fields.victim_is_task);
        let parts = [
            (Part::Cpu, CPU),
            (Part::Processes, PROCESSES),
            (Part::Reclaim, RECLAIM),
            (Part::Oom, if by_pid { OOM_BY_PID } else { OOM }),
            (Part::Disk, DISK),
            (Part::Network, NETWORK),
            (Part::Pacing, PACING),
        ];
        let parts = parts
            .into_iter()
            .map(|(part, programs)| PartPlan {
                part,
                programs,
                off: off(part),
            })
            .collect();
        Self {
            attach,
            parts,
            facts: facts.clone(),
        }
    }

    /// Leaves a part out that the kernel has refused.
    pub fn refuse(&mut self, part: Part, why: &str) {
        for one in &mut self.parts {
            let with_it = match one.part {
                // On kernels where victims are known by their ids, they are told apart when they end.
                Part::Oom => part == Part::Processes && std::ptr::eq(one.programs, OOM_BY_PID),
                // Whose a socket is is known by its packets.
                Part::Pacing => part == Part::Network,
                _ => false,
            };
            if one.part == part || with_it {
                one.off.get_or_insert_with(|| why.to_owned());
            }
        }
    }

    /// Why a part of the probes is not used; `None` if it is.
    pub fn off(&self, part: Part) -> Option<&str> {
        let found = self.parts.iter().find(|one| one.part == part);
        found.and_then(|one| one.off.as_deref())
    }

    fn has_group(&self, group: FieldGroup) -> Result<(), String> {
        match &self.attach {
            Attach::Btf(fields) => fields.has(group),
            _ => Err(self.no_btf()),
        }
    }

    fn no_btf(&self) -> String {
        match &self.facts.fields {
            Err(why) => why.clone(),
            Ok(_) => "the kernel has refused the probes that need BTF".to_owned(),
        }
    }

    /// The tree in which the memory controller knows cgroups.
    pub(super) fn memory_tree(&self) -> Tree {
        if !self.facts.memory_v2 && self.facts.has_v1("memory") {
            Tree::Memory
        } else {
            Tree::V2
        }
    }

    /// The tree in which the io controller knows cgroups.
    pub(super) fn io_tree(&self) -> Tree {
        if !self.facts.io_v2 && self.facts.has_v1("blkio") {
            Tree::Io
        } else {
            Tree::V2
        }
    }

    /// Which groups of figures the probes feed.
    pub(super) fn available(&self) -> Available {
        let on = |part| self.off(part).is_none();
        let cpu = on(Part::Cpu);
        let btf = matches!(self.attach, Attach::Btf(_));
        Available {
            wait: cpu && self.has_group(FieldGroup::Wait).is_ok(),
            own_wait: cpu && self.has_group(FieldGroup::Quota).is_ok(),
            faults: cpu && btf,
            processes: on(Part::Processes),
            reclaim: on(Part::Reclaim),
            oom: on(Part::Oom),
            network: on(Part::Network),
        }
    }

    /// Every figure with its name and source, for the log, the metrics and the API.
    pub fn figures(&self) -> Vec<(&'static str, Choice)> {
        let facts = &self.facts;
        let v2 = facts.cgroup2.is_some();
        let memory = facts.memory_v2 || facts.has_v1("memory");
        let disk = facts.io_v2 || facts.has_v1("blkio");
        let no_memory = "no memory controller is mounted";
        let no_disk = "neither the io nor the blkio controller is mounted";
        let pressure =
            "the kernel accounts no pressure (boot it with psi=1) or has no cgroup v2 tree";
        vec![
            (
                "on_cpu",
                self.best(
                    Part::Cpu,
                    v2 || facts.has_v1("cpuacct"),
                    "neither cgroup v2 nor the cpuacct controller is mounted",
                ),
            ),
            (
                "cpu_split",
                files(
                    v2 || facts.has_v1("cpuacct"),
                    "no cpu controller is mounted",
                ),
            ),
            ("run_queue", self.probed(Part::Cpu, Some(FieldGroup::Wait))),
            ("own_wait", self.probed(Part::Cpu, Some(FieldGroup::Quota))),
            ("switches", self.probed(Part::Cpu, None)),
            (
                "throttling",
                files(v2 || facts.has_v1("cpu"), "no cpu controller is mounted"),
            ),
            ("memory", files(memory, no_memory)),
            ("faults", self.faults(memory, no_memory)),
            ("reclaim", self.probed(Part::Reclaim, None)),
            ("oom_kills", self.best(Part::Oom, memory, no_memory)),
            ("disk", self.best(Part::Disk, disk, no_disk)),
            ("network", self.probed(Part::Network, None)),
            ("traffic", self.probed(Part::Network, None)),
            ("processes", self.probed(Part::Processes, None)),
            ("pressure", files(facts.pressure && v2, pressure)),
        ]
    }

    /// The source of one figure, by its name.
    pub fn figure(&self, name: &str) -> Option<Choice> {
        let mut figures = self.figures().into_iter();
        figures
            .find(|figure| figure.0 == name)
            .map(|figure| figure.1)
    }

    /// From the probes, else from files, else from nowhere.
    fn best(&self, part: Part, has_files: bool, no_files: &str) -> Choice {
        match self.off(part) {
            None => Choice::of(Some(MeasureSource::Ebpf), ""),
            Some(why) if has_files => Choice::of(Some(MeasureSource::Files), why),
            Some(_) => Choice::of(None, no_files),
        }
    }

    /// From the probes or from nowhere.
    fn probed(&self, part: Part, group: Option<FieldGroup>) -> Choice {
        if let Some(why) = self.off(part) {
            return Choice::of(None, why);
        }
        match group.map_or(Ok(()), |group| self.has_group(group)) {
            Ok(()) => Choice::of(Some(MeasureSource::Ebpf), ""),
            Err(why) => Choice::of(None, &why),
        }
    }

    fn faults(&self, has_files: bool, no_files: &str) -> Choice {
        let why = match (self.off(Part::Cpu), &self.attach) {
            (None, Attach::Btf(_)) => return Choice::of(Some(MeasureSource::Ebpf), ""),
            (None, _) => self.no_btf(),
            (Some(why), _) => why.to_owned(),
        };
        if has_files {
            Choice::of(Some(MeasureSource::Files), &why)
        } else {
            Choice::of(None, no_files)
        }
    }
}

/// What a part lacks on a kernel with BTF.
fn lack(fields: &KernelFields, part: Part) -> Option<String> {
    let tracepoints: &[&str] = match part {
        Part::Cpu => &["sched_switch"],
        Part::Processes => &[
            "sched_process_fork",
            "sched_process_exit",
            "sched_process_free",
            "cgroup_attach_task",
        ],
        Part::Reclaim => &[
            "mm_vmscan_direct_reclaim_begin",
            "mm_vmscan_direct_reclaim_end",
            "mm_vmscan_memcg_reclaim_begin",
            "mm_vmscan_memcg_reclaim_end",
        ],
        Part::Oom => &["mark_victim"],
        Part::Disk => &["block_rq_issue", "block_rq_complete"],
        Part::Network | Part::Pacing => &[],
    };
    if let Some(absent) = tracepoints.iter().find(|name| !fields.has_tracepoint(name)) {
        return Some(format!("this kernel has no tracepoint {absent}"));
    }
    if part != Part::Disk {
        return None;
    }
    let owner = fields
        .has(FieldGroup::BlockGroup)
        .or_else(|_| fields.has(FieldGroup::PageOwner));
    fields.has(FieldGroup::Block).and(owner).err()
}

fn files(works: bool, why: &str) -> Choice {
    if works {
        Choice::of(Some(MeasureSource::Files), "")
    } else {
        Choice::of(None, why)
    }
}

#[cfg(test)]
mod tests;
