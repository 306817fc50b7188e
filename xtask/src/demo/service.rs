//! The production service of the demo: redis where the machine has it, else the web server that
//! comes with Python.

use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result};

use super::load;

/// Members of the list that each request to redis reads whole.
const LIST_MEMBERS: usize = 2000;
/// Size of the page that each request to the web server reads, in bytes.
const PAGE_BYTES: usize = 64 * 1024;

/// How a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RESP, one connection for many requests.
    Redis,
    /// HTTP/1.0, a connection a request.
    Http,
}

impl Protocol {
    /// What the machine has.
    pub fn detect() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let has_redis =
            std::env::split_paths(&path).any(|folder| folder.join("redis-server").is_file());
        if has_redis { Self::Redis } else { Self::Http }
    }

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Http => "python3 -m http.server",
        }
    }

    /// One request.
    pub const fn request(self) -> &'static str {
        match self {
            Self::Redis => "LRANGE demo 0 -1\r\n",
            Self::Http => "GET /page HTTP/1.0\r\n\r\n",
        }
    }

    /// With what an answer ends; without it, with the connection.
    pub const fn answer_end(self) -> Option<&'static [u8]> {
        match self {
            Self::Redis => Some(b"$3\r\nend\r\n"),
            Self::Http => None,
        }
    }

    /// Requests a second at which it is nearly idle, and at which it needs most of a core.
    pub const fn rates(self) -> (u64, u64) {
        match self {
            Self::Redis => (500, 6000),
            Self::Http => (100, 600),
        }
    }

    /// The command line that serves on a port, for the shell.
    pub fn command_line(self, port: u16, pages: &Path) -> String {
        match self {
            Self::Redis => {
                format!(
                    "exec redis-server --port {port} --bind 127.0.0.1 --save '' --appendonly no"
                )
            }
            Self::Http => format!(
                "exec python3 -m http.server {port} --bind 127.0.0.1 --directory '{}' 2>/dev/null",
                pages.display()
            ),
        }
    }

    /// Gives the server what the requests ask for.
    ///
    /// # Errors
    /// When the page cannot be written or the server does not take the list.
    pub fn fill(self, port: u16, pages: &Path) -> Result<()> {
        match self {
            Self::Redis => {
                let mut stream = load::connect(port)?;
                let members = "x ".repeat(LIST_MEMBERS);
                write!(stream, "DEL demo\r\nRPUSH demo {members} end\r\n")?;
                let mut answer = [0; 64];
                let read = stream.read(&mut answer).context("redis does not answer")?;
                anyhow::ensure!(
                    answer[..read].starts_with(b":"),
                    "redis does not take the list"
                );
                Ok(())
            }
            Self::Http => std::fs::write(pages.join("page"), "x".repeat(PAGE_BYTES))
                .context("cannot write the page"),
        }
    }
}
