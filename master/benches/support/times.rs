//! Times, and where in their order one stands.

use std::time::Duration;

pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The time below which that part of the times is: 0.5 for the median.
pub fn at(times: &[Duration], part: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    sorted[((last as f64) * part).round() as usize]
}
