//! What was seen, in plain numbers, and whether it was all that should have been.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::load::quantile;
use super::view::Watcher;

/// What was seen of the whole demo.
#[derive(Debug, Default)]
pub struct Seen {
    cpus: usize,
    alone: Phase,
    with_batch: Phase,
    risen: Phase,
    revocable: usize,
    by_ebpf: usize,
    by_files: usize,
    lent_peak_milli: u64,
    push_back: Option<(u64, String)>,
    corrections: usize,
    report: Report,
}

#[derive(Debug, Default)]
struct Phase {
    utilisation: f64,
    p50_us: u64,
    p99_us: u64,
    requests: usize,
}

/// What the batch says of itself; other fields are left out.
#[derive(Debug, Default, Deserialize)]
struct Report {
    commands: u64,
    finished: u64,
    failed: u64,
    preemptions: u64,
    wall_ms: u64,
}

impl Seen {
    /// Nothing yet, on a machine with so many CPUs.
    pub fn on(cpus: usize) -> Self {
        Self {
            cpus,
            ..Self::default()
        }
    }

    fn phase(&self, watcher: &Watcher, latencies_us: &[u64]) -> Phase {
        let digest = watcher.digest();
        let capacity = digest.pictures as f64 * self.cpus as f64 * 1000.0;
        Phase {
            utilisation: if capacity > 0.0 {
                digest.machine_milli_sum as f64 / capacity
            } else {
                0.0
            },
            p50_us: quantile(latencies_us, 500),
            p99_us: quantile(latencies_us, 990),
            requests: latencies_us.len(),
        }
    }

    /// The services without the batch.
    pub fn alone(&mut self, watcher: &Watcher, latencies_us: Vec<u64>) {
        self.alone = self.phase(watcher, &latencies_us);
        self.note(watcher);
    }

    /// The services with the batch beside them.
    pub fn with_batch(&mut self, watcher: &Watcher, latencies_us: Vec<u64>) {
        self.with_batch = self.phase(watcher, &latencies_us);
        self.note(watcher);
    }

    /// The rise of a service's load.
    pub fn risen(&mut self, watcher: &Watcher, rise_ms: u64, latencies_us: Vec<u64>) {
        self.risen = self.phase(watcher, &latencies_us);
        self.note(watcher);
        let digest = watcher.digest();
        let mut pushes = digest
            .corrections
            .iter()
            .filter(|one| one.at_ms >= rise_ms && one.action != "release");
        self.push_back = pushes.next().map(|first| {
            let why = format!(
                "{} by {}: {} over {}",
                first.action, first.signal, first.value, first.threshold
            );
            (first.at_ms - rise_ms, why)
        });
        self.corrections = digest
            .corrections
            .iter()
            .filter(|one| one.at_ms >= rise_ms)
            .count();
    }

    fn note(&mut self, watcher: &Watcher) {
        let digest = watcher.digest();
        self.revocable += digest.revocable.len();
        self.by_ebpf += digest.by_ebpf;
        self.by_files += digest.by_files;
        self.lent_peak_milli = self.lent_peak_milli.max(digest.lent_peak_milli);
    }

    /// The batch's own report.
    ///
    /// # Errors
    /// When it is not there.
    pub fn batch_ended(&mut self, output: &str) -> Result<()> {
        let mut values =
            serde_json::Deserializer::from_str(output).into_iter::<serde_json::Value>();
        let last = values
            .by_ref()
            .filter_map(Result::ok)
            .last()
            .context("the batch has printed no report")?;
        self.report =
            serde_json::from_value(last).context("the batch's report is not understood")?;
        Ok(())
    }

    /// Prints the summary.
    ///
    /// # Errors
    /// When something that should have happened was not seen.
    pub fn conclude(&self) -> Result<()> {
        println!("\n== Summary");
        for (name, phase) in [
            ("alone", &self.alone),
            ("with the batch", &self.with_batch),
            ("after the rise", &self.risen),
        ] {
            println!(
                "   service {name:<15} p50 {:>7.2} ms  p99 {:>7.2} ms  ({} requests)   machine {:>3.0} % busy",
                phase.p50_us as f64 / 1000.0,
                phase.p99_us as f64 / 1000.0,
                phase.requests,
                phase.utilisation * 100.0
            );
        }
        println!(
            "   lent at most       {:.2} CPUs",
            self.lent_peak_milli as f64 / 1000.0
        );
        println!(
            "   revocable tasks    {} seen running; figures by eBPF {}, by files {}",
            self.revocable, self.by_ebpf, self.by_files
        );
        match &self.push_back {
            Some((ms, why)) => println!(
                "   rise to push-back  {ms} ms ({why}); {} corrections in all",
                self.corrections
            ),
            None => println!("   rise to push-back  never"),
        }
        println!(
            "   batch              {} of {} commands, {} preempted on the way, {:.1} s, every checksum right",
            self.report.finished,
            self.report.commands,
            self.report.preemptions,
            self.report.wall_ms as f64 / 1000.0
        );
        ensure!(self.lent_peak_milli > 0, "nothing was lent");
        ensure!(self.revocable > 0, "no revocable task was seen");
        ensure!(
            self.by_ebpf > 0 && self.by_files == 0,
            "not every figure came from eBPF; see the agents' logs"
        );
        ensure!(
            self.push_back.is_some(),
            "nothing was pushed back when the load rose"
        );
        let done = self.report.commands > 0 && self.report.finished == self.report.commands;
        ensure!(
            done && self.report.failed == 0,
            "the batch did not finish: {:?}",
            self.report
        );
        Ok(())
    }
}
