//! One figure a line, as `cargo xtask bench` reads it.

use serde::Serialize;

/// A bound that a figure must keep.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bar {
    /// The value or less.
    AtMost(f64),
    /// The value or more.
    AtLeast(f64),
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row<'a> {
    /// What was done.
    pub case: &'a str,
    /// What was measured.
    pub metric: &'a str,
    /// How much it was.
    pub value: f64,
    /// In which unit.
    pub unit: &'a str,
    /// The bound that it must keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bar: Option<Bar>,
}

fn print(row: &Row<'_>) {
    match serde_json::to_string(row) {
        Ok(line) => println!("{line}"),
        Err(error) => eprintln!("a row cannot be written: {error}"),
    }
}

/// Prints a figure.
pub fn figure(case: &str, metric: &str, value: f64, unit: &str) {
    print(&Row {
        case,
        metric,
        value,
        unit,
        bar: None,
    });
}

/// Prints a figure that must not be larger.
pub fn at_most(case: &str, metric: &str, value: f64, unit: &str, most: f64) {
    print(&Row {
        case,
        metric,
        value,
        unit,
        bar: Some(Bar::AtMost(most)),
    });
}

/// Prints a figure that must not be smaller.
pub fn at_least(case: &str, metric: &str, value: f64, unit: &str, least: f64) {
    print(&Row {
        case,
        metric,
        value,
        unit,
        bar: Some(Bar::AtLeast(least)),
    });
}

/// Prints the minimum and the median of a list.
pub fn spread(case: &str, metric: &str, values: &mut [f64], unit: &str) {
    figure(case, &format!("{metric}_min"), quantile(values, 0.0), unit);
    figure(
        case,
        &format!("{metric}_median"),
        quantile(values, 0.5),
        unit,
    );
}

/// The value below which the given share of a list lies; 0 of an empty one. Sorts the list.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share) as usize;
    values
        .get(at.min(values.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0.0)
}
