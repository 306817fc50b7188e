//! The ledger's slot in loom's model of the memory: every interleaving within the stated bounds.
//!
//! Run with `cargo test -p ebb-master --features loom --test loom`; the wakes and the chain have files of their own.
//!
//! What is checked in every interleaving: versions are given out once each; replaying the successful
//! transitions in the order of their versions gives each of them just the ledger that it was told
//! (so no update is lost and the whole is linearizable); a refused transition and a load fit some
//! moment between the thread's steps before and after; conservation holds throughout. Two planted
//! faults show that the model finds what it is to find.

#![cfg(feature = "loom")]

use std::collections::BTreeMap;

use ebb_master::ledger::model::{Exchange, LoadThenStore, Modelled, Sound, Unordered};
use ebb_master::ledger::{AgentLedger, Refused, Slot, Transition};
use ebb_types::{Incarnation, Quantities, Resources};
use loom::sync::Arc;
use loom::thread;

const LIFE: Incarnation = Incarnation(3);
/// Preemptions that are explored where two threads make one transition each: all.
const ALL_PREEMPTIONS: Option<usize> = None;
/// Preemptions that are explored with three threads of random steps.
const PREEMPTIONS_OF_THREE: Option<usize> = Some(3);
/// Random programs that are explored.
const PROGRAMS: u64 = 60;
const STEPS_PER_THREAD: u64 = 2;

/// What a thread does, and what came of it.
#[derive(Clone, Copy, Debug)]
enum Step {
    Apply(Transition),
    Load,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Applied(Transition, AgentLedger),
    Refused(Transition, Refused),
    Loaded(AgentLedger),
}

fn amount(units: u64) -> Resources {
    let part = Quantities::cpus_mem(units, units);
    Resources {
        regular: part,
        revocable: part,
    }
}

/// Ten units, of which four are offered, three are allocated and three are free.
fn start() -> AgentLedger {
    let ten = amount(10).regular;
    let steps = [
        Transition::Offer(amount(7)),
        Transition::Accept {
            offered: amount(3),
            used: amount(3),
        },
    ];
    steps
        .iter()
        .try_fold(AgentLedger::new(LIFE, ten, ten), |ledger, step| {
            ledger.apply(step)
        })
        .expect("the start is possible")
}

/// One of each kind, each possible at the start; many of the pairs are not possible together.
fn one_of_each() -> Vec<Transition> {
    vec![
        Transition::Offer(amount(3)),
        Transition::Accept {
            offered: amount(4),
            used: amount(2),
        },
        Transition::Decline(amount(4)),
        Transition::Rescind(amount(4)),
        Transition::Recover(amount(3)),
        Transition::Resize {
            total: amount(7).regular,
            oversubscribed: amount(2).revocable,
        },
        Transition::Restore(amount(2)),
        Transition::Retire,
    ]
}

fn run<E: Exchange + 'static>(slot: &Slot<Modelled<E>>, steps: &[Step]) -> Vec<Outcome> {
    steps
        .iter()
        .map(|step| match step {
            Step::Load => Outcome::Loaded(slot.load()),
            Step::Apply(transition) => match slot.apply(&(), LIFE, transition, |after| *after).0 {
                Ok(after) => Outcome::Applied(*transition, after),
                Err(refused) => Outcome::Refused(*transition, refused),
            },
        })
        .collect()
}

fn explore<E: Exchange + Send + Sync + 'static>(
    programs: Vec<Vec<Step>>,
    preemptions: Option<usize>,
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        let slot = Arc::new(Slot::<Modelled<E>>::new(start()));
        let (mine, others) = programs.split_first().expect("there is a program");
        let threads: Vec<_> = others
            .iter()
            .cloned()
            .map(|steps| {
                let slot = Arc::clone(&slot);
                thread::spawn(move || run(&slot, &steps))
            })
            .collect();
        let mut outcomes = vec![run(&slot, mine)];
        for thread in threads {
            outcomes.push(thread.join().expect("no thread panics"));
        }
        check(&slot.load(), &outcomes);
    });
}

/// Checks what all threads saw against one sequence of ledgers.
fn check(last: &AgentLedger, outcomes: &[Vec<Outcome>]) {
    let mut applied = BTreeMap::new();
    for outcome in outcomes.iter().flatten() {
        if let Outcome::Applied(transition, after) = outcome {
            let twice = applied.insert(after.version, (*transition, *after));
            assert!(
                twice.is_none(),
                "an update was lost: {outcome:?} and {twice:?}"
            );
        }
    }
    let mut history = vec![start()];
    for (transition, after) in applied.values() {
        let before = history.last().expect("there is a start");
        assert_eq!(before.apply(transition), Ok(*after), "an update was lost");
        assert_eq!(after.check(), Ok(()));
        history.push(*after);
    }
    assert_eq!(history.last(), Some(last), "an update was lost");
    for steps in outcomes {
        check_order(steps, &history);
    }
}

/// Checks that the steps of one thread fit the history in their order.
fn check_order(steps: &[Outcome], history: &[AgentLedger]) {
    let mut earliest = 0;
    for step in steps {
        let fits = |at: &usize| match step {
            Outcome::Applied(_, after) => history[*at] == *after,
            Outcome::Loaded(seen) => history[*at] == *seen,
            Outcome::Refused(transition, refused) => {
                let ledger = &history[*at];
                if ledger.incarnation == LIFE {
                    ledger.apply(transition) == Err(*refused)
                } else {
                    matches!(refused, Refused::Incarnation { ours, .. } if *ours == ledger.incarnation)
                }
            }
        };
        earliest = (earliest..history.len())
            .find(fits)
            .unwrap_or_else(|| panic!("{step:?} fits no moment of {history:?}"));
    }
}

#[test]
fn every_pair_of_transitions_is_linearizable_beside_a_reader() {
    let kinds = one_of_each();
    let mut pairs = 0;
    for (index, first) in kinds.iter().enumerate() {
        assert!(
            start().apply(first).is_ok(),
            "{first:?} is not possible at the start"
        );
        for second in &kinds[index..] {
            let programs = vec![
                vec![Step::Load, Step::Load],
                vec![Step::Apply(*first)],
                vec![Step::Apply(*second)],
            ];
            explore::<Sound>(programs, ALL_PREEMPTIONS);
            pairs += 1;
        }
    }
    assert_eq!(pairs, 36);
}

fn dice(seed: &mut u64, sides: u64) -> u64 {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % sides
}

fn random_step(seed: &mut u64) -> Step {
    let some = amount(1 + dice(seed, 4));
    match dice(seed, 9) {
        0 | 1 => Step::Apply(Transition::Offer(some)),
        2 => Step::Apply(Transition::Accept {
            offered: some,
            used: amount(1),
        }),
        3 => Step::Apply(Transition::Decline(some)),
        4 => Step::Apply(Transition::Rescind(some)),
        5 => Step::Apply(Transition::Recover(some)),
        6 => Step::Apply(Transition::Resize {
            total: amount(6 + dice(seed, 6)).regular,
            oversubscribed: amount(dice(seed, 10)).revocable,
        }),
        7 => Step::Apply(Transition::Restore(some)),
        _ => Step::Load,
    }
}

#[test]
fn three_threads_of_random_transitions_are_linearizable() {
    for program in 0..PROGRAMS {
        let mut seed = program;
        let programs = (0..3)
            .map(|_| {
                (0..STEPS_PER_THREAD)
                    .map(|_| random_step(&mut seed))
                    .collect()
            })
            .collect();
        explore::<Sound>(programs, PREEMPTIONS_OF_THREE);
    }
}

fn two_that_write() -> Vec<Vec<Step>> {
    vec![
        vec![Step::Apply(Transition::Decline(amount(4)))],
        vec![Step::Apply(Transition::Recover(amount(3)))],
    ]
}

#[test]
#[should_panic(expected = "an update was lost")]
fn a_load_and_a_store_instead_of_an_exchange_are_found() {
    explore::<LoadThenStore>(two_that_write(), ALL_PREEMPTIONS);
}

#[test]
#[should_panic(expected = "ausality violation")]
fn an_exchange_that_publishes_nothing_is_found() {
    explore::<Unordered>(two_that_write(), ALL_PREEMPTIONS);
}

#[test]
fn the_programs_that_find_the_faults_pass_without_them() {
    explore::<Sound>(two_that_write(), ALL_PREEMPTIONS);
}
