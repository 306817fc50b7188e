//! Sets of small numbers as bits in words of 64, with a bit above for each word that has one in it: 4,096 numbers that
//! are not in the set are passed over in one step, and a word without any is not even looked at.

/// A set of numbers.
#[derive(Clone, Debug, Default)]
pub(in crate::core) struct Bits {
    words: Vec<u64>,
    above: Vec<u64>,
    len: usize,
}

impl Bits {
    pub(in crate::core) const fn len(&self) -> usize {
        self.len
    }

    pub(in crate::core) fn has(&self, number: u32) -> bool {
        let word = self.words.get(number as usize / 64);
        word.is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    pub(in crate::core) fn set(&mut self, number: u32) {
        let page = number as usize / 64;
        if page >= self.words.len() {
            self.words.resize(page + 1, 0);
            self.above.resize(page / 64 + 1, 0);
        }
        let bit = 1 << (number % 64);
        self.len += usize::from(self.words[page] & bit == 0);
        self.words[page] |= bit;
        self.above[page / 64] |= 1 << (page % 64);
    }

    pub(in crate::core) fn unset(&mut self, number: u32) {
        let page = number as usize / 64;
        let bit = 1 << (number % 64);
        let Some(word) = self.words.get_mut(page).filter(|word| **word & bit != 0) else {
            return;
        };
        self.len -= 1;
        *word &= !bit;
        if *word == 0 {
            self.above[page / 64] &= !(1 << (page % 64));
        }
    }

    /// The numbers from 64 times this one on.
    #[inline]
    pub(in crate::core) fn word(&self, page: u32) -> u64 {
        match self.above.get(page as usize / 64) {
            Some(above) if above & (1 << (page % 64)) != 0 => self.words[page as usize],
            _ => 0,
        }
    }

    pub(in crate::core) fn clear(&mut self) {
        if self.len == 0 {
            return;
        }
        for (number, above) in self.above.iter_mut().enumerate() {
            while *above != 0 {
                self.words[number * 64 + above.trailing_zeros() as usize] = 0;
                *above &= *above - 1;
            }
        }
        self.len = 0;
    }

    /// The words with a bit in them, in order, and which ones they are.
    #[inline]
    pub(in crate::core) fn pages(&self) -> Pages<'_> {
        Pages {
            bits: self,
            number: 0,
            rest: self.above.first().copied().unwrap_or(0),
        }
    }

    /// All of them, in order.
    pub(in crate::core) fn iter(&self) -> impl Iterator<Item = u32> {
        self.pages().flat_map(|(page, word)| {
            (0..64).filter_map(move |bit| (word & (1 << bit) != 0).then_some(page * 64 + bit))
        })
    }
}

/// The words of a set with a bit in them.
pub(in crate::core) struct Pages<'a> {
    bits: &'a Bits,
    /// Which word above is looked at, and what of it is to come.
    number: u32,
    rest: u64,
}

impl Iterator for Pages<'_> {
    type Item = (u32, u64);

    #[inline]
    fn next(&mut self) -> Option<(u32, u64)> {
        while self.rest == 0 {
            self.number += 1;
            self.rest = *self.bits.above.get(self.number as usize)?;
        }
        let page = self.number * 64 + self.rest.trailing_zeros();
        self.rest &= self.rest - 1;
        Some((page, self.bits.words[page as usize]))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_are_a_set(changes in prop::collection::vec((0..20_000u32, any::<bool>()), 0..200)) {
            let (mut bits, mut set) = (Bits::default(), BTreeSet::new());
            for (number, is_in) in changes {
                if is_in {
                    bits.set(number);
                    set.insert(number);
                } else {
                    bits.unset(number);
                    set.remove(&number);
                }
                prop_assert_eq!(bits.has(number), is_in);
                prop_assert_eq!(bits.len(), set.len());
            }
            prop_assert!(bits.iter().eq(set.iter().copied()));
            prop_assert!(bits.pages().all(|(page, word)| word != 0 && bits.word(page) == word));
            bits.clear();
            prop_assert!(bits.len() == 0 && bits.iter().next().is_none());
        }
    }
}
