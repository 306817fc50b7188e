//! Causes that are planted, and who is blamed: generated from seeds, scored by recall and precision.
//!
//! Each case is a machine of four CPUs with a victim, two bystanders and a culprit (or none) of sizes, noise and figures
//! that a seed makes. A verdict is right if it names the culprit first, by the right resource; each other neighbour that is
//! ever named, and each container that is ever corrected for the victim's sake without being the culprit, is a wrong
//! verdict.

use std::collections::BTreeSet;

use ebb_types::{Contended, CorrectionAction, Quantities, Signal};

use super::Config;
use super::world::{GIB, World};

/// What is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// The victim's own CPU quota.
    OwnQuota,
    /// The victim's own memory limit.
    OwnMemoryLimit,
    /// The victim's own traffic with a slow disk.
    OwnTraffic,
    /// A neighbour that takes CPUs.
    Hog,
    /// The same by many short processes.
    ShortProcesses,
    /// A neighbour that takes the machine's memory.
    MemoryHog,
    /// A neighbour that keeps the disk busy.
    DiskHog,
}

impl Cause {
    const BY_OTHERS: [Self; 4] = [
        Self::Hog,
        Self::ShortProcesses,
        Self::MemoryHog,
        Self::DiskHog,
    ];
    const OWN: [Self; 3] = [Self::OwnQuota, Self::OwnMemoryLimit, Self::OwnTraffic];

    fn resource(self) -> Contended {
        match self {
            Self::OwnQuota | Self::Hog | Self::ShortProcesses => Contended::Cpu,
            Self::OwnMemoryLimit | Self::MemoryHog => Contended::Memory,
            Self::OwnTraffic | Self::DiskHog => Contended::Disk,
        }
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// What came of one case.
#[derive(Debug, Default)]
struct Score {
    /// The culprit was named first, by the right resource.
    found: bool,
    /// Everybody else that was named or held back, and by which resource.
    wrong: BTreeSet<(Contended, String)>,
}

const CULPRIT: &str = "culprit";
const VICTIM: &str = "victim";
const BYSTANDERS: [&str; 2] = ["bystander-a", "bystander-b"];

/// The machine before anything is planted.
fn quiet(dice: &mut Dice, revocable: bool) -> World {
    let mut world = World::with(Config::default(), Quantities::cpus_mem(4_000, 8 * GIB));
    world.cpus = 4;
    let wants = dice.between(300, 900);
    world.own(VICTIM, 1_000, wants);
    world.own(BYSTANDERS[0], 500, dice.between(20, 450));
    if dice.coin() {
        world.own(BYSTANDERS[1], 500, dice.between(20, 450));
    } else {
        world.lend(BYSTANDERS[1], 300, dice.between(20, 250));
    }
    if revocable {
        world.lend(CULPRIT, 500, dice.between(50, 100));
    } else {
        world.own(CULPRIT, 500, dice.between(50, 400));
    }
    for name in [VICTIM, BYSTANDERS[0], BYSTANDERS[1], CULPRIT] {
        let (mem, disk) = (dice.between(50, 400) << 20, dice.between(0, 200) << 10);
        let sim = world.sim(name);
        sim.mem_bytes = mem;
        sim.disk_bytes_per_s = disk;
    }
    world.unmanaged_milli = dice.between(0, 200);
    world
}

/// What each sample of a quiet machine varies by.
fn noise(world: &mut World, dice: &mut Dice) {
    for name in [VICTIM, BYSTANDERS[0], BYSTANDERS[1], CULPRIT] {
        let (wait, io) = (
            dice.between(10_000, 80_000),
            dice.between(200_000, 4_000_000),
        );
        let (by_other, reclaim) = (dice.between(0, 40), dice.between(0, 10));
        let sim = world.sim(name);
        sim.wait_ns = wait;
        sim.io_ns = io;
        sim.preempted_by_other_per_s = by_other;
        sim.preempted_by_revocable_per_s = 0;
        sim.reclaim_permille = reclaim;
    }
}

/// Whether the culprit presses: once it is held back nobody suffers from it any more.
fn presses(world: &mut World, cause: Cause) -> bool {
    let culprit = world.sim(CULPRIT);
    match cause {
        Cause::Hog | Cause::ShortProcesses => !culprit.is_held(),
        Cause::MemoryHog | Cause::DiskHog => !culprit.is_frozen(),
        Cause::OwnQuota | Cause::OwnMemoryLimit | Cause::OwnTraffic => true,
    }
}

/// Everything that the cause does in one sample.
fn plant(world: &mut World, dice: &mut Dice, cause: Cause, revocable: bool) {
    match cause {
        Cause::OwnQuota => {
            let own_ns = dice.between(2_000_000, 60_000_000);
            let told = dice.coin();
            let victim = world.sim(VICTIM);
            victim.view.cpu_limit_milli = Some(victim.wants_milli);
            victim.throttled_permille = 200;
            // The kernel tells the wait's own part or not; then all of it looks like any other.
            if told {
                victim.wait_own_ns = Some(own_ns);
            }
            victim.wait_ns = own_ns / 4;
            victim.preempted_by_other_per_s = 300;
            victim.preempted_by_revocable_per_s = 100;
        }
        Cause::OwnMemoryLimit => {
            let victim = world.sim(VICTIM);
            victim.mem_limit_bytes = Some(victim.mem_bytes);
            victim.reclaim_permille = dice.between(200, 900);
            world.mem_available_bytes = dice.between(500, 7_000) << 20;
        }
        Cause::OwnTraffic => {
            let victim = world.sim(VICTIM);
            victim.disk_bytes_per_s = dice.between(50, 300) << 20;
            victim.io_ns = dice.between(30_000_000, 400_000_000);
        }
        Cause::Hog | Cause::ShortProcesses => {
            let takes = dice.between(1_500, 3_500);
            let wait = dice.between(1_000_000, 20_000_000);
            let hit = dice.between(60, 800);
            let culprit = world.sim(CULPRIT);
            culprit.wants_milli = takes;
            if cause == Cause::ShortProcesses {
                culprit.forks_per_s = dice.between(200, 2_000);
            }
            let victim = world.sim(VICTIM);
            victim.wait_ns = wait;
            if revocable {
                victim.preempted_by_revocable_per_s = hit;
            } else {
                victim.preempted_by_other_per_s = hit;
            }
        }
        Cause::MemoryHog => {
            let stalls = dice.between(150, 900);
            world.sim(CULPRIT).mem_bytes = dice.between(3_000, 6_000) << 20;
            world.mem_available_bytes = dice.between(450, 1_500) << 20;
            world.sim(VICTIM).reclaim_permille = stalls;
        }
        Cause::DiskHog => {
            world.sim(CULPRIT).disk_bytes_per_s = dice.between(50, 400) << 20;
            let victim = world.sim(VICTIM);
            victim.disk_bytes_per_s = dice.between(64, 2_000) << 10;
            victim.io_ns = dice.between(30_000_000, 500_000_000);
        }
    }
}

/// Plays one case: six seconds of quiet, then four in which the cause is there.
fn play(seed: u64, cause: Cause) -> Score {
    let mut dice = Dice(seed ^ ((cause as u64) << 56));
    let revocable = dice.coin();
    let mut world = quiet(&mut dice, revocable);
    let mut score = Score::default();
    for sample in 0..100 {
        noise(&mut world, &mut dice);
        if sample >= 60 && presses(&mut world, cause) {
            plant(&mut world, &mut dice, cause, revocable);
        }
        let outcome = world.step();
        for one in &outcome.usage.disturbances {
            for (place, by) in one.by.iter().enumerate() {
                let right = Cause::BY_OTHERS.contains(&cause)
                    && sample >= 60
                    && one.task_id.as_str() == VICTIM
                    && one.resource == cause.resource()
                    && by.task_id.as_str() == CULPRIT;
                if right {
                    score.found |= place == 0;
                } else {
                    score.wrong.insert((one.resource, by.task_id.to_string()));
                }
            }
        }
        for correction in &outcome.usage.corrections {
            let blames = matches!(
                correction.signal,
                Signal::MemoryStall | Signal::DiskLatency | Signal::RunQueueLatency
            );
            let guilty = Cause::BY_OTHERS.contains(&cause)
                && sample >= 60
                && correction.task_id.as_str() == CULPRIT;
            if correction.action == CorrectionAction::Release {
                continue;
            }
            // Held back at once is as good as named: there is nothing left to name.
            if guilty {
                score.found = true;
            } else if blames {
                let who = correction.task_id.to_string();
                score.wrong.insert((cause.resource(), who));
            }
        }
    }
    score
}

#[test]
fn planted_neighbours_are_found_and_nobody_else_is_named() {
    let (mut planted, mut found, mut named, mut wrong) = (0u32, 0u32, 0u32, Vec::new());
    for cause in Cause::BY_OTHERS {
        for seed in 0..250 {
            let score = play(seed, cause);
            planted += 1;
            found += u32::from(score.found);
            named += u32::from(score.found) + score.wrong.len() as u32;
            if !score.found || !score.wrong.is_empty() {
                wrong.push((cause, seed, score));
            }
        }
    }
    println!("planted {planted}, found {found}, named {named}");
    let shown = &wrong[..wrong.len().min(12)];
    assert!(
        found * 100 >= planted * 95,
        "recall {found}/{planted}: {shown:?}"
    );
    assert!(
        found * 100 >= named * 98,
        "precision {found}/{named}: {shown:?}"
    );
}

#[test]
fn of_a_thousand_tasks_under_their_own_quota_none_blames_anybody() {
    for seed in 0..1_000 {
        let score = play(seed, Cause::OwnQuota);
        assert!(score.wrong.is_empty(), "seed {seed}: {score:?}");
    }
}

#[test]
fn whoever_meets_his_own_limit_or_fills_the_disk_himself_blames_nobody() {
    for cause in Cause::OWN {
        for seed in 0..200 {
            let score = play(seed, cause);
            assert!(score.wrong.is_empty(), "{cause:?}, seed {seed}: {score:?}");
        }
    }
}
