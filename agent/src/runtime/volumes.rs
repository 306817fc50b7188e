//! Volumes: folders that outlive the containers that see them.
//!
//! A volume's folder is bound into a container's own view of the file system, below its sandbox; nothing of that is seen
//! outside. The folder is made when it is first used and renamed, then removed, when its volume is destroyed, so that one
//! made under the same name meanwhile is another.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount_bind_recursive, mount_remount};
use serde::{Deserialize, Serialize};

use super::error::RuntimeError;
use super::spec::User;

/// What the name of a folder ends with that is being removed.
const REMOVED: &str = ".removed";
/// Most folders of one name that are being removed at once.
const MAX_REMOVED: u32 = 1_000;

/// A folder to be bound into a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// The folder.
    pub source: PathBuf,
    /// Where the container sees it, from its sandbox on.
    pub target: PathBuf,
    /// Whether it may only read it.
    pub read_only: bool,
    /// Whether others than its first user may use it.
    pub shared: bool,
}

/// Makes a volume's folder, if it is not there, and the place in the sandbox where it will be seen.
pub(super) fn prepare(
    volume: &VolumeSpec,
    sandbox: &Path,
    user: Option<&User>,
) -> Result<(), RuntimeError> {
    let folder = &volume.source;
    let above = folder.parent().unwrap_or(folder);
    fs::create_dir_all(above).map_err(RuntimeError::file("make", above))?;
    let mode = if volume.shared { 0o1777 } else { 0o700 };
    match DirBuilder::new().mode(mode).create(folder) {
        Ok(()) => {
            fs::set_permissions(folder, fs::Permissions::from_mode(mode))
                .map_err(RuntimeError::file("open", folder))?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(RuntimeError::file("make", folder)(error)),
    }
    let give = |path: &Path| match user {
        Some(user) => chown(path, Some(user.uid), Some(user.gid))
            .map_err(RuntimeError::file("give away", path)),
        None => Ok(()),
    };
    if !volume.shared {
        give(folder)?;
    }
    // The sandbox is new and nobody else's yet, so there is no link in it to be led astray by.
    let mut place = sandbox.to_owned();
    for part in &volume.target {
        place.push(part);
        match fs::create_dir(&place) {
            Ok(()) => give(&place)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(RuntimeError::file("make", &place)(error)),
        }
    }
    Ok(())
}

/// Binds the volumes into the container that this process is the first of.
pub(super) fn bind(volumes: &[VolumeSpec], sandbox: &Path) -> Result<(), String> {
    for volume in volumes {
        let place = sandbox.join(&volume.target);
        let failed = |what: &str, error: rustix::io::Errno| {
            format!(
                "cannot {what} the volume {}: {error}",
                volume.source.display()
            )
        };
        mount_bind_recursive(&volume.source, &place).map_err(|error| failed("mount", error))?;
        if volume.read_only {
            let flags = MountFlags::BIND | MountFlags::RDONLY;
            mount_remount(&place, flags, "").map_err(|error| failed("protect", error))?;
        }
    }
    Ok(())
}

/// Takes a volume's folder out of use at once; what is left is to be removed with [`fs::remove_dir_all`].
///
/// # Errors
/// The system's answer; that there is no such folder is none.
pub fn retire(folder: &Path) -> io::Result<Option<PathBuf>> {
    for number in 0..MAX_REMOVED {
        let mut name = folder.as_os_str().to_owned();
        name.push(format!(",{number}{REMOVED}"));
        let away = PathBuf::from(name);
        if away.exists() {
            continue;
        }
        return match fs::rename(folder, &away) {
            Ok(()) => Ok(Some(away)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
    }
    Err(io::Error::other(
        "too many volumes of that name are being removed",
    ))
}

/// The folders of an agent's volumes that are none of `kept`: what a crash has left. `above` are the folders that its
/// roles' folders stand in.
pub fn leftovers(
    above: impl IntoIterator<Item = PathBuf>,
    kept: &std::collections::BTreeSet<String>,
) -> io::Result<Vec<PathBuf>> {
    let mut left = Vec::new();
    for folder in above {
        let roles = match fs::read_dir(&folder) {
            Ok(roles) => roles,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for role in roles {
            for folder in fs::read_dir(role?.path())? {
                let path = folder?.path();
                if !path.to_str().is_some_and(|path| kept.contains(path)) {
                    left.push(path);
                }
            }
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_outlives_its_users_and_ends_with_its_name() {
        let work = tempfile::tempdir().expect("a folder");
        let sandbox = work.path().join("sandbox");
        fs::create_dir(&sandbox).expect("made");
        let folder = work.path().join("volumes/eng/v");
        let volume = VolumeSpec {
            source: folder.clone(),
            target: "a/b".into(),
            read_only: false,
            shared: true,
        };
        prepare(&volume, &sandbox, None).expect("prepared");
        fs::write(folder.join("file"), "kept").expect("written");
        prepare(&volume, &sandbox, None).expect("prepared again");
        assert!(sandbox.join("a/b").is_dir() && folder.join("file").exists());
        let mode = fs::metadata(&folder).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o1777);

        let above = || [work.path().join("volumes")];
        let kept = [folder.to_str().expect("a text").to_owned()].into();
        assert_eq!(
            leftovers(above(), &kept).expect("read"),
            Vec::<PathBuf>::new()
        );
        let away = retire(&folder).expect("renamed").expect("it was there");
        assert!(!folder.exists() && away.join("file").exists());
        assert_eq!(leftovers(above(), &kept).expect("read"), [away]);
        assert_eq!(retire(&folder).expect("nothing to do"), None);
    }
}
