//! What a machine has in each bin: sums, and spans of bins in which the same tasks are there.

use crate::place::Machine;
use crate::rolling::Extremes;

/// Bins in which a set of tasks is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first bin.
    pub from: usize,
    /// The bin after the last.
    pub to: usize,
    /// Indices of the tasks, ascending; never none.
    pub members: Vec<usize>,
}

/// A machine with the sums that every rule needs.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// The machine.
    pub machine: Machine,
    /// The sum of the limits of the tasks present, in each bin.
    pub limits: Vec<f64>,
    /// The sum of what they use.
    pub used: Vec<f64>,
    /// Where tasks are there.
    pub present: Vec<Span>,
}

impl Timeline {
    /// Adds everything up.
    pub fn new(machine: Machine) -> Self {
        let present = spans(&machine, 1);
        let mut limits = vec![0.0; machine.bins];
        let mut used = vec![0.0; machine.bins];
        for span in &present {
            for member in &span.members {
                let task = &machine.tasks[*member];
                for bin in span.from..span.to {
                    limits[bin] += task.limit;
                    used[bin] += task.used[bin - task.start];
                }
            }
        }
        Self {
            machine,
            limits,
            used,
            present,
        }
    }

    /// Spans of the tasks that have shown at least `age` samples.
    pub fn spans(&self, age: usize) -> Vec<Span> {
        spans(&self.machine, age)
    }

    /// In each bin the limits of the tasks with fewer than `age` samples.
    pub fn cold_limits(&self, age: usize) -> Vec<f64> {
        let mut cold = vec![0.0; self.machine.bins];
        for task in &self.machine.tasks {
            let warm = (task.start + age).saturating_sub(1).min(task.end());
            for limit in &mut cold[task.start..warm] {
                *limit += task.limit;
            }
        }
        cold
    }

    /// What a set uses in each of some bins.
    pub fn used_by(&self, members: &[usize], from: usize, to: usize) -> Vec<f64> {
        let mut sum = vec![0.0; to - from];
        for member in members {
            let task = &self.machine.tasks[*member];
            let (begin, end) = (task.start.max(from), task.end().min(to));
            if begin < end {
                let used = &task.used[begin - task.start..end - task.start];
                for (slot, used) in sum[begin - from..].iter_mut().zip(used) {
                    *slot += used;
                }
            }
        }
        sum
    }

    /// The most that the tasks present in a bin will use in any of the `horizon` bins after it.
    pub fn oracle(&self, horizon: usize) -> Vec<f64> {
        let mut result = vec![0.0; self.machine.bins];
        for span in &self.present {
            let end = (span.to + horizon).min(self.machine.bins);
            let used = self.used_by(&span.members, span.from, end);
            let mut most = Extremes::largest();
            // From the last bin to the first: the window is then behind.
            for bin in (span.from..end).rev() {
                if bin < span.to {
                    result[bin] = most.extreme().unwrap_or(0.0);
                }
                most.push(end - bin, used[bin - span.from], horizon);
            }
        }
        result
    }
}

fn spans(machine: &Machine, age: usize) -> Vec<Span> {
    let lives = machine.tasks.iter().enumerate().filter_map(|(at, task)| {
        let from = task.start + age - 1;
        (from < task.end()).then_some((from, task.end(), at))
    });
    let mut changes: Vec<(usize, bool, usize)> = lives
        .flat_map(|(from, to, at)| [(from, true, at), (to, false, at)])
        .collect();
    changes.sort_unstable();
    let mut spans = Vec::new();
    let mut members = std::collections::BTreeSet::new();
    let mut begin = 0;
    for (bin, comes, at) in changes {
        if bin > begin && !members.is_empty() {
            spans.push(Span {
                from: begin,
                to: bin,
                members: members.iter().copied().collect(),
            });
        }
        begin = bin;
        match comes {
            true => members.insert(at),
            false => members.remove(&at),
        };
    }
    spans
}
