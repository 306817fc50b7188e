//! An open-loop load: requests are due at fixed times whether or not earlier ones were answered in
//! time, and latency counts from when a request was due, so that a slow answer is not hidden by the
//! requests that it delayed (Tene's coordinated omission).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::service::Protocol;

/// Connections that share the load.
const CONNECTIONS: u64 = 4;
/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A running load; its rate may be changed at any time.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

struct Shared {
    port: u16,
    protocol: Protocol,
    /// Requests a second over all connections.
    rate: AtomicU64,
    stop: AtomicBool,
    latencies_us: Mutex<Vec<u64>>,
}

impl Load {
    /// Starts to ask a server on this machine.
    pub fn start(port: u16, protocol: Protocol, rate: u64) -> Self {
        let shared = Arc::new(Shared {
            port,
            protocol,
            rate: AtomicU64::new(rate),
            stop: AtomicBool::new(false),
            latencies_us: Mutex::new(Vec::new()),
        });
        let threads = (0..CONNECTIONS)
            .map(|_| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.ask())
            })
            .collect();
        Self { shared, threads }
    }

    /// Changes the rate, in requests a second.
    pub fn set_rate(&self, rate: u64) {
        self.shared.rate.store(rate, Ordering::Relaxed);
    }

    /// The latencies since the last call, in microseconds, sorted.
    pub fn take_latencies_us(&self) -> Vec<u64> {
        let mut taken = std::mem::take(
            &mut *self
                .shared
                .latencies_us
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        taken.sort_unstable();
        taken
    }

    /// Ends the load.
    ///
    /// # Errors
    /// When a request was not answered.
    pub fn stop(self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .map_err(|_| anyhow!("a thread of the load has panicked"))?
        })
    }
}

impl Shared {
    fn ask(&self) -> Result<()> {
        let mut connection = None;
        let mut due = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            let interval =
                Duration::from_secs(CONNECTIONS) / self.rate.load(Ordering::Relaxed).max(1) as u32;
            due += interval;
            if let Some(early) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(early);
            }
            self.request(&mut connection).with_context(|| {
                format!("the service on port {} did not answer a request", self.port)
            })?;
            let latency_us = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.latencies_us
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(latency_us);
        }
        Ok(())
    }

    fn request(&self, kept: &mut Option<TcpStream>) -> Result<()> {
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => connect(self.port)?,
        };
        stream.write_all(self.protocol.request().as_bytes())?;
        match self.protocol.answer_end() {
            Some(end) => {
                read_to(&mut stream, end)?;
                *kept = Some(stream);
            }
            None => {
                stream.read_to_end(&mut Vec::new())?;
            }
        }
        Ok(())
    }
}

/// Connects to a server on this machine.
///
/// # Errors
/// When nothing answers there.
pub fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(
        &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into(),
        TIMEOUT,
    )?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

fn read_to(stream: &mut TcpStream, end: &[u8]) -> Result<()> {
    let (mut answer, mut chunk) = (Vec::new(), [0; 64 * 1024]);
    while !answer.ends_with(end) {
        let read = stream.read(&mut chunk)?;
        anyhow::ensure!(
            read > 0,
            "the server closed the connection in the middle of an answer"
        );
        answer.extend_from_slice(&chunk[..read]);
    }
    Ok(())
}

/// The value below which the given share of a sorted list lies; 0 of an empty one.
pub fn quantile(sorted: &[u64], per_mille: usize) -> u64 {
    let at = (sorted.len() * per_mille / 1000).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_short_lists_stay_inside() {
        assert_eq!(quantile(&[], 990), 0);
        assert_eq!(quantile(&[7], 990), 7);
        let thousand: Vec<u64> = (0..1000).collect();
        assert_eq!(
            (quantile(&thousand, 500), quantile(&thousand, 990)),
            (500, 990)
        );
    }
}
