//! Quotas: what a role is sure of, and what it may not pass.

use std::fmt;

use crate::quantities::{Quantities, ResourceKind, write_amount};

/// The most of each kind that may be held; kinds without one are unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits([Option<u64>; ResourceKind::ALL.len()]);

impl Limits {
    /// No limit of anything.
    pub const NONE: Self = Self([None; ResourceKind::ALL.len()]);

    /// The limit of one kind, in its units.
    pub const fn get(&self, kind: ResourceKind) -> Option<u64> {
        self.0[kind as usize]
    }

    /// The same with one limit replaced.
    #[must_use]
    pub const fn with(mut self, kind: ResourceKind, limit: Option<u64>) -> Self {
        self.0[kind as usize] = limit;
        self
    }

    /// Each kind that has a limit, with it.
    pub fn iter(&self) -> impl Iterator<Item = (ResourceKind, u64)> + '_ {
        ResourceKind::ALL
            .into_iter()
            .filter_map(|kind| Some((kind, self.get(kind)?)))
    }

    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// What a role is guaranteed and limited to: of what is owned, with all roles below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Set aside for the role while it does not hold it.
    pub guarantee: Quantities,
    /// What it may not pass.
    pub limits: Limits,
}

impl Quota {
    /// Whether it guarantees and limits nothing.
    pub fn is_none(&self) -> bool {
        self.guarantee.is_zero() && self.limits.is_none()
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut limits = self.iter();
        let Some(first) = limits.next() else {
            return f.write_str("no limit");
        };
        write_amount(f, first)?;
        limits.try_for_each(|limit| {
            f.write_str(";")?;
            write_amount(f, limit)
        })
    }
}
