//! Many seeds, on all CPUs.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Failure, Planted, Report, run};

/// Runs the seeds of a range and tells what they did together.
///
/// # Errors
/// The [`Failure`] of the lowest seed that was run and broke a rule; the seeds after it may not have been run.
pub fn sweep(seeds: Range<u64>, planted: Option<Planted>) -> Result<Report, Failure> {
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new(Ok(Report::default()));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let outcome = run(seed, planted, false);
            if outcome.is_err() {
                next.fetch_max(seeds.end, Ordering::Relaxed);
            }
            let mut sum = sum
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            *sum = join(sum.clone(), outcome);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    sum.into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn join(one: Result<Report, Failure>, other: Result<Report, Failure>) -> Result<Report, Failure> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok(one.plus(&other)),
        (Err(one), Err(other)) => Err(if one.seed < other.seed { one } else { other }),
        (Err(failure), Ok(_)) | (Ok(_), Err(failure)) => Err(failure),
    }
}
