//! Shares in thousandths, of whole numbers, rounded up.

/// `amount` and so many thousandths of it more, rounded up.
pub(super) fn plus_permille(amount: u64, permille: u64) -> u64 {
    amount.saturating_add(permille_of(amount, permille))
}

/// So many thousandths of `amount`, rounded up.
pub(super) fn permille_of(amount: u64, permille: u64) -> u64 {
    let share = (u128::from(amount) * u128::from(permille)).div_ceil(1000);
    u64::try_from(share).unwrap_or(u64::MAX)
}
