//! Dependencies run one way: `types ← api ← {framework, agent, master} ← cli ← tests`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Finding;

/// Each crate with those of this repository that it may name.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("agent-ebpf-common", &[]),
    ("agent-ebpf", &["ebb-agent-ebpf-common"]),
    ("api", &["ebb-types"]),
    ("framework", &["ebb-types", "ebb-api"]),
    ("agent", &["ebb-types", "ebb-api", "ebb-agent-ebpf-common"]),
    ("master", &["ebb-types", "ebb-api"]),
    (
        "cli",
        &[
            "ebb-types",
            "ebb-api",
            "ebb-framework",
            "ebb-agent",
            "ebb-master",
        ],
    ),
    ("xtask", &[]),
];

/// What the manifests of the crates break.
///
/// # Errors
/// When a manifest cannot be read.
pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (folder, allowed) in MAY_NAME {
        let path = root.join(folder).join("Cargo.toml");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let manifest: toml::Table = text
            .parse()
            .with_context(|| format!("{} is no valid manifest", path.display()))?;
        findings.extend(broken(folder, allowed, &manifest));
    }
    Ok(findings)
}

fn broken(folder: &str, allowed: &[&str], manifest: &toml::Table) -> Vec<Finding> {
    let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
    let names = dependencies.into_iter().flat_map(toml::Table::keys);
    names
        .filter(|name| name.starts_with("ebb-") && !allowed.contains(&name.as_str()))
        .map(|name| format!("{folder}/Cargo.toml: depends on {name}; dependencies run one way, see ARCHITECTURE.md"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_against_the_stream_is_found() {
        let manifest: toml::Table = "[dependencies]\nebb-types = '1'\nebb-agent = '1'\n"
            .parse()
            .expect("valid");
        assert_eq!(broken("master", &["ebb-types"], &manifest).len(), 1);
    }
}
