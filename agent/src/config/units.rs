//! Quantities with their units, as people write them.

use ebb_types::limits::{MAX_ATTRIBUTES, MAX_NAME_BYTES};
use ebb_types::units::{self, MAX_PLACES};
use ebb_types::{Attribute, AttributeValue};

/// A text that is no such quantity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadValue {
    /// What is allowed.
    pub rule: String,
}

impl BadValue {
    /// A rule that was broken.
    pub fn new(rule: impl Into<String>) -> Self {
        Self { rule: rule.into() }
    }
}

const TIMES: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// A decimal number times `unit`, rounded down.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    units::scaled(number, MAX_PLACES, unit)
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(at);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    scaled(number.trim_end(), *factor)
}

/// CPUs, like `2` or `1.5`, in thousandths of a core.
///
/// # Errors
/// [`BadValue`] says what is allowed.
pub fn cpus(text: &str) -> Result<u64, BadValue> {
    scaled(text, 1_000)
        .filter(|milli| *milli > 0)
        .ok_or_else(|| {
            BadValue::new("give a number of cores above 0 without a unit, like 2 or 1.5")
        })
}

/// A size, like `4GiB`, in bytes.
///
/// # Errors
/// [`BadValue`] says what is allowed.
pub fn bytes(text: &str) -> Result<u64, BadValue> {
    units::size(text).ok_or_else(|| {
        BadValue::new(
            "give a size up to 1024PiB with a unit of B, KiB, MiB, GiB, TiB, PiB, kB, MB, GB or TB, like 4GiB",
        )
    })
}

/// A bandwidth, like `100MiB/s` or `1Gbit`, in bytes a second. A size without `/s` is refused: more likely it belongs to
/// another setting.
///
/// # Errors
/// [`BadValue`] says what is allowed.
pub fn bandwidth(text: &str) -> Result<u64, BadValue> {
    if !text.ends_with("/s") && !text.ends_with("bit") {
        return Err(BadValue::new(
            "give a rate, in bytes like 100MiB/s or in bits like 1Gbit or 100Mbit/s",
        ));
    }
    units::bandwidth(text).map_err(|error| BadValue::new(error.to_string()))
}

/// A time, like `7d`, in milliseconds.
///
/// # Errors
/// [`BadValue`] says what is allowed.
pub fn duration_ms(text: &str) -> Result<u64, BadValue> {
    with_unit(text, &TIMES)
        .ok_or_else(|| BadValue::new("give a time with a unit of ms, s, m, h or d, like 90s or 7d"))
}

/// A part of the whole, like `0.1%`, in millionths.
///
/// # Errors
/// [`BadValue`] says what is allowed.
pub fn percent_ppm(text: &str) -> Result<u64, BadValue> {
    text.strip_suffix('%')
        .and_then(|number| scaled(number.trim_end(), 10_000))
        .filter(|ppm| *ppm <= 1_000_000)
        .ok_or_else(|| BadValue::new("give a part of the time from 0% to 100%, like 0.1%"))
}

/// Attributes as Mesos writes them: `name:value;name:value`. A value that is a number is a scalar.
///
/// # Errors
/// [`BadValue`] says what is allowed.
pub fn attributes(text: &str) -> Result<Vec<Attribute>, BadValue> {
    let parts: Vec<&str> = text.split(';').filter(|part| !part.is_empty()).collect();
    if parts.len() > MAX_ATTRIBUTES {
        return Err(BadValue::new(format!(
            "at most {MAX_ATTRIBUTES} attributes are taken"
        )));
    }
    parts.into_iter().map(attribute).collect()
}

fn attribute(part: &str) -> Result<Attribute, BadValue> {
    let rule = || BadValue::new("give pairs of name:value joined by ';', like rack:a;ssds:2");
    let (name, value) = part.split_once(':').ok_or_else(rule)?;
    let bad = |text: &str| {
        text.is_empty() || text.len() > MAX_NAME_BYTES || text.contains(char::is_control)
    };
    if bad(name) || bad(value) {
        return Err(rule());
    }
    let (sign, digits) = match value.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, value),
    };
    let scalar = scaled(digits, 1_000).and_then(|milli| i64::try_from(milli).ok());
    Ok(Attribute {
        name: name.to_owned(),
        value: match scalar {
            Some(milli) => AttributeValue::ScalarMilli(sign * milli),
            None => AttributeValue::Text(value.to_owned()),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_exactly() {
        assert_eq!(cpus("0.001"), Ok(1));
        assert_eq!(cpus("64"), Ok(64_000));
        assert_eq!(bytes("1.5KiB"), Ok(1536));
        assert_eq!(bytes("10 MB"), Ok(10_000_000));
        assert_eq!(bandwidth("1GB/s"), Ok(1_000_000_000));
        assert_eq!(bandwidth("1Gbit"), Ok(125_000_000));
        assert_eq!(bandwidth("100Mbit/s"), Ok(12_500_000));
        let refused = |text| bandwidth(text).expect_err("is no bandwidth").rule;
        assert!(refused("5GiB").contains("MiB/s"));
        assert!(refused("100bit/s").contains("multiple of 8 bits"));
        assert_eq!(duration_ms("1.5s"), Ok(1_500));
        for bad in [
            "", "GiB", "1", "1gib", "1GiB ", "-1GiB", "1e3GiB", "0x1GiB", "1.2.3GiB",
        ] {
            assert!(bytes(bad).is_err(), "{bad:?} was taken");
        }
        assert!(cpus("0").is_err() && cpus("").is_err() && cpus(".5").is_err());
    }

    #[test]
    fn attributes_are_scalars_where_they_look_like_it() {
        let list = attributes("rack:a;ssds:2;load:-1.5;").expect("good attributes");
        assert_eq!(list[0].value, AttributeValue::Text("a".to_owned()));
        assert_eq!(list[1].value, AttributeValue::ScalarMilli(2_000));
        assert_eq!(list[2].value, AttributeValue::ScalarMilli(-1_500));
        assert!(attributes("a:").is_err() && attributes(":b").is_err());
    }
}
