//! What is measured from where, on machines that lack this or that.

use std::collections::BTreeMap;

use super::*;

/// The kernel that runs these tests; the machine around it is made up.
fn fields() -> KernelFields {
    Facts::gather()
        .fields
        .expect("the kernel that runs the tests has BTF")
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
            .map(|name| (name.to_owned(), format!("/sys/fs/cgroup/{name}").into()))
            .into(),
        pressure: true,
        tracefs: false,
    }
}

fn source(plan: &Plan, figure: &str) -> Option<MeasureSource> {
    plan.figure(figure).unwrap().source
}

const FILES: [&str; 4] = ["cpu_split", "throttling", "memory", "pressure"];

#[test]
fn a_capable_machine_measures_with_probes_and_controllers() {
    let plan = plan(&hybrid(), true);
    assert_eq!(plan.attach, Attach::Btf(fields()));
    assert!(plan.parts.iter().all(|part| part.off.is_none()));
    for (name, choice) in plan.figures() {
        let expected = if FILES.contains(&name) {
            MeasureSource::Files
        } else {
            MeasureSource::Ebpf
        };
        assert_eq!(choice, Choice::of(Some(expected), ""), "{name}");
    }
}

#[test]
fn whatever_the_probes_lack_the_time_comes_from_files_and_the_reason_is_told() {
    type Break = fn(&mut Facts);
    let cases: [(&str, Break, bool); 4] = [
        ("built without", |_| {}, false),
        ("namespace", |facts| facts.cgroup2_is_root = false, true),
        (
            "root",
            |facts| facts.may_load = Err("run it as root".to_owned()),
            true,
        ),
        ("cgroup v2", |facts| facts.cgroup2 = None, true),
    ];
    for (word, change, has_object) in cases {
        let mut facts = hybrid();
        change(&mut facts);
        let plan = plan(&facts, has_object);
        assert_eq!(plan.attach, Attach::No, "{word}");
        for figure in ["on_cpu", "faults", "oom_kills", "disk"] {
            let choice = plan.figure(figure).unwrap();
            assert_eq!(choice.source, Some(MeasureSource::Files), "{word}");
            assert!(choice.why.contains(word), "{word}: {}", choice.why);
        }
        for figure in [
            "run_queue",
            "own_wait",
            "reclaim",
            "network",
            "traffic",
            "processes",
        ] {
            let choice = plan.figure(figure).unwrap();
            assert_eq!(choice.source, None, "{word}");
            assert!(choice.why.contains(word), "{word}: {}", choice.why);
        }
        assert_eq!(plan.available(), Available::default(), "{word}");
    }
}

#[test]
fn without_btf_time_switches_and_packets_are_still_probed() {
    let mut facts = hybrid();
    facts.fields = Err("no BTF".to_owned());
    let plan = plan(&facts, true);
    assert_eq!(plan.attach, Attach::Plain);
    for figure in ["on_cpu", "switches", "network", "traffic"] {
        assert_eq!(source(&plan, figure), Some(MeasureSource::Ebpf), "{figure}");
    }
    for figure in ["faults", "oom_kills", "disk"] {
        assert_eq!(
            source(&plan, figure),
            Some(MeasureSource::Files),
            "{figure}"
        );
    }
    for figure in ["run_queue", "own_wait", "reclaim", "processes"] {
        let choice = plan.figure(figure).unwrap();
        assert_eq!(choice, Choice::of(None, "no BTF"), "{figure}");
    }
}

#[test]
fn a_kernel_without_wait_accounts_or_quotas_still_measures_time_with_probes() {
    let mut facts = hybrid();
    let without = fields()
        .without(FieldGroup::Wait, "no waits")
        .without(FieldGroup::Quota, "no quotas");
    facts.fields = Ok(without);
    let plan = plan(&facts, true);
    assert_eq!(source(&plan, "on_cpu"), Some(MeasureSource::Ebpf));
    assert_eq!(plan.figure("run_queue"), Some(Choice::of(None, "no waits")));
    assert_eq!(plan.figure("own_wait"), Some(Choice::of(None, "no quotas")));
    assert!(!plan.available().wait && !plan.available().own_wait);
}

#[test]
fn requests_need_one_way_to_know_whose_they_are() {
    let mut facts = hybrid();
    let one = fields().without(FieldGroup::BlockGroup, "no groups");
    facts.fields = Ok(one.clone());
    assert_eq!(
        source(&plan(&facts, true), "disk"),
        Some(MeasureSource::Ebpf)
    );
    facts.fields = Ok(one.without(FieldGroup::PageOwner, "no owners"));
    let choice = plan(&facts, true).figure("disk").unwrap();
    assert_eq!(choice, Choice::of(Some(MeasureSource::Files), "no owners"));
}

#[test]
fn a_bare_machine_has_no_source_and_says_so_for_every_figure() {
    let facts = Facts {
        cgroup2: None,
        cgroup2_is_root: false,
        v1: BTreeMap::new(),
        pressure: false,
        ..hybrid()
    };
    for (name, choice) in plan(&facts, true).figures() {
        assert_eq!(choice.source, None, "{name}");
        assert!(!choice.why.is_empty(), "{name}");
    }
}

#[test]
fn a_part_that_the_kernel_refuses_leaves_the_others() {
    let mut plan = plan(&hybrid(), true);
    plan.refuse(Part::Disk, "the verifier said no");
    let choice = plan.figure("disk").unwrap();
    assert_eq!(
        choice,
        Choice::of(Some(MeasureSource::Files), "the verifier said no")
    );
    assert_eq!(source(&plan, "on_cpu"), Some(MeasureSource::Ebpf));
    assert_eq!(source(&plan, "network"), Some(MeasureSource::Ebpf));
    assert_eq!(plan.off(Part::Pacing), None);
    plan.refuse(Part::Network, "no packets");
    assert_eq!(plan.off(Part::Pacing), Some("no packets"));
    for figure in ["network", "traffic"] {
        let choice = plan.figure(figure).unwrap();
        assert_eq!(choice, Choice::of(None, "no packets"), "{figure}");
    }
    let none = Plan::without_probes(&hybrid(), "nothing works");
    assert_eq!(none.attach, Attach::No);
    assert_eq!(
        none.figure("on_cpu"),
        Some(Choice::of(Some(MeasureSource::Files), "nothing works"))
    );
}

#[test]
fn every_program_is_named_once() {
    let all = [
        CPU, CPU_PLAIN, PROCESSES, RECLAIM, OOM, OOM_BY_PID, DISK, NETWORK, PACING,
    ];
    let mut names: Vec<_> = all.iter().flat_map(|part| part.iter()).collect();
    names.sort_by_key(|program| program.name);
    let mut pinned = name::PROGRAMS.to_vec();
    pinned.sort_unstable();
    let planned: Vec<&str> = names.iter().map(|program| program.name).collect();
    assert_eq!(planned, pinned);
}
