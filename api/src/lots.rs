//! Resources in full: plain amounts, and lots beside them in the same list.

use ebb_types::limits::{
    MAX_LOT_TEXT_BYTES, MAX_LOTS, MAX_QUANTITY, MAX_RANGES, MAX_RESERVATION_LABELS,
    MAX_RESERVATIONS, MAX_SET_ITEMS,
};
use ebb_types::{
    Disk, DiskSource, LotKey, LotValue, Lots, Quantities, Ranges, Reservation, ReservationKind,
    ResourceKind, Resources, Role, Volume, VolumeMode,
};
use proto::disk::Source;

use crate::check::{Invalid, bounded, id, resources, text, write_quantities, write_resources};
use crate::common::{labels, write_labels};
use crate::proto;

/// Whether an entry is more than an amount of a [`ResourceKind`].
pub(crate) fn is_lot(entry: &proto::Resource) -> bool {
    ResourceKind::from_name(&entry.name).is_err()
        || !entry.ranges.is_empty()
        || !entry.set.is_empty()
        || !entry.reservations.is_empty()
        || entry.disk.is_some()
        || entry.shared
}

/// Reads resources in full.
pub(crate) fn with_lots(
    field: &'static str,
    list: Vec<proto::Resource>,
) -> Result<(Resources, Lots), Invalid> {
    bounded(field, list.len(), MAX_LOTS + 2 * ResourceKind::ALL.len())?;
    let (lots, plain): (Vec<_>, Vec<_>) = list.into_iter().partition(is_lot);
    let lots = lots.into_iter().map(|entry| lot(field, entry));
    let lots = lots.collect::<Result<Vec<_>, _>>()?;
    Ok((resources(field, &plain)?, bag(field, lots)?))
}

/// Reads resources in full, of which none may be revocable.
pub(crate) fn owned_with_lots(
    field: &'static str,
    list: Vec<proto::Resource>,
) -> Result<(Quantities, Lots), Invalid> {
    let (resources, lots) = with_lots(field, list)?;
    if resources.is_revocable() {
        return Err(Invalid::new(
            field,
            "holds revocable resources, which have no place here; leave the mark out",
        ));
    }
    Ok((resources.regular, lots))
}

/// Reads lots alone.
pub(crate) fn lots(field: &'static str, list: Vec<proto::Resource>) -> Result<Lots, Invalid> {
    let (plain, lots) = with_lots(field, list)?;
    if !plain.is_zero() {
        return Err(Invalid::new(
            field,
            format!("holds {plain}, which is no lot; leave it out"),
        ));
    }
    Ok(lots)
}

fn bag(field: &'static str, lots: Vec<(LotKey, LotValue)>) -> Result<Lots, Invalid> {
    Lots::new(lots).map_err(|error| Invalid::new(field, error.to_string()))
}

fn lot(field: &'static str, entry: proto::Resource) -> Result<(LotKey, LotValue), Invalid> {
    if entry.revocable {
        let rule = "is revocable, which only plain amounts can be; leave the mark out";
        return Err(Invalid::new(field, rule));
    }
    let value = value(field, &entry)?;
    let key = LotKey {
        name: text(field, entry.name, MAX_LOT_TEXT_BYTES)?,
        reservations: reservations(field, entry.reservations)?,
        disk: entry
            .disk
            .map(|one| disk(field, one))
            .transpose()?
            .map(Box::new),
        shared: entry.shared,
    };
    Ok((key, value))
}

fn value(field: &'static str, entry: &proto::Resource) -> Result<LotValue, Invalid> {
    bounded(field, entry.ranges.len(), MAX_RANGES)?;
    bounded(field, entry.set.len(), MAX_SET_ITEMS)?;
    let amount = u64::try_from(entry.amount)
        .ok()
        .filter(|amount| *amount <= MAX_QUANTITY);
    match (entry.ranges.is_empty(), entry.set.is_empty(), amount) {
        (true, true, Some(amount)) => Ok(LotValue::Scalar(amount)),
        (false, true, Some(0)) => {
            let ranges = entry.ranges.iter().map(|range| (range.begin, range.end));
            Ranges::new(ranges)
                .map(LotValue::Ranges)
                .ok_or_else(|| Invalid::new(field, "has a range that ends before it begins"))
        }
        (true, false, Some(0)) => Ok(LotValue::Set(entry.set.iter().cloned().collect())),
        _ => Err(Invalid::new(
            field,
            format!("must be one of an amount between 0 and {MAX_QUANTITY}, ranges and a set"),
        )),
    }
}

pub(crate) fn reservations(
    field: &'static str,
    list: Vec<proto::Reservation>,
) -> Result<Vec<Reservation>, Invalid> {
    bounded(field, list.len(), MAX_RESERVATIONS)?;
    list.into_iter()
        .map(|one| {
            Ok(Reservation {
                role: id(field, &one.role, |t| Role::new(t))?,
                kind: match one.dynamic {
                    true => ReservationKind::Dynamic,
                    false => ReservationKind::Static,
                },
                principal: text(field, one.principal, MAX_LOT_TEXT_BYTES)?,
                labels: labels(
                    field,
                    one.labels,
                    MAX_RESERVATION_LABELS,
                    MAX_LOT_TEXT_BYTES,
                )?,
            })
        })
        .collect()
}

fn write_reservation(one: &Reservation) -> proto::Reservation {
    proto::Reservation {
        role: one.role.to_string(),
        dynamic: one.kind == ReservationKind::Dynamic,
        principal: one.principal.clone(),
        labels: write_labels(one.labels.clone()),
    }
}

/// The rules for texts and paths are those of [`LotKey::check`].
fn disk(field: &'static str, disk: proto::Disk) -> Result<Disk, Invalid> {
    let source = disk.source.map(|source| match source {
        Source::Path(root) => DiskSource::Path { root },
        Source::Mount(root) => DiskSource::Mount { root },
        Source::Block(device) => DiskSource::Block {
            id: device.id,
            profile: device.profile,
        },
        Source::Raw(device) => DiskSource::Raw {
            id: device.id,
            profile: device.profile,
        },
    });
    let volume = disk.volume.map(|volume| volume_of(field, volume));
    Ok(Disk {
        source,
        volume: volume.transpose()?,
    })
}

fn volume_of(field: &'static str, volume: proto::Volume) -> Result<Volume, Invalid> {
    Ok(Volume {
        id: text(field, volume.id, MAX_LOT_TEXT_BYTES)?,
        principal: text(field, volume.principal, MAX_LOT_TEXT_BYTES)?,
        container_path: volume.container_path,
        mode: match volume.read_only {
            true => VolumeMode::ReadOnly,
            false => VolumeMode::ReadWrite,
        },
    })
}

fn write_disk(disk: &Disk) -> proto::Disk {
    let device = |id: &str, profile: &str| proto::disk::Device {
        id: id.to_owned(),
        profile: profile.to_owned(),
    };
    proto::Disk {
        source: disk.source.as_ref().map(|source| match source {
            DiskSource::Path { root } => Source::Path(root.clone()),
            DiskSource::Mount { root } => Source::Mount(root.clone()),
            DiskSource::Block { id, profile } => Source::Block(device(id, profile)),
            DiskSource::Raw { id, profile } => Source::Raw(device(id, profile)),
        }),
        volume: disk.volume.as_ref().map(|volume| proto::Volume {
            id: volume.id.clone(),
            principal: volume.principal.clone(),
            container_path: volume.container_path.clone(),
            read_only: volume.mode == VolumeMode::ReadOnly,
        }),
    }
}

fn write_lot(key: &LotKey, value: &LotValue) -> proto::Resource {
    let mut entry = proto::Resource {
        name: key.name.clone(),
        reservations: key.reservations.iter().map(write_reservation).collect(),
        disk: key.disk.as_deref().map(write_disk),
        shared: key.shared,
        ..proto::Resource::default()
    };
    match value {
        // Several users of a shared lot may add up to more.
        LotValue::Scalar(amount) => {
            entry.amount = i64::try_from(*amount.min(&MAX_QUANTITY)).unwrap_or(i64::MAX);
        }
        LotValue::Ranges(ranges) => {
            let ranges = ranges.iter();
            entry.ranges = ranges
                .map(|(begin, end)| proto::Range { begin, end })
                .collect();
        }
        LotValue::Set(items) => entry.set = items.iter().cloned().collect(),
    }
    entry
}

/// Writes lots.
pub(crate) fn write_lots(lots: &Lots) -> Vec<proto::Resource> {
    lots.iter()
        .map(|(key, value)| write_lot(key, value))
        .collect()
}

/// Writes resources in full.
pub(crate) fn write_with_lots(resources: &Resources, lots: &Lots) -> Vec<proto::Resource> {
    let mut list = write_resources(resources);
    list.extend(write_lots(lots));
    list
}

/// Writes owned resources in full.
pub(crate) fn write_owned_with_lots(plain: &Quantities, lots: &Lots) -> Vec<proto::Resource> {
    let mut list = write_quantities(plain, false);
    list.extend(write_lots(lots));
    list
}

impl TryFrom<proto::Lots> for Lots {
    type Error = Invalid;

    fn try_from(wire: proto::Lots) -> Result<Self, Invalid> {
        lots("lots", wire.lots)
    }
}

impl From<Lots> for proto::Lots {
    fn from(lots: Lots) -> Self {
        Self {
            lots: write_lots(&lots),
        }
    }
}
