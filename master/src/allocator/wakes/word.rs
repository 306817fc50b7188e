//! The words that wakes are made of: those of the processor, and those of loom's model.

use std::sync::atomic::{AtomicU64, Ordering};

/// A word in the memory that threads share.
pub(in crate::allocator) trait Word {
    fn new(bits: u64) -> Self;
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, bits: u64, order: Ordering);
    fn swap(&self, bits: u64, order: Ordering) -> u64;
    fn fetch_or(&self, bits: u64, order: Ordering) -> u64;
}

impl Word for AtomicU64 {
    fn new(bits: u64) -> Self {
        Self::new(bits)
    }

    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    #[inline]
    fn store(&self, bits: u64, order: Ordering) {
        self.store(bits, order);
    }

    #[inline]
    fn swap(&self, bits: u64, order: Ordering) -> u64 {
        self.swap(bits, order)
    }

    #[inline]
    fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
        self.fetch_or(bits, order)
    }
}

/// The wakes on loom's model of the memory, for the model checker alone.
#[cfg(feature = "loom")]
pub mod model {
    use std::marker::PhantomData;

    use loom::sync::atomic::AtomicU64;

    use super::super::{WORD_BITS, Wakes};
    use super::{Ordering, Word};

    /// How a word is exchanged.
    pub trait Exchange {
        /// Puts `bits` in the place of what the word holds; what that was.
        fn swap(word: &AtomicU64, bits: u64, order: Ordering) -> u64;

        /// Adds `bits` to what the word holds; what that was.
        fn fetch_or(word: &AtomicU64, bits: u64, order: Ordering) -> u64;
    }

    /// As the product does.
    #[derive(Debug)]
    pub struct Sound;

    impl Exchange for Sound {
        fn swap(word: &AtomicU64, bits: u64, order: Ordering) -> u64 {
            word.swap(bits, order)
        }

        fn fetch_or(word: &AtomicU64, bits: u64, order: Ordering) -> u64 {
            word.fetch_or(bits, order)
        }
    }

    /// A planted fault: a load and a store instead of an exchange where bits are taken.
    #[derive(Debug)]
    pub struct TakenInTwo;

    impl Exchange for TakenInTwo {
        fn swap(word: &AtomicU64, bits: u64, _order: Ordering) -> u64 {
            let before = word.load(Ordering::Acquire);
            word.store(bits, Ordering::Release);
            before
        }

        fn fetch_or(word: &AtomicU64, bits: u64, order: Ordering) -> u64 {
            word.fetch_or(bits, order)
        }
    }

    /// A planted fault: a load and a store instead of an exchange where a bit is set.
    #[derive(Debug)]
    pub struct SetInTwo;

    impl Exchange for SetInTwo {
        fn swap(word: &AtomicU64, bits: u64, order: Ordering) -> u64 {
            word.swap(bits, order)
        }

        fn fetch_or(word: &AtomicU64, bits: u64, _order: Ordering) -> u64 {
            let before = word.load(Ordering::Acquire);
            word.store(before | bits, Ordering::Release);
            before
        }
    }

    /// A planted fault: exchanges that publish nothing.
    #[derive(Debug)]
    pub struct Unordered;

    impl Exchange for Unordered {
        fn swap(word: &AtomicU64, bits: u64, _order: Ordering) -> u64 {
            word.swap(bits, Ordering::Relaxed)
        }

        fn fetch_or(word: &AtomicU64, bits: u64, _order: Ordering) -> u64 {
            word.fetch_or(bits, Ordering::Relaxed)
        }
    }

    /// A word of the model.
    #[derive(Debug)]
    struct Modelled<E>(AtomicU64, PhantomData<E>);

    impl<E: Exchange> Word for Modelled<E> {
        fn new(bits: u64) -> Self {
            Self(AtomicU64::new(bits), PhantomData)
        }

        fn load(&self, order: Ordering) -> u64 {
            self.0.load(order)
        }

        fn store(&self, bits: u64, order: Ordering) {
            self.0.store(bits, order);
        }

        fn swap(&self, bits: u64, order: Ordering) -> u64 {
            E::swap(&self.0, bits, order)
        }

        fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
            E::fetch_or(&self.0, bits, order)
        }
    }

    /// Agents that wait, for the model.
    #[derive(Debug)]
    pub struct ModelledWakes<E>(Wakes<Modelled<E>>);

    impl<E: Exchange> ModelledWakes<E> {
        /// With a bit for each of so many words' agents.
        pub fn new(words: usize) -> Self {
            Self(Wakes::of_words(words))
        }

        /// The first agent of a word.
        pub const fn first_of(word: u32) -> u32 {
            word * WORD_BITS
        }

        /// Has an agent wait; whether it did not already.
        pub fn set(&self, agent: u32) -> bool {
            self.0.set(agent)
        }

        /// Has all that wait here wait there instead.
        pub fn move_to(&self, other: &Self) {
            self.0.move_to(&other.0);
        }

        /// Takes agents, word by word; `seen` is called for each as soon as its word was taken.
        pub fn take(&self, most: usize, mut seen: impl FnMut(u32)) {
            self.0.take(most, |bits| bits.map(&mut seen).count());
        }
    }
}
