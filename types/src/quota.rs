//! Quotas: what a role is sure of, and what it may not pass.

use std::collections::BTreeMap;
use std::fmt;

use crate::ids::Role;
use crate::limits::MAX_LOT_LIMITS;
use crate::lots::{GPUS, InvalidLot, LotKey};
use crate::quantities::{Quantities, ResourceKind, write_amount};

/// The most of each kind that may be held; kinds without one are unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits([Option<u64>; ResourceKind::ALL.len()]);

impl Limits {
    /// What they leave beside what is held; the largest number of a kind without one.
    pub fn left(&self, held: &Quantities) -> Quantities {
        self.iter().fold(Quantities::MAX, |left, (kind, limit)| {
            left.with(kind, limit.saturating_sub(held.get(kind)))
        })
    }

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

/// The most of named lots that may be held, by name, in thousandths: of amounts, and of how many numbers or items there are
/// of what is none. Names without one are unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LotLimits(BTreeMap<String, u64>);

impl LotLimits {
    /// These limits, held against the rules.
    ///
    /// # Errors
    /// [`InvalidLot`] says which rule is broken.
    pub fn new(limits: impl IntoIterator<Item = (String, u64)>) -> Result<Self, InvalidLot> {
        let mut all = BTreeMap::new();
        for (name, limit) in limits {
            let key = LotKey::named(name.clone());
            key.check()?;
            if key.kind().is_some() {
                return Err(InvalidLot::new(format!(
                    "{name} is a kind of its own and no lot; limit it among the kinds"
                )));
            }
            if name == GPUS && limit % 1000 != 0 {
                return Err(InvalidLot::new(
                    "gpus are whole; give a limit without a fraction",
                ));
            }
            if all.insert(name.clone(), limit).is_some() {
                return Err(InvalidLot::new(format!(
                    "{name} is limited twice; name it once"
                )));
            }
        }
        if all.len() > MAX_LOT_LIMITS {
            return Err(InvalidLot::new(format!(
                "{} lots are limited; at most {MAX_LOT_LIMITS} may be",
                all.len()
            )));
        }
        Ok(Self(all))
    }

    /// The limit of a name, in thousandths.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// Each name that has a limit, with it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, limit)| (name.as_str(), *limit))
    }

    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

/// A role's limit of a named lot, and what counts towards it: what is offered to it and the roles below it, what their
/// tasks hold, and what is reserved for them. In thousandths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LotQuota {
    /// The role.
    pub role: Role,
    /// The name.
    pub name: String,
    /// The most that may be held.
    pub limit: u64,
    /// What is.
    pub held: u64,
}

/// What a role is guaranteed and limited to, with all roles below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Set aside for the role while it does not hold it: of what is owned, never met with what is lent.
    pub guarantee: Quantities,
    /// What of what is owned it may not pass.
    pub limits: Limits,
    /// What of what is lent it may not pass.
    pub revocable_limits: Limits,
}

impl Quota {
    /// Whether it guarantees and limits nothing.
    pub fn is_none(&self) -> bool {
        self.guarantee.is_zero() && self.limits.is_none() && self.revocable_limits.is_none()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_lots_are_of_names_that_are_no_kind_and_named_once() {
        let of = |limits: &[(&str, u64)]| {
            let limits = limits
                .iter()
                .map(|(name, most)| ((*name).to_owned(), *most));
            LotLimits::new(limits).map_err(|error| error.to_string())
        };
        let good = of(&[("ports", 0), ("gpus", 4_000), ("licences", 1_500)]).unwrap();
        assert_eq!((good.get("ports"), good.get("zones")), (Some(0), None));
        for (wrong, says) in [
            (&[("cpus", 1)][..], "limit it among the kinds"),
            (&[("gpus", 1_500)], "whole"),
            (&[("ports", 1), ("ports", 1)], "limited twice"),
            (&[("", 1)], ""),
        ] {
            let error = of(wrong).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        let many = (0..=MAX_LOT_LIMITS).map(|number| (format!("n{number}"), 1));
        assert!(LotLimits::new(many).is_err());
    }
}
