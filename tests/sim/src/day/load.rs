//! What services ask for over time: the use of real machines, bin after bin, and bursts in between.

use std::path::Path;

use anyhow::{Result, ensure};
use ebb_tests_lending::trace::{Kind, find, read};

use crate::rng::Rng;

/// Longest and shortest burst, in milliseconds.
const BURST_MS: (u64, u64) = (2_000, 30_000);
/// Mean time between two bursts of a service, in milliseconds.
const BURST_EVERY_MS: u64 = 3_600_000;
/// The least and the most of its memory that a service holds, in thousandths of its limit, and how much it changes from
/// bin to bin.
const MEM_PERMILLE: (u64, u64) = (250, 950);
const MEM_STEP_PERMILLE: u64 = 30;
/// In one of so many bins a service suddenly holds the most.
const MEM_JUMPS_EVERY: u64 = 200;
/// A day of bins of five minutes.
const LEAST_BINS: usize = 288;

/// Curves of the use of CPU, in thousandths of the largest, a bin of five minutes each.
#[derive(Clone, Debug)]
pub struct Loads(Vec<Vec<u16>>);

impl Loads {
    /// The curves of all traces in a directory that are of CPU in bins of five minutes and last for a day.
    ///
    /// # Errors
    /// When there is none, or one cannot be read.
    pub fn read(directory: &Path) -> Result<Self> {
        let mut curves = Vec::new();
        for found in find(directory)? {
            if !matches!(found.kind, Kind::BitbrainsCpu | Kind::PlanetLab) {
                continue;
            }
            let tasks = read(&found)?.into_iter().flat_map(|era| era.tasks);
            curves.extend(tasks.filter_map(|task| curve(&task.used)));
        }
        ensure!(
            !curves.is_empty(),
            "no trace in {} is of CPU in bins of five minutes and lasts for a day; give a directory with one whose name \
             begins with bitbrains or planetlab and has cpu in it",
            directory.display()
        );
        Ok(Self(curves))
    }

    /// One of the curves, beginning anywhere.
    pub(super) fn choose(&self, rng: &mut Rng, limit_milli: u64) -> Load {
        let curve = rng.index(self.0.len());
        Load {
            curve,
            at: rng.index(self.0[curve].len()),
            limit_milli,
            burst: false,
            mem_permille: rng.between(MEM_PERMILLE.0, 600),
        }
    }

    /// What it holds of its memory, in thousandths of its limit.
    pub(super) const fn mem_permille(load: &Load) -> u64 {
        load.mem_permille
    }

    pub(super) fn wants_milli(&self, load: &Load) -> u64 {
        let share = match load.burst {
            true => 1_000,
            false => u64::from(self.0[load.curve][load.at]),
        };
        load.limit_milli * share / 1_000
    }

    /// Goes on to the next bin, or into a burst or out of one; how long that lasts, in milliseconds.
    pub(super) fn go_on(&self, load: &mut Load, rng: &mut Rng) -> u64 {
        let (least, most) = MEM_PERMILLE;
        load.mem_permille = match rng.between(1, MEM_JUMPS_EVERY) {
            1 => most,
            _ => (load.mem_permille + rng.between(0, 2 * MEM_STEP_PERMILLE))
                .saturating_sub(MEM_STEP_PERMILLE)
                .clamp(least, most),
        };
        if !load.burst {
            load.at = (load.at + 1) % self.0[load.curve].len();
            let bins = BURST_EVERY_MS / BIN_MS;
            if rng.between(1, bins) == 1 {
                load.burst = true;
                return rng.between(BURST_MS.0, BURST_MS.1);
            }
        }
        load.burst = false;
        // Bins of different services begin at different moments.
        rng.between(BIN_MS * 9 / 10, BIN_MS * 11 / 10)
    }
}

/// The length of a bin, in milliseconds.
const BIN_MS: u64 = 300_000;

/// In thousandths of nine tenths of the largest value: a service asks for a little less than its limit at most.
fn curve(used: &[f64]) -> Option<Vec<u16>> {
    let largest = used.iter().copied().fold(0.0, f64::max);
    let share = |used: &f64| (used / largest * 900.0) as u16;
    (used.len() >= LEAST_BINS && largest > 0.0).then(|| used.iter().map(share).collect())
}

/// Where a service stands on its curve.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    curve: usize,
    at: usize,
    limit_milli: u64,
    burst: bool,
    mem_permille: u64,
}
