//! Weighted dominant resource fairness (DRF, Ghodsi et al., NSDI'11), in exact arithmetic.
//!
//! A share is a fraction of integers, compared by cross-multiplication or, in an order of need, by a number of 128 bits
//! that is as exact for every cluster that there can be: two machines, and simulation and production, agree to the bit. Regular and revocable resources are
//! counted apart everywhere (see [`Class`]), so that what a framework is lent never buys it less of
//! what it owns.

use std::cmp::Ordering;

use ebb_types::{Quantities, ResourceKind, Resources};

/// The two kinds of claims, whose fairness is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Class {
    /// Owned until given back.
    Regular = 0,
    /// May be taken back at any time.
    Revocable = 1,
}

impl Class {
    /// Both classes.
    pub const ALL: [Self; 2] = [Self::Regular, Self::Revocable];

    /// The part of some resources that is of this class.
    pub const fn part(self, resources: &Resources) -> &Quantities {
        match self {
            Self::Regular => &resources.regular,
            Self::Revocable => &resources.revocable,
        }
    }
}

/// Sums over a whole cluster: as [`Quantities`], in a range that no cluster can pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums([u128; ResourceKind::ALL.len()]);

impl Sums {
    /// Adds to the sums. Of amounts of 64 bits 2^64 can be added.
    #[inline]
    pub fn add(&mut self, amounts: &Quantities) {
        for kind in ResourceKind::ALL {
            self.0[kind as usize] += u128::from(amounts.get(kind));
        }
    }

    /// Adds other sums.
    pub fn add_sums(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(&other.0) {
            *sum = sum.saturating_add(*more);
        }
    }

    /// Whether the sums hold as much.
    #[inline]
    pub fn contains(&self, amounts: &Quantities) -> bool {
        // Without branches.
        ResourceKind::ALL.into_iter().fold(true, |all, kind| {
            all & (self.0[kind as usize] >= u128::from(amounts.get(kind)))
        })
    }

    /// Takes from the sums; false, and nothing is changed, where they hold less.
    #[must_use]
    pub fn sub(&mut self, amounts: &Quantities) -> bool {
        let holds = self.contains(amounts);
        if holds {
            self.take(amounts);
        }
        holds
    }

    /// Takes what they hold from the sums.
    #[inline]
    fn take(&mut self, amounts: &Quantities) {
        debug_assert!(self.contains(amounts), "{amounts} is not in {self:?}");
        for kind in ResourceKind::ALL {
            let sum = &mut self.0[kind as usize];
            *sum = sum.wrapping_sub(u128::from(amounts.get(kind)));
        }
    }

    /// Takes in that one of the summands has changed; it is at most the sum.
    pub fn replace(&mut self, before: &Self, after: &Self) {
        for (sum, (before, after)) in self.0.iter_mut().zip(before.0.iter().zip(&after.0)) {
            *sum = sum.saturating_sub(*before).saturating_add(*after);
        }
    }

    /// Raises each sum to at least an amount.
    pub fn raise_to(&mut self, amounts: &Quantities) {
        for kind in ResourceKind::ALL {
            let sum = &mut self.0[kind as usize];
            *sum = (*sum).max(u128::from(amounts.get(kind)));
        }
    }

    /// The sum of one kind.
    pub const fn get(&self, kind: ResourceKind) -> u128 {
        self.0[kind as usize]
    }

    /// Whether there is nothing.
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|sum| *sum == 0)
    }

    /// Whether both have something of the same kinds.
    pub fn has_same_kinds(&self, other: &Self) -> bool {
        self.0
            .iter()
            .zip(&other.0)
            .all(|(a, b)| (*a == 0) == (*b == 0))
    }
}

/// What a cluster has of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    sums: Sums,
    /// The kinds that it has some of, and how much, where all of that is below 2^64; and how many they are.
    short: Option<[(ResourceKind, u64); ResourceKind::ALL.len()]>,
    kinds: usize,
}

impl Totals {
    /// These sums.
    pub fn new(sums: Sums) -> Self {
        let mut short = [(ResourceKind::Cpus, 0); ResourceKind::ALL.len()];
        let mut kinds = 0;
        for kind in ResourceKind::ALL {
            let sum = sums.get(kind);
            if sum > 0 {
                short[kinds] = (kind, sum as u64);
                kinds += 1;
            }
        }
        let is_short = sums.0.iter().all(|sum| sum >> 64 == 0);
        Self {
            sums,
            short: is_short.then_some(short),
            kinds,
        }
    }

    /// What there is.
    pub const fn sums(&self) -> &Sums {
        &self.sums
    }
}

/// Bits after the point of a share's number.
const NUMBER_BITS: u32 = 124;

/// A dominant share divided by a weight: the fraction `used / total`, never rounded.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    used: u128,
    total: u128,
}

impl Share {
    /// The share of nothing.
    pub const ZERO: Self = Self { used: 0, total: 1 };

    /// The share of an amount, divided by the weight (in thousandths, at least 1); none of nothing.
    pub fn of(used: u128, total: u128, weight_milli: u32) -> Self {
        if total == 0 {
            return Self::ZERO;
        }
        let total = total.saturating_mul(u128::from(weight_milli.max(1)));
        Self { used, total }
    }

    /// The largest share of `held` over the kinds that the cluster has, divided by the weight (in
    /// thousandths, at least 1).
    #[inline(always)]
    pub fn dominant(held: &Sums, cluster: &Totals, weight_milli: u32) -> Self {
        let weight = u128::from(weight_milli.max(1));
        if let Some(mut dominant) = Self::largest_short(held, cluster) {
            // Of 96 bits at most.
            dominant.total = dominant.total.wrapping_mul(weight);
            return dominant;
        }
        let mut dominant = Self::largest_long(held, &cluster.sums);
        dominant.total = dominant.total.saturating_mul(weight);
        dominant
    }

    /// The largest share where all sums are below 2^64, as they nearly always are: no product overflows, and each is one
    /// multiplication.
    #[inline(always)]
    fn largest_short(held: &Sums, cluster: &Totals) -> Option<Self> {
        let (mut used, mut total, mut above) = (0u64, 1u64, 0);
        let product = |a: u64, b: u64| u128::from(a) * u128::from(b);
        for (kind, of_total) in cluster.short.as_ref()?.iter().take(cluster.kinds) {
            let of_used = held.get(*kind);
            above |= of_used >> 64;
            let of_used = of_used as u64;
            if product(of_used, total) > product(used, *of_total) {
                (used, total) = (of_used, *of_total);
            }
        }
        (above == 0).then(|| Self {
            used: used.into(),
            total: total.into(),
        })
    }

    #[cold]
    fn largest_long(held: &Sums, cluster: &Sums) -> Self {
        let shares = ResourceKind::ALL.map(|kind| Self {
            used: held.get(kind),
            total: cluster.get(kind),
        });
        let known = shares.into_iter().filter(|share| share.total > 0);
        known.fold(
            Self::ZERO,
            |largest, share| if share > largest { share } else { largest },
        )
    }

    /// The share as one number, in units of 2^-124 and below 16. Of two shares the smaller has the smaller number, and
    /// different ones have different numbers, as long as their totals multiplied are below 2^124 (2^40 thousandths of a
    /// core and 2^62 bytes, with weights of 2^11 each); nearer ones than that count as equal, alike on every machine.
    #[inline(always)]
    fn number(&self) -> u128 {
        const HALF: u32 = NUMBER_BITS / 2;
        match (self.used | self.total).leading_zeros() {
            64.. => {}
            32.. => return self.number_in_quarters(),
            _ => return self.number_digit_by_digit(),
        }
        let (used, total) = (self.used as u64, self.total as u64);
        // Nearly never.
        let (whole, rest) = if used >= total {
            (u128::from(used / total), used % total)
        } else {
            (0, used)
        };
        // Both fit into 64 bits, since the rest is below the total.
        let half = |rest: u64| {
            let wide = u128::from(rest) << HALF;
            let part = (wide / u128::from(total)) as u64;
            (part, (wide as u64).wrapping_sub(part.wrapping_mul(total)))
        };
        let (high, rest) = half(rest);
        let (low, _) = half(rest);
        let number = (u128::from(high) << HALF) | u128::from(low);
        if whole == 0 {
            number
        } else if whole >> (u128::BITS - NUMBER_BITS) == 0 {
            (whole << NUMBER_BITS) | number
        } else {
            u128::MAX
        }
    }

    /// The same for much memory with a large weight.
    #[cold]
    fn number_in_quarters(&self) -> u128 {
        const QUARTER: u32 = NUMBER_BITS / 4;
        let (mut number, mut rest) = (self.used / self.total, self.used % self.total);
        if number >> (u128::BITS - NUMBER_BITS) != 0 {
            return u128::MAX;
        }
        for _ in 0..4 {
            number = (number << QUARTER) | ((rest << QUARTER) / self.total);
            rest = (rest << QUARTER) % self.total;
        }
        number
    }

    /// The same for more than any cluster has.
    #[cold]
    fn number_digit_by_digit(&self) -> u128 {
        let (mut number, mut rest) = (self.used / self.total, self.used % self.total);
        if number >> (u128::BITS - NUMBER_BITS) != 0 {
            return u128::MAX;
        }
        for _ in 0..NUMBER_BITS {
            let carries = rest.leading_zeros() == 0;
            rest <<= 1;
            let fits = carries || rest >= self.total;
            if fits {
                rest = rest.wrapping_sub(self.total);
            }
            number = (number << 1) | u128::from(fits);
        }
        number
    }

    /// The share in thousandths, rounded down; for people.
    pub fn as_milli(&self) -> u64 {
        let milli = self.used.saturating_mul(1000) / self.total.max(1);
        u64::try_from(milli).unwrap_or(u64::MAX)
    }
}

impl Ord for Share {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        // Most claimants have the same dominant kind and weight, hence the same denominator.
        if self.total == other.total {
            return self.used.cmp(&other.used);
        }
        // What occurs in practice is short enough that no product overflows.
        if (self.used | self.total | other.used | other.total) >> 64 == 0 {
            return (self.used * other.total).cmp(&(other.used * self.total));
        }
        wide_product(self.used, other.total).cmp(&wide_product(other.used, self.total))
    }
}

impl PartialOrd for Share {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Share {}

/// The product as (high, low) halves of 256 bits.
fn wide_product(a: u128, b: u128) -> (u128, u128) {
    let split = |value: u128| (value >> 64, value & u128::from(u64::MAX));
    let ((a_high, a_low), (b_high, b_low)) = (split(a), split(b));
    let low = a_low * b_low;
    // Neither sum can overflow: (2^64 - 1)^2 + 2 (2^64 - 1) < 2^128.
    let middle = a_high * b_low + (low >> 64);
    let other_middle = a_low * b_high + (middle & u128::from(u64::MAX));
    let high = a_high * b_high + (middle >> 64) + (other_middle >> 64);
    (high, (other_middle << 64) | (low & u128::from(u64::MAX)))
}

/// What somebody holds, offered and allocated together, with the number of allocations that led to
/// it; by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    held: [Sums; Class::ALL.len()],
    allocations: [u64; Class::ALL.len()],
}

impl Standing {
    /// Who holds so much of what is owned, however many allocations led to it.
    pub const fn of_owned(held: Sums) -> Self {
        Self {
            held: [held, Sums([0; ResourceKind::ALL.len()])],
            allocations: [0; Class::ALL.len()],
        }
    }

    /// Adds an allocation of a class.
    #[inline]
    pub fn charge(&mut self, class: Class, part: &Quantities) {
        self.held[class as usize].add(part);
        let count = &mut self.allocations[class as usize];
        *count = count.saturating_add(1);
    }

    /// Undoes a [`Standing::charge`]; what was charged is held.
    #[inline]
    pub fn uncharge(&mut self, class: Class, part: &Quantities) {
        self.take(class, part);
        let count = &mut self.allocations[class as usize];
        *count = count.saturating_sub(1);
    }

    /// Takes back what is held of a class.
    #[inline]
    pub fn take(&mut self, class: Class, part: &Quantities) {
        self.held[class as usize].take(part);
    }

    /// What is held.
    pub const fn held(&self, class: Class) -> &Sums {
        &self.held[class as usize]
    }

    /// How many allocations were made.
    pub const fn allocations(&self, class: Class) -> u64 {
        self.allocations[class as usize]
    }

    /// Whether nothing is held.
    pub fn is_zero(&self) -> bool {
        self.held.iter().all(Sums::is_zero)
    }
}

/// How needy a claimant is among others: the smallest is the neediest. By share, then by the number of allocations, then
/// by who came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// The upper half of the share's number: nearly always it decides.
    share: u64,
    share_rest: u64,
    allocations: u64,
    born: u64,
}

impl Need {
    /// Less needy than everybody.
    pub const LAST: Self = Self {
        share: u64::MAX,
        share_rest: u64::MAX,
        allocations: u64::MAX,
        born: u64::MAX,
    };

    /// The need of a claimant that came as the `born`th.
    #[inline(always)]
    pub fn of(share: Share, allocations: u64, born: u64) -> Self {
        let share = share.number();
        Self {
            share: (share >> 64) as u64,
            share_rest: share as u64,
            allocations,
            born,
        }
    }

    /// Whether this one is needier, which is asked more often than anything else.
    #[inline]
    pub const fn is_before(&self, other: &Self) -> bool {
        if self.share != other.share {
            return self.share < other.share;
        }
        if self.share_rest != other.share_rest {
            return self.share_rest < other.share_rest;
        }
        if self.allocations != other.allocations {
            return self.allocations < other.allocations;
        }
        self.born < other.born
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sums() -> impl Strategy<Value = Sums> {
        let amount = || prop_oneof![0..4u64, any::<u64>()];
        prop::array::uniform5(amount()).prop_map(|amounts| Sums(amounts.map(u128::from)))
    }

    /// Compares by subtraction of continued fractions: no wide product in sight.
    fn compare_slowly(mut a: (u128, u128), mut b: (u128, u128)) -> Ordering {
        let mut flipped = false;
        loop {
            let order = (a.0 / a.1).cmp(&(b.0 / b.1));
            let (rest_a, rest_b) = (a.0 % a.1, b.0 % b.1);
            let order = match (order, rest_a, rest_b) {
                (Ordering::Equal, 0, 0) => Ordering::Equal,
                (Ordering::Equal, 0, _) => Ordering::Less,
                (Ordering::Equal, _, 0) => Ordering::Greater,
                (Ordering::Equal, _, _) => {
                    a = (a.1, rest_a);
                    b = (b.1, rest_b);
                    flipped = !flipped;
                    continue;
                }
                (order, _, _) => order,
            };
            return if flipped { order.reverse() } else { order };
        }
    }

    proptest! {
        #[test]
        fn shares_are_compared_as_exact_fractions(
            a in (any::<u128>(), 1..u128::MAX), b in (any::<u128>(), 1..u128::MAX)
        ) {
            let share = |(used, total)| Share { used, total };
            prop_assert_eq!(share(a).cmp(&share(b)), compare_slowly(a, b));
        }

        #[test]
        fn small_fractions_that_are_equal_compare_equal(
            used in 0..1000u128, total in 1..1000u128, factor in 1..u128::from(u64::MAX)
        ) {
            let reduced = Share { used, total };
            let expanded = Share { used: used * factor, total: total * factor };
            prop_assert_eq!(reduced.cmp(&expanded), Ordering::Equal);
        }

        #[test]
        fn the_number_of_a_share_is_exact(
            a in (any::<u128>(), 1..u128::MAX), b in (any::<u128>(), 1..u128::MAX), near in any::<bool>(),
            bits in (2..63u32, 2..62u32)
        ) {
            // Totals within the bound; the second share as near to the first as can be, or anywhere.
            let total = |total: u128, bits: u32| (total & ((1 << bits) - 1)).max(1);
            let (x, y) = (total(a.1, bits.0), total(b.1, bits.1));
            let a = Share { used: a.0 % (4 * x), total: x };
            let used = if near { a.used * y / x + (b.0 & 1) } else { b.0 % (4 * y) };
            let b = Share { used, total: y };
            prop_assert_eq!(a.number().cmp(&b.number()), a.cmp(&b));
            prop_assert_eq!(a.number(), a.number_digit_by_digit());
            prop_assert_eq!(a.number(), a.number_in_quarters());
        }

        #[test]
        fn shares_beyond_the_bound_are_never_in_the_wrong_order(
            a in (any::<u128>(), 1..u128::MAX), b in (any::<u128>(), 1..u128::MAX)
        ) {
            let (a, b) = (Share { used: a.0, total: a.1 }, Share { used: b.0, total: b.1 });
            if a.number() != b.number() {
                prop_assert_eq!(a.number().cmp(&b.number()), a.cmp(&b));
            }
        }

        #[test]
        fn twice_the_weight_is_half_the_share(held in sums(), cluster in sums()) {
            let mut twice = held;
            for sum in &mut twice.0 {
                *sum *= 2;
            }
            prop_assert_eq!(
                Share::dominant(&held, &Totals::new(cluster), 1000),
                Share::dominant(&twice, &Totals::new(cluster), 2000)
            );
        }

        #[test]
        fn a_dominant_share_is_the_largest_over_the_kinds(held in sums(), cluster in sums()) {
            let dominant = Share::dominant(&held, &Totals::new(cluster), 1);
            let singles: Vec<_> = ResourceKind::ALL.into_iter()
                .filter(|kind| cluster.get(*kind) > 0)
                .map(|kind| Share { used: held.get(kind), total: cluster.get(kind) })
                .collect();
            prop_assert!(singles.iter().all(|share| *share <= dominant));
            prop_assert!(singles.is_empty() || singles.contains(&dominant));
        }

        #[test]
        fn taking_back_undoes_charging(amounts in prop::array::uniform4(any::<u64>())) {
            let part = Quantities::from_pairs(ResourceKind::ALL.into_iter().zip(amounts));
            let resources = Resources { regular: part, revocable: part };
            let mut standing = Standing::default();
            for class in Class::ALL {
                standing.charge(class, class.part(&resources));
            }
            let holds = |standing: &Standing| {
                Class::ALL.into_iter().all(|class| standing.held(class).contains(class.part(&resources)))
            };
            prop_assert!(holds(&standing));
            for class in Class::ALL {
                standing.take(class, class.part(&resources));
            }
            prop_assert!(standing.is_zero());
            prop_assert_eq!(holds(&standing), part.is_zero());
        }
    }
}
