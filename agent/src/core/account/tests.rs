//! Totals and kills, reading by reading.

use ebb_types::MeasureSource;

use super::super::usage::{IoSample, MemorySample, OomKill, TrafficSample};
use super::*;

fn id(name: &str) -> ContainerId {
    ContainerId::new(name).unwrap()
}

fn holder(framework: &str) -> Holder {
    Holder {
        framework_id: FrameworkId::new(framework).unwrap(),
        name: "task".to_owned(),
        class: "task".to_owned(),
    }
}

fn begun(since: Since) -> Account {
    let mut account = Account::default();
    account.begin(&id("c"), holder("f"), since);
    account
}

fn cpu(cpu_ns: u64, source: MeasureSource) -> ContainerSample {
    ContainerSample {
        cpu_ns: Some(cpu_ns),
        ..ContainerSample::absent(source)
    }
}

fn sample(containers: &[(&str, ContainerSample)]) -> Sample {
    Sample {
        full: true,
        containers: containers
            .iter()
            .map(|(name, one)| (id(name), *one))
            .collect(),
        ..Sample::default()
    }
}

fn last_reading(name: &str, reading: ContainerSample) -> Sample {
    Sample {
        ended: vec![(id(name), reading)],
        ..Sample::default()
    }
}

fn total(account: &Account, framework: &str) -> FrameworkTotals {
    let wanted = FrameworkId::new(framework).unwrap();
    let found = account.totals().find(|(id, _)| *id == Some(&wanted));
    found.map(|(_, totals)| *totals).unwrap_or_default()
}

use MeasureSource::{Ebpf, Files};

#[test]
fn totals_hold_all_of_a_container_to_its_last_reading_and_nothing_twice() {
    let mut account = begun(Since::Launch);
    account.on_sample(&sample(&[("c", cpu(10, Ebpf))]));
    account.on_sample(&sample(&[("c", cpu(25, Ebpf))]));
    account.end(&id("c"));
    account.on_sample(&last_reading("c", cpu(31, Ebpf)));
    assert_eq!(total(&account, "f").cpu_ns, Some(31));
    account.on_sample(&sample(&[("c", cpu(99, Ebpf))]));
    assert_eq!(total(&account, "f").cpu_ns, Some(31), "it is over");
    assert_eq!(total(&account, "f").forks, None, "never measured");
}

#[test]
fn a_container_that_no_sample_saw_counts_by_its_last_reading() {
    let mut account = begun(Since::Launch);
    account.end(&id("c"));
    let reading = ContainerSample {
        disk: Some(IoSample {
            read_bytes: 3,
            write_bytes: 4,
            latency: None,
        }),
        net_bytes: Some((5, 6)),
        traffic: Some(TrafficSample {
            in_bytes: 8,
            out_bytes: 9,
            dropped_packets: 10,
        }),
        forks: Some(7),
        oom_kills: Some(0),
        ..cpu(2, Ebpf)
    };
    account.on_sample(&last_reading("c", reading));
    let expected = FrameworkTotals {
        cpu_ns: Some(2),
        disk_read_bytes: Some(3),
        disk_write_bytes: Some(4),
        net_in_bytes: Some(5),
        net_out_bytes: Some(6),
        traffic_in_bytes: Some(8),
        traffic_out_bytes: Some(9),
        dropped_packets: Some(10),
        oom_kills: Some(0),
        forks: Some(7),
    };
    assert_eq!(total(&account, "f"), expected);
}

#[test]
fn what_was_used_in_a_life_before_is_not_counted_again() {
    let mut account = begun(Since::Before);
    account.on_sample(&sample(&[("c", cpu(1_000, Ebpf))]));
    assert_eq!(total(&account, "f").cpu_ns, Some(0));
    account.on_sample(&sample(&[("c", cpu(1_005, Ebpf))]));
    assert_eq!(total(&account, "f").cpu_ns, Some(5));
}

#[test]
fn totals_only_rise_whatever_becomes_of_a_counter() {
    let mut account = begun(Since::Launch);
    let mut before = 0;
    let readings = [
        (100, Ebpf, 100),
        (110, Files, 110),
        (108, Ebpf, 110),
        (120, Ebpf, 122),
        (3, Ebpf, 125),
    ];
    for (cpu_ns, source, expected) in readings {
        account.on_sample(&sample(&[("c", cpu(cpu_ns, source))]));
        let now = total(&account, "f").cpu_ns.unwrap();
        assert!(now >= before);
        assert_eq!(now, expected, "after {cpu_ns} by {}", source.name());
        before = now;
    }
    account.on_sample(&sample(&[("c", ContainerSample::absent(Ebpf))]));
    assert_eq!(total(&account, "f").cpu_ns, Some(before));
}

#[test]
fn containers_of_one_framework_are_summed_and_a_container_measured_anew_counts_again() {
    let mut account = begun(Since::Launch);
    account.begin(&id("d"), holder("f"), Since::Launch);
    account.begin(&id("e"), holder("g"), Since::Launch);
    let all = [
        ("c", cpu(1, Ebpf)),
        ("d", cpu(2, Ebpf)),
        ("e", cpu(4, Ebpf)),
    ];
    account.on_sample(&sample(&all));
    // Its registration was renewed: a last reading of the first, then the second from zero.
    let mut renewed = sample(&[("c", cpu(5, Ebpf))]);
    renewed.ended = vec![(id("c"), cpu(3, Ebpf))];
    account.on_sample(&renewed);
    assert_eq!(total(&account, "f").cpu_ns, Some(3 + 2 + 5));
    assert_eq!(total(&account, "g").cpu_ns, Some(4));
}

#[test]
fn limits_are_kept_and_what_they_cost_is_counted() {
    let mut account = Account::default();
    for n in 0..=MAX_FRAMEWORKS {
        let name = format!("c{n}");
        account.begin(&id(&name), holder(&format!("f{n}")), Since::Launch);
        account.on_sample(&sample(&[(&name, cpu(1, Ebpf))]));
    }
    assert_eq!(account.totals().count(), MAX_FRAMEWORKS + 1);
    let others = account.totals().find(|(id, _)| id.is_none()).unwrap().1;
    assert_eq!(others.cpu_ns, Some(1));
    for n in account.containers.len()..=MAX_ACCOUNTED {
        account.begin(&id(&format!("x{n}")), holder("f0"), Since::Launch);
    }
    assert_eq!(account.containers.len(), MAX_ACCOUNTED);
    assert_eq!(account.counters().unaccounted, 1);
    account.end(&id("c0"));
    for _ in 0..=LAST_READING_SAMPLES {
        account.on_sample(&Sample::default());
    }
    assert_eq!(account.counters().unfinished, 1);
    assert!(!account.containers.contains_key(&id("c0")));
}

fn killed(name: Option<&str>) -> Sample {
    let kill = OomKill {
        container_id: name.map(id),
        pid: 42,
        asked_by: 43,
    };
    Sample {
        oom_kills: vec![kill],
        ..Sample::default()
    }
}

fn with_memory(
    memory: MemorySample,
    kills: Option<u64>,
    oom_source: MeasureSource,
) -> ContainerSample {
    ContainerSample {
        memory: Some(memory),
        oom_kills: kills,
        oom_source,
        ..ContainerSample::absent(Ebpf)
    }
}

#[test]
fn a_kill_is_told_with_its_cause_once_the_memory_was_read() {
    let limit = Some(1 << 30);
    let v2 = |ooms| MemorySample {
        limit_bytes: limit,
        limit_hits: Some(9),
        limit_ooms: Some(ooms),
        ..MemorySample::default()
    };
    let v1 = |hits| MemorySample {
        limit_bytes: limit,
        limit_hits: Some(hits),
        ..MemorySample::default()
    };
    let peak = |peak_bytes| MemorySample {
        peak_bytes: Some(peak_bytes),
        ..v1(0)
    };
    let own = OomCause::OwnLimit {
        limit_bytes: 1 << 30,
    };
    let cases = [
        (Some(v2(1)), own),
        (Some(v2(0)), OomCause::Machine),
        (Some(v1(1)), own),
        (Some(v1(0)), OomCause::Machine),
        (Some(peak(1 << 30)), own),
        (Some(peak(1 << 29)), OomCause::Machine),
        (
            Some(MemorySample {
                limit_bytes: None,
                ..v2(1)
            }),
            OomCause::Machine,
        ),
        (None, OomCause::Unknown),
    ];
    for (memory, cause) in cases {
        let mut account = begun(Since::Launch);
        assert_eq!(account.on_sample(&killed(Some("c"))), []);
        let mut quick = sample(&[("c", cpu(1, Ebpf))]);
        quick.full = false;
        assert_eq!(account.on_sample(&quick), [], "its memory was not read");
        let reading = ContainerSample {
            memory,
            ..with_memory(MemorySample::default(), Some(1), Ebpf)
        };
        let expected = OomKilled {
            victim: OomVictim::Container(id("c"), holder("f")),
            pid: Some(42),
            asked_by: Some(43),
            cause,
        };
        account.end(&id("c"));
        assert_eq!(
            account.on_sample(&last_reading("c", reading)),
            [expected],
            "{memory:?}"
        );
    }
}

#[test]
fn where_no_probe_sees_kills_files_count_them_and_each_is_told_once() {
    let mut account = begun(Since::Launch);
    let memory = MemorySample {
        limit_bytes: Some(100),
        limit_hits: Some(3),
        ..MemorySample::default()
    };
    let reading = with_memory(memory, Some(2), Files);
    let told = account.on_sample(&sample(&[("c", reading)]));
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|one| one.pid.is_none()));
    assert_eq!(told[0].cause, OomCause::OwnLimit { limit_bytes: 100 });
    assert_eq!(account.on_sample(&sample(&[("c", reading)])), []);
    assert_eq!(total(&account, "f").oom_kills, Some(2));
    let mut adopted = begun(Since::Before);
    assert_eq!(
        adopted.on_sample(&sample(&[("c", reading)])),
        [],
        "of a life before"
    );
}

#[test]
fn kills_outside_of_containers_are_told_at_once_and_too_many_without_their_cause() {
    let mut account = begun(Since::Launch);
    let told = account.on_sample(&killed(None));
    assert_eq!(
        (told[0].victim.clone(), told[0].pid),
        (OomVictim::Outside, Some(42))
    );
    assert_eq!(account.counters().killed_outside, 1);
    for _ in 0..MAX_PENDING_KILLS {
        assert_eq!(account.on_sample(&killed(Some("c"))), []);
    }
    let told = account.on_sample(&killed(Some("c")));
    assert_eq!(told[0].cause, OomCause::Unknown);
}
