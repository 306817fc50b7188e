//! Quantities: how much of each kind of resource, as fixed-point integers with checked arithmetic.

use std::fmt;

use crate::limits::MAX_QUANTITY;

/// The kinds of scalar resources that Ebb offers, limits, measures and lends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum ResourceKind {
    /// Processor time, in thousandths of a core.
    Cpus = 0,
    /// Memory, in bytes.
    Mem = 1,
    /// Disk space, in bytes.
    Disk = 2,
    /// Disk bandwidth, in bytes a second.
    DiskBandwidth = 3,
    /// Network bandwidth, in bytes a second: what may be sent, and as much may be received.
    NetworkBandwidth = 4,
}

/// A name that is no [`ResourceKind`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no resource named {name:?}; known are {}",
    ResourceKind::listed()
)]
pub struct UnknownResource {
    /// The name as it was given, cut to 255 bytes.
    pub name: String,
}

impl ResourceKind {
    /// Every kind, in the order in which they are shown.
    pub const ALL: [Self; 5] = [
        Self::Cpus,
        Self::Mem,
        Self::Disk,
        Self::DiskBandwidth,
        Self::NetworkBandwidth,
    ];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpus => "cpus",
            Self::Mem => "mem",
            Self::Disk => "disk",
            Self::DiskBandwidth => "disk_bandwidth",
            Self::NetworkBandwidth => "network_bandwidth",
        }
    }

    /// The names of all kinds as a sentence has them: `cpus, mem and disk`.
    pub fn listed() -> String {
        let [first @ .., last] = Self::ALL.map(Self::name);
        format!("{} and {last}", first.join(", "))
    }

    /// The kind of that name.
    ///
    /// # Errors
    /// [`UnknownResource`] names what was asked for and what there is.
    pub fn from_name(name: &str) -> Result<Self, UnknownResource> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| UnknownResource {
                name: name.chars().take(255).collect(),
            })
    }

    /// Whether it can be taken back in milliseconds by slowing its user down (CPU, bandwidth), or
    /// only by ending its user (memory, disk).
    pub const fn is_compressible(self) -> bool {
        matches!(
            self,
            Self::Cpus | Self::DiskBandwidth | Self::NetworkBandwidth
        )
    }
}

/// An amount of every kind of resource. Missing kinds are 0.
///
/// Arithmetic never wraps: what would is `None`, or stops at 0 where the name says so.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Quantities([u64; ResourceKind::ALL.len()]);

impl Quantities {
    /// Nothing of anything.
    pub const ZERO: Self = Self([0; ResourceKind::ALL.len()]);

    /// As much of everything as there can be.
    pub const MAX: Self = Self([u64::MAX; ResourceKind::ALL.len()]);

    /// Collects amounts; a kind that is named twice counts its last amount.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (ResourceKind, u64)>) -> Self {
        pairs
            .into_iter()
            .fold(Self::ZERO, |sum, (kind, amount)| sum.with(kind, amount))
    }

    /// CPU in thousandths of a core and memory in bytes, which is what most tasks ask for.
    pub fn cpus_mem(cpu_milli: u64, mem_bytes: u64) -> Self {
        Self::from_pairs([
            (ResourceKind::Cpus, cpu_milli),
            (ResourceKind::Mem, mem_bytes),
        ])
    }

    /// The amount of one kind.
    pub const fn get(&self, kind: ResourceKind) -> u64 {
        self.0[kind as usize]
    }

    /// CPU in thousandths of a core.
    pub const fn cpu_milli(&self) -> u64 {
        self.get(ResourceKind::Cpus)
    }

    /// Memory in bytes.
    pub const fn mem_bytes(&self) -> u64 {
        self.get(ResourceKind::Mem)
    }

    /// The same with one amount replaced.
    #[must_use]
    pub const fn with(mut self, kind: ResourceKind, amount: u64) -> Self {
        self.0[kind as usize] = amount;
        self
    }

    /// Each kind with its amount, zeros left out.
    pub fn iter(&self) -> impl Iterator<Item = (ResourceKind, u64)> + '_ {
        ResourceKind::ALL
            .into_iter()
            .map(|kind| (kind, self.get(kind)))
            .filter(|(_, amount)| *amount > 0)
    }

    /// Whether there is nothing.
    #[inline]
    pub fn is_zero(&self) -> bool {
        // Without branches, as all of the arithmetic here: the allocator does nothing more often.
        self.0.iter().fold(0, |bits, amount| bits | amount) == 0
    }

    /// Whether every amount of `other` fits into this.
    #[inline]
    pub fn contains(&self, other: &Self) -> bool {
        let pairs = self.0.iter().zip(&other.0);
        pairs.fold(true, |all, (mine, theirs)| all & (mine >= theirs))
    }

    /// Whether no amount is above [`MAX_QUANTITY`].
    pub fn is_within_bounds(&self) -> bool {
        self.0.iter().all(|amount| *amount <= MAX_QUANTITY)
    }

    /// The sum, or `None` where an amount would pass the range of a `u64`.
    #[must_use]
    #[inline]
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        self.zip(other, u64::overflowing_add)
    }

    /// The difference, or `None` where `other` holds more of something.
    #[must_use]
    #[inline]
    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        self.zip(other, u64::overflowing_sub)
    }

    /// The sum, each amount stopping at the largest `u64`.
    #[must_use]
    #[inline]
    pub fn saturating_add(&self, other: &Self) -> Self {
        self.map2(other, u64::saturating_add)
    }

    /// The difference, each amount stopping at 0.
    #[must_use]
    #[inline]
    pub fn saturating_sub(&self, other: &Self) -> Self {
        self.map2(other, u64::saturating_sub)
    }

    /// The sum of what is known to have one: of a whole and its parts, say.
    #[must_use]
    #[inline]
    pub fn plus(&self, other: &Self) -> Self {
        debug_assert!(self.checked_add(other).is_some(), "{self} + {other}");
        self.map2(other, u64::wrapping_add)
    }

    /// The rest of which `part` is known to be a part.
    #[must_use]
    #[inline]
    pub fn without(&self, part: &Self) -> Self {
        debug_assert!(self.contains(part), "{self} does not hold {part}");
        self.map2(part, u64::wrapping_sub)
    }

    /// The smaller amount of each kind.
    #[must_use]
    #[inline]
    pub fn min(&self, other: &Self) -> Self {
        self.map2(other, u64::min)
    }

    /// The larger amount of each kind.
    #[must_use]
    #[inline]
    pub fn max(&self, other: &Self) -> Self {
        self.map2(other, u64::max)
    }

    #[inline]
    fn zip(&self, other: &Self, op: impl Fn(u64, u64) -> (u64, bool)) -> Option<Self> {
        let (mut result, mut overflows) = (Self::ZERO, false);
        for (slot, (a, b)) in result.0.iter_mut().zip(self.0.iter().zip(&other.0)) {
            let (value, overflow) = op(*a, *b);
            *slot = value;
            overflows |= overflow;
        }
        (!overflows).then_some(result)
    }

    #[inline]
    fn map2(&self, other: &Self, op: impl Fn(u64, u64) -> u64) -> Self {
        let mut result = Self::ZERO;
        for (slot, (a, b)) in result.0.iter_mut().zip(self.0.iter().zip(&other.0)) {
            *slot = op(*a, *b);
        }
        result
    }
}

impl fmt::Display for Quantities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("nothing");
        }
        for (index, (kind, amount)) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(";")?;
            }
            write_amount(f, (kind, amount))?;
        }
        Ok(())
    }
}

pub(crate) fn write_amount(
    f: &mut fmt::Formatter<'_>,
    (kind, amount): (ResourceKind, u64),
) -> fmt::Result {
    match kind {
        ResourceKind::Cpus => write!(f, "cpus:{}.{:03}", amount / 1000, amount % 1000),
        kind => write!(f, "{}:{amount}", kind.name()),
    }
}

impl fmt::Debug for Quantities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quantities() -> impl Strategy<Value = Quantities> {
        prop::array::uniform5(prop_oneof![0..10u64, any::<u64>()]).prop_map(Quantities)
    }

    proptest! {
        #[test]
        fn subtraction_undoes_addition(a in quantities(), b in quantities()) {
            if let Some(sum) = a.checked_add(&b) {
                prop_assert_eq!(sum.checked_sub(&b), Some(a));
                prop_assert!(sum.contains(&a) && sum.contains(&b));
            }
        }

        #[test]
        fn containing_is_being_subtractable(a in quantities(), b in quantities()) {
            prop_assert_eq!(a.contains(&b), a.checked_sub(&b).is_some());
        }

        #[test]
        fn min_and_rest_make_the_whole(a in quantities(), b in quantities()) {
            prop_assert_eq!(a.min(&b).checked_add(&a.saturating_sub(&b)), Some(a));
            prop_assert!(a.max(&b).contains(&a.min(&b)));
        }
    }

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for kind in ResourceKind::ALL {
            assert_eq!(ResourceKind::from_name(kind.name()), Ok(kind));
        }
        assert_eq!(
            ResourceKind::from_name("cpu").unwrap_err().to_string(),
            "there is no resource named \"cpu\"; known are cpus, mem, disk, disk_bandwidth and network_bandwidth"
        );
    }
}
