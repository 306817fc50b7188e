//! Transitions one after the other, against books kept by hand, and from eight threads at once.

use std::collections::BTreeMap;

use ebb_types::{AgentId, Incarnation, Quantities, Resources};
use proptest::prelude::*;

use super::{AgentLedger, Ledger, MAX_EXCHANGE_ATTEMPTS, RETIRED, Refused, Slot, Transition, pin};

const LIFE: Incarnation = Incarnation(7);

fn quantities() -> impl Strategy<Value = Quantities> {
    (0..8u64, 0..8u64).prop_map(|(cpu, mem)| Quantities::cpus_mem(cpu, mem))
}

fn resources() -> impl Strategy<Value = Resources> {
    (quantities(), quantities()).prop_map(|(regular, revocable)| Resources { regular, revocable })
}

fn transition() -> impl Strategy<Value = Transition> {
    prop_oneof![
        4 => resources().prop_map(Transition::Offer),
        3 => (resources(), resources())
            .prop_map(|(offered, used)| Transition::Accept { offered, used }),
        1 => (resources(), resources(), resources()).prop_map(|(offered, used, total)| Transition::Convert { offered, used, total: total.regular }),
        1 => resources().prop_map(Transition::Decline),
        1 => resources().prop_map(Transition::Rescind),
        2 => resources().prop_map(Transition::Recover),
        1 => (quantities(), quantities())
            .prop_map(|(total, oversubscribed)| Transition::Resize { total, oversubscribed }),
        1 => resources().prop_map(Transition::Restore),
    ]
}

/// What a transition moves, as differences of (offered, allocated).
fn moves(transition: &Transition) -> (Resources, Resources, Resources, Resources) {
    let none = Resources::ZERO;
    match *transition {
        Transition::Offer(r) => (r, none, none, none),
        Transition::Accept { offered, used } | Transition::Convert { offered, used, .. } => {
            (none, offered, used, none)
        }
        Transition::Decline(r) | Transition::Rescind(r) => (none, r, none, none),
        Transition::Recover(r) => (none, none, none, r),
        Transition::Restore(r) => (none, none, r, none),
        Transition::Resize { .. } | Transition::Retire => (none, none, none, none),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn transitions_conserve_and_move_just_what_they_say(
        total in quantities(), lent in quantities(),
        transitions in prop::collection::vec(transition(), 0..40)
    ) {
        let mut ledger = AgentLedger::new(LIFE, total, lent);
        for transition in &transitions {
            let Ok(next) = ledger.apply(transition) else { continue };
            prop_assert_eq!(next.check(), Ok(()));
            prop_assert_eq!(next.version, ledger.version + 1);
            let (offer, unoffer, allocate, deallocate) = moves(transition);
            prop_assert_eq!(
                next.offered.checked_add(&unoffer),
                ledger.offered.checked_add(&offer)
            );
            prop_assert_eq!(
                next.allocated.checked_add(&deallocate),
                ledger.allocated.checked_add(&allocate)
            );
            // Nothing but an estimate that falls, or a task that came back, passes what is lent.
            let may_overdraw = matches!(transition, Transition::Resize { .. } | Transition::Restore(_));
            prop_assert!(may_overdraw || ledger.overdrawn().contains(&next.overdrawn()));
            ledger = next;
        }
    }

    #[test]
    fn what_is_refused_could_not_have_been_done(
        total in quantities(), lent in quantities(),
        transitions in prop::collection::vec(transition(), 1..40)
    ) {
        let mut ledger = AgentLedger::new(LIFE, total, lent);
        for transition in &transitions {
            match (ledger.apply(transition), transition) {
                (Ok(next), _) => ledger = next,
                (Err(_), Transition::Offer(r)) => prop_assert!(!ledger.free().contains(r)),
                (Err(_), Transition::Accept { offered, used }) => {
                    prop_assert!(!ledger.offered.contains(offered) || !offered.contains(used));
                }
                (Err(_), Transition::Convert { offered, used, total }) => {
                    let accepted = ledger.apply(&Transition::Accept {
                        offered: *offered,
                        used: *used,
                    });
                    let fits = accepted.is_ok_and(|next| total.contains(&next.in_use().regular));
                    prop_assert!(!fits);
                }
                (Err(_), Transition::Decline(r) | Transition::Rescind(r)) => {
                    prop_assert!(!ledger.offered.contains(r));
                }
                (Err(_), Transition::Recover(r)) => prop_assert!(!ledger.allocated.contains(r)),
                (Err(_), Transition::Resize { total, .. }) => {
                    prop_assert!(!total.contains(&ledger.in_use().regular));
                }
                (Err(_), Transition::Restore(r)) => {
                    prop_assert!(!ledger.free().regular.contains(&r.regular));
                }
                (Err(refused), Transition::Retire) => prop_assert!(false, "{refused}"),
            }
        }
    }
}

#[test]
fn a_task_that_is_recovered_twice_is_refused_the_second_time() {
    let all = Resources::regular(Quantities::cpus_mem(4000, 1 << 30));
    let ledger = AgentLedger::new(LIFE, all.regular, Quantities::ZERO);
    let offered = ledger.apply(&Transition::Offer(all)).unwrap();
    let accept = Transition::Accept {
        offered: all,
        used: all,
    };
    let used = offered.apply(&accept).unwrap();
    let recovered = used.apply(&Transition::Recover(all)).unwrap();
    let twice = recovered.apply(&Transition::Recover(all));
    assert_eq!(twice, Err(Refused::NotAllocated { missing: all }));
    assert!(matches!(
        used.apply(&accept),
        Err(Refused::NotOffered { .. })
    ));
    assert!(twice.unwrap_err().to_string().contains("cpus:4.000"));
}

#[test]
fn the_largest_quantities_neither_wrap_nor_panic() {
    let most = Quantities::cpus_mem(u64::MAX, u64::MAX);
    let both = Resources {
        regular: most,
        revocable: most,
    };
    let ledger = AgentLedger::new(LIFE, most, most);
    let offered = ledger.apply(&Transition::Offer(both)).unwrap();
    assert!(offered.apply(&Transition::Offer(both)).is_err());
    let lent = Resources::revocable(most);
    assert_eq!(
        offered.apply(&Transition::Restore(lent)),
        Err(Refused::Overflow)
    );
}

#[test]
fn a_message_to_another_life_of_the_agent_is_refused() {
    let all = Quantities::cpus_mem(1, 1);
    let slot: Slot = Slot::new(AgentLedger::new(LIFE, all, all));
    let (result, conflicts) = slot.apply(
        &pin(),
        Incarnation(6),
        &Transition::Offer(Resources::ZERO),
        |after| *after,
    );
    assert_eq!((result.is_err(), conflicts), (true, 0));
    assert_eq!(slot.load().version, 0);
    assert!(conflicts < MAX_EXCHANGE_ATTEMPTS);
}

#[test]
fn a_removed_or_replaced_agent_offers_nothing_to_those_who_still_hold_its_slot() {
    let all = Resources::regular(Quantities::cpus_mem(4000, 1 << 30));
    let id = AgentId::new("a").unwrap();
    let ledger = Ledger::new();
    let first = ledger.insert(
        id.clone(),
        0,
        AgentLedger::new(LIFE, all.regular, Quantities::ZERO),
    );
    let next = AgentLedger::new(Incarnation(8), all.regular, Quantities::ZERO);
    let second = ledger.insert(id.clone(), 0, next);
    for life in [LIFE, RETIRED] {
        assert!(first.apply(life, &Transition::Offer(all)).is_err());
    }
    assert!(
        second
            .apply(Incarnation(8), &Transition::Offer(all))
            .is_ok()
    );
    assert_eq!(ledger.remove(&id).map(|last| last.offered), Some(all));
    assert_eq!(second.load().free(), Resources::ZERO);
    let gone = ledger.apply(&id, Incarnation(8), &Transition::Decline(all));
    assert_eq!(gone, Err(Refused::NoAgent));
    assert_eq!(ledger.check(), Ok(()));
}

/// A generator of numbers that a thread can own (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % sides
    }
}

/// What one thread holds on one agent.
#[derive(Clone, Copy, Default)]
struct Book {
    offered: Resources,
    allocated: Resources,
}

const THREADS: u64 = 8;
const TRANSITIONS_PER_THREAD: u64 = 125_000;
const AGENTS: u64 = 4;

/// Makes random transitions, each of which must succeed or be refused for want of free resources.
fn churn(ledger: &Ledger, seed: u64) -> (u64, BTreeMap<AgentId, Book>) {
    let mut dice = Dice(seed);
    let mut books: BTreeMap<AgentId, Book> = BTreeMap::new();
    let mut applied = 0;
    for _ in 0..TRANSITIONS_PER_THREAD {
        let id = agent(dice.roll(AGENTS));
        let book = books.entry(id.clone()).or_default();
        let amount = Quantities::cpus_mem(1 + dice.roll(50), 1 + dice.roll(50));
        let wanted = if dice.roll(2) == 0 {
            Resources::regular(amount)
        } else {
            Resources::revocable(amount)
        };
        let (transition, next) = match dice.roll(4) {
            0 | 1 if book.offered.is_zero() => (
                Transition::Offer(wanted),
                Book {
                    offered: wanted,
                    ..*book
                },
            ),
            0 => (
                Transition::Decline(book.offered),
                Book {
                    offered: Resources::ZERO,
                    ..*book
                },
            ),
            1 if book.allocated.is_zero() => {
                let accept = Transition::Accept {
                    offered: book.offered,
                    used: book.offered,
                };
                (
                    accept,
                    Book {
                        offered: Resources::ZERO,
                        allocated: book.offered,
                    },
                )
            }
            _ => (
                Transition::Recover(book.allocated),
                Book {
                    allocated: Resources::ZERO,
                    ..*book
                },
            ),
        };
        match ledger.apply(&id, LIFE, &transition) {
            Ok(_) => {
                applied += 1;
                *book = next;
            }
            Err(Refused::NotFree { .. }) => {
                assert!(matches!(transition, Transition::Offer(_)));
            }
            Err(refused) => panic!("{transition:?}: {refused}"),
        }
    }
    (applied, books)
}

fn agent(number: u64) -> AgentId {
    AgentId::new(format!("agent-{number}")).unwrap()
}

#[test]
fn a_million_transitions_from_eight_threads_lose_nothing() {
    let ledger = Ledger::new();
    let total = Quantities::cpus_mem(200, 200);
    for number in 0..AGENTS {
        ledger.insert(
            agent(number),
            number as u32,
            AgentLedger::new(LIFE, total, total),
        );
    }
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|seed| {
                scope.spawn({
                    let ledger = &ledger;
                    move || churn(ledger, seed)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(ledger.check(), Ok(()));
    let applied: u64 = results.iter().map(|(applied, _)| applied).sum();
    let figures = ledger.stats().figures();
    assert_eq!(figures.applied, applied);
    assert_eq!(
        figures.applied + figures.refused,
        THREADS * TRANSITIONS_PER_THREAD
    );
    assert_eq!(figures.contended, 0);
    assert!(
        figures.refused > 0,
        "the agents never ran out, so nothing was fought over"
    );
    let versions: u64 = ledger
        .slots()
        .values()
        .map(|slot| slot.load().version)
        .sum();
    assert_eq!(versions, applied, "an update was lost");
    for (id, slot) in ledger.slots().iter() {
        let sum = |part: fn(&Book) -> Resources| {
            results
                .iter()
                .filter_map(|(_, books)| books.get(id))
                .fold(Resources::ZERO, |sum, book| {
                    sum.checked_add(&part(book)).unwrap()
                })
        };
        let last = slot.load();
        assert_eq!(last.offered, sum(|book| book.offered), "{id}");
        assert_eq!(last.allocated, sum(|book| book.allocated), "{id}");
    }
}
