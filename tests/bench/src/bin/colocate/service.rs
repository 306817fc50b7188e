//! The production services that are measured: how each is started, filled and asked.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Members of each of the two sets that a request to redis intersects.
const MEMBERS: usize = 1_000;
/// How many of them are in both.
const SHARED: usize = 500;
/// Size of the page that each request to nginx reads and has compressed, in bytes.
const PAGE_BYTES: usize = 8 << 10;
/// An answer that takes longer is none.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A service by Debian's package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// One thread, requests in memory.
    Redis,
    /// Two processes, pages compressed as they are sent.
    Nginx,
}

impl Service {
    /// By its name on the command line.
    pub fn of_name(name: &str) -> Result<Self> {
        match name {
            "redis" => Ok(Self::Redis),
            "nginx" => Ok(Self::Nginx),
            _ => bail!("there is no service {name:?}; there are redis and nginx"),
        }
    }

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Nginx => "nginx",
        }
    }

    /// Writes what it needs below `folder` and gives the command line, for the shell, that serves on that port.
    pub fn prepare(self, folder: &Path, port: u16) -> Result<String> {
        let at = folder.display();
        match self {
            Self::Redis => Ok(format!(
                "exec redis-server --port {port} --bind 127.0.0.1 --save '' --appendonly no --io-threads 1"
            )),
            Self::Nginx => {
                let mut page = String::new();
                for line in 0.. {
                    if page.len() >= PAGE_BYTES {
                        break;
                    }
                    page.push_str(&format!("line {line} of {}\n", line * 7919 % 10_007));
                }
                std::fs::create_dir_all(folder.join("pages"))?;
                std::fs::write(folder.join("pages/page.txt"), page)?;
                let settings = format!(
                    "daemon off; worker_processes 2; pid {at}/nginx.pid; error_log {at}/nginx.log;\n\
                     events {{ worker_connections 256; }}\n\
                     http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;\n\
                     gzip on; gzip_types *; gzip_min_length 1; default_type text/plain;\n\
                     client_body_temp_path {at}/t1; proxy_temp_path {at}/t2; fastcgi_temp_path {at}/t3;\n\
                     uwsgi_temp_path {at}/t4; scgi_temp_path {at}/t5;\n\
                     server {{ listen 127.0.0.1:{port} reuseport; root {at}/pages; }} }}\n"
                );
                std::fs::write(folder.join("nginx.conf"), settings)?;
                Ok(format!("exec nginx -e {at}/nginx.log -c {at}/nginx.conf"))
            }
        }
    }

    /// Gives a running one what requests ask for.
    pub fn fill(self, stream: &mut TcpStream) -> Result<()> {
        if self == Self::Nginx {
            return Ok(());
        }
        stream.set_read_timeout(Some(TIMEOUT))?;
        let members = |from: usize| -> String {
            let numbers = from..from + MEMBERS;
            numbers
                .map(|number| format!(" member:{number:06}"))
                .collect()
        };
        let (one, other) = (members(0), members(MEMBERS - SHARED));
        write!(
            stream,
            "DEL one other\r\nSADD one{one}\r\nSADD other{other}\r\n"
        )?;
        let mut answers = [0; 64];
        let mut have = 0;
        while answers[..have]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            < 3
        {
            let read = stream.read(&mut answers[have..])?;
            ensure!(read > 0, "redis has closed the connection");
            have += read;
        }
        let text = String::from_utf8_lossy(&answers[..have]);
        let taken = text
            .lines()
            .skip(1)
            .all(|line| line == format!(":{MEMBERS}"));
        ensure!(taken, "redis does not take the sets: {text:?}");
        Ok(())
    }

    /// One request.
    pub fn request(self) -> Vec<u8> {
        match self {
            Self::Redis => {
                b"*4\r\n$10\r\nSINTERCARD\r\n$1\r\n2\r\n$3\r\none\r\n$5\r\nother\r\n".to_vec()
            }
            Self::Nginx => {
                b"GET /page.txt HTTP/1.1\r\nHost: ebb\r\nAccept-Encoding: gzip\r\n\r\n".to_vec()
            }
        }
    }

    /// Asks once and gives the length of the answer, which is always the same.
    pub fn answer_len(self, stream: &mut TcpStream) -> Result<usize> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(&self.request())?;
        let mut answer = Vec::new();
        let mut chunk = [0; 64 << 10];
        while !self.is_whole(&answer) {
            let read = stream
                .read(&mut chunk)
                .context("the service does not answer")?;
            ensure!(read > 0, "the service has closed the connection");
            answer.extend_from_slice(&chunk[..read]);
        }
        Ok(answer.len())
    }

    fn is_whole(self, answer: &[u8]) -> bool {
        match self {
            Self::Redis => answer.ends_with(b"\r\n"),
            // Compressed pages come in chunks.
            Self::Nginx => answer.ends_with(b"\r\n0\r\n\r\n"),
        }
    }
}
