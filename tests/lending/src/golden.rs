//! Figures of another implementation, to compare with.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::score::Figures;

/// One set of a golden file.
#[derive(Clone, Debug, Deserialize)]
pub struct GoldenSet {
    /// What its eras consist of.
    #[serde(default)]
    pub eras: BTreeMap<String, Figures>,
    /// The figures of each rule.
    pub results: BTreeMap<String, Figures>,
}

/// A golden file: sets by names that begin as those of [`crate::set::Set::name`].
pub type Golden = BTreeMap<String, GoldenSet>;

/// Reads a golden file.
///
/// # Errors
/// When it cannot be read or is none.
pub fn read(path: &Path) -> Result<Golden> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the golden figures {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} holds no golden figures", path.display()))
}

/// Where two sets of figures differ, and by how much; figures that only one of them has are infinitely far apart.
pub fn deviations(golden: &Figures, own: &Figures) -> Vec<(String, f64)> {
    let each = golden.iter().map(|(name, figure)| {
        let deviation = own
            .get(name)
            .map_or(f64::INFINITY, |own| (own - figure).abs());
        (
            name.clone(),
            if deviation.is_nan() {
                f64::INFINITY
            } else {
                deviation
            },
        )
    });
    each.collect()
}
