//! What an operation takes and what it makes of it. Pure.
//!
//! Each lot of an operation is written as it is with the reservation or volume in question; without that it is what
//! the operation starts from or ends with.

use ebb_types::{
    DiskSource, LotKey, LotValue, Lots, OperationKind, Quantities, ReservationKind, VolumeMode,
};

/// A part of what an agent has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::core) struct Bag {
    /// Plain amounts.
    pub(in crate::core) plain: Quantities,
    /// Lots.
    pub(in crate::core) lots: Lots,
}

/// What becomes of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::core) struct Conversion {
    /// What is there before.
    pub(in crate::core) from: Bag,
    /// What is there after.
    pub(in crate::core) to: Bag,
}

impl Bag {
    fn add(&mut self, key: LotKey, value: &LotValue) -> Result<(), String> {
        match (value, key.kind().filter(|_| key.is_plain())) {
            (LotValue::Scalar(amount), Some(kind)) => {
                let more = Quantities::ZERO.with(kind, *amount);
                self.plain = self.plain.saturating_add(&more);
                Ok(())
            }
            _ => {
                let one = Lots::new([(key, value.clone())]).map_err(|error| error.to_string())?;
                let sum = self.lots.checked_add(&one);
                self.lots = sum.ok_or_else(|| format!("{one} is named twice; name it once"))?;
                Ok(())
            }
        }
    }

    /// Whether this is all in it.
    pub(in crate::core) fn contains(&self, other: &Self) -> bool {
        self.plain.contains(&other.plain) && self.lots.contains(&other.lots)
    }

    /// Both together.
    pub(super) fn with(&self, other: &Self) -> Self {
        let lots = self.lots.checked_add(&other.lots);
        debug_assert!(lots.is_some(), "{} and {} overlap", self.lots, other.lots);
        Self {
            plain: self.plain.saturating_add(&other.plain),
            lots: lots.unwrap_or_else(|| self.lots.clone()),
        }
    }

    /// Whether something of it is a part of the other that is not in `free`.
    pub(super) fn helps(&self, other: &Self, free: &Self) -> bool {
        let lacking = other.lots.saturating_sub(&free.lots);
        other.plain.saturating_sub(&free.plain).min(&self.plain) != Quantities::ZERO
            || lacking.saturating_sub(&self.lots) != lacking
    }

    /// What it is after a conversion of something that is in it.
    pub(in crate::core) fn after(&self, conversion: &Conversion) -> Option<Self> {
        let Conversion { from, to } = conversion;
        let left = self.lots.checked_sub(&from.lots)?;
        Some(Self {
            plain: self
                .plain
                .checked_sub(&from.plain)?
                .checked_add(&to.plain)?,
            lots: left.checked_add(&to.lots)?,
        })
    }
}

impl Conversion {
    /// What an operation on lots means.
    ///
    /// # Errors
    /// The rule that it breaks, as a sentence.
    pub(in crate::core) fn of(kind: OperationKind, lots: &Lots) -> Result<Self, String> {
        if lots.is_none() {
            return Err(format!("{} names nothing; name lots", kind.name()));
        }
        let (mut with, mut without) = (Bag::default(), Bag::default());
        for (key, value) in lots.iter() {
            let stripped = match kind {
                OperationKind::Reserve | OperationKind::Unreserve => unreserved(kind, key)?,
                OperationKind::Create | OperationKind::Destroy => without_volume(kind, key)?,
            };
            with.add(key.clone(), value)?;
            without.add(stripped, value)?;
        }
        Ok(match kind {
            OperationKind::Reserve | OperationKind::Create => Self {
                from: without,
                to: with,
            },
            OperationKind::Unreserve | OperationKind::Destroy => Self {
                from: with,
                to: without,
            },
        })
    }
}

fn unreserved(kind: OperationKind, key: &LotKey) -> Result<LotKey, String> {
    let is_dynamic = |key: &LotKey| {
        let last = key.reservations.last();
        last.is_some_and(|last| last.kind == ReservationKind::Dynamic)
    };
    if !is_dynamic(key) {
        return Err(format!(
            "{} of {key}, which ends with no dynamic reservation; name one",
            kind.name()
        ));
    }
    if key.volume().is_some() {
        return Err(format!(
            "{} of {key}, which is a volume; destroy that first",
            kind.name()
        ));
    }
    let mut stripped = key.clone();
    stripped.reservations.pop();
    Ok(stripped)
}

fn without_volume(kind: OperationKind, key: &LotKey) -> Result<LotKey, String> {
    match key.volume() {
        None => Err(format!("{} of {key}, which is no volume", kind.name())),
        Some(volume) if kind == OperationKind::Create && volume.mode != VolumeMode::ReadWrite => {
            Err(format!(
                "volume {} is to be made read-only, so that nothing could ever be in it; make it writable",
                volume.id
            ))
        }
        Some(volume)
            if kind == OperationKind::Create
                && matches!(
                    key.source(),
                    Some(DiskSource::Block { .. } | DiskSource::Raw { .. })
                ) =>
        {
            Err(format!(
                "volume {} is to be on a disk that is a device, which tasks have as it is and without folders; take space of another disk",
                volume.id
            ))
        }
        Some(_) => Ok(key.without_volume()),
    }
}
