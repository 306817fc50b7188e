//! Resources: what an offer holds and a task uses, the revocable part kept apart everywhere.

use std::fmt;

use crate::quantities::{Quantities, ResourceKind};

/// Two bags of quantities that are never added to each other: what its holder owns until it gives
/// it back, and what may be taken back at any time.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    /// Owned by the holder until given back.
    pub regular: Quantities,
    /// Lent from the slack of others; may be taken back at any time.
    pub revocable: Quantities,
}

impl Resources {
    /// Nothing of anything.
    pub const ZERO: Self = Self {
        regular: Quantities::ZERO,
        revocable: Quantities::ZERO,
    };

    /// Only non-revocable resources.
    pub const fn regular(regular: Quantities) -> Self {
        Self {
            regular,
            revocable: Quantities::ZERO,
        }
    }

    /// Only revocable resources.
    pub const fn revocable(revocable: Quantities) -> Self {
        Self {
            regular: Quantities::ZERO,
            revocable,
        }
    }

    /// Whether there is nothing.
    #[inline]
    pub fn is_zero(&self) -> bool {
        self.regular.is_zero() && self.revocable.is_zero()
    }

    /// Whether anything in it is revocable: then the whole container that uses it is.
    pub fn is_revocable(&self) -> bool {
        !self.revocable.is_zero()
    }

    /// Whether `other` fits into this, each part on its own.
    #[inline]
    pub fn contains(&self, other: &Self) -> bool {
        // Most often nothing of it is revocable.
        self.regular.contains(&other.regular)
            && (other.revocable.is_zero() || self.revocable.contains(&other.revocable))
    }

    /// The sum, or `None` on overflow.
    #[must_use]
    #[inline]
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        Some(Self {
            regular: self.regular.checked_add(&other.regular)?,
            revocable: self.revocable.checked_add(&other.revocable)?,
        })
    }

    /// The difference, or `None` where `other` holds more of something.
    #[must_use]
    #[inline]
    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        Some(Self {
            regular: self.regular.checked_sub(&other.regular)?,
            revocable: self.revocable.checked_sub(&other.revocable)?,
        })
    }

    /// The sum, each amount stopping at the largest `u64`.
    #[must_use]
    #[inline]
    pub fn saturating_add(&self, other: &Self) -> Self {
        Self {
            regular: self.regular.saturating_add(&other.regular),
            revocable: self.revocable.saturating_add(&other.revocable),
        }
    }

    /// The difference, each amount stopping at 0.
    #[must_use]
    #[inline]
    pub fn saturating_sub(&self, other: &Self) -> Self {
        Self {
            regular: self.regular.saturating_sub(&other.regular),
            revocable: self.revocable.saturating_sub(&other.revocable),
        }
    }

    /// The rest of which `part` is known to be a part.
    #[must_use]
    #[inline]
    pub fn without(&self, part: &Self) -> Self {
        Self {
            regular: self.regular.without(&part.regular),
            revocable: self.revocable.without(&part.revocable),
        }
    }

    /// Both parts of one kind together: what a task may use, whoever it belongs to.
    pub const fn total(&self, kind: ResourceKind) -> u64 {
        self.regular
            .get(kind)
            .saturating_add(self.revocable.get(kind))
    }

    /// The kind that is asked for both as revocable and as regular, which no task may do.
    pub fn mixed_kind(&self) -> Option<ResourceKind> {
        ResourceKind::ALL
            .into_iter()
            .find(|kind| self.regular.get(*kind) > 0 && self.revocable.get(*kind) > 0)
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.regular.is_zero(), self.revocable.is_zero()) {
            (_, true) => write!(f, "{}", self.regular),
            (true, false) => write!(f, "{} (revocable)", self.revocable),
            (false, false) => write!(f, "{} and {} (revocable)", self.regular, self.revocable),
        }
    }
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revocable_never_stands_in_for_regular() {
        let one = Quantities::cpus_mem(1000, 0);
        let lent = Resources::revocable(one);
        let owned = Resources::regular(one);
        assert!(!lent.contains(&owned) && !owned.contains(&lent));
        assert_eq!(lent.checked_sub(&owned), None);
        assert_eq!(
            owned.checked_add(&lent).and_then(|both| both.mixed_kind()),
            Some(ResourceKind::Cpus)
        );
    }
}
