//! Lots as people write them, in settings and on the command line:
//! `ports:[31000-32000,8080];gpus:2;zones:{a,b};cpus(eng):4;mem(eng,eng/ci):1GiB;disk(db)[path:/data]:10GiB`.

use std::str::FromStr;

use super::{
    Disk, DiskSource, InvalidLot, LotKey, LotValue, Lots, Ranges, Reservation, ReservationKind,
};
use crate::ids::Role;
use crate::limits::{MAX_LOTS, MAX_QUANTITY};
use crate::quantities::{Quantities, ResourceKind};
use crate::units::{self, BadBandwidth};

/// Most digits after the point of an amount.
const MAX_PLACES: usize = 3;

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

fn amount(kind: Option<ResourceKind>, text: &str) -> Result<u64, Option<BadBandwidth>> {
    let bare = |text: &str| text.parse().ok().filter(|amount| *amount <= MAX_QUANTITY);
    match kind {
        None | Some(ResourceKind::Cpus) => units::scaled(text, MAX_PLACES, 1000).ok_or(None),
        Some(ResourceKind::Mem | ResourceKind::Disk) => {
            bare(text).or_else(|| units::size(text)).ok_or(None)
        }
        Some(ResourceKind::DiskBandwidth | ResourceKind::NetworkBandwidth) => {
            match bare(text.strip_suffix("/s").unwrap_or(text)) {
                Some(bytes) => Ok(bytes),
                None => units::bandwidth(text).map_err(Some),
            }
        }
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

fn set(text: &str) -> Option<LotValue> {
    let items = text.strip_prefix('{')?.strip_suffix('}')?.split(',');
    let items = items.map(str::trim).filter(|item| !item.is_empty());
    Some(LotValue::Set(items.map(ToOwned::to_owned).collect()))
}

/// The value of a lot. Where there is none, the error may say why; it is none where the rule for all lots says enough.
fn value(kind: Option<ResourceKind>, text: &str) -> Result<LotValue, Option<BadBandwidth>> {
    match text.chars().next() {
        Some('[') => ranges(text).map(LotValue::Ranges).ok_or(None),
        Some('{') => set(text).ok_or(None),
        _ => amount(kind, text).map(LotValue::Scalar),
    }
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
    let value = value(key.kind(), text).map_err(|why| match why {
        Some(why) => bad(part, &why.to_string()),
        None => bad(part, RULE),
    })?;
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
