//! Which agents wait to be looked at: a bit for each, in words of 64.
//!
//! An agent waits once however often it is woken. Waking sets a bit, taking exchanges a word for 0: each is one step that
//! cannot fail, wait or be seen half done, so a thread that is paused anywhere holds back nothing but the words that it
//! has taken. (In a ring buffer, such as that of crossbeam-queue, a push and a pop are two steps each; whoever comes to the
//! place of a thread that is paused between them waits for it.) Nothing is full either: all agents can wait at once.
//!
//! The atomic steps stand behind [`Word`], so that the same code runs on the processor's words in the product and on loom's
//! model of the memory in the tests (feature `loom`).
//!
//! The price: a thread that finds nothing has looked at [`WORDS`] words, and agents are taken by number, from where the
//! last thread stopped, not in the order in which they were woken.

mod word;

use std::sync::atomic::{AtomicU64, Ordering};

use self::word::Word;
use crate::core::limits::MAX_AGENTS;
use crate::steps::step;

#[cfg(feature = "loom")]
pub use word::model;

/// Agents with a bit of their own; beyond that several share one, and are looked at together.
pub(super) const BITS: u32 = 1 << 16;
const WORD_BITS: u32 = u64::BITS;
const WORDS: usize = (BITS / WORD_BITS) as usize;

const _: () = assert!(MAX_AGENTS <= BITS as usize);

/// The agents that wait.
#[derive(Debug)]
pub(super) struct Wakes<W = AtomicU64> {
    words: Box<[W]>,
    /// Where the next thread begins.
    next: W,
}

impl Wakes {
    pub(super) fn new() -> Self {
        Self::of_words(WORDS)
    }
}

impl<W: Word> Wakes<W> {
    fn of_words(words: usize) -> Self {
        Self {
            words: (0..words).map(|_| W::new(0)).collect(),
            next: W::new(0),
        }
    }

    /// Has an agent wait; whether it did not already.
    ///
    /// An exchange: either it comes before a [`Self::take`] of its word, and then all that was written before it is seen
    /// by the loads that follow there; or it finds the bit cleared and sets it again.
    pub(super) fn set(&self, agent: u32) -> bool {
        let bit = agent % BITS;
        let mask = 1 << (bit % WORD_BITS);
        step("wake");
        self.words[(bit / WORD_BITS) as usize].fetch_or(mask, Ordering::AcqRel) & mask == 0
    }

    /// Has all agents with numbers below `end` wait, and perhaps some that do not exist.
    pub(super) fn set_all(&self, end: u32) {
        let words = end.min(BITS).div_ceil(WORD_BITS) as usize;
        for word in &self.words[..words] {
            step("wake all");
            word.fetch_or(u64::MAX, Ordering::AcqRel);
        }
    }

    /// Has all that wait here wait there instead.
    pub(super) fn move_to(&self, other: &Self) {
        for (from, to) in self.words.iter().zip(&other.words) {
            step("move");
            if from.load(Ordering::Acquire) == 0 {
                continue;
            }
            let word = from.swap(0, Ordering::AcqRel);
            step("moved");
            to.fetch_or(word, Ordering::AcqRel);
        }
    }

    /// Takes words out, until `most` agents were found or no bit is left. `find` is given the bits of one word as soon as
    /// they are taken, and says how many agents they stand for. To be called before their ledgers are loaded and the
    /// claims are read.
    pub(super) fn take(&self, most: usize, mut find: impl FnMut(Bits) -> usize) {
        let words = self.words.len();
        let start = self.next.load(Ordering::Relaxed) as usize;
        let mut found = 0;
        for at in (start..words).chain(0..start) {
            if self.words[at].load(Ordering::Acquire) == 0 {
                continue;
            }
            step("take");
            let word = self.words[at].swap(0, Ordering::AcqRel);
            step("taken");
            let first = at as u32 * WORD_BITS;
            found += find(Bits { first, word });
            if found >= most {
                let next = ((at + 1) % words) as u64;
                self.next.store(next, Ordering::Relaxed);
                return;
            }
        }
    }
}

/// Bits of one word, by their numbers.
pub(super) struct Bits {
    first: u32,
    word: u64,
}

impl Iterator for Bits {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let bit = self.word.trailing_zeros();
        self.word &= self.word.checked_sub(1)?;
        Some(self.first + bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(wakes: &Wakes, most: usize) -> Vec<u32> {
        let mut taken = Vec::new();
        wakes.take(most, |bits| {
            let before = taken.len();
            taken.extend(bits);
            taken.len() - before
        });
        taken
    }

    #[test]
    fn what_was_woken_is_taken_once() {
        let wakes = Wakes::new();
        assert!(wakes.set(3) && wakes.set(200) && wakes.set(BITS + 5));
        assert!(!wakes.set(200), "it waits already");
        assert_eq!(take(&wakes, 100), [3, 5, 200]);
        assert_eq!(take(&wakes, 100), []);
        assert!(wakes.set(200));
    }

    #[test]
    fn what_is_moved_waits_in_one_place() {
        let (here, there) = (Wakes::new(), Wakes::new());
        assert!(here.set(3) && here.set(700) && there.set(4));
        here.move_to(&there);
        assert_eq!(
            (take(&here, 100), take(&there, 100)),
            (vec![], vec![3, 4, 700])
        );
    }

    #[test]
    fn the_next_thread_goes_on_where_the_last_one_stopped() {
        let wakes = Wakes::new();
        wakes.set_all(130);
        assert_eq!(take(&wakes, 64), (0..64).collect::<Vec<_>>());
        wakes.set(1);
        assert_eq!(take(&wakes, 1), (64..128).collect::<Vec<_>>());
        assert_eq!(
            take(&wakes, 1000),
            (128..192).chain([1]).collect::<Vec<_>>()
        );
    }
}
