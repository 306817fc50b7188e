//! Sizes and bandwidth as people write them: `4GiB`, `100MiB/s`, `1Gbit`.
//!
//! Settings, flags and lots are read by what stands here, so that what one of them takes the others take as well. Reading
//! is done in integers. Bandwidth is counted in bytes a second; networks are sold in bits, so that these are units of it
//! too, with the prefixes of ten that they are sold with. A part of a byte is dropped where a size is written with a
//! fraction, `0.3KiB`; a number of bits that is no whole number of bytes is refused, since who writes `100bit` is more
//! likely to have meant another unit.

use crate::limits::MAX_QUANTITY;

/// Units of sizes, in bytes.
pub const SIZES: [(&str, u64); 10] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
];

/// Units of rates that count bits, in bits.
const BITS: [(&str, u64); 6] = [
    ("bit", 1),
    ("kbit", 1_000),
    ("Kbit", 1_000),
    ("Mbit", 1_000_000),
    ("Gbit", 1_000_000_000),
    ("Tbit", 1_000_000_000_000),
];

/// Most digits after the point of a size or a bandwidth.
pub const MAX_PLACES: usize = 9;
/// How much of a text that cannot be read is shown in the sentence about it, in characters.
const MAX_SHOWN_CHARS: usize = 60;

/// Why a text is no bandwidth.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBandwidth {
    /// There is no number.
    #[error(
        "{0:?} is no bandwidth; write a number from 0 with a unit, like 10MiB/s or 1Gbit, and at most {MAX_PLACES} digits after the point"
    )]
    NoNumber(String),
    /// The number has no unit.
    #[error("{0:?} has no unit; write bandwidth like 10MiB/s or 1Gbit")]
    NoUnit(String),
    /// The unit is not known.
    #[error(
        "{unit:?} is no unit of bandwidth; known are {}, each with or without /s",
        known()
    )]
    Unit {
        /// The unit as it was given, cut.
        unit: String,
    },
    /// Its bits do not fill bytes.
    #[error("{0:?} is no whole number of bytes a second; give a multiple of 8 bits")]
    PartOfByte(String),
    /// It is larger than can be counted.
    #[error("{0:?} is more bytes a second than can be counted; ask for less")]
    TooLarge(String),
}

fn known() -> String {
    let names = SIZES.iter().chain(&BITS).map(|(name, _)| *name);
    names.collect::<Vec<_>>().join(", ")
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A decimal number as it was written: its digits without the point, and the power of ten by which they are to be divided.
#[derive(Clone, Copy)]
struct Decimal {
    digits: u128,
    divisor: u128,
}

impl Decimal {
    fn times(self, unit: u64) -> Option<u128> {
        self.digits.checked_mul(u128::from(unit))
    }
}

enum NoDecimal {
    NoNumber,
    TooLarge,
}

fn decimal(text: &str, most_places: usize) -> Result<Decimal, NoDecimal> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    if whole.is_empty() || part.len() > most_places || !is_digits(whole) || !is_digits(part) {
        return Err(NoDecimal::NoNumber);
    }
    let digits = [whole, part].concat().parse();
    let places = u32::try_from(part.len()).map_err(|_| NoDecimal::NoNumber)?;
    Ok(Decimal {
        digits: digits.map_err(|_| NoDecimal::TooLarge)?,
        divisor: 10_u128.pow(places),
    })
}

fn counted(amount: u128) -> Option<u64> {
    u64::try_from(amount)
        .ok()
        .filter(|amount| *amount <= MAX_QUANTITY)
}

/// A decimal number with at most so many digits after the point, times `unit`, which is then rounded down; none where it is
/// no such number or more than [`MAX_QUANTITY`].
pub fn scaled(number: &str, most_places: usize, unit: u64) -> Option<u64> {
    let decimal = decimal(number, most_places).ok()?;
    counted(decimal.times(unit)? / decimal.divisor)
}

/// A number and the unit behind it.
fn split(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

fn find(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    let mut units = units.iter();
    units
        .find(|(name, _)| *name == unit)
        .map(|(_, factor)| *factor)
}

/// A size, like `4GiB`, in bytes; none where it is no size or more than [`MAX_QUANTITY`].
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text);
    scaled(number, MAX_PLACES, find(&SIZES, unit)?)
}

/// Bandwidth, like `10MiB/s`, `100Mbit/s` or `1Gbit`, in bytes a second; the `/s` may be left out. A 0 needs no unit.
///
/// # Errors
/// [`BadBandwidth`] says what is wrong with the text.
pub fn bandwidth(text: &str) -> Result<u64, BadBandwidth> {
    let trimmed = text.trim();
    let (number, unit) = split(trimmed.strip_suffix("/s").unwrap_or(trimmed));
    let too_large = || BadBandwidth::TooLarge(shown(text));
    let decimal = decimal(number, MAX_PLACES).map_err(|error| match error {
        NoDecimal::NoNumber => BadBandwidth::NoNumber(shown(text)),
        NoDecimal::TooLarge => too_large(),
    })?;
    if unit.is_empty() {
        return match decimal.digits {
            0 => Ok(0),
            _ => Err(BadBandwidth::NoUnit(shown(text))),
        };
    }
    if let Some(factor) = find(&SIZES, unit) {
        let bytes = decimal.times(factor).ok_or_else(too_large)? / decimal.divisor;
        return counted(bytes).ok_or_else(too_large);
    }
    let Some(factor) = find(&BITS, unit) else {
        let unit = shown(unit);
        return Err(BadBandwidth::Unit { unit });
    };
    let bits = decimal.times(factor).ok_or_else(too_large)?;
    let byte = decimal.divisor * 8;
    if bits % byte != 0 {
        return Err(BadBandwidth::PartOfByte(shown(text)));
    }
    counted(bits / byte).ok_or_else(too_large)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bandwidth_is_read_in_bytes_and_in_bits() {
        for (text, bytes) in [
            ("10MiB/s", 10 << 20),
            ("10MiB", 10 << 20),
            (" 1.5 GB/s ", 1_500_000_000),
            ("0.3KiB", 307),
            ("0", 0),
            ("0/s", 0),
            ("1Gbit", 125_000_000),
            ("1Gbit/s", 125_000_000),
            ("2.5 Gbit", 312_500_000),
            ("100Mbit/s", 12_500_000),
            ("10kbit", 1_250),
            ("10Kbit", 1_250),
            ("0.008kbit", 1),
            ("8bit", 1),
            ("0.1Tbit", 12_500_000_000),
            ("1024PiB", MAX_QUANTITY),
        ] {
            assert_eq!(bandwidth(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_bandwidth_is_refused_with_the_remedy() {
        let huge = "9".repeat(65_536);
        for (text, says) in [
            ("", "no bandwidth; write a number"),
            (".", "like 10MiB/s or 1Gbit"),
            ("1.2.3MB", "no bandwidth"),
            ("-1MiB", "a number from 0"),
            ("NaNbit", "no bandwidth"),
            ("1.0000000001MB", "at most 9 digits"),
            ("100", "has no unit"),
            ("100/s", "has no unit"),
            ("10MiB/h", "\"MiB/h\" is no unit of bandwidth; known are B,"),
            ("1gbit", "\"gbit\" is no unit"),
            ("1Gib", "Gbit, Tbit, each with or without /s"),
            ("1GBit", "\"GBit\""),
            ("1Gbit/s/s", "\"Gbit/s\""),
            (
                "100bit",
                "no whole number of bytes a second; give a multiple of 8",
            ),
            ("0.001kbit", "multiple of 8 bits"),
            ("10000000Tbit/s", "\"10000000Tbit/s\"; ask for less"),
            ("1025PiB", "ask for less"),
            (&huge, "ask for less"),
            (&format!("{huge}bit"), "ask for less"),
        ] {
            let error = bandwidth(text).expect_err("is no bandwidth").to_string();
            let (thing, remedy) = says.split_once("\"; ").unwrap_or(("", says));
            assert!(error.contains(thing) && error.contains(remedy), "{error}");
            assert!(error.len() < 300, "{} bytes long", error.len());
        }
    }

    proptest! {
        #[test]
        fn a_rate_in_bits_is_the_same_in_bytes(bytes in 0..=MAX_QUANTITY) {
            let bits = u128::from(bytes) * 8;
            prop_assert_eq!(bandwidth(&format!("{bits}bit/s")), Ok(bytes));
            prop_assert_eq!(bandwidth(&format!("{bytes}B/s")), Ok(bytes));
            let kilobits = format!("{}.{:03}kbit", bits / 1_000, bits % 1_000);
            prop_assert_eq!(bandwidth(&kilobits), Ok(bytes));
        }

        #[test]
        fn no_text_is_read_as_more_than_can_be_counted(
            text in prop_oneof![".{0,40}", "[0-9]{1,25}(\\.[0-9]{1,9})?[kKMGTP]?(bit|i?B)(/s)?"],
        ) {
            if let Ok(amount) = bandwidth(&text) {
                prop_assert!(amount <= MAX_QUANTITY);
            }
        }
    }
}
