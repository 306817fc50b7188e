//! Lists of commands.

use super::config::BatchCommand;

/// Why a list of commands or a template could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// A line of the list.
    #[error("line {line}: {problem}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The template.
    #[error("the template {problem}")]
    Template {
        /// What is wrong and what to do.
        problem: String,
    },
}

/// Reads a list of commands, one a line for the shell; empty lines and those that start with `#` are
/// left out.
///
/// # Errors
/// When a line is too long or there are too many.
pub fn parse_lines(_text: &str) -> Result<Vec<BatchCommand>, InputError> {
    unimplemented!()
}

/// Reads a list of commands as JSON, one object a line: `{"command": "…"}` for the shell or
/// `{"argv": ["…"]}`, and optionally `name`, `env` (an object of texts) and `user`.
///
/// # Errors
/// When a line is no such object.
pub fn parse_json_lines(_text: &str) -> Result<Vec<BatchCommand>, InputError> {
    unimplemented!()
}

/// A command line with places for inputs: `{}` for the whole input, `{name}` for a field of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    line: String,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When a place stands within single quotes, or there is none.
    pub fn new(_line: &str) -> Result<Self, InputError> {
        unimplemented!()
    }

    /// One command for each line of inputs: a text for `{}`, or a JSON object for `{name}`.
    ///
    /// # Errors
    /// When a line lacks a field that the template names.
    pub fn fill(&self, _inputs: &str) -> Result<Vec<BatchCommand>, InputError> {
        let _ = &self.line;
        unimplemented!()
    }
}
