//! A source file, split into code, comments and tests as far as the rules need it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Finding;

/// Most lines of a file without its tests.
const MAX_LINES: usize = 800;

/// What the reason of a test says that is ignored because another one starts it.
pub const PLAYED: &str = "played by another test";

/// One Rust file.
pub struct Source {
    /// Its path from the root, with `/`.
    pub path: String,
    lines: Vec<String>,
    code_end: usize,
}

/// One line of code without its comment, outside of tests.
pub struct CodeLine<'a> {
    /// Its number, from 1.
    pub number: usize,
    /// Its text.
    pub text: &'a str,
}

impl Source {
    /// Takes the text of a file.
    pub fn new(path: &str, text: &str) -> Self {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let tests = lines.iter().position(|line| line.trim() == "#[cfg(test)]");
        let code_end = tests
            .filter(|at| opens_module(&lines, *at))
            .unwrap_or(lines.len());
        Self {
            path: path.to_owned(),
            lines,
            code_end,
        }
    }

    /// Whether the file itself is a test, bench or example.
    pub fn is_test(&self) -> bool {
        let parts = ["tests/", "/tests/", "/benches/", "/examples/"];
        self.path.starts_with(parts[0])
            || parts[1..].iter().any(|part| self.path.contains(part))
            || self.path.ends_with("/tests.rs")
    }

    /// The lines of code without their comments, outside of the tests at the end of the file.
    pub fn code(&self) -> impl Iterator<Item = CodeLine<'_>> {
        self.lines[..self.code_end]
            .iter()
            .enumerate()
            .map(|(index, line)| CodeLine {
                number: index + 1,
                text: line.split("//").next().unwrap_or(""),
            })
    }

    /// Every line as it stands, with its number.
    pub fn all(&self) -> impl Iterator<Item = CodeLine<'_>> {
        self.lines.iter().enumerate().map(|(index, line)| CodeLine {
            number: index + 1,
            text: line,
        })
    }

    /// What is wrong with its size and its opening.
    pub fn shape(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.code_end > MAX_LINES && !self.is_test() {
            findings.push(format!(
                "{}: {} lines without its tests; a file has at most {MAX_LINES}: split it",
                self.path, self.code_end
            ));
        }
        let opening = self
            .lines
            .iter()
            .find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
        for line in self.all() {
            let ignore = line.text.trim().strip_prefix("#[ignore");
            if ignore.is_some_and(|reason| !reason.contains(PLAYED)) {
                findings.push(format!(
                    "{}:{}: a test that never runs; run it, make it a bench, or say in its reason by which test it is played ({PLAYED:?})",
                    self.path, line.number
                ));
            }
        }
        if !opening.is_some_and(|line| line.starts_with("//!")) {
            findings.push(format!(
                "{}: does not open with `//!`; say what problem it solves, in which units, under which invariants",
                self.path
            ));
        }
        findings
    }
}

fn opens_module(lines: &[String], at: usize) -> bool {
    lines[at + 1..]
        .iter()
        .find(|line| !line.trim().starts_with("#["))
        .is_some_and(|line| {
            let line = line.trim();
            line.starts_with("mod ") && line.ends_with('{')
        })
}

/// Reads every Rust file of the repository.
///
/// # Errors
/// When a folder or file cannot be read.
pub fn read_all(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry
                .with_context(|| format!("cannot read {}", folder.display()))?
                .path();
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") {
                sources.push(read(root, path)?);
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn read(root: &Path, path: PathBuf) -> Result<Source> {
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let relative = path
        .strip_prefix(root)
        .unwrap_or(&path)
        .to_string_lossy()
        .into_owned();
    Ok(Source::new(&relative, &text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_and_comments_are_no_code() {
        let source = Source::new(
            "a.rs",
            "//! x\nlet a = 1; // tokio\n#[cfg(test)]\nmod tests {\nunsafe\n}\n",
        );
        let code: Vec<_> = source.code().map(|line| line.text.to_owned()).collect();
        assert_eq!(code, ["", "let a = 1; "]);
    }

    #[test]
    fn a_single_item_for_tests_does_not_end_the_code() {
        let source = Source::new(
            "a.rs",
            "//! x\n#[cfg(test)]\nfn helper() {}\nfn real() {}\n",
        );
        assert_eq!(source.code().count(), 4);
    }

    #[test]
    fn a_test_that_never_runs_is_found_and_one_that_another_plays_is_not() {
        let shape = |ignore: &str| Source::new("a.rs", &format!("//! x\n{ignore}\n")).shape();
        assert_eq!(shape("    #[ignore]").len(), 1);
        assert_eq!(shape("#[ignore = \"too slow\"]").len(), 1);
        let played = format!("#[ignore = \"{PLAYED}, which hides the clock\"]");
        assert!(shape(&played).is_empty());
    }

    #[test]
    fn a_file_without_an_opening_is_found() {
        assert_eq!(Source::new("a.rs", "fn a() {}\n").shape().len(), 1);
        assert!(
            Source::new("a.rs", "#![no_std]\n//! x\n")
                .shape()
                .is_empty()
        );
    }
}
