//! Extremes and quantiles of a window that slides.

use std::collections::VecDeque;

/// The extreme of the last values, in constant time a value.
#[derive(Clone, Debug)]
pub struct Extremes {
    entries: VecDeque<(usize, f64)>,
}

impl Extremes {
    /// An empty window of which the largest value is asked.
    pub fn largest() -> Self {
        Self {
            entries: VecDeque::new(),
        }
    }

    /// Takes in the value of a bin and drops those `window` bins before it and earlier.
    pub fn push(&mut self, bin: usize, value: f64, window: usize) {
        while self.entries.back().is_some_and(|(_, old)| *old <= value) {
            self.entries.pop_back();
        }
        self.entries.push_back((bin, value));
        self.expire(bin, window);
    }

    /// Drops what is `window` bins before a bin and earlier.
    pub fn expire(&mut self, bin: usize, window: usize) {
        while self
            .entries
            .front()
            .is_some_and(|(old, _)| old + window <= bin)
        {
            self.entries.pop_front();
        }
    }

    /// The largest value of the window.
    pub fn extreme(&self) -> Option<f64> {
        self.entries.front().map(|(_, value)| *value)
    }
}

/// For each value the largest of the last `window`, itself included.
pub fn rolling_max(values: &[f64], window: usize) -> Vec<f64> {
    let mut most = Extremes::largest();
    let each = values.iter().enumerate().map(|(bin, value)| {
        most.push(bin, *value, window);
        most.extreme().unwrap_or(*value)
    });
    each.collect()
}

/// The last values in ascending order.
#[derive(Clone, Debug, Default)]
pub struct Sorted {
    values: Vec<f64>,
    order: VecDeque<f64>,
}

impl Sorted {
    /// Takes a value in; beyond `window` the oldest goes.
    pub fn push(&mut self, value: f64, window: usize) {
        let at = self.values.partition_point(|other| *other < value);
        self.values.insert(at, value);
        self.order.push_back(value);
        while self.order.len() > window {
            if let Some(old) = self.order.pop_front() {
                let at = self.values.partition_point(|other| *other < old);
                self.values.remove(at);
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The quantile by linear interpolation; 0 of nothing.
    pub fn quantile(&self, share: f64) -> f64 {
        interpolated(&self.values, share)
    }

    /// The smallest value that at least the share of the others does not exceed; 0 of nothing.
    pub fn quantile_higher(&self, share: f64) -> f64 {
        let last = self.values.len().saturating_sub(1);
        // A share of a count that is whole in decimal may come out a hair above it in binary.
        let at = (share * last as f64 - 1e-9).ceil().max(0.0) as usize;
        self.values.get(at.min(last)).copied().unwrap_or(0.0)
    }
}

/// The quantile of sorted values by linear interpolation; 0 of nothing.
pub fn interpolated(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let position = share * last as f64;
    let low = (position.floor() as usize).min(last);
    let high = (low + 1).min(last);
    sorted[low] + (sorted[high] - sorted[low]) * (position - low as f64)
}
