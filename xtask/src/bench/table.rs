//! Rows for people.

use super::{Bar, Row};

/// Prints the rows, aligned.
pub fn print(rows: &[Row]) {
    let cells: Vec<[String; 4]> = rows.iter().map(cells).collect();
    let width = |column: usize| {
        cells
            .iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..3).map(width).collect();
    for [case, metric, value, verdict] in &cells {
        println!(
            "{case:<0$}  {metric:<1$}  {value:>2$}  {verdict}",
            widths[0], widths[1], widths[2]
        );
    }
}

fn cells(row: &Row) -> [String; 4] {
    let bar = row.bar.map_or(String::new(), |bar| match bar {
        Bar::AtMost(most) => format!("at most {}", number(most)),
        Bar::AtLeast(least) => format!("at least {}", number(least)),
    });
    let verdict = match row.holds {
        Some(true) => format!("holds ({bar})"),
        Some(false) => format!("DOES NOT HOLD ({bar})"),
        None => String::new(),
    };
    [
        row.case.clone(),
        row.metric.clone(),
        format!("{} {}", number(row.value), row.unit),
        verdict,
    ]
}

fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
