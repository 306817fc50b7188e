//! Latency of disk requests, from the differences of their histograms.

use super::rates::IoLatency;
use super::sample::IoLatencySample;
use super::track::{Count, Delta, quantile};

/// The histograms count in units of this many nanoseconds.
const UNIT_NS: u64 = 1024;

impl Count for IoLatencySample {
    fn since(&self, earlier: &Self) -> Option<Self> {
        Some(Self {
            total_ns: self.total_ns.since(&earlier.total_ns)?,
            queue_histogram: self.queue_histogram.since(&earlier.queue_histogram)?,
            device_histogram: self.device_histogram.since(&earlier.device_histogram)?,
        })
    }
}

/// Mean and percentiles of the requests between two readings.
pub(super) fn latency(delta: Option<Delta<IoLatencySample>>) -> IoLatency {
    let Some(Delta { amount, .. }) = delta else {
        return IoLatency::default();
    };
    let requests = amount
        .device_histogram
        .iter()
        .fold(0u64, |sum, count| sum.saturating_add(*count));
    let p99 = |histogram| quantile(histogram, 990).map(|bound| bound.saturating_mul(UNIT_NS));
    IoLatency {
        mean_ns: amount.total_ns.checked_div(requests),
        queue_p99_ns: p99(&amount.queue_histogram),
        device_p99_ns: p99(&amount.device_histogram),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(
        queue: (usize, u64),
        device: (usize, u64),
        total_ns: u64,
    ) -> Option<Delta<IoLatencySample>> {
        let mut amount = IoLatencySample {
            total_ns,
            ..IoLatencySample::default()
        };
        amount.queue_histogram[queue.0] = queue.1;
        amount.device_histogram[device.0] = device.1;
        Some(Delta { amount, span_ns: 1 })
    }

    #[test]
    fn mean_and_percentiles_are_of_the_requests_in_between() {
        let latency = latency(delta((0, 10), (7, 10), 5_000));
        assert_eq!(latency.mean_ns, Some(500));
        assert_eq!(latency.queue_p99_ns, Some(2 * UNIT_NS));
        assert_eq!(latency.device_p99_ns, Some(256 * UNIT_NS));
    }

    #[test]
    fn no_request_has_no_latency() {
        assert_eq!(latency(None), IoLatency::default());
        assert_eq!(latency(delta((0, 0), (0, 0), 0)), IoLatency::default());
    }

    #[test]
    fn a_histogram_that_steps_back_is_a_reset() {
        let some = delta((0, 10), (7, 10), 5_000).unwrap().amount;
        assert_eq!(IoLatencySample::default().since(&some), None);
        assert_eq!(some.since(&IoLatencySample::default()), Some(some));
    }
}
