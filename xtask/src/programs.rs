//! The test programs of the workspace: built all at once together with the daemons, then run one by one.
//!
//! `cargo test --package X` would choose the features of every dependency anew for each X, and build it anew; one build
//! of everything serves all of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::artifacts;
use crate::shell::command;

/// A program with tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its package.
    pub package: String,
    /// Its target's name.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// The package's folder, in which tests start.
    folder: PathBuf,
}

impl Program {
    /// The command that runs it.
    pub fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = command(&self.path, args);
        command.current_dir(&self.folder);
        command
    }
}

/// Builds every program of the workspace and names those with tests.
///
/// # Errors
/// When something cannot be built, or nothing has tests.
pub fn build() -> Result<Vec<Program>> {
    let messages = artifacts::build(&["build", "--workspace", "--all-targets"], &[])
        .context("the workspace cannot be built")?;
    let programs = with_tests(&messages);
    ensure!(!programs.is_empty(), "cargo names no program with tests");
    Ok(programs)
}

/// The programs with tests, out of cargo's messages.
fn with_tests(messages: &[Value]) -> Vec<Program> {
    let mut programs: Vec<Program> = messages.iter().filter_map(program).collect();
    programs.sort_by(|a, b| (&a.package, &a.name).cmp(&(&b.package, &b.name)));
    programs
}

fn program(message: &Value) -> Option<Program> {
    let target = &message["target"];
    let kind = target["kind"][0].as_str()?;
    if message["profile"]["test"] != true || !["lib", "bin", "test"].contains(&kind) {
        return None;
    }
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?;
    let id = message["package_id"].as_str()?;
    // `path+file:///where/it/is#name@1.2.3`, or `…/name#1.2.3` if the folder has the package's name.
    let (place, tail) = id.rsplit_once('#')?;
    let package = match tail.split_once('@') {
        Some((name, _)) => name,
        None => place.rsplit('/').next()?,
    };
    Some(Program {
        package: package.to_owned(),
        name: target["name"].as_str()?.to_owned(),
        path: message["executable"].as_str()?.into(),
        folder: folder.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_with_tests_are_told_from_the_others() {
        let messages = r#"
{"reason":"compiler-artifact","package_id":"path+file:///r/agent#ebb-agent@0.1.0","manifest_path":"/r/agent/Cargo.toml","target":{"kind":["lib"],"name":"ebb_agent"},"profile":{"test":true},"executable":"/t/ebb_agent-1"}
{"reason":"compiler-artifact","package_id":"path+file:///r/agent#ebb-agent@0.1.0","manifest_path":"/r/agent/Cargo.toml","target":{"kind":["bin"],"name":"ebb-agent"},"profile":{"test":false},"executable":"/t/ebb-agent"}
{"reason":"compiler-artifact","package_id":"path+file:///r/xtask#0.1.0","manifest_path":"/r/xtask/Cargo.toml","target":{"kind":["bin"],"name":"xtask"},"profile":{"test":true},"executable":"/t/xtask-1"}
{"reason":"compiler-artifact","package_id":"path+file:///r/master#ebb-master@0.1.0","manifest_path":"/r/master/Cargo.toml","target":{"kind":["bench"],"name":"allocate"},"profile":{"test":true},"executable":"/t/allocate-1"}
{"reason":"build-finished","success":true}
"#;
        let programs = with_tests(&artifacts::messages(messages));
        let names: Vec<_> = programs.iter().map(|one| one.package.as_str()).collect();
        assert_eq!(names, ["ebb-agent", "xtask"]);
        assert_eq!(programs[0].path, Path::new("/t/ebb_agent-1"));
        assert_eq!(programs[0].folder, Path::new("/r/agent"));
    }
}
