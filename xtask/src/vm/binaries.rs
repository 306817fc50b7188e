//! The test programs, linked statically.
//!
//! The flag goes to the last crate alone (`cargo rustc`), so that everything below it is what `cargo test` has built.
//! Cargo does not tell the two links apart by name: each program is copied as soon as it is linked, and the programs
//! that tests start come first, because building a test links them anew the usual way.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::folder;
use super::suites::Suite;
use crate::artifacts;

/// The flags of the last crate: nothing to load at run time, and no line tables, which the guest would only carry.
const FLAGS: [&str; 5] = [
    "--",
    "-C",
    "target-feature=+crt-static",
    "-C",
    "strip=debuginfo",
];

/// A program for the guest.
#[derive(Debug)]
pub struct Program {
    /// `PACKAGE/NAME`.
    pub name: String,
    /// Where its copy is.
    pub copy: PathBuf,
    /// Where it stands in the guest: there where it was built, by which tests find the programs that they start.
    pub at: PathBuf,
}

/// Builds the suites' tests and the programs that they start.
pub fn build(suites: &[Suite]) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for suite in suites {
        for name in suite.programs {
            programs.push(one(suite.package, "bin", name)?);
        }
        for name in suite.tests {
            programs.push(one(suite.package, "test", name)?);
        }
    }
    Ok(programs)
}

fn one(package: &str, kind: &str, name: &str) -> Result<Program> {
    let target = format!("--{kind}");
    let profile = if kind == "test" { "test" } else { "dev" };
    let mut args = vec!["rustc", "--quiet", "--package", package];
    args.extend([target.as_str(), name, "--profile", profile]);
    let messages = artifacts::build(&args, &FLAGS)
        .with_context(|| format!("{package}'s {name} cannot be built for the guest"))?;
    let at = executable(&messages, kind, name)
        .with_context(|| format!("cargo does not tell where {package}'s {name} is"))?;
    let copies = folder().join("programs").join(package);
    fs::create_dir_all(&copies).with_context(|| format!("cannot create {}", copies.display()))?;
    let copy = copies.join(name);
    fs::copy(&at, &copy).with_context(|| format!("cannot copy {}", at.display()))?;
    ensure_static(&copy)?;
    Ok(Program {
        name: format!("{package}/{name}"),
        copy,
        at,
    })
}

/// The path of what was built, out of cargo's messages.
fn executable(messages: &[Value], kind: &str, name: &str) -> Option<PathBuf> {
    let mut found = messages
        .iter()
        .filter(|message| {
            let target = &message["target"];
            target["name"] == name && target["kind"][0] == kind
        })
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    found.next_back()
}

/// A program that names a loader would not start in the guest, with an error that says nothing.
fn ensure_static(program: &Path) -> Result<()> {
    const LOADER: &[u8] = b"\0/lib64/ld-linux";
    let content =
        fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    // The loader's path stands in the first page, right behind the program headers.
    let head = &content[..content.len().min(4096)];
    let named = head.windows(LOADER.len()).any(|bytes| bytes == LOADER);
    ensure!(!named, "{} is not static", program.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_that_of_the_target_that_was_asked_for() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"x"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"x"},"executable":"/t/debug/x"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"x"},"executable":"/t/debug/deps/x-1"}
{"reason":"build-finished","success":true}
not json"#;
        let messages = artifacts::messages(messages);
        let test = executable(&messages, "test", "x");
        assert_eq!(test, Some(PathBuf::from("/t/debug/deps/x-1")));
        let bin = executable(&messages, "bin", "x");
        assert_eq!(bin, Some(PathBuf::from("/t/debug/x")));
        assert_eq!(executable(&messages, "test", "y"), None);
    }
}
