//! Where everything that a command says goes through: one place that knows whether the output is a
//! terminal, whether colour is wanted, and whether the reader wants JSON.

pub(crate) mod json;
pub(crate) mod quantity;
pub(crate) mod stream;
pub(crate) mod table;

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use table::{Palette, Style, Table, clean};

/// Standard output.
#[derive(Debug)]
pub(crate) struct Out {
    /// Whether the reader wants JSON.
    pub(crate) json: bool,
    /// Whether colour is wanted.
    pub(crate) palette: Palette,
    /// Whether it is a terminal.
    pub(crate) is_terminal: bool,
    stdout: io::Stdout,
}

impl Out {
    /// Standard output as the environment says.
    pub(crate) fn new(json: bool) -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        let variable = |name| std::env::var(name).ok();
        Self {
            json,
            palette: Palette::for_output(
                is_terminal,
                variable("NO_COLOR").as_deref(),
                variable("TERM").as_deref(),
            ),
            is_terminal,
            stdout,
        }
    }

    /// One line; it may hold styles, so strangers' texts in it must have gone through
    /// [`table::clean`].
    pub(crate) fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.stdout, "{line}")
    }

    /// A line with a label; strangers' texts may stand in its value.
    pub(crate) fn labelled(&mut self, label: &str, value: &str) -> io::Result<()> {
        let label = self.palette.paint(Style::Bold, &format!("{label:<14}"));
        self.line(&format!("{label} {}", clean(value)))
    }

    /// Bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stdout.write_all(bytes)?;
        self.stdout.flush()
    }

    /// A table; `empty` stands there instead when it has no rows.
    pub(crate) fn table(&mut self, table: &Table, empty: &str) -> io::Result<()> {
        if table.is_empty() {
            return self.line(empty);
        }
        let max_chars = if self.is_terminal {
            terminal_size().map_or(usize::MAX, |(columns, _)| columns)
        } else {
            usize::MAX
        };
        for line in table.lines(self.palette, max_chars) {
            self.line(&line)?;
        }
        Ok(())
    }

    /// One value as indented JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut self.stdout, value)?;
        self.line("")
    }

    /// One value as one line of JSON.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.stdout, value)?;
        self.line("")?;
        self.stdout.flush()
    }
}

/// Says something to a person, beside the output.
pub(crate) fn tell(line: &str) {
    // When nobody listens there is nobody to tell so; the work goes on.
    let _ = writeln!(io::stderr().lock(), "ebb: {line}");
}

/// Columns and rows of the terminal, if there is one.
pub(crate) fn terminal_size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col.into(), size.ws_row.into()))
}
