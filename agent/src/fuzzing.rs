//! Texts of the kernel as it would never write them, for property tests of whatever reads them.
//!
//! A reader must not panic, must end soon, and must not make a figure up: what it says stands in the text, by itself or
//! as the sum that it is said to be.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;

/// One reading of one text may take so long, on a busy machine too.
pub(crate) const SOON: Duration = Duration::from_secs(2);

/// Numbers at which arithmetic breaks, and what is none.
const NUMBERS: [&str; 10] = [
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854771712",
    "-1",
    "+7",
    "0x10",
    "1e9",
    "1.5",
    "",
    "max",
];

/// A text that was spoilt in a few places.
pub(crate) fn spoilt(real: &'static str) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((0..9u8, any::<u32>(), any::<u32>()), 0..5)
        .prop_map(move |changes| changes.into_iter().fold(real.as_bytes().to_vec(), spoil))
}

/// A spoilt text, or bytes of any kind.
pub(crate) fn any_bytes(real: &'static str) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => spoilt(real),
        1 => prop::collection::vec(any::<u8>(), 0..2048),
    ]
}

fn spoil(mut text: Vec<u8>, (how, a, b): (u8, u32, u32)) -> Vec<u8> {
    let at = |n: u32, len: usize| n as usize % (len + 1);
    let cut = at(a, text.len());
    match how {
        // Cut off.
        0 => text.truncate(cut),
        // Lines twice, gone, or in another order.
        1..=3 => {
            let mut lines: Vec<Vec<u8>> = text
                .split_inclusive(|b| *b == b'\n')
                .map(<[u8]>::to_vec)
                .collect();
            if lines.is_empty() {
                return text;
            }
            let (one, other) = (a as usize % lines.len(), b as usize % lines.len());
            match how {
                1 => lines.insert(other, lines[one].clone()),
                2 => drop(lines.remove(one)),
                _ => lines.swap(one, other),
            }
            text = lines.concat();
        }
        // Another number.
        4 | 5 => {
            let number = NUMBERS[b as usize % NUMBERS.len()].as_bytes();
            let is_digit = |byte: &u8| byte.is_ascii_digit();
            let starts: Vec<usize> = (0..text.len())
                .filter(|&i| is_digit(&text[i]) && (i == 0 || !is_digit(&text[i - 1])))
                .collect();
            if let Some(&start) = starts.get(a as usize % starts.len().max(1)) {
                let len = text[start..]
                    .iter()
                    .take_while(|byte| is_digit(byte))
                    .count();
                text.splice(start..start + len, number.iter().copied());
            }
        }
        // A byte that is no text, or any other one.
        6 => text.insert(cut, 0xff),
        7 => text.insert(cut, b as u8),
        // A line of a megabyte.
        _ => drop(text.splice(cut..cut, std::iter::repeat_n(b as u8 | 0x20, 1 << 20))),
    }
    text
}

/// Runs a reader and says whether it ended soon.
pub(crate) fn timed<T>(read: impl FnOnce() -> T) -> (T, bool) {
    let since = Instant::now();
    let value = read();
    (value, since.elapsed() < SOON)
}

/// Every number that stands in a text by itself.
#[derive(Debug)]
pub(crate) struct Numbers(BTreeSet<u64>);

impl Numbers {
    pub(crate) fn of(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let words = text.split(|c: char| c.is_whitespace() || c == '=');
        Self(words.filter_map(|word| word.parse().ok()).collect())
    }

    /// Whether a figure stands there in units of `unit`.
    pub(crate) fn hold(&self, figure: Option<u64>, unit: u64) -> bool {
        figure.is_none_or(|figure| figure.is_multiple_of(unit) && self.0.contains(&(figure / unit)))
    }

    /// Whether it is one less another of them, or 0 where that is more.
    pub(crate) fn hold_difference(&self, figure: u64) -> bool {
        let minuends = self.0.iter();
        minuends.into_iter().any(|&all| {
            self.0
                .iter()
                .any(|&part| all.saturating_sub(part) == figure)
        })
    }
}
