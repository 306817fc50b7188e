//! The wakes in loom's model of the memory: every interleaving within the stated bounds.
//!
//! Run with `cargo test -p ebb-master --features loom --test loom_wakes`.
//!
//! What is checked in every interleaving: an agent is taken as often as its wake was new, so no wake is lost and none is
//! served twice; whoever takes an agent sees what was written before it was woken, and the last to take it sees the last
//! that was written. Taking and setting have no loops over what others do, so a thread that is stopped anywhere, which is
//! some beginning of these interleavings, stops nobody. Planted faults show that the model finds what it is to find.

#![cfg(feature = "loom")]

use ebb_master::allocator::model::{
    Exchange, ModelledWakes, SetInTwo, Sound, TakenInTwo, Unordered,
};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

/// Words of the model: agents of one word, and of several.
const WORDS: usize = 2;
/// All are taken at once.
const MANY: usize = 1_000;
/// Preemptions that are explored with three threads beside the first.
const PREEMPTIONS: Option<usize> = Some(3);

/// Wakes, and what each of some agents is looked at for.
struct Cluster<E> {
    wakes: ModelledWakes<E>,
    held_back: ModelledWakes<E>,
    agents: Vec<u32>,
    /// By the agent: what is written before a wake.
    written: Vec<AtomicUsize>,
}

/// What a thread has seen of each agent that it took, in order.
type Taken = Vec<(u32, usize)>;

impl<E: Exchange> Cluster<E> {
    fn new(agents: &[u32]) -> Self {
        Self {
            wakes: ModelledWakes::new(WORDS),
            held_back: ModelledWakes::new(WORDS),
            agents: agents.to_vec(),
            written: agents.iter().map(|_| AtomicUsize::new(0)).collect(),
        }
    }

    fn of(&self, agent: u32) -> &AtomicUsize {
        let at = self.agents.iter().position(|other| *other == agent);
        &self.written[at.expect("nobody else was woken")]
    }

    /// Writes something of an agent and wakes it; whether that was new.
    fn wake(&self, agent: u32, what: usize) -> usize {
        self.of(agent).store(what, Ordering::Relaxed);
        usize::from(self.wakes.set(agent))
    }

    fn take(&self, most: usize) -> Taken {
        let mut taken = Taken::new();
        self.wakes.take(most, |agent| {
            taken.push((agent, self.of(agent).load(Ordering::Relaxed)));
        });
        taken
    }
}

fn explore(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(model);
}

/// Each agent was taken as often as its wake was new, and after all was written.
fn check(agents: &[u32], new: &[usize], last: usize, taken: &Taken) {
    for (agent, new) in agents.iter().zip(new) {
        let seen: Vec<usize> = taken
            .iter()
            .filter(|(of, _)| of == agent)
            .map(|(_, what)| *what)
            .collect();
        assert_eq!(
            seen.len(),
            *new,
            "a wake of {agent} is lost, or served twice"
        );
        assert!(
            seen.contains(&last),
            "nobody saw the last of {agent}: {seen:?}"
        );
    }
}

/// Two threads wake one agent each, in one word or in two, while two take.
fn two_wake_two_take<E: Exchange + Send + Sync + 'static>(agents: [u32; 2]) {
    explore(PREEMPTIONS, move || {
        let cluster = Arc::new(Cluster::<E>::new(&agents));
        let wakers = agents.map(|agent| {
            let cluster = Arc::clone(&cluster);
            thread::spawn(move || cluster.wake(agent, 1))
        });
        let other = Arc::clone(&cluster);
        let taker = thread::spawn(move || other.take(MANY));
        let mut taken = cluster.take(1);
        let new = wakers.map(|waker| waker.join().expect("no panic"));
        taken.extend(taker.join().expect("no panic"));
        taken.extend(cluster.take(MANY));
        check(&agents, &new, 1, &taken);
    });
}

/// A thread wakes an agent twice, with something else each time, while another takes.
fn woken_again<E: Exchange + Send + Sync + 'static>() {
    explore(None, || {
        let agents = [3];
        let cluster = Arc::new(Cluster::<E>::new(&agents));
        let other = Arc::clone(&cluster);
        let waker = thread::spawn(move || other.wake(3, 1) + other.wake(3, 2));
        let mut taken = cluster.take(MANY);
        taken.extend(cluster.take(MANY));
        let new = waker.join().expect("no panic");
        taken.extend(cluster.take(MANY));
        check(&agents, &[new], 2, &taken);
    });
}

#[test]
fn no_wake_is_lost_and_none_is_served_twice() {
    let next_word = ModelledWakes::<Sound>::first_of(1);
    two_wake_two_take::<Sound>([3, 7]);
    two_wake_two_take::<Sound>([3, next_word]);
}

#[test]
fn two_wakes_of_one_agent_are_one_or_two_and_the_last_is_seen() {
    woken_again::<Sound>();
    explore(PREEMPTIONS, || {
        let cluster = Arc::new(Cluster::<Sound>::new(&[5]));
        let wakers = [(); 2].map(|()| {
            let cluster = Arc::clone(&cluster);
            thread::spawn(move || cluster.wake(5, 1))
        });
        let mut taken = cluster.take(MANY);
        let new = wakers.map(|waker| waker.join().expect("no panic"));
        taken.extend(cluster.take(MANY));
        check(&[5], &[new[0] + new[1]], 1, &taken);
    });
}

#[test]
fn what_was_held_back_is_moved_without_a_loss() {
    let agents = [3, ModelledWakes::<Sound>::first_of(1)];
    explore(PREEMPTIONS, move || {
        let cluster = Arc::new(Cluster::<Sound>::new(&agents));
        let other = Arc::clone(&cluster);
        let holder = thread::spawn(move || {
            agents.map(|agent| {
                other.of(agent).store(1, Ordering::Relaxed);
                usize::from(other.held_back.set(agent))
            })
        });
        let other = Arc::clone(&cluster);
        let mover = thread::spawn(move || other.held_back.move_to(&other.wakes));
        let mut taken = cluster.take(MANY);
        let new = holder.join().expect("no panic");
        mover.join().expect("no panic");
        cluster.held_back.move_to(&cluster.wakes);
        taken.extend(cluster.take(MANY));
        check(&agents, &new, 1, &taken);
    });
}

#[test]
#[should_panic(expected = "a wake of")]
fn a_word_that_is_taken_in_two_steps_is_found() {
    two_wake_two_take::<TakenInTwo>([3, 7]);
}

#[test]
#[should_panic(expected = "a wake of")]
fn a_bit_that_is_set_in_two_steps_is_found() {
    two_wake_two_take::<SetInTwo>([3, 7]);
}

#[test]
#[should_panic(expected = "nobody saw the last of")]
fn an_exchange_that_publishes_nothing_is_found() {
    woken_again::<Unordered>();
}
