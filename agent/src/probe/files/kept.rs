//! Open files of figures, read again and again.
//!
//! `pread` from the beginning has the kernel make the content anew and spares the path walk of an `open`. All files read
//! here are made by the kernel in one piece (`seq_show`), so that a read that leaves room in the buffer has seen the end.
//!
//! **Price.** A descriptor, and in the kernel a page for each file that was ever read; one buffer a thread here.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A file of figures is not read beyond this; a longer one counts as unreadable.
pub(super) const FILE_BYTES_MAX: usize = 256 * 1024;

/// Room for all files but those with a line for each of many devices.
const FIRST_BYTES: usize = 4096;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// An open file that is read again and again.
#[derive(Debug)]
pub(super) struct Kept {
    file: File,
}

impl Kept {
    pub(super) fn open(folder: Option<&Path>, name: &str) -> Option<Self> {
        let file = File::open(folder?.join(name)).ok()?;
        Some(Self { file })
    }

    /// Reads the file and has it understood; `None` if it cannot be read, is too long or no text.
    pub(super) fn read<T>(&self, understand: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        BUFFER.with_borrow_mut(|buffer| {
            let len = self.fill(buffer)?;
            understand(std::str::from_utf8(buffer.get(..len)?).ok()?)
        })
    }

    fn fill(&self, buffer: &mut Vec<u8>) -> Option<usize> {
        if buffer.is_empty() {
            buffer.resize(FIRST_BYTES, 0);
        }
        let mut len = 0;
        loop {
            let got = self.file.read_at(buffer.get_mut(len..)?, len as u64).ok()?;
            len += got;
            if len < buffer.len() {
                return Some(len);
            }
            if len >= FILE_BYTES_MAX {
                return None;
            }
            buffer.resize(len * 2, 0);
        }
    }
}

/// Reads a file that may not be there.
pub(super) fn read<T>(
    kept: Option<&Kept>,
    understand: impl FnOnce(&str) -> Option<T>,
) -> Option<T> {
    kept?.read(understand)
}

/// The content of a file of a single number.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The number after a name, in a file of `NAME NUMBER` lines.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = rest.strip_prefix([' ', '\t'])?;
        value.split_ascii_whitespace().next()?.parse().ok()
    })
}

/// How much room the buffer of this thread has taken.
#[cfg(test)]
pub(super) fn buffer_len() -> usize {
    BUFFER.with_borrow(Vec::len)
}

#[cfg(test)]
mod tests {
    use super::super::testing::folder;
    use super::*;

    #[test]
    fn a_file_longer_than_the_buffer_is_read_whole_and_one_without_end_is_given_up() {
        let long = format!("{}last 7\n", "filler 1\n".repeat(2000));
        let exact = format!("{:<width$}", "last 8\n", width = FIRST_BYTES);
        let endless = "x".repeat(FILE_BYTES_MAX + 1);
        let folder = folder(&[("long", &long), ("exact", &exact), ("endless", &endless)]);
        let read = |name| Kept::open(Some(folder.path()), name)?.read(|text| field(text, "last"));
        assert_eq!(read("long"), Some(7));
        assert_eq!(read("exact"), Some(8));
        assert_eq!(read("endless"), None);
        assert_eq!(read("absent"), None);
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "oom_kill_disable 9\noom_kill\noom_kill 4 more\n";
        assert_eq!(field(text, "oom_kill"), Some(4));
        assert_eq!(field(text, "oom"), None);
        assert_eq!(field("MemTotal:       12 kB\n", "MemTotal:"), Some(12));
        assert_eq!(field("usage_usec lots\n", "usage_usec"), None);
    }
}
