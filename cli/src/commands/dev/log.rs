//! The log of `ebb dev`: everything in a file of bounded size, what is wrong on the terminal too.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::error::CliError;
use crate::output::table::clean;

/// The largest log, in bytes; then it begins anew.
const MAX_LOG_BYTES: u64 = 64 * 1024 * 1024;

/// A file that begins anew when it is full.
struct Bounded {
    file: File,
    written: u64,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written.saturating_add(bytes.len() as u64) > MAX_LOG_BYTES {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.written = 0;
            let line = b"the log was full and begins anew\n";
            self.file.write_all(line)?;
            self.written += line.len() as u64;
        }
        let written = self.file.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Begins to log into the folder; gives the file.
pub(super) fn begin(folder: &Path) -> Result<PathBuf, CliError> {
    let path = folder.join("log");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path);
    let file = file.map_err(|error| {
        CliError::Failed(format!(
            "cannot write the log {}: {error}; name another folder with --data",
            clean(&path.display().to_string())
        ))
    })?;
    let bounded = Bounded { file, written: 0 };
    let to_file = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(Mutex::new(bounded))
        .with_filter(filter()?);
    let to_terminal = tracing_subscriber::fmt::layer()
        .without_time()
        .with_ansi(false)
        .with_writer(io::stderr)
        .with_filter(LevelFilter::ERROR);
    tracing_subscriber::registry()
        .with(to_file)
        .with(to_terminal)
        .init();
    Ok(path)
}

/// What is logged, as `EBB_LOG` says.
pub(crate) fn filter() -> Result<EnvFilter, CliError> {
    match std::env::var("EBB_LOG") {
        Err(_) => Ok(EnvFilter::new("info")),
        Ok(text) => EnvFilter::try_new(&text).map_err(|_| {
            CliError::Usage(format!(
                "EBB_LOG is {:?}, which is no filter; write info or ebb_agent=debug",
                crate::output::quantity::shown(&text)
            ))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_never_grows_beyond_its_bound() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let file = File::create(&path).expect("a file");
        let mut log = Bounded {
            file,
            written: MAX_LOG_BYTES - 5,
        };
        log.write_all(b"12345").expect("written");
        assert_eq!(std::fs::metadata(&path).expect("there").len(), 5);
        log.write_all(b"6").expect("written");
        let text = std::fs::read_to_string(&path).expect("text");
        assert_eq!(text, "the log was full and begins anew\n6");
    }
}
