//! What cargo has built and where it is, as cargo tells it in its messages.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::shell::cargo;

/// Has cargo build, the last crate with these flags, and gives its messages; what it finds fault with goes to the
/// terminal.
///
/// # Errors
/// When cargo cannot be started or does not succeed.
pub fn build(args: &[&str], flags: &[&str]) -> Result<Vec<Value>> {
    let output = cargo(args)
        .arg("--message-format=json-render-diagnostics")
        .args(flags)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cargo cannot be started")?;
    ensure!(
        output.status.success(),
        "cargo failed with {}; its output stands above",
        output.status
    );
    Ok(messages(&String::from_utf8_lossy(&output.stdout)))
}

/// Cargo's messages, one a line, among whatever else it or a build script prints.
pub fn messages(text: &str) -> Vec<Value> {
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}
