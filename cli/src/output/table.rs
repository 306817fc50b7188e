//! Aligned tables and styled text for terminals.
//!
//! The problem: names come from frameworks and agents, that is from strangers; a name with an escape
//! sequence must not reach the terminal. The invariants: every text is cleaned of control characters
//! before it is measured and printed; colour appears only where the palette says so; a line never
//! ends in blanks. Widths are counted in characters.

use std::fmt::Write as _;

/// Longest text of one cell, in characters; longer ones are cut with `…`.
const MAX_CELL_CHARS: usize = 120;

/// How a text stands out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Style {
    /// Not at all.
    #[default]
    Plain,
    /// A heading.
    Bold,
    /// Of less weight.
    Dim,
    /// As it should be.
    Good,
    /// To be looked at.
    Warn,
    /// Gone wrong.
    Bad,
    /// Lent, revocable.
    Lent,
}

impl Style {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Lent => "\x1b[36m",
        }
    }
}

/// Whether styles are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Palette {
    coloured: bool,
}

impl Palette {
    /// No styles.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { coloured: false };

    /// Styles on a terminal, unless the user wants none (`NO_COLOR`, see no-color.org) or the
    /// terminal knows none.
    pub(crate) fn for_output(
        is_terminal: bool,
        no_color: Option<&str>,
        term: Option<&str>,
    ) -> Self {
        let refused = no_color.is_some_and(|value| !value.is_empty());
        Self {
            coloured: is_terminal && !refused && term != Some("dumb"),
        }
    }

    /// A text in a style.
    pub(crate) fn paint(self, style: Style, text: &str) -> String {
        if !self.coloured || style == Style::Plain || text.is_empty() {
            return text.to_owned();
        }
        format!("{}{text}\x1b[0m", style.code())
    }
}

/// A text without control characters, which could steer the terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if is_unsafe(c) { '\u{fffd}' } else { c })
        .collect()
}

/// Control characters, and those that turn the direction of writing around.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    style: Style,
    right: bool,
}

impl Cell {
    /// A text.
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        let mut text = clean(text.as_ref());
        if text.chars().count() > MAX_CELL_CHARS {
            text = text.chars().take(MAX_CELL_CHARS - 1).collect();
            text.push('…');
        }
        Self {
            text,
            ..Self::default()
        }
    }

    /// A number, set to the right.
    pub(crate) fn right(text: impl AsRef<str>) -> Self {
        Self {
            right: true,
            ..Self::new(text)
        }
    }

    /// A figure that may not have been measured: absent is `-`, never 0.
    pub(crate) fn figure(value: Option<String>) -> Self {
        Self::right(value.as_deref().unwrap_or("-"))
    }

    /// The same in a style.
    #[must_use]
    pub(crate) const fn styled(mut self, style: Style) -> Self {
        self.style = style;
        self
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

/// Rows under headings.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self {
            headings: headings.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Whether it has no rows.
    pub(crate) const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines, each at most `max_chars` characters wide.
    pub(crate) fn lines(&self, palette: Palette, max_chars: usize) -> Vec<String> {
        let columns = self.headings.len();
        let mut widths: Vec<usize> = self.headings.iter().map(|h| h.chars().count()).collect();
        let mut right = vec![false; columns];
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate().take(columns) {
                widths[column] = widths[column].max(cell.width());
                right[column] |= cell.right;
            }
        }
        let headings = self
            .headings
            .iter()
            .zip(&right)
            .map(|(heading, right)| Cell {
                text: (*heading).to_owned(),
                style: Style::Bold,
                right: *right,
            });
        let headings: Vec<Cell> = headings.collect();
        std::iter::once(&headings)
            .chain(&self.rows)
            .map(|row| line(row, &widths, palette, max_chars))
            .collect()
    }
}

fn line(row: &[Cell], widths: &[usize], palette: Palette, max_chars: usize) -> String {
    const GAP: usize = 2;
    let mut line = String::new();
    let mut used = 0;
    let mut pending = 0;
    for (cell, width) in row.iter().zip(widths) {
        let room = max_chars.saturating_sub(used + pending);
        if room == 0 {
            break;
        }
        let fill = width.saturating_sub(cell.width());
        let (before, after) = if cell.right { (fill, 0) } else { (0, fill) };
        let text: String = cell
            .text
            .chars()
            .take(room.saturating_sub(before))
            .collect();
        if !text.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(line, "{:blanks$}", "", blanks = pending + before);
            line.push_str(&palette.paint(cell.style, &text));
            used += pending + before + text.chars().count();
            pending = after + GAP;
        } else {
            pending += before + after + GAP;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_do_not_end_in_blanks() {
        let mut table = Table::new(&["ID", "CPUS", "NAME"]);
        table.row(vec!["a".into(), Cell::right("1.5"), "x".into()]);
        table.row(vec!["long".into(), Cell::right("10"), "".into()]);
        table.row(vec!["b".into(), Cell::figure(None), "y".into()]);
        assert_eq!(
            table.lines(Palette::PLAIN, usize::MAX),
            [
                "ID    CPUS  NAME",
                "a      1.5  x",
                "long    10",
                "b        -  y"
            ]
        );
    }

    #[test]
    fn colour_only_on_a_terminal_that_wants_it() {
        let term = Some("xterm");
        for (palette, coloured) in [
            (Palette::for_output(true, None, term), true),
            (Palette::for_output(true, Some(""), term), true),
            (Palette::for_output(true, Some("1"), term), false),
            (Palette::for_output(false, None, term), false),
            (Palette::for_output(true, None, Some("dumb")), false),
        ] {
            let painted = palette.paint(Style::Bad, "x");
            assert_eq!(painted.contains('\x1b'), coloured, "{palette:?}");
        }
    }

    proptest! {
        #[test]
        fn no_stranger_steers_the_terminal(name in any::<String>(), max in 0..60_usize) {
            let mut table = Table::new(&["NAME"]);
            table.row(vec![Cell::new(&name), Cell::new("beyond the headings")]);
            for line in table.lines(Palette::PLAIN, max) {
                prop_assert!(!line.chars().any(is_unsafe));
                prop_assert!(line.chars().count() <= max);
            }
        }
    }
}
