//! Properties of the estimate itself, without the damping that is tested beside the damper.

use std::collections::BTreeMap;

use ebb_types::{
    ContainerId, FrameworkId, MeasureSource, Quantities, ResourceKind, Resources, TaskId, Timestamp,
};
use proptest::prelude::*;

use super::super::usage::{ContainerUse, MachineUse, MemorySample, Rates, SampleVerdict};
use super::*;
use crate::core::siblings::{ENOUGH_LIVES, Siblings};

const GIB: u64 = 1 << 30;

/// No damping, no cold start to speak of, no rounding: what is lendable now.
fn bare() -> Config {
    let kind = |base: KindConfig| KindConfig {
        block_ms: 1_000,
        blocks: 20,
        warm_blocks: 2,
        quantum: 1,
        ..base
    };
    let base = Config::default();
    Config {
        peaks: base.peaks,
        cpus: kind(base.cpus),
        mem: kind(base.mem),
        disk_bandwidth: kind(base.disk_bandwidth),
        network_bandwidth: kind(base.network_bandwidth),
        growth_permille_per_s: 1_000_000,
        hold_ms: 0,
        cool_down_ms: 0,
        report_permille: 0,
        report_interval_ms: 0,
    }
}

fn total() -> Quantities {
    Quantities::cpus_mem(4_000, 16 * GIB).with(ResourceKind::DiskBandwidth, 100 << 20)
}

fn task(name: &str, allocated: Resources) -> RunningView {
    RunningView {
        container_id: ContainerId::new(name).unwrap(),
        framework_id: FrameworkId::new("f").unwrap(),
        task_id: TaskId::new(name).unwrap(),
        allocated,
        cpu_limit_milli: None,
        started_at: Timestamp::default(),
        ends_at: None,
        siblings: None,
    }
}

/// Use of CPU, memory and disk bandwidth; `None` where not measured.
type Use = Option<(u64, u64, u64)>;

fn view(tasks: &[RunningView], uses: &[Use], unmanaged_milli: u64) -> UsageView {
    let managed: u64 = uses.iter().flatten().map(|used| used.0).sum();
    let containers: BTreeMap<_, _> = tasks
        .iter()
        .zip(uses)
        .map(|(task, used)| {
            let rates = Rates {
                cpu_milli: used.map(|used| used.0),
                disk_bytes_per_s: used.map(|used| used.2),
                ..Rates::default()
            };
            let used = ContainerUse {
                fast: rates,
                slow: rates,
                mem_bytes: used.map(|used| used.1),
                memory: MemorySample::default(),
                oom_kills: None,
                cpu_source: MeasureSource::Ebpf,
                faults_source: MeasureSource::Files,
                oom_source: MeasureSource::Files,
                disk_source: MeasureSource::Files,
            };
            (task.container_id.clone(), used)
        })
        .collect();
    UsageView {
        verdict: SampleVerdict::Valid,
        machine: MachineUse {
            fast_busy_milli: None,
            slow_busy_milli: Some(managed + unmanaged_milli),
            slow_unmanaged_milli: Some(unmanaged_milli),
            capacity_milli: Some(4_000),
            mem_available_bytes: Some(
                (16 * GIB).saturating_sub(uses.iter().flatten().map(|used| used.1).sum()),
            ),
            mem_total_bytes: Some(16 * GIB),
            ..MachineUse::default()
        },
        containers,
    }
}

fn owners() -> Vec<RunningView> {
    let share = |cpu, gib, mib: u64| {
        Quantities::cpus_mem(cpu, gib * GIB).with(ResourceKind::DiskBandwidth, mib << 20)
    };
    vec![
        RunningView {
            siblings: Some(siblings()),
            ..task("a", Resources::regular(share(1_500, 4, 40)))
        },
        task("b", Resources::regular(share(1_000, 6, 40))),
        task("c", Resources::regular(share(1_500, 6, 20))),
    ]
}

/// Of a class that uses a part of what `a` asks for.
fn siblings() -> Siblings {
    Siblings {
        ended: 20,
        life_ms: 60_000,
        asked: Quantities::cpus_mem(1_500, 4 * GIB),
        most: Quantities::cpus_mem(300, GIB),
        finished: 20,
        longest_ms: 100_000,
    }
}

fn step(
    estimator: &mut Estimator,
    at: u64,
    view: Option<&UsageView>,
    tasks: &[RunningView],
) -> Quantities {
    let facts = Facts {
        usage: view,
        tasks,
        total: &total(),
        holding_back: false,
        limiting_network: false,
        reclaiming_memory: false,
    };
    estimator
        .step(Timestamp::from_ms(at * 1_000), facts)
        .lendable
}

fn any_use() -> impl Strategy<Value = Use> {
    prop_oneof![
        9 => (0u64..2_000, 0u64..7 * GIB, 0u64..60 << 20).prop_map(Some),
        1 => Just(None)
    ]
}

fn any_series() -> impl Strategy<Value = Vec<(Vec<Use>, u64)>> {
    prop::collection::vec((prop::collection::vec(any_use(), 3), 0u64..2_000), 1..60)
}

proptest! {
    #[test]
    fn never_more_is_lent_than_owners_leave_unused_nor_than_the_machine_has(series in any_series()) {
        let tasks = owners();
        let mut estimator = Estimator::new(bare());
        for (at, (uses, unmanaged)) in series.iter().enumerate() {
            let view = view(&tasks, uses, *unmanaged);
            let lendable = step(&mut estimator, at as u64, Some(&view), &tasks);
            let used_of = |used: &Use, kind| match kind {
                ResourceKind::Cpus => used.map(|used| used.0),
                ResourceKind::Mem => used.map(|used| used.1),
                _ => used.map(|used| used.2),
            };
            for kind in LENT_KINDS {
                let slack: u64 = tasks
                    .iter()
                    .zip(uses)
                    .filter_map(|(task, used)| {
                        Some(task.allocated.regular.get(kind).saturating_sub(used_of(used, kind)?))
                    })
                    .sum();
                prop_assert!(lendable.get(kind) <= slack);
                let used: u64 = uses.iter().filter_map(|used| used_of(used, kind)).sum();
                let outside = if kind == ResourceKind::Cpus { *unmanaged } else { 0 };
                prop_assert!(lendable.get(kind) <= total().get(kind).saturating_sub(used + outside));
            }
        }
    }

    #[test]
    fn more_use_at_any_time_never_means_that_more_is_lent(
        series in any_series(), extra in prop::collection::vec((0usize..60, 0usize..3, 0u64..1_000), 1..10)
    ) {
        let tasks = owners();
        let mut greater = series.clone();
        for (at, who, more) in extra {
            let at = at % greater.len();
            if let Some(used) = &mut greater[at].0[who] {
                *used = (used.0 + more, used.1 + (more << 20), used.2 + (more << 10));
            }
        }
        let (mut less_used, mut more_used) = (Estimator::new(bare()), Estimator::new(bare()));
        for (at, (one, other)) in series.iter().zip(&greater).enumerate() {
            let more = step(&mut less_used, at as u64, Some(&view(&tasks, &one.0, one.1)), &tasks);
            let less = step(&mut more_used, at as u64, Some(&view(&tasks, &other.0, other.1)), &tasks);
            prop_assert!(more.contains(&less), "{more} with less use, {less} with more");
        }
    }

    #[test]
    fn data_that_goes_missing_never_raises_what_is_lent(
        used in prop::collection::vec((0u64..900, 0u64..3 * GIB, 0u64..10 << 20), 3),
        missing in prop::collection::vec(prop::collection::vec(any::<bool>(), 3), 1..20),
        lost in 0usize..20
    ) {
        let tasks = owners();
        let mut estimator = Estimator::new(bare());
        let mut at = 0;
        let mut lent = Quantities::ZERO;
        let all: Vec<Use> = used.iter().copied().map(Some).collect();
        while at < 10 {
            lent = step(&mut estimator, at, Some(&view(&tasks, &all, 0)), &tasks);
            at += 1;
        }
        for (index, gone) in missing.iter().enumerate() {
            let uses: Vec<Use> =
                used.iter().zip(gone).map(|(used, gone)| (!gone).then_some(*used)).collect();
            // The host still counts what the unreadable containers use.
            let (mut hidden_milli, mut hidden_bytes) = (0, 0);
            for (used, _) in used.iter().zip(gone).filter(|(_, gone)| **gone) {
                hidden_milli += used.0;
                hidden_bytes += used.1;
            }
            let mut view = view(&tasks, &uses, hidden_milli);
            let available = view.machine.mem_available_bytes.unwrap();
            view.machine.mem_available_bytes = Some(available - hidden_bytes);
            let data = (index != lost).then_some(&view);
            let now = step(&mut estimator, at, data, &tasks);
            prop_assert!(lent.contains(&now), "{lent} before, {now} now");
            if data.is_none() {
                prop_assert!(now.is_zero());
            }
            at += 1;
        }
    }
}

/// What is lent of `a` before it has shown itself, once it is so old.
fn lent_of_a_cold_one(siblings: Option<Siblings>, age_s: u64, used: Use) -> (u64, u64) {
    let mut config = bare();
    (config.cpus.warm_blocks, config.mem.warm_blocks) = (1_000, 1_000);
    let mut tasks = vec![owners().remove(0)];
    tasks[0].siblings = siblings;
    let view = view(&tasks, &[used], 0);
    let mut estimator = Estimator::new(config);
    // It grows from one sample to the next.
    step(&mut estimator, age_s - 1, Some(&view), &tasks);
    let lent = step(&mut estimator, age_s, Some(&view), &tasks);
    (lent.cpu_milli(), lent.mem_bytes())
}

#[test]
fn a_cold_task_counts_what_its_class_has_used_before_as_long_as_it_is_like_that() {
    let used = Some((100, GIB / 10, 0));
    let alike = siblings();
    // 1,500 - 300 x 1.1 - 200 of reserve; 4 GiB - 1 GiB x 1.25 - 1.6 GiB of reserve.
    let lent = (970, 4 * GIB - GIB * 5 / 4 - 16 * GIB / 10 - 1);
    assert_eq!(lent_of_a_cold_one(Some(alike), 120, used), lent);
    assert_eq!(lent_of_a_cold_one(None, 120, used), (0, 0));
    assert_eq!(lent_of_a_cold_one(Some(alike), 121, used), (0, 0), "older");
    assert_eq!(lent_of_a_cold_one(Some(alike), 120, None), (0, 0), "unseen");
    let few = Siblings { ended: 19, ..alike };
    assert_eq!(lent_of_a_cold_one(Some(few), 120, used), (lent.0, 0));
    let few = Siblings { ended: 4, ..alike };
    assert_eq!(lent_of_a_cold_one(Some(few), 120, used), (0, 0));
    let asked = Quantities::cpus_mem(1_499, 4 * GIB);
    let smaller = Siblings { asked, ..alike };
    assert_eq!(lent_of_a_cold_one(Some(smaller), 120, used), (0, lent.1));
    let most = Quantities::cpus_mem(0, GIB);
    let unmeasured = Siblings { most, ..alike };
    assert_eq!(lent_of_a_cold_one(Some(unmeasured), 120, used), (0, lent.1));
    // What it uses itself counts at once: 1,500 - 800 x 1.25 - 200.
    let (cpu_milli, _) = lent_of_a_cold_one(Some(alike), 120, Some((800, 0, 0)));
    assert_eq!(cpu_milli, 300);
}

#[test]
fn a_spike_is_remembered_for_the_window_and_then_forgotten() {
    let tasks = vec![owners().remove(0)];
    let mut estimator = Estimator::new(bare());
    let mut lent = Vec::new();
    for at in 0..60 {
        let used = if at == 10 { 1_200 } else { 100 };
        let view = view(&tasks, &[Some((used, 0, 0))], 0);
        lent.push(step(&mut estimator, at, Some(&view), &tasks).cpu_milli());
    }
    // 1,500 - 100 x 1.25 - 200 of reserve; then 1,500 - 1,200 x 1.1 leaves less than the reserve.
    assert_eq!(lent[9], 1_175);
    assert!(lent[10..31].iter().all(|lent| *lent == 0), "{lent:?}");
    assert_eq!(lent[32], 1_175);
}

#[test]
fn what_revocable_tasks_own_is_not_lent_on() {
    let mut tasks = owners();
    tasks.truncate(1);
    let mixed = Resources {
        regular: Quantities::cpus_mem(0, 8 * GIB),
        revocable: Quantities::cpus_mem(500, 0),
    };
    tasks.push(task("batch", mixed));
    let mut estimator = Estimator::new(bare());
    let mut lent = Quantities::ZERO;
    for at in 0..10 {
        let uses = [Some((100, GIB, 0)), Some((400, 0, 0))];
        lent = step(&mut estimator, at, Some(&view(&tasks, &uses, 0)), &tasks);
    }
    assert!(
        lent.mem_bytes() > 0 && lent.mem_bytes() <= 3 * GIB,
        "{lent}"
    );
}

/// What is lent once an owner has shown itself, beside a revocable task that says to end then.
fn lent_beside_an_end(ends_after_s: Option<u64>) -> Quantities {
    lent_beside(ends_after_s, None)
}

/// The same where its class says when such tasks end, and how long it runs by then.
fn lent_beside(ends_after_s: Option<u64>, siblings: Option<(Siblings, u64)>) -> Quantities {
    let owned = Quantities::cpus_mem(4_000, 12 * GIB);
    let mut batch = task(
        "batch",
        Resources::revocable(Quantities::cpus_mem(1_000, GIB)),
    );
    let last_s = 9_000;
    batch.ends_at = ends_after_s.map(|after_s| Timestamp::from_ms((last_s + after_s) * 1_000));
    if let Some((siblings, age_s)) = siblings {
        batch.siblings = Some(siblings);
        batch.started_at = Timestamp::from_ms((last_s - age_s) * 1_000);
    }
    let tasks = [task("owner", Resources::regular(owned)), batch];
    let mut estimator = Estimator::new(bare());
    let mut lent = Quantities::ZERO;
    for at in (0..=last_s).step_by(5) {
        // Busy in every other bin; not in the last.
        let used = match at / 300 % 2 {
            0 => (300, GIB, 0),
            _ => (1_500, 5 * GIB, 0),
        };
        let view = view(&tasks, &[Some(used), Some((0, 0, 0))], 0);
        lent = step(&mut estimator, at, Some(&view), &tasks);
    }
    lent
}

#[test]
fn beside_what_ends_soon_more_cpu_is_lent_and_no_more_memory() {
    let unknown = lent_beside_an_end(None);
    let late = lent_beside_an_end(Some(3_600));
    let soon = lent_beside_an_end(Some(60));
    assert!(unknown.cpu_milli() > 500, "{unknown}");
    assert_eq!(late, unknown);
    assert!(
        soon.cpu_milli() >= unknown.cpu_milli() + 200,
        "{soon} beside an end, {unknown} without"
    );
    assert_eq!(soon.mem_bytes(), unknown.mem_bytes());
}

#[test]
fn an_end_that_nobody_said_is_expected_by_the_class_until_it_is_outlived() {
    let alike = siblings();
    let (unknown, soon) = (lent_beside_an_end(None), lent_beside_an_end(Some(60)));
    let expected = |siblings, age_s| lent_beside(None, Some((siblings, age_s)));
    assert_eq!(expected(alike, 40), soon);
    assert_eq!(expected(alike, 99), soon);
    assert_eq!(expected(alike, 100), unknown, "it has outlived them");
    let few = Siblings {
        finished: ENOUGH_LIVES - 1,
        ..alike
    };
    assert_eq!(expected(few, 40), unknown);
    let long = Siblings {
        longest_ms: 3_600_000,
        ..alike
    };
    assert_eq!(expected(long, 40), unknown);
    // Of what is said and what is expected the sooner.
    assert_eq!(lent_beside(Some(3_600), Some((alike, 40))), soon);
    assert_eq!(lent_beside(Some(60), Some((long, 40))), soon);
}

#[test]
fn a_kind_that_is_not_to_be_lent_is_not() {
    let mut config = bare();
    config.mem.lend = false;
    let tasks = owners();
    let mut estimator = Estimator::new(config);
    let mut lent = Quantities::ZERO;
    for at in 0..10 {
        let uses = [Some((100, GIB, 0)); 3];
        lent = step(&mut estimator, at, Some(&view(&tasks, &uses, 0)), &tasks);
    }
    assert_eq!(lent.mem_bytes(), 0);
    assert!(lent.cpu_milli() > 0 && lent.get(ResourceKind::DiskBandwidth) > 0);
}

#[test]
fn memory_of_a_container_that_could_not_be_read_is_not_remembered_as_the_system_s() {
    let tasks = owners();
    let mut estimator = Estimator::new(bare());
    let uses = [
        Some((100, GIB, 0)),
        Some((100, 2 * GIB, 0)),
        Some((100, GIB, 0)),
    ];
    let full = view(&tasks, &uses, 0);
    let mut lent = Vec::new();
    for at in 0..20 {
        let mut view = full.clone();
        if at == 10 {
            view.containers
                .get_mut(&tasks[1].container_id)
                .unwrap()
                .mem_bytes = None;
        }
        lent.push(step(&mut estimator, at, Some(&view), &tasks).mem_bytes());
    }
    assert!(lent[10] < lent[9], "{lent:?}");
    assert_eq!(lent[11], lent[9]);
}
