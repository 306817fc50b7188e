//! What runs in the containers: the owner, which asks or streams as it is told over loopback, and streams without end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ebb_tests_bench::monotonic_ns;
use serde::{Deserialize, Serialize};

use crate::link::{ANSWER_BYTES, ASKS, OTHERS, OWNERS, REQUEST_BYTES};

/// Between two requests, whether or not the ones before were answered.
const PACE: Duration = Duration::from_millis(2);
/// Streams of one that takes what it can.
const STREAMS: usize = 4;

/// What the owner is to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Ask for so long.
    Ask(f64),
    /// Stream as much as it may for so long.
    Stream(f64),
}

/// What an owner has measured: from when a request was due to its answer, in microseconds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Told {
    pub latencies_us: Vec<f64>,
}

/// The owner, as the benchmark sees it.
pub struct Owner {
    lines: BufReader<TcpStream>,
}

impl Owner {
    /// Waits until it is there.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn meet(listener: &TcpListener) -> Result<Self> {
        let (stream, _) = listener.accept()?;
        Ok(Self {
            lines: BufReader::new(stream),
        })
    }

    /// Has it do something, and waits until it is done.
    ///
    /// # Errors
    /// When it is gone.
    pub fn order(&mut self, order: &Order) -> Result<Told> {
        let text = serde_json::to_string(order)? + "\n";
        self.lines.get_mut().write_all(text.as_bytes())?;
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        serde_json::from_str(&line).context("the owner is gone")
    }
}

/// The owner's program.
///
/// # Errors
/// When the network or the benchmark is gone.
pub fn own(control: SocketAddr, link: SocketAddr) -> Result<()> {
    let mut lines = BufReader::new(TcpStream::connect(control)?);
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let told = match serde_json::from_str(&line)? {
            Order::Ask(seconds) => Told {
                latencies_us: ask(link, Duration::from_secs_f64(seconds))?,
            },
            Order::Stream(seconds) => {
                let until = Instant::now() + Duration::from_secs_f64(seconds);
                stream(link, OWNERS, Some(until))?;
                Told::default()
            }
        };
        let text = serde_json::to_string(&told)? + "\n";
        lines.get_mut().write_all(text.as_bytes())?;
    }
}

fn ask(link: SocketAddr, time: Duration) -> Result<Vec<f64>> {
    let mut asking = TcpStream::connect(link)?;
    asking.set_nodelay(true)?;
    asking.write_all(&[ASKS])?;
    let mut hearing = asking.try_clone()?;
    let count = u64::try_from(time.as_nanos() / PACE.as_nanos())?;
    let pace_ns = u64::try_from(PACE.as_nanos())?;
    let begin_ns = monotonic_ns();
    let asker = std::thread::spawn(move || -> Result<()> {
        for number in 0..count {
            let due_ns = begin_ns + number * pace_ns;
            let left_ns = due_ns.saturating_sub(monotonic_ns());
            std::thread::sleep(Duration::from_nanos(left_ns));
            asking.write_all(&[b'r'; REQUEST_BYTES])?;
        }
        Ok(())
    });
    let mut latencies_us = Vec::new();
    for number in 0..count {
        hearing.read_exact(&mut [0; ANSWER_BYTES])?;
        let due_ns = begin_ns + number * pace_ns;
        latencies_us.push(monotonic_ns().saturating_sub(due_ns) as f64 / 1e3);
    }
    match asker.join() {
        Ok(asked) => asked.map(|()| latencies_us),
        Err(_) => bail!("who asks has panicked"),
    }
}

/// Sends what the network takes, without end.
///
/// # Errors
/// When the network is gone.
pub fn flood(link: SocketAddr) -> Result<()> {
    let streams: Vec<_> = (0..STREAMS)
        .map(|_| std::thread::spawn(move || stream(link, OTHERS, None)))
        .collect();
    for one in streams {
        if let Ok(ended) = one.join() {
            ended?;
        }
    }
    Ok(())
}

fn stream(link: SocketAddr, kind: u8, until: Option<Instant>) -> Result<()> {
    let mut stream = TcpStream::connect(link)?;
    let bytes = vec![kind; 64 << 10];
    while until.is_none_or(|until| Instant::now() < until) {
        stream.write_all(&bytes)?;
    }
    Ok(())
}
