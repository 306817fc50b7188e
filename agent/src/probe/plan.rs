//! Which source each figure has on this machine: a pure function of the facts.
//!
//! The best source that works is taken: the probes, else files of the kernel, else none. Each
//! choice says why it is not the best one, in a sentence for the log, the metrics and the API.

use ebb_types::MeasureSource;

use super::support::{Facts, KernelFields};

/// The source of one figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Where it comes from; `None` if it is not measured.
    pub source: Option<MeasureSource>,
    /// Why it does not come from a better place; empty if it does.
    pub why: String,
}

impl Choice {
    fn best(source: MeasureSource) -> Self {
        Self {
            source: Some(source),
            why: String::new(),
        }
    }

    fn files(why: &str) -> Self {
        Self {
            source: Some(MeasureSource::Files),
            why: why.to_owned(),
        }
    }

    fn none(why: impl Into<String>) -> Self {
        Self {
            source: None,
            why: why.into(),
        }
    }
}

/// What is measured, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The fields to load the probes with; `None` if nothing is to be attached.
    pub attach: Option<KernelFields>,
    /// On-CPU time of containers.
    pub on_cpu: Choice,
    /// Run-queue latency of containers.
    pub run_queue: Choice,
    /// Context switches of containers, and who preempted them.
    pub switches: Choice,
    /// Time that containers were held back by their CPU quota.
    pub throttling: Choice,
    /// Memory of containers.
    pub memory: Choice,
    /// Disk traffic of containers.
    pub disk: Choice,
    /// Pressure (PSI) on containers.
    pub pressure: Choice,
}

impl Plan {
    /// Every figure with its name, for the log, the metrics and the API.
    pub fn figures(&self) -> [(&'static str, &Choice); 7] {
        [
            ("on_cpu", &self.on_cpu),
            ("run_queue", &self.run_queue),
            ("switches", &self.switches),
            ("throttling", &self.throttling),
            ("memory", &self.memory),
            ("disk", &self.disk),
            ("pressure", &self.pressure),
        ]
    }

    /// The plan without the probes, when the kernel has refused them for this reason.
    pub fn without_probes(facts: &Facts, why: &str) -> Self {
        build(facts, Err(why.to_owned()))
    }
}

/// Decides. `has_object` says whether the probes were built into this program.
pub fn plan(facts: &Facts, has_object: bool) -> Plan {
    build(facts, probes(facts, has_object))
}

fn probes(facts: &Facts, has_object: bool) -> Result<KernelFields, String> {
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
    facts.may_load.clone()?;
    facts.fields.clone()
}

fn build(facts: &Facts, probes: Result<KernelFields, String>) -> Plan {
    let v2 = facts.cgroup2.is_some();
    let (on_cpu, switches, run_queue) = match &probes {
        Ok(fields) => {
            let run_queue = match fields.task_wait {
                Some(_) => Choice::best(MeasureSource::Ebpf),
                None => Choice::none("the kernel keeps no account of waits (CONFIG_SCHED_INFO)"),
            };
            (
                Choice::best(MeasureSource::Ebpf),
                Choice::best(MeasureSource::Ebpf),
                run_queue,
            )
        }
        Err(why) => {
            let on_cpu = if v2 || facts.has_v1("cpuacct") {
                Choice::files(why)
            } else {
                Choice::none("neither cgroup v2 nor the cpuacct controller is mounted")
            };
            (
                on_cpu,
                Choice::none(why.as_str()),
                Choice::none(why.as_str()),
            )
        }
    };
    let files = |works: bool, why: &str| {
        if works {
            Choice::best(MeasureSource::Files)
        } else {
            Choice::none(why)
        }
    };
    Plan {
        attach: probes.ok(),
        on_cpu,
        run_queue,
        switches,
        throttling: files(v2 || facts.has_v1("cpu"), "no cpu controller is mounted"),
        memory: files(
            facts.memory_v2 || facts.has_v1("memory"),
            "no memory controller is mounted",
        ),
        disk: files(
            facts.io_v2 || facts.has_v1("blkio"),
            "neither the io nor the blkio controller is mounted",
        ),
        pressure: files(
            facts.pressure && v2,
            "the kernel accounts no pressure (boot it with psi=1) or has no cgroup v2 tree",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> KernelFields {
        KernelFields {
            task_pid: 1,
            task_voluntary: 2,
            task_exec: 3,
            task_wait: Some((4, 5)),
            task_css_set: 6,
            css_set_cgroup: 7,
            cgroup_node: 8,
            cgroup_level: 9,
            cgroup_ancestors: 10,
            ancestors_are_pointers: true,
            node_id: 11,
        }
    }

    fn hybrid() -> Facts {
        Facts {
            fields: Ok(fields()),
            may_load: Ok(()),
            cgroup2: Some("/sys/fs/cgroup/unified".into()),
            cgroup2_is_root: true,
            memory_v2: false,
            io_v2: false,
            v1: ["cpu", "cpuacct", "memory", "blkio"]
                .map(str::to_owned)
                .to_vec(),
            pressure: true,
            tracefs: false,
        }
    }

    #[test]
    fn a_capable_machine_measures_with_probes_and_controllers() {
        let plan = plan(&hybrid(), true);
        assert_eq!(plan.attach, Some(fields()));
        for (name, choice) in plan.figures() {
            let expected = match name {
                "on_cpu" | "run_queue" | "switches" => MeasureSource::Ebpf,
                _ => MeasureSource::Files,
            };
            assert_eq!(choice, &Choice::best(expected), "{name}");
        }
    }

    #[test]
    fn whatever_the_probes_lack_the_time_comes_from_files_and_the_reason_is_told() {
        type Break = fn(&mut Facts);
        let cases: [(&str, Break, bool); 5] = [
            ("built without", |_| {}, false),
            ("namespace", |facts| facts.cgroup2_is_root = false, true),
            (
                "root",
                |facts| facts.may_load = Err("run it as root".to_owned()),
                true,
            ),
            ("BTF", |facts| facts.fields = Err("no BTF".to_owned()), true),
            ("cgroup v2", |facts| facts.cgroup2 = None, true),
        ];
        for (word, change, has_object) in cases {
            let mut facts = hybrid();
            change(&mut facts);
            let plan = plan(&facts, has_object);
            assert_eq!(plan.attach, None, "{word}");
            assert_eq!(plan.on_cpu.source, Some(MeasureSource::Files), "{word}");
            assert!(
                plan.on_cpu.why.contains(word),
                "{word}: {}",
                plan.on_cpu.why
            );
            assert_eq!(plan.run_queue.source, None, "{word}");
            assert!(!plan.run_queue.why.is_empty(), "{word}");
        }
    }

    #[test]
    fn a_kernel_without_wait_accounts_still_measures_time_with_probes() {
        let mut facts = hybrid();
        facts.fields = Ok(KernelFields {
            task_wait: None,
            ..fields()
        });
        let plan = plan(&facts, true);
        assert_eq!(plan.on_cpu.source, Some(MeasureSource::Ebpf));
        assert_eq!(plan.run_queue.source, None);
    }

    #[test]
    fn a_bare_machine_has_no_source_and_says_so_for_every_figure() {
        let facts = Facts {
            cgroup2: None,
            cgroup2_is_root: false,
            v1: Vec::new(),
            pressure: false,
            ..hybrid()
        };
        for (name, choice) in plan(&facts, true).figures() {
            assert_eq!(choice.source, None, "{name}");
            assert!(!choice.why.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_refused_load_falls_back_with_the_verifiers_words() {
        let plan = Plan::without_probes(&hybrid(), "the verifier said no");
        assert_eq!(plan.attach, None);
        assert_eq!(plan.on_cpu, Choice::files("the verifier said no"));
    }
}
