//! The architecture's invariants and the house rules, checked on the text of the sources.
//!
//! A rule that matters stands here; `ARCHITECTURE.md` explains them. Each check gives sentences
//! that name the file, the line and the rule.

mod dashboards;
mod layers;
mod locks;
mod source;
mod words;

use std::path::Path;

use anyhow::{Result, bail};

use crate::shell::root;
pub use source::PLAYED;
use source::Source;

/// Something that breaks a rule.
pub type Finding = String;

/// Checks everything.
///
/// # Errors
/// When a rule is broken (the findings are printed first) or the sources cannot be read.
pub fn run() -> Result<()> {
    let root = root();
    let sources = source::read_all(&root)?;
    let findings = check(&root, &sources)?;
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    if !findings.is_empty() {
        bail!(
            "{} rules are broken; each line above says where and which",
            findings.len()
        );
    }
    println!("tidy: {} files keep the rules", sources.len());
    Ok(())
}

fn check(root: &Path, sources: &[Source]) -> Result<Vec<Finding>> {
    let mut findings = layers::check(root)?;
    findings.extend(dashboards::check(root)?);
    findings.extend(locks::check(root, sources)?);
    for source in sources {
        findings.extend(words::check(source));
        findings.extend(source.shape());
    }
    Ok(findings)
}
