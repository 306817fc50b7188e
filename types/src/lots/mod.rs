//! Lots: every resource that is not a plain amount of one of the kinds of [`Quantities`]: ports and other ranges,
//! sets, GPUs and other named amounts, disks with a source, and whatever is reserved for a role, volumes included.
//!
//! Units: an amount of one of these kinds is in the unit of that kind, any other in thousandths.
//!
//! Lots are rare beside plain quantities, which the allocator's threads hand out. So they cost a pointer where there are
//! none, and are shared, not copied, where there are some.
//!
//! Invariants: no lot is of nothing; none is [plain](LotKey::is_plain) or breaks a rule of [`LotKey::check`]. In
//! one bag a number of a range or an item of a set stands once. A bag of what several hold counts a shared lot once for
//! each of them; what is free of a shared lot is always all of it ([`Lots::free`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::limits::{MAX_LOT_TEXT_BYTES, MAX_LOTS, MAX_QUANTITY, MAX_SET_ITEMS};
use crate::quantities::{Quantities, write_amount};

mod key;
mod ranges;
mod text;

pub use key::{
    Disk, DiskSource, GPUS, InvalidLot, LotKey, Reservation, ReservationKind, Volume, VolumeMode,
};
pub use ranges::Ranges;
pub use text::WrittenResources;

/// How much of a lot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LotValue {
    /// An amount.
    Scalar(u64),
    /// Numbers.
    Ranges(Ranges),
    /// Items.
    Set(BTreeSet<String>),
}

impl LotValue {
    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        match self {
            Self::Scalar(amount) => *amount == 0,
            Self::Ranges(ranges) => ranges.is_empty(),
            Self::Set(items) => items.is_empty(),
        }
    }

    /// How much it is, in the units of its kind; in thousandths of a number or item where it is no amount.
    pub fn amount(&self) -> u64 {
        match self {
            Self::Scalar(amount) => *amount,
            Self::Ranges(ranges) => ranges.count().saturating_mul(1000),
            Self::Set(items) => (items.len() as u64).saturating_mul(1000),
        }
    }

    /// The first of it, up to an [amount](Self::amount); of what is whole no fraction.
    fn at_most(&self, key: &LotKey, amount: u64) -> Self {
        match self {
            Self::Scalar(all) if key.name == GPUS => {
                Self::Scalar((*all).min(amount - amount % 1000))
            }
            Self::Scalar(all) => Self::Scalar((*all).min(amount)),
            Self::Ranges(ranges) => Self::Ranges(ranges.first_numbers(amount / 1000)),
            Self::Set(items) => {
                let most = usize::try_from(amount / 1000).unwrap_or(usize::MAX);
                Self::Set(items.iter().take(most).cloned().collect())
            }
        }
    }

    fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Scalar(a), Self::Scalar(b)) => a >= b,
            (Self::Ranges(a), Self::Ranges(b)) => a.contains(b),
            (Self::Set(a), Self::Set(b)) => a.is_superset(b),
            _ => false,
        }
    }

    fn checked_add(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Scalar(a), Self::Scalar(b)) => Some(Self::Scalar(a.checked_add(*b)?)),
            (Self::Ranges(a), Self::Ranges(b)) => a.checked_add(b).map(Self::Ranges),
            (Self::Set(a), Self::Set(b)) => {
                let fits = a.is_disjoint(b) && a.len() + b.len() <= MAX_SET_ITEMS;
                fits.then(|| Self::Set(a | b))
            }
            _ => None,
        }
    }

    /// What is left without `other`; of another sort it takes nothing away.
    fn without(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Scalar(a), Self::Scalar(b)) => Self::Scalar(a.saturating_sub(*b)),
            (Self::Ranges(a), Self::Ranges(b)) => Self::Ranges(a.without(b)),
            (Self::Set(a), Self::Set(b)) => Self::Set(a - b),
            _ => self.clone(),
        }
    }

    fn check(&self, key: &LotKey) -> Result<(), InvalidLot> {
        let name = &key.name;
        match self {
            Self::Scalar(amount) if *amount > MAX_QUANTITY => Err(InvalidLot::new(format!(
                "{name} is {amount}; at most {MAX_QUANTITY} can be counted"
            ))),
            Self::Scalar(amount) if name == GPUS && amount % 1000 != 0 => Err(InvalidLot::new(
                "gpus are whole; give a number without a fraction",
            )),
            Self::Scalar(_) => Ok(()),
            _ if key.kind().is_some() || name == GPUS => Err(InvalidLot::new(format!(
                "{name} is an amount; give a number"
            ))),
            Self::Ranges(_) => Ok(()),
            Self::Set(items) => {
                let is_bad = |item: &String| {
                    item.is_empty()
                        || item.len() > MAX_LOT_TEXT_BYTES
                        || item.contains(|c: char| c.is_control() || ":;,()[]{}".contains(c))
                };
                if items.len() > MAX_SET_ITEMS || items.iter().any(is_bad) {
                    return Err(InvalidLot::new(format!(
                        "{name} has at most {MAX_SET_ITEMS} items of 1 to {MAX_LOT_TEXT_BYTES} bytes without control characters and :;,()[]{{}}"
                    )));
                }
                Ok(())
            }
        }
    }
}

/// A bag of lots.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Lots(Option<Arc<BTreeMap<LotKey, LotValue>>>);

impl Lots {
    /// No lot.
    pub const NONE: Self = Self(None);

    /// A bag of these, each held against the rules; those of nothing are left out.
    ///
    /// # Errors
    /// [`InvalidLot`] says which rule is broken.
    pub fn new(lots: impl IntoIterator<Item = (LotKey, LotValue)>) -> Result<Self, InvalidLot> {
        let mut map: BTreeMap<LotKey, LotValue> = BTreeMap::new();
        for (key, value) in lots {
            key.check()?;
            value.check(&key)?;
            if key.is_plain() {
                return Err(InvalidLot::new(format!(
                    "{} is no lot of its own",
                    key.name
                )));
            }
            if value.is_zero() {
                continue;
            }
            let sum = match map.get(&key) {
                None => Some(value),
                Some(_) if key.shared => None,
                Some(old) => old.checked_add(&value),
            };
            let Some(sum) = sum else {
                return Err(InvalidLot::new(format!(
                    "{key} stands twice and does not add up; give it once"
                )));
            };
            sum.check(&key)?;
            map.insert(key, sum);
            if map.len() > MAX_LOTS {
                return Err(InvalidLot::new(format!(
                    "there are more than {MAX_LOTS} lots; name fewer at once"
                )));
            }
        }
        Ok(Self::of(map))
    }

    fn of(map: BTreeMap<LotKey, LotValue>) -> Self {
        Self((!map.is_empty()).then(|| Arc::new(map)))
    }

    fn map(&self) -> BTreeMap<LotKey, LotValue> {
        self.0.as_deref().cloned().unwrap_or_default()
    }

    /// Whether there are none.
    pub const fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.as_deref().map_or(0, BTreeMap::len)
    }

    /// The lots, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&LotKey, &LotValue)> {
        self.0.iter().flat_map(|map| map.iter())
    }

    /// How much there is of a lot.
    pub fn get(&self, key: &LotKey) -> Option<&LotValue> {
        self.0.as_deref()?.get(key)
    }

    /// Whether all of `other` is in it.
    pub fn contains(&self, other: &Self) -> bool {
        let mut lots = other.iter();
        lots.all(|(key, value)| self.get(key).is_some_and(|mine| mine.contains(value)))
    }

    /// Whether so much may be held of it: of a shared lot any number of times all of it.
    pub fn covers(&self, held: &Self) -> bool {
        let mut lots = held.iter();
        lots.all(|(key, value)| match key.shared {
            true => self.get(key).is_some(),
            false => self.get(key).is_some_and(|mine| mine.contains(value)),
        })
    }

    /// Both together; nothing where they do not add up: a number, item or sort of value stands against another, or it is
    /// more than can be counted.
    #[must_use]
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        if other.is_none() {
            return Some(self.clone());
        }
        if self.is_none() {
            return Some(other.clone());
        }
        let mut map = self.map();
        for (key, value) in other.iter() {
            let sum = match map.get(key) {
                Some(mine) => mine.checked_add(value)?,
                None => value.clone(),
            };
            map.insert(key.clone(), sum);
        }
        Some(Self::of(map))
    }

    /// What is left without `other`; nothing where that is not all in it.
    #[must_use]
    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        self.contains(other).then(|| self.saturating_sub(other))
    }

    /// What is left without `other`.
    #[must_use]
    pub fn saturating_sub(&self, other: &Self) -> Self {
        if other.is_none() || self.is_none() {
            return self.clone();
        }
        let mut map = self.map();
        for (key, value) in other.iter() {
            let Some(mine) = map.get_mut(key) else {
                continue;
            };
            *mine = mine.without(value);
            if mine.is_zero() {
                map.remove(key);
            }
        }
        Self::of(map)
    }

    /// What of it can still be given away where so much is held: of shared lots everything.
    #[must_use]
    pub fn free(&self, held: &Self) -> Self {
        self.saturating_sub(&held.only(|key| !key.shared))
    }

    /// Those that are meant.
    #[must_use]
    pub fn only(&self, is_meant: impl Fn(&LotKey) -> bool) -> Self {
        if self.iter().all(|(key, _)| is_meant(key)) {
            return self.clone();
        }
        let meant = self.iter().filter(|(key, _)| is_meant(key));
        Self::of(
            meant
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        )
    }

    /// The amounts of each [`ResourceKind`] in it.
    pub fn quantities(&self) -> Quantities {
        let scalars = self.iter().filter_map(|(key, value)| match value {
            LotValue::Scalar(amount) => Some((key.kind()?, *amount)),
            LotValue::Ranges(_) | LotValue::Set(_) => None,
        });
        scalars.fold(Quantities::ZERO, |sum, (kind, amount)| {
            sum.saturating_add(&Quantities::ZERO.with(kind, amount))
        })
    }

    /// The amounts of each [`ResourceKind`] that are taken out of what an agent has of them: all but disks with a source.
    pub fn out_of_plain(&self) -> Quantities {
        self.only(|key| key.source().is_none()).quantities()
    }

    /// The amounts of each [`ResourceKind`] that one holder is charged with: what is shared is charged to nobody.
    pub fn charged(&self) -> Quantities {
        self.only(|key| !key.shared).quantities()
    }

    /// The amount of a named lot that is neither reserved nor a disk's, and of those reserved: in thousandths if it is of
    /// no [`ResourceKind`].
    pub fn scalar(&self, name: &str) -> u64 {
        let amounts = self.iter().filter_map(|(key, value)| match value {
            LotValue::Scalar(amount) if key.name == name => Some(*amount),
            _ => None,
        });
        amounts.fold(0, u64::saturating_add)
    }

    /// The amounts of what is of no [`ResourceKind`] and not shared, in thousandths, by name; the names rise.
    pub fn named_amounts(&self) -> Vec<(String, u64)> {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (key, value) in self.iter() {
            if let LotValue::Scalar(amount) = value
                && key.kind().is_none()
                && !key.shared
            {
                let sum = sums.entry(&key.name).or_default();
                *sum = sum.saturating_add(*amount);
            }
        }
        let sums = sums.into_iter().filter(|(_, amount)| *amount > 0);
        sums.map(|(name, amount)| (name.to_owned(), amount))
            .collect()
    }

    /// The same, with no more of each lot than is allowed, which is asked lot by lot with how much there is.
    #[must_use]
    pub fn cut(&self, mut most: impl FnMut(&LotKey, u64) -> u64) -> Self {
        let mut left = BTreeMap::new();
        for (key, value) in self.iter() {
            let allowed = most(key, value.amount());
            let value = if allowed < value.amount() {
                value.at_most(key, allowed)
            } else {
                value.clone()
            };
            if !value.is_zero() {
                left.insert(key.clone(), value);
            }
        }
        Self::of(left)
    }

    /// The same, with no more than the first so many ranges of each lot.
    #[must_use]
    pub fn with_at_most(&self, ranges: usize) -> Self {
        let is_longer =
            |value: &LotValue| matches!(value, LotValue::Ranges(one) if one.len() > ranges);
        if !self.iter().any(|(_, value)| is_longer(value)) {
            return self.clone();
        }
        let lots = self.iter().map(|(key, value)| {
            let value = match value {
                LotValue::Ranges(one) => LotValue::Ranges(one.first(ranges)),
                value => value.clone(),
            };
            (key.clone(), value)
        });
        Self::of(lots.collect())
    }
}

pub(crate) fn write_lot(f: &mut fmt::Formatter<'_>, key: &LotKey, value: &LotValue) -> fmt::Result {
    match (value, key.kind()) {
        (LotValue::Scalar(amount), Some(kind)) if key.name == kind.name() => {
            // The amount as that of its kind, behind the whole key.
            struct Amount(crate::quantities::ResourceKind, u64);
            impl fmt::Display for Amount {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    write_amount(f, (self.0, self.1))
                }
            }
            let text = Amount(kind, *amount).to_string();
            let amount = text.split_once(':').map_or("", |(_, amount)| amount);
            write!(f, "{key}:{amount}")
        }
        (LotValue::Scalar(amount), _) => match (amount / 1000, amount % 1000) {
            (whole, 0) => write!(f, "{key}:{whole}"),
            (whole, part) => write!(f, "{key}:{whole}.{part:03}"),
        },
        (LotValue::Ranges(ranges), _) => write!(f, "{key}:{ranges}"),
        (LotValue::Set(items), _) => {
            write!(f, "{key}:{{")?;
            for (at, item) in items.iter().enumerate() {
                write!(f, "{}{item}", if at > 0 { "," } else { "" })?;
            }
            f.write_str("}")
        }
    }
}

impl fmt::Display for Lots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("nothing");
        }
        for (at, (key, value)) in self.iter().enumerate() {
            if at > 0 {
                f.write_str(";")?;
            }
            write_lot(f, key, value)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Lots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests;
