//! Which disk stands behind a folder: bandwidth is limited on whole disks, files stand on partitions.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{CgroupError, files};

/// A whole disk, by its device numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlockDevice {
    /// The major number.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
}

impl fmt::Display for BlockDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl BlockDevice {
    /// The disk that holds `path`.
    pub fn behind(path: &Path) -> Result<BlockDevice, CgroupError> {
        let stat = rustix::fs::stat(path).map_err(|e| files::error("look at", path, e.into()))?;
        let numbers = BlockDevice {
            major: rustix::fs::major(stat.st_dev),
            minor: rustix::fs::minor(stat.st_dev),
        };
        let sysfs = Path::new("/sys/dev/block").join(numbers.to_string());
        let none = || CgroupError::NoBlockDevice {
            path: path.to_owned(),
        };
        let device = fs::canonicalize(&sysfs).map_err(|_| none())?;
        if !device.join("partition").exists() {
            return Ok(numbers);
        }
        let disk = device.parent().ok_or_else(none)?.join("dev");
        parse(files::read(&disk)?.trim()).ok_or_else(none)
    }
}

fn parse(numbers: &str) -> Option<BlockDevice> {
    let (major, minor) = numbers.split_once(':')?;
    Some(BlockDevice {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_read_and_written_alike() {
        let device = parse("254:3").expect("numbers");
        assert_eq!(
            device,
            BlockDevice {
                major: 254,
                minor: 3
            }
        );
        assert_eq!(device.to_string(), "254:3");
        assert_eq!(parse("254"), None);
    }

    #[test]
    fn proc_has_no_disk() {
        assert!(matches!(
            BlockDevice::behind(Path::new("/proc")),
            Err(CgroupError::NoBlockDevice { .. })
        ));
    }
}
