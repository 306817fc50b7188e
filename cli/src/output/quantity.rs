//! Quantities and durations as people write and read them.
//!
//! The problem: inside Ebb every amount is an integer in its smallest unit (thousandths of a core,
//! bytes, bytes a second, milliseconds); people write `0.5`, `64MiB`, `10MiB/s`, `1Gbit`, `30s`.
//! The invariants: reading is done in integers, never through floats; a unit is always asked for
//! where several are usual; what cannot be read is refused with a sentence that shows how to write
//! it; nothing that was read is above [`MAX_QUANTITY`].

use ebb_types::limits::MAX_QUANTITY;
use ebb_types::units::{self, BadBandwidth, SIZES};
use ebb_types::{LotValue, Lots, Quantities, ResourceKind, Resources};

/// Most digits of a number that are looked at; longer ones are refused as too large.
const MAX_DIGITS: usize = 30;
/// How much of a text that cannot be read is shown in the sentence about it, in characters.
const MAX_SHOWN_CHARS: usize = 60;

/// Why a text is no quantity or duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadQuantity {
    /// There is no number.
    #[error("{text:?} is no amount of {what}; write it like {example}")]
    NoNumber {
        what: &'static str,
        text: String,
        example: &'static str,
    },
    /// The number has no unit, and several are usual.
    #[error("{text:?} has no unit; write {what} like {example}")]
    NoUnit {
        what: &'static str,
        text: String,
        example: &'static str,
    },
    /// The unit is not known.
    #[error("{unit:?} is no unit of {what}; known are {known}")]
    Unit {
        what: &'static str,
        unit: String,
        known: String,
    },
    /// It is below zero.
    #[error("{text:?} is negative; {what} start at 0")]
    Negative { what: &'static str, text: String },
    /// It is finer than can be counted.
    #[error("{text:?} is finer than {step}; give it at most that fine")]
    TooFine { text: String, step: &'static str },
    /// It is larger than can be counted.
    #[error("{text:?} is more {what} than can be counted; ask for less")]
    TooLarge { what: &'static str, text: String },
    /// It is no bandwidth.
    #[error(transparent)]
    Bandwidth(#[from] BadBandwidth),
}

/// A number as it was written: digits without the point, and how many stood after it.
struct Decimal {
    digits: u128,
    decimals: u32,
}

const TIME_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Cuts a text for a sentence.
pub(crate) fn shown(text: &str) -> String {
    if text.chars().count() <= MAX_SHOWN_CHARS {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(MAX_SHOWN_CHARS).collect();
    cut.push('…');
    cut
}

fn split<'a>(
    what: &'static str,
    text: &'a str,
    example: &'static str,
) -> Result<(Decimal, &'a str), BadQuantity> {
    let trimmed = text.trim();
    let no_number = || BadQuantity::NoNumber {
        what,
        text: shown(text),
        example,
    };
    if let Some(rest) = trimmed.strip_prefix('-')
        && rest.starts_with(|c: char| c.is_ascii_digit() || c == '.')
    {
        return Err(BadQuantity::Negative {
            what,
            text: shown(text),
        });
    }
    let end = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || (number.contains('.') && fraction.is_empty()) {
        return Err(no_number());
    }
    let fraction = fraction.trim_end_matches('0');
    let whole = whole.trim_start_matches('0');
    if whole.len() + fraction.len() > MAX_DIGITS {
        return Err(BadQuantity::TooLarge {
            what,
            text: shown(text),
        });
    }
    let digits = format!("0{whole}{fraction}");
    let decimal = Decimal {
        digits: digits.parse().map_err(|_| no_number())?,
        decimals: u32::try_from(fraction.len()).map_err(|_| no_number())?,
    };
    Ok((decimal, unit.trim_start()))
}

impl Decimal {
    /// This many of a unit, rounded down, and whether nothing was lost by that; none if it is too much.
    fn of(&self, unit: u64) -> Option<(u64, bool)> {
        let scaled = self.digits.checked_mul(u128::from(unit))?;
        let divisor = 10_u128.checked_pow(self.decimals)?;
        let amount = u64::try_from(scaled / divisor).ok()?;
        (amount <= MAX_QUANTITY).then_some((amount, scaled % divisor == 0))
    }
}

fn with_unit(
    what: &'static str,
    text: &str,
    example: &'static str,
    units: &[(&str, u64)],
) -> Result<u64, BadQuantity> {
    let (decimal, unit) = split(what, text, example)?;
    if unit.is_empty() {
        if decimal.digits == 0 {
            return Ok(0);
        }
        return Err(BadQuantity::NoUnit {
            what,
            text: shown(text),
            example,
        });
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        let known: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
        return Err(BadQuantity::Unit {
            what,
            unit: shown(unit),
            known: known.join(", "),
        });
    };
    match decimal.of(*factor) {
        Some((amount, _)) => Ok(amount),
        None => Err(BadQuantity::TooLarge {
            what,
            text: shown(text),
        }),
    }
}

/// Reads processors, as in `0.5`; gives thousandths of a core.
///
/// # Errors
/// [`BadQuantity`] says what is wrong with the text.
pub(crate) fn parse_cpus(text: &str) -> Result<u64, BadQuantity> {
    const WHAT: &str = "cpus";
    let (decimal, unit) = split(WHAT, text, "0.5")?;
    if !unit.is_empty() && unit != "cpus" {
        return Err(BadQuantity::Unit {
            what: WHAT,
            unit: shown(unit),
            known: "none: write 0.5 for half a core".to_owned(),
        });
    }
    match decimal.of(1_000) {
        Some((amount, true)) => Ok(amount),
        Some((_, false)) => Err(BadQuantity::TooFine {
            text: shown(text),
            step: "a thousandth of a core",
        }),
        None => Err(BadQuantity::TooLarge {
            what: WHAT,
            text: shown(text),
        }),
    }
}

/// Reads how much of a named lot, in thousandths, as in `4` or `2.5`.
///
/// # Errors
/// When it is no number, too fine or too large.
pub(crate) fn parse_count(text: &str) -> Result<u64, BadQuantity> {
    const WHAT: &str = "the amount";
    let (decimal, unit) = split(WHAT, text, "2.5")?;
    if !unit.is_empty() {
        return Err(BadQuantity::Unit {
            what: WHAT,
            unit: shown(unit),
            known: "none: write a number".to_owned(),
        });
    }
    match decimal.of(1_000) {
        Some((amount, true)) => Ok(amount),
        Some((_, false)) => Err(BadQuantity::TooFine {
            text: shown(text),
            step: "a thousandth",
        }),
        None => Err(BadQuantity::TooLarge {
            what: WHAT,
            text: shown(text),
        }),
    }
}

/// Reads bytes, as in `64MiB` or `1.5GiB`; parts of a byte are dropped.
///
/// # Errors
/// [`BadQuantity`] says what is wrong with the text.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, BadQuantity> {
    with_unit("bytes", text, "64MiB", &SIZES)
}

/// Reads bytes a second, as in `10MiB/s` or `1Gbit`; the `/s` may be left out.
///
/// # Errors
/// [`BadQuantity`] says what is wrong with the text.
pub(crate) fn parse_bandwidth(text: &str) -> Result<u64, BadQuantity> {
    Ok(units::bandwidth(text)?)
}

/// Reads a duration, as in `500ms`, `30s` or `2h`; gives milliseconds.
///
/// # Errors
/// [`BadQuantity`] says what is wrong with the text.
pub(crate) fn parse_duration_ms(text: &str) -> Result<u64, BadQuantity> {
    with_unit("time", text, "30s", &TIME_UNITS)
}

/// Reads a weight, as in `2.5`; gives thousandths, at least one.
///
/// # Errors
/// [`BadQuantity`] says what is wrong with the text.
pub(crate) fn parse_weight(text: &str) -> Result<u64, BadQuantity> {
    const WHAT: &str = "weight";
    let (decimal, unit) = split(WHAT, text, "2.5")?;
    let no_number = || BadQuantity::NoNumber {
        what: WHAT,
        text: shown(text),
        example: "2.5; it must be more than 0",
    };
    if !unit.is_empty() {
        return Err(no_number());
    }
    match decimal.of(1_000) {
        Some((0, true)) => Err(no_number()),
        Some((amount, true)) => Ok(amount),
        Some((_, false)) => Err(BadQuantity::TooFine {
            text: shown(text),
            step: "a thousandth",
        }),
        None => Err(BadQuantity::TooLarge {
            what: WHAT,
            text: shown(text),
        }),
    }
}

/// Thousandths as a number: `1500` → `1.5`.
pub(crate) fn milli(amount: u64) -> String {
    let (whole, rest) = (amount / 1_000, amount % 1_000);
    if rest == 0 {
        return whole.to_string();
    }
    format!("{whole}.{rest:03}")
        .trim_end_matches('0')
        .to_owned()
}

/// Bytes in the largest unit that they fill, with one decimal where it is not whole: `1.5 GiB`.
pub(crate) fn bytes(amount: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut power = 0;
    while power + 1 < UNITS.len() && amount >> (10 * (power + 1)) > 0 {
        power += 1;
    }
    let unit = 1_u128 << (10 * power);
    let mut tenths = (u128::from(amount) * 10 + unit / 2) / unit;
    if tenths >= 10_240 && power + 1 < UNITS.len() {
        power += 1;
        tenths = 10;
    }
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole} {}", UNITS[power]),
        (whole, tenth) => format!("{whole}.{tenth} {}", UNITS[power]),
    }
}

/// A duration of milliseconds: `350 ms`, `1.2 s`, `3m 12s`, `2h 5m`, `4d 1h`.
pub(crate) fn duration_ms(ms: u64) -> String {
    let s = ms / 1_000;
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", s, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{}m {}s", s / 60, s % 60),
        3_600_000..86_400_000 => format!("{}h {}m", s / 3_600, s / 60 % 60),
        _ => format!("{}d {}h", s / 86_400, s / 3_600 % 24),
    }
}

/// A short duration of nanoseconds: `850 ns`, `12 µs`, `3.4 ms`, `1.2 s`.
pub(crate) fn duration_ns(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} µs", ns / 1_000),
        1_000_000..1_000_000_000 => {
            format!("{}.{} ms", ns / 1_000_000, ns % 1_000_000 / 100_000)
        }
        _ => duration_ms(ns / 1_000_000),
    }
}

/// One amount with its unit: `1.5 cpus`, `64 MiB`, `1 GiB disk`, `10 MiB/s disk`, `10 MiB/s network`.
pub(crate) fn amount(kind: ResourceKind, amount: u64) -> String {
    match kind {
        ResourceKind::Cpus if amount == 1_000 => "1 cpu".to_owned(),
        ResourceKind::Cpus => format!("{} cpus", milli(amount)),
        ResourceKind::Mem => bytes(amount),
        ResourceKind::Disk => format!("{} disk", bytes(amount)),
        ResourceKind::DiskBandwidth => format!("{}/s disk", bytes(amount)),
        ResourceKind::NetworkBandwidth => format!("{}/s network", bytes(amount)),
    }
}

/// Quantities in one line: `1.5 cpus, 64 MiB`.
pub(crate) fn quantities(quantities: &Quantities) -> String {
    if quantities.is_zero() {
        return "nothing".to_owned();
    }
    amounts(quantities.iter())
}

/// Amounts in one line, zeros too: `1.5 cpus, 0 B`.
pub(crate) fn amounts(amounts: impl Iterator<Item = (ResourceKind, u64)>) -> String {
    let parts: Vec<String> = amounts.map(|(k, a)| amount(k, a)).collect();
    parts.join(", ")
}

/// Resources in one line, what is revocable marked so.
pub(crate) fn resources(resources: &Resources) -> String {
    let revocable = || format!("{} (revocable)", quantities(&resources.revocable));
    match (resources.regular.is_zero(), resources.revocable.is_zero()) {
        (_, true) => quantities(&resources.regular),
        (true, false) => revocable(),
        (false, false) => format!("{} and {}", quantities(&resources.regular), revocable()),
    }
}

/// Lots in one line, as they are written on the command line, large amounts with a unit.
pub(crate) fn lots_text(lots: &Lots) -> String {
    let parts = lots.iter().map(|(key, value)| match (value, key.kind()) {
        (LotValue::Scalar(bytes_of), Some(ResourceKind::Mem | ResourceKind::Disk)) => {
            format!("{key}:{}", bytes(*bytes_of).replace(' ', ""))
        }
        (
            LotValue::Scalar(rate),
            Some(ResourceKind::DiskBandwidth | ResourceKind::NetworkBandwidth),
        ) => {
            format!("{key}:{}/s", bytes(*rate).replace(' ', ""))
        }
        (LotValue::Scalar(milli_of), _) => format!("{key}:{}", milli(*milli_of)),
        (LotValue::Ranges(ranges), _) => format!("{key}:{ranges}"),
        (LotValue::Set(items), _) => {
            let items: Vec<&str> = items.iter().map(String::as_str).collect();
            format!("{key}:{{{}}}", items.join(","))
        }
    });
    let parts: Vec<String> = parts.collect();
    parts.join("; ")
}

/// Resources in one line, with lots behind where there are any.
pub(crate) fn with_lots(plain: &Resources, lots: &Lots) -> String {
    match (plain.is_zero(), lots.is_none()) {
        (_, true) => resources(plain),
        (true, false) => lots_text(lots),
        (false, false) => format!("{}; {}", resources(plain), lots_text(lots)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_read_in_their_units() {
        assert_eq!(parse_cpus("0.5"), Ok(500));
        assert_eq!(parse_cpus(" 2 "), Ok(2_000));
        assert_eq!(parse_cpus("1.250"), Ok(1_250));
        assert_eq!(parse_cpus("0.0010"), Ok(1));
        assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("1.5 GiB"), Ok(3 << 29));
        assert_eq!(parse_bytes("1kB"), Ok(1_000));
        assert_eq!(parse_bytes("0"), Ok(0));
        assert_eq!(parse_bytes("0.3KiB"), Ok(307));
        assert_eq!(parse_bandwidth("10MiB/s"), Ok(10 << 20));
        assert_eq!(parse_bandwidth("10MB"), Ok(10_000_000));
        assert_eq!(parse_bandwidth("1Gbit"), Ok(125_000_000));
        assert_eq!(parse_bandwidth("100Mbit/s"), Ok(12_500_000));
        assert_eq!(parse_duration_ms("1.5s"), Ok(1_500));
        assert_eq!(parse_duration_ms("2h"), Ok(7_200_000));
        assert_eq!(parse_weight("2.5"), Ok(2_500));
    }

    #[test]
    fn what_is_wrong_is_said_with_a_remedy() {
        let huge = "9".repeat(65_536);
        for (sentence, says) in [
            (parse_cpus("-1").unwrap_err(), "negative"),
            (parse_cpus("").unwrap_err(), "0.5"),
            (parse_cpus(".").unwrap_err(), "0.5"),
            (parse_cpus("1.").unwrap_err(), "0.5"),
            (parse_cpus("1.2.3").unwrap_err(), "0.5"),
            (parse_cpus("NaN").unwrap_err(), "0.5"),
            (parse_cpus("500m").unwrap_err(), "half a core"),
            (parse_cpus("0.0005").unwrap_err(), "thousandth"),
            (parse_cpus(&huge).unwrap_err(), "ask for less"),
            (parse_bytes("64").unwrap_err(), "64MiB"),
            (parse_bytes("64MiBs").unwrap_err(), "known are B"),
            (parse_bytes("64 miles").unwrap_err(), "\"miles\""),
            (parse_bytes("64\0MiB").unwrap_err(), "no unit"),
            (parse_bytes("-64MiB").unwrap_err(), "negative"),
            (parse_bytes("1e9MiB").unwrap_err(), "no unit"),
            (parse_bytes("99999999PiB").unwrap_err(), "ask for less"),
            (parse_bandwidth("10MiB/h").unwrap_err(), "MiB/h"),
            (parse_bandwidth("10").unwrap_err(), "10MiB/s or 1Gbit"),
            (parse_bandwidth("-1Gbit").unwrap_err(), "a number from 0"),
            (parse_bandwidth("100bit").unwrap_err(), "multiple of 8 bits"),
            (parse_bandwidth(&huge).unwrap_err(), "ask for less"),
            (parse_duration_ms("30").unwrap_err(), "30s"),
            (parse_duration_ms("30 years").unwrap_err(), "years"),
            (parse_weight("0").unwrap_err(), "more than 0"),
            (parse_weight("2x").unwrap_err(), "2.5"),
        ] {
            let sentence = sentence.to_string();
            assert!(sentence.contains(says), "{sentence:?}, not {says:?}");
            assert!(sentence.len() < 300, "{} bytes long", sentence.len());
        }
    }

    #[test]
    fn amounts_are_shown_short() {
        for (amount, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1 << 10, "1 KiB"),
            (3 << 29, "1.5 GiB"),
            ((1 << 30) - 1, "1 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(amount), text);
        }
        assert_eq!(milli(50), "0.05");
        assert_eq!(milli(2_000), "2");
        assert_eq!(duration_ms(192_000), "3m 12s");
        assert_eq!(duration_ms(1_250), "1.2 s");
        assert_eq!(duration_ns(3_460_000), "3.4 ms");
        let both = Resources {
            regular: Quantities::cpus_mem(1_000, 64 << 20),
            revocable: Quantities::cpus_mem(500, 0),
        };
        assert_eq!(resources(&both), "1 cpu, 64 MiB and 0.5 cpus (revocable)");
        assert_eq!(resources(&Resources::ZERO), "nothing");
        let all = Quantities::from_pairs(ResourceKind::ALL.map(|kind| (kind, 1 << 20)));
        assert_eq!(
            quantities(&all),
            "1048.576 cpus, 1 MiB, 1 MiB disk, 1 MiB/s disk, 1 MiB/s network"
        );
    }

    proptest! {
        #[test]
        fn cpus_that_are_shown_can_be_read_again(amount in 0..=MAX_QUANTITY) {
            prop_assert_eq!(parse_cpus(&milli(amount)), Ok(amount));
        }

        #[test]
        fn bytes_that_are_shown_are_near_what_they_were(amount in 0..=MAX_QUANTITY) {
            let again = parse_bytes(&bytes(amount)).unwrap_or(MAX_QUANTITY);
            prop_assert!(again.abs_diff(amount) <= amount / 20 + 1);
        }

        #[test]
        fn no_text_is_read_as_more_than_the_largest_amount(text in ".{0,40}") {
            for read in [parse_cpus, parse_bytes, parse_bandwidth, parse_duration_ms, parse_weight] {
                if let Ok(amount) = read(&text) {
                    prop_assert!(amount <= MAX_QUANTITY);
                }
            }
        }
    }
}
