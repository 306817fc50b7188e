//! Folders that look like cgroups.

use std::fs;

use tempfile::TempDir;

use super::CgroupPaths;

/// A folder with these files.
pub(crate) fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

/// A container of the v2 tree alone.
pub(crate) fn v2(folder: &TempDir) -> CgroupPaths {
    CgroupPaths {
        v2: Some(folder.path().to_owned()),
        ..CgroupPaths::default()
    }
}

/// A container of v1 alone, with all controllers in one folder.
pub(crate) fn v1(folder: &TempDir) -> CgroupPaths {
    let path = Some(folder.path().to_owned());
    CgroupPaths {
        v2: None,
        cpu: path.clone(),
        cpuacct: path.clone(),
        memory: path.clone(),
        blkio: path,
    }
}
