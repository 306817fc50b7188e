//! What classes of tasks should ask for, worked out of a view: the reader's own work, and thus nobody else's delay.

use ebb_types::limits::MAX_ADVISED_CLASSES;
use ebb_types::{Advice, AdviceFilter, AgentId, AgentStatus, ClassAdvice, Fit, advise};

use super::view::View;

/// What is advised in all, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdviceGauges {
    /// Classes by fit, in the order of [`Fit::ALL`].
    pub classes: [u64; Fit::ALL.len()],
    /// Entries of what was seen, each of one agent and class.
    pub entries: u64,
    /// CPU that running tasks would ask for less, in thousandths of a core.
    pub spared_cpu_milli: u128,
    /// CPU that they would ask for more, in thousandths of a core.
    pub lacking_cpu_milli: u128,
    /// Memory that running tasks would ask for less, in bytes.
    pub spared_mem_bytes: u128,
    /// Memory that they would ask for more, in bytes.
    pub lacking_mem_bytes: u128,
}

impl View {
    /// What the classes that are meant should ask for, by framework and class.
    pub fn advice(&self, filter: &AdviceFilter) -> Advice {
        let mut classes = self.advised(filter);
        let left_out = classes.len().saturating_sub(MAX_ADVISED_CLASSES) as u64;
        classes.truncate(MAX_ADVISED_CLASSES);
        Advice {
            at: self.at,
            classes,
            left_out,
        }
    }

    /// The same of all classes, for metrics.
    pub(super) fn advice_gauges(&self) -> AdviceGauges {
        let mut gauges = AdviceGauges {
            entries: self.classes.len() as u64,
            ..AdviceGauges::default()
        };
        for class in self.advised(&AdviceFilter::default()) {
            let fit = class.fit();
            for (sum, each) in gauges.classes.iter_mut().zip(Fit::ALL) {
                *sum += u64::from(each == fit);
            }
            let running = class.running;
            let cpu = class.cpu.spared(running);
            let mem = class.mem.spared(running);
            for (change, spared, lacking) in [
                (
                    cpu,
                    &mut gauges.spared_cpu_milli,
                    &mut gauges.lacking_cpu_milli,
                ),
                (
                    mem,
                    &mut gauges.spared_mem_bytes,
                    &mut gauges.lacking_mem_bytes,
                ),
            ] {
                let sum = if change > 0 { spared } else { lacking };
                *sum = sum.saturating_add(change.unsigned_abs());
            }
        }
        gauges
    }

    fn advised(&self, filter: &AdviceFilter) -> Vec<ClassAdvice> {
        let sums = self.classes.sums(self.at, filter, |id| self.is_there(id));
        sums.iter().map(advise).collect()
    }

    /// Whether an agent's tasks are known to run.
    fn is_there(&self, id: &AgentId) -> bool {
        let place = self.agents.binary_search_by(|entry| entry.id.cmp(id));
        let entry = place.ok().and_then(|place| self.agents.get(place));
        let line = entry.and_then(|entry| entry.line.as_ref());
        line.is_some_and(|line| {
            matches!(
                line.status,
                AgentStatus::Registered | AgentStatus::Disconnected
            )
        })
    }
}
