//! The chain in loom's model of the memory: the interleavings that loom tells apart.
//!
//! Run with `cargo test -p ebb-master --features loom --test loom_chain`.
//!
//! What is checked in every interleaving of the one thread that hangs messages in and the one that takes them: each
//! message is taken once, in its order, and seen with all that was written before it; where one takes the place of all
//! that wait, what follows is what was hung in later; and wherever the reader stands, a message is hung in with at most two
//! exchanges, so a reader that is paused stops nobody. Planted faults show that the model finds what it is to find.

#![cfg(feature = "loom")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use ebb_master::chain_model::{Exchange, LoadThenStore, ModelledChain, Sound, Unordered};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

/// Messages of a run.
const MESSAGES: usize = 4;
/// More than ever wait.
const NO_BOUND: usize = 100;
/// The first exchange fails if all was taken meanwhile; nobody else hangs anything in, so the second cannot.
const MAX_EXCHANGES: usize = 2;

/// A chain of numbers, and what is written before each is hung in.
struct Line<E: Exchange> {
    chain: ModelledChain<usize, E>,
    written: Vec<AtomicUsize>,
}

impl<E: Exchange> Line<E> {
    fn new() -> Self {
        Self {
            chain: ModelledChain::new(),
            written: (0..MESSAGES).map(|_| AtomicUsize::new(0)).collect(),
        }
    }

    /// Hangs in a message, or leaves it in the place of all where too many wait; whether it did that.
    fn say(&self, message: usize, most: usize) -> bool {
        self.written[message].store(message + 1, Ordering::Relaxed);
        let (pushed, exchanges) = self.chain.push(message, most);
        assert!(
            exchanges <= MAX_EXCHANGES,
            "{exchanges} exchanges to hang in one message"
        );
        let Err(message) = pushed else { return false };
        self.chain.replace(message);
        true
    }

    fn hear(&self) -> Vec<usize> {
        let heard = self.chain.take();
        for message in &heard {
            let seen = self.written[*message].load(Ordering::Relaxed);
            assert_eq!(
                seen,
                message + 1,
                "what was written before {message} is not seen"
            );
        }
        heard
    }
}

/// One thread says all messages but the first while another listens. What was heard, and which messages took the place of
/// those before. (The first is there from the beginning: of a thread that has only looked so far, loom forgets that when
/// another looks too, and then explores too little.)
fn explore<E: Exchange + Send + Sync + 'static>(
    most: usize,
    check: impl Fn(&[usize], &[bool]) + Send + Sync + 'static,
) {
    // What was heard, and how much of it before the end. A mutex of the standard library, which loom does not see.
    let ways = Arc::new(Mutex::new(BTreeSet::new()));
    let count = Arc::clone(&ways);
    loom::model(move || {
        let line = Arc::new(Line::<E>::new());
        let mut replaced = vec![line.say(0, most)];
        let speaking = Arc::clone(&line);
        let speaker = thread::spawn(move || {
            let rest = 1..MESSAGES;
            rest.map(|message| speaking.say(message, most))
                .collect::<Vec<bool>>()
        });
        let mut heard = line.hear();
        heard.extend(line.hear());
        let between = heard.len();
        replaced.extend(speaker.join().expect("no panic"));
        heard.extend(line.hear());
        check(&heard, &replaced);
        let mut ways = count.lock().unwrap_or_else(PoisonError::into_inner);
        ways.insert((heard, between));
    });
    let ways = ways.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(ways.len() >= MESSAGES, "too little was explored: {ways:?}");
}

fn all_once_in_order<E: Exchange + Send + Sync + 'static>() {
    explore::<E>(NO_BOUND, |heard, replaced| {
        assert!(!replaced.contains(&true));
        let all: Vec<usize> = (0..MESSAGES).collect();
        assert_eq!(heard, all, "not all were taken once and in order");
    });
}

#[test]
fn every_message_is_taken_once_and_in_order() {
    all_once_in_order::<Sound>();
}

#[test]
fn a_message_in_the_place_of_all_that_wait_leaves_out_only_those() {
    explore::<Sound>(1, |heard, replaced| {
        assert!(heard.is_sorted_by(|a, b| a < b), "{heard:?}");
        assert_eq!(heard.last(), Some(&(MESSAGES - 1)), "the last is lost");
        for message in 0..MESSAGES {
            let followed = replaced[message + 1..].contains(&true);
            assert!(
                heard.contains(&message) || followed,
                "{message} is lost: {heard:?}, {replaced:?}"
            );
        }
    });
}

#[test]
#[should_panic(expected = "not all were taken once and in order")]
fn a_load_and_a_store_instead_of_an_exchange_are_found() {
    all_once_in_order::<LoadThenStore>();
}

#[test]
#[should_panic(expected = "is not seen")]
fn an_exchange_that_publishes_nothing_is_found() {
    all_once_in_order::<Unordered>();
}
