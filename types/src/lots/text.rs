//! Lots as people write them, in settings and on the command line:
//! `ports:[31000-32000,8080];gpus:2;zones:{a,b};cpus(eng):4;mem(eng,eng/ci):1GiB;disk(db)[path:/data]:10GiB`.

use std::str::FromStr;

use super::{
    Disk, DiskSource, InvalidLot, LotKey, LotValue, Lots, Ranges, Reservation, ReservationKind,
};
use crate::ids::Role;
use crate::limits::{MAX_LOTS, MAX_QUANTITY};
use crate::quantities::{Quantities, ResourceKind};

const UNITS: [(&str, u64); 5] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("B", 1),
];

/// What people write: plain amounts and lots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrittenResources {
    /// Plain amounts.
    pub plain: Quantities,
    /// The rest.
    pub lots: Lots,
}

fn bad(part: &str, rule: &str) -> InvalidLot {
    let start: String = part.chars().take(64).collect();
    InvalidLot::new(format!("{start:?} is not understood: {rule}"))
}

/// A decimal number with at most three places after the point, times `unit`, which is then rounded down.
fn decimal(text: &str, unit: u64) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    if whole.is_empty() || part.len() > 3 || !digits(whole) || !digits(part) {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let part: u128 = format!("{part:0<3}").parse().ok()?;
    let milli = whole.checked_mul(1000)?.checked_add(part)?;
    let amount = milli.checked_mul(u128::from(unit))? / 1000;
    u64::try_from(amount)
        .ok()
        .filter(|amount| *amount <= MAX_QUANTITY)
}

fn amount(kind: Option<ResourceKind>, text: &str) -> Option<u64> {
    let bytes = match kind {
        None | Some(ResourceKind::Cpus) => return decimal(text, 1000),
        Some(ResourceKind::Mem | ResourceKind::Disk) => text,
        Some(ResourceKind::DiskBandwidth | ResourceKind::NetworkBandwidth) => {
            text.strip_suffix("/s").unwrap_or(text)
        }
    };
    match UNITS
        .iter()
        .find_map(|(name, unit)| Some((bytes.strip_suffix(name)?, *unit)))
    {
        Some((number, unit)) => decimal(number, unit),
        None => bytes.parse().ok().filter(|amount| *amount <= MAX_QUANTITY),
    }
}

fn ranges(text: &str) -> Option<Ranges> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let mut list = Vec::new();
    for one in inner
        .split(',')
        .map(str::trim)
        .filter(|one| !one.is_empty())
    {
        let (begin, end) = one.split_once('-').unwrap_or((one, one));
        list.push((begin.trim().parse().ok()?, end.trim().parse().ok()?));
    }
    Ranges::new(list)
}

fn value(kind: Option<ResourceKind>, text: &str) -> Option<LotValue> {
    if text.starts_with('[') {
        return ranges(text).map(LotValue::Ranges);
    }
    if let Some(rest) = text.strip_prefix('{') {
        let items = rest.strip_suffix('}')?.split(',').map(str::trim);
        let items = items.filter(|item| !item.is_empty()).map(ToOwned::to_owned);
        return Some(LotValue::Set(items.collect()));
    }
    amount(kind, text).map(LotValue::Scalar)
}

/// The stack of reservations `(role,role)`; the first is the agent's own.
fn reservations(text: &str) -> Result<Vec<Reservation>, InvalidLot> {
    let roles = text.split(',').map(str::trim).enumerate();
    let reservation = |(at, role): (usize, &str)| {
        Ok(Reservation {
            role: Role::new(role).map_err(|error| InvalidLot::new(error.to_string()))?,
            kind: match at {
                0 => ReservationKind::Static,
                _ => ReservationKind::Dynamic,
            },
            principal: String::new(),
            labels: Vec::new(),
        })
    };
    roles.map(reservation).collect()
}

fn source(text: &str) -> Option<DiskSource> {
    let (sort, rest) = text.split_once(':')?;
    let device = || {
        let (id, profile) = rest.split_once(':').unwrap_or((rest, ""));
        (id.to_owned(), profile.to_owned())
    };
    Some(match sort {
        "path" => DiskSource::Path {
            root: rest.to_owned(),
        },
        "mount" => DiskSource::Mount {
            root: rest.to_owned(),
        },
        "block" => {
            let (id, profile) = device();
            DiskSource::Block { id, profile }
        }
        "raw" => {
            let (id, profile) = device();
            DiskSource::Raw { id, profile }
        }
        _ => return None,
    })
}

fn entry(part: &str) -> Result<(LotKey, LotValue), InvalidLot> {
    const RULE: &str = "write name:value, like ports:[31000-32000], gpus:2, zones:{a,b}, cpus(role):4 or disk[path:/data]:10GiB";
    let end = part.find(['(', '[', ':']).ok_or_else(|| bad(part, RULE))?;
    let (name, mut rest) = part.split_at(end);
    let mut key = LotKey::named(name.trim());
    if let Some(inner) = rest.strip_prefix('(') {
        let (roles, after) = inner.split_once(')').ok_or_else(|| bad(part, RULE))?;
        key.reservations = reservations(roles)?;
        rest = after;
    }
    if let Some(inner) = rest.strip_prefix('[') {
        let (text, after) = inner.split_once(']').ok_or_else(|| bad(part, RULE))?;
        let rule = "a disk's source is path:DIR, mount:DIR, block:ID:PROFILE or raw:ID:PROFILE";
        key.disk = Some(Box::new(Disk {
            source: Some(source(text).ok_or_else(|| bad(part, rule))?),
            volume: None,
        }));
        rest = after;
    }
    let text = rest
        .strip_prefix(':')
        .ok_or_else(|| bad(part, RULE))?
        .trim();
    let value = value(key.kind(), text).ok_or_else(|| bad(part, RULE))?;
    Ok((key, value))
}

impl FromStr for WrittenResources {
    type Err = InvalidLot;

    fn from_str(text: &str) -> Result<Self, InvalidLot> {
        let mut plain = Quantities::ZERO;
        let mut lots = Vec::new();
        for part in text
            .split(';')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            if lots.len() >= MAX_LOTS {
                return Err(InvalidLot::new(format!(
                    "there are more than {MAX_LOTS} lots"
                )));
            }
            let (key, value) = entry(part)?;
            match (&value, key.kind().filter(|_| key.is_plain())) {
                (LotValue::Scalar(amount), Some(kind)) => {
                    let more = Quantities::ZERO.with(kind, *amount);
                    plain = plain.saturating_add(&more);
                }
                _ => lots.push((key, value)),
            }
        }
        Ok(Self {
            plain,
            lots: Lots::new(lots)?,
        })
    }
}
