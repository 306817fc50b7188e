//! Which kernel modules a guest loads, and in which order: a module after those that it depends on.
//!
//! Packages bring no `modules.dep` (installing makes it), so that the dependencies are read from the modules themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::shell::{command, root};

/// What a guest needs: its disks, and devices that tests make of files. Where one is built into the kernel there is no
/// module, and none is needed.
const WANTED: [&str; 3] = ["virtio_pci", "virtio_blk", "loop"];

/// A module, ready to be loaded.
#[derive(Debug)]
pub struct Module {
    /// Its file's name in the guest.
    pub file: String,
    /// Its content.
    pub content: Vec<u8>,
}

/// The modules to load, in order, out of the folder of a kernel's modules.
pub fn load(folder: &Path, busybox: &Path) -> Result<Vec<Module>> {
    let mut paths = BTreeMap::new();
    find(folder, &mut paths)?;
    let builtin = fs::read_to_string(folder.join("modules.builtin"))
        .with_context(|| format!("{} has no modules.builtin", folder.display()))?;
    let builtin: BTreeSet<String> = builtin.lines().map(name).collect();
    let mut contents: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let order = order(&WANTED, |module| {
        if builtin.contains(module) {
            return Ok(None);
        }
        let path = paths
            .get(module)
            .with_context(|| format!("this kernel has no module {module}"))?;
        let content = content(path, busybox)?;
        let needed = depends(&content);
        contents.insert(module.to_owned(), content);
        Ok(Some(needed))
    })?;
    let module = |name: String| {
        let content = contents.remove(&name).unwrap_or_default();
        Module {
            file: format!("{name}.ko"),
            content,
        }
    };
    Ok(order.into_iter().map(module).collect())
}

/// The wanted modules and all that they need, each after what it needs. `needs` tells what a module needs, or `None` for
/// one that is built into the kernel.
fn order(
    wanted: &[&str],
    mut needs: impl FnMut(&str) -> Result<Option<Vec<String>>>,
) -> Result<Vec<String>> {
    fn visit(
        module: &str,
        needs: &mut dyn FnMut(&str) -> Result<Option<Vec<String>>>,
        seen: &mut BTreeSet<String>,
        order: &mut Vec<String>,
    ) -> Result<()> {
        if !seen.insert(module.to_owned()) {
            return Ok(());
        }
        let Some(needed) = needs(module)? else {
            return Ok(());
        };
        for other in &needed {
            visit(other, needs, seen, order)?;
        }
        order.push(module.to_owned());
        Ok(())
    }
    let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
    for module in wanted {
        visit(module, &mut needs, &mut seen, &mut order)?;
    }
    Ok(order)
}

/// A module's name, of its file's: `kernel/drivers/x/virtio-blk.ko.xz` is `virtio_blk`.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

/// What the module says of itself: `depends=a,b` between two zero bytes.
fn depends(content: &[u8]) -> Vec<String> {
    let field = content
        .split(|byte| *byte == 0)
        .find_map(|field| field.strip_prefix(b"depends="));
    let field = String::from_utf8_lossy(field.unwrap_or_default());
    let names = field.split(',').filter(|name| !name.is_empty());
    names.map(|other| other.replace('-', "_")).collect()
}

fn find(folder: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find(&path, found)?;
            continue;
        }
        let file = entry.file_name().to_string_lossy().into_owned();
        if file.ends_with(".ko") || file.ends_with(".ko.xz") {
            found.insert(name(&file), path);
        }
    }
    Ok(())
}

fn content(path: &Path, busybox: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|ending| ending != "xz") {
        return fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let output = command(busybox, &["xzcat"])
        .arg(root().join(path))
        .output()
        .context("busybox cannot be started")?;
    ensure!(
        output.status.success(),
        "{} cannot be decompressed: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_after_what_it_needs_and_once() {
        let needs = |module: &str| {
            Ok(match module {
                "disk" => Some(vec!["ring".to_owned(), "bus".to_owned()]),
                "bus" | "pci" => Some(vec!["ring".to_owned(), "core".to_owned()]),
                "ring" => Some(vec![]),
                _ => None,
            })
        };
        let order = order(&["pci", "disk"], needs).unwrap();
        assert_eq!(order, ["ring", "pci", "bus", "disk"]);
    }

    #[test]
    fn modules_that_need_each_other_come_to_an_end() {
        let needs = |module: &str| Ok(Some(vec![if module == "a" { "b" } else { "a" }.to_owned()]));
        assert_eq!(order(&["a"], needs).unwrap(), ["b", "a"]);
    }

    #[test]
    fn a_module_that_is_not_there_is_told() {
        let error = order(&["disk"], |module| anyhow::bail!("no {module}")).unwrap_err();
        assert_eq!(error.to_string(), "no disk");
    }

    #[test]
    fn names_and_needs_are_read_as_the_kernel_writes_them() {
        assert_eq!(name("kernel/drivers/virtio-x.ko.xz"), "virtio_x");
        assert_eq!(name("plain.ko"), "plain");
        let content = b"\x7fELF\0license=GPL\0depends=virtio-ring,virtio\0name=x\0";
        assert_eq!(depends(content), ["virtio_ring", "virtio"]);
        assert_eq!(depends(b"\0depends=\0"), Vec::<String>::new());
        assert_eq!(depends(b""), Vec::<String>::new());
    }
}
