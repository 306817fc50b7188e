//! The checks that every field from outside goes through.

use ebb_types::limits::{MAX_MESSAGE_BYTES, MAX_QUANTITY};
use ebb_types::{InvalidId, Limits, Quantities, ResourceKind, Resources, UpdateUuid};

use crate::lots::is_lot;
use crate::proto;

/// A message from outside that breaks a rule. The sentence names the field and the rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct Invalid {
    /// The field.
    pub field: &'static str,
    /// The rule that it breaks, as a sentence with what to do.
    pub rule: String,
}

impl Invalid {
    /// A field that breaks a rule.
    pub fn new(field: &'static str, rule: impl Into<String>) -> Self {
        Self {
            field,
            rule: rule.into(),
        }
    }

    pub(crate) fn missing(field: &'static str) -> Self {
        Self::new(field, "is missing; set it")
    }
}

/// Reads an id.
pub(crate) fn id<T>(
    field: &'static str,
    text: &str,
    new: impl Fn(&str) -> Result<T, InvalidId>,
) -> Result<T, Invalid> {
    new(text).map_err(|error| Invalid::new(field, error.to_string()))
}

/// Reads an id that may be empty for none.
pub(crate) fn optional_id<T>(
    field: &'static str,
    text: &str,
    new: impl Fn(&str) -> Result<T, InvalidId>,
) -> Result<Option<T>, Invalid> {
    if text.is_empty() {
        Ok(None)
    } else {
        id(field, text, new).map(Some)
    }
}

/// Reads a text of bounded length without NUL bytes.
pub(crate) fn text(field: &'static str, text: String, max_bytes: usize) -> Result<String, Invalid> {
    if text.len() > max_bytes {
        return Err(Invalid::new(
            field,
            format!(
                "is {} bytes long; at most {max_bytes} are allowed",
                text.len()
            ),
        ));
    }
    if text.contains('\0') {
        return Err(Invalid::new(
            field,
            "holds a NUL byte, which no program could be given; remove it",
        ));
    }
    Ok(text)
}

/// Reads bytes of bounded length.
pub(crate) fn data(
    field: &'static str,
    data: Vec<u8>,
    max_bytes: usize,
) -> Result<Vec<u8>, Invalid> {
    bounded(field, data.len(), max_bytes).map(|()| data)
}

/// Checks the length of a list.
pub(crate) fn bounded(field: &'static str, len: usize, max: usize) -> Result<(), Invalid> {
    if len > max {
        return Err(Invalid::new(
            field,
            format!("has {len} entries; at most {max} are allowed"),
        ));
    }
    Ok(())
}

/// Checks a duration in milliseconds.
pub(crate) fn duration_ms(field: &'static str, ms: u64, max_ms: u64) -> Result<u64, Invalid> {
    if ms > max_ms {
        return Err(Invalid::new(
            field,
            format!("is {ms} ms; at most {max_ms} ms are allowed"),
        ));
    }
    Ok(ms)
}

/// Reads a sub-message that must be there.
pub(crate) fn required<T>(field: &'static str, value: Option<T>) -> Result<T, Invalid> {
    value.ok_or_else(|| Invalid::missing(field))
}

/// Reads the 16 bytes of an update's uuid.
pub(crate) fn uuid(field: &'static str, bytes: &[u8]) -> Result<UpdateUuid, Invalid> {
    <[u8; 16]>::try_from(bytes).map(UpdateUuid).map_err(|_| {
        Invalid::new(
            field,
            format!("is {} bytes long; it must be exactly 16", bytes.len()),
        )
    })
}

/// Reads resources: known names, no negative or enormous amounts, no name twice.
pub(crate) fn resources(
    field: &'static str,
    list: &[proto::Resource],
) -> Result<Resources, Invalid> {
    bounded(field, list.len(), 2 * ResourceKind::ALL.len())?;
    let mut sum = Resources::ZERO;
    for entry in list {
        let kind = ResourceKind::from_name(&entry.name)
            .map_err(|error| Invalid::new(field, error.to_string()))?;
        if is_lot(entry) {
            return Err(Invalid::new(
                field,
                format!("{} must be a plain amount here", entry.name),
            ));
        }
        let amount = u64::try_from(entry.amount)
            .ok()
            .filter(|amount| *amount <= MAX_QUANTITY);
        let Some(amount) = amount else {
            return Err(Invalid::new(
                field,
                format!(
                    "{} is {}; it must be between 0 and {MAX_QUANTITY}",
                    entry.name, entry.amount
                ),
            ));
        };
        let part = if entry.revocable {
            &mut sum.revocable
        } else {
            &mut sum.regular
        };
        if part.get(kind) > 0 {
            return Err(Invalid::new(
                field,
                format!("{} stands twice; give it once", entry.name),
            ));
        }
        *part = part.with(kind, amount);
    }
    Ok(sum)
}

/// Reads resources of which none may be revocable.
pub(crate) fn quantities(
    field: &'static str,
    list: &[proto::Resource],
) -> Result<Quantities, Invalid> {
    let resources = resources(field, list)?;
    if resources.is_revocable() {
        return Err(Invalid::new(
            field,
            "holds revocable resources, which have no place here; leave the mark out",
        ));
    }
    Ok(resources.regular)
}

/// Reads limits: what is named is limited, to nothing too.
pub(crate) fn limits(field: &'static str, list: &[proto::Resource]) -> Result<Limits, Invalid> {
    let amounts = quantities(field, list)?;
    let mut limits = Limits::NONE;
    for entry in list {
        let kind = ResourceKind::from_name(&entry.name)
            .map_err(|error| Invalid::new(field, error.to_string()))?;
        limits = limits.with(kind, Some(amounts.get(kind)));
    }
    Ok(limits)
}

/// Writes limits.
pub(crate) fn write_limits(limits: &Limits) -> Vec<proto::Resource> {
    let amounts = limits.iter();
    amounts
        .map(|(kind, amount)| write_amount(kind, amount, false))
        .collect()
}

fn write_amount(kind: ResourceKind, amount: u64, revocable: bool) -> proto::Resource {
    proto::Resource {
        name: kind.name().to_owned(),
        amount: i64::try_from(amount).unwrap_or(i64::MAX),
        revocable,
        ..proto::Resource::default()
    }
}

/// Writes quantities.
pub(crate) fn write_quantities(quantities: &Quantities, revocable: bool) -> Vec<proto::Resource> {
    quantities
        .iter()
        .map(|(kind, amount)| write_amount(kind, amount, revocable))
        .collect()
}

/// Writes resources.
pub(crate) fn write_resources(resources: &Resources) -> Vec<proto::Resource> {
    let mut list = write_quantities(&resources.regular, false);
    list.extend(write_quantities(&resources.revocable, true));
    list
}

/// Cuts a text for people to what a status may carry, at a character's edge.
pub(crate) fn cut(mut text: String) -> String {
    if text.len() > MAX_MESSAGE_BYTES {
        text.truncate(text.floor_char_boundary(MAX_MESSAGE_BYTES));
    }
    text
}
