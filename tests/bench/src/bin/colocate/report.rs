//! The rows, and the bars that they are held against.

use std::collections::BTreeMap;

use ebb_tests_bench::{Bar, at_least, at_most, figure, quantile};

use crate::phases::{Phase, Seen, Steps};

/// Latency of the service beside Ebb's batch, as a ratio to alone; or the kernel's own floor, where that is higher.
const MOST_P99_RATIO: f64 = 1.10;
/// The same of the 99.9th percentile.
const MOST_P999_RATIO: f64 = 1.25;
/// Busy share of the machine.
const LEAST_UTILISATION: f64 = 0.90;
/// Units of work beside those on equal terms.
const LEAST_THROUGHPUT: f64 = 0.80;
/// From a step to the first throttle, in milliseconds.
const MOST_THROTTLED_MS: (f64, f64) = (100.0, 200.0);
/// From a step until full demand is served, in milliseconds.
const MOST_SERVED_MS: f64 = 250.0;

/// Prints every row.
pub fn print(seen: &BTreeMap<Phase, Seen>, steps: &mut Steps, bars: bool) {
    for (phase, seen) in seen {
        phase_rows(phase.name(), seen);
    }
    let judge = |case: &str, metric: &str, value: f64, unit: &str, bar: Bar| match bar {
        _ if !bars => figure(case, metric, value, unit),
        Bar::AtMost(most) => at_most(case, metric, value, unit, most),
        Bar::AtLeast(least) => at_least(case, metric, value, unit, least),
    };
    if let (Some(alone), Some(ebb)) = (seen.get(&Phase::Alone), seen.get(&Phase::Ebb)) {
        for (metric, share, most) in [
            ("p50_ratio", 0.5, None),
            ("p99_ratio", 0.99, Some(MOST_P99_RATIO)),
            ("p999_ratio", 0.999, Some(MOST_P999_RATIO)),
        ] {
            let ratio = |seen: &Seen| seen.latency_us(share) / alone.latency_us(share).max(1e-3);
            let others = [Phase::Floor, Phase::Equal].map(|phase| seen.get(&phase).map(ratio));
            for (phase, value) in [Phase::Floor, Phase::Equal].into_iter().zip(others) {
                if let Some(value) = value {
                    figure(phase.name(), metric, value, "of alone");
                }
            }
            match most {
                Some(most) => {
                    let most = others[0].map_or(most, |floor| most.max(floor));
                    judge("ebb", metric, ratio(ebb), "of alone", Bar::AtMost(most));
                }
                None => figure("ebb", metric, ratio(ebb), "of alone"),
            }
        }
        let least = Bar::AtLeast(LEAST_UTILISATION);
        judge(
            "ebb",
            "utilisation",
            ebb.utilisation(),
            "of the machine",
            least,
        );
        if let Some(equal) = seen.get(&Phase::Equal) {
            let least = Bar::AtLeast(LEAST_THROUGHPUT);
            judge(
                "ebb",
                "throughput_ratio",
                throughput(ebb, equal),
                "of equal",
                least,
            );
            if let Some(floor) = seen.get(&Phase::Floor) {
                figure(
                    "floor",
                    "throughput_ratio",
                    throughput(floor, equal),
                    "of equal",
                );
            }
        }
    }
    step_rows(steps, judge);
}

fn phase_rows(case: &str, seen: &Seen) {
    figure(case, "requests", seen.latencies.len() as f64, "");
    for (metric, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
        figure(case, metric, seen.latency_us(share), "us");
    }
    let cpus = |ns: f64| ns / 1e9 / seen.span_s;
    figure(
        case,
        "machine_utilisation",
        seen.utilisation(),
        "of the machine",
    );
    figure(case, "service_cpu", cpus(seen.service_ns), "cpus");
    figure(case, "batch_cpu", cpus(seen.batch_ns), "cpus");
    figure(case, "ebb_cpu", cpus(seen.daemons_ns), "cpus");
    figure(case, "generator_cpu", cpus(seen.generator_ns), "cpus");
    figure(case, "stolen_cpu", cpus(seen.machine.stolen_ns), "cpus");
    let known = seen.service_ns + seen.batch_ns + seen.daemons_ns + seen.generator_ns;
    if case != Phase::Floor.name() {
        let others = (seen.machine.busy_ns() - known).max(0.0);
        figure(case, "others_cpu", cpus(others), "cpus");
    }
    figure(
        case,
        "generator_late_p999",
        seen.late_p999_ns as f64 / 1e3,
        "us",
    );
    for (kind, rate) in seen.rates().into_iter().filter(|(_, rate)| *rate > 0.0) {
        figure(case, &format!("units_{kind}"), rate, "1/s");
    }
    for (action, count) in &seen.corrections {
        figure(case, &format!("corrections_{action}"), *count as f64, "");
    }
}

/// The mean over the kinds of what was done beside what is done on equal terms.
fn throughput(subject: &Seen, equal: &Seen) -> f64 {
    let (subject, equal) = (subject.rates(), equal.rates());
    let kinds = equal.iter().filter(|(_, rate)| **rate > 0.0);
    let ratios: Vec<f64> = kinds
        .map(|(kind, rate)| subject.get(kind).unwrap_or(&0.0) / rate)
        .collect();
    ratios.iter().sum::<f64>() / ratios.len().max(1) as f64
}

fn step_rows(steps: &mut Steps, judge: impl Fn(&str, &str, f64, &str, Bar)) {
    let (answered, without) = (steps.throttled_ms.len(), steps.served_without_ms.len());
    let missed = steps.missed as f64;
    let count = answered as f64 + without as f64 + missed;
    if count < 1.0 {
        return;
    }
    figure("steps", "steps", count, "");
    // Of steps without a throttle there is no time to one; whether they needed one is told below.
    if answered > 0 {
        let (median, worst) = MOST_THROTTLED_MS;
        let times = &mut steps.throttled_ms;
        for (metric, share, most) in [
            ("to_throttle_median", 0.5, median),
            ("to_throttle_worst", 1.0, worst),
        ] {
            let value = quantile(times, share);
            judge("steps", metric, value, "ms", Bar::AtMost(most));
        }
    }
    figure("steps", "throttled", answered as f64, "");
    figure("steps", "served_without_throttle", without as f64, "");
    if without > 0 {
        let value = quantile(&mut steps.served_without_ms, 1.0);
        figure("steps", "served_without_throttle_worst", value, "ms");
    }
    judge("steps", "missed", missed, "", Bar::AtMost(0.0));
    let value = quantile(&mut steps.served_ms, 0.5);
    figure("steps", "to_full_demand_median", value, "ms");
    let value = quantile(&mut steps.served_ms, 1.0);
    judge(
        "steps",
        "to_full_demand_worst",
        value,
        "ms",
        Bar::AtMost(MOST_SERVED_MS),
    );
    let unserved = steps.unserved as f64;
    judge("steps", "never_served", unserved, "", Bar::AtMost(0.0));
    figure("steps", "evictions", steps.evictions as f64, "");
}
