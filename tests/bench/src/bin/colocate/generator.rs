//! The load: requests are due at times fixed beforehand, whether or not earlier ones were answered, and latency counts
//! from when a request was *due*, so that a slow answer cannot hide the requests that it held up (Tene's coordinated
//! omission).
//!
//! It is a process of one thread that loads, so that its CPU time can be told apart from the service's, and it waits in
//! `ppoll` for the next due time or answer. Its parent gives it SCHED_FIFO: what is measured is the service, and a
//! client on another machine would not wait behind this one's batch. How late it sent is reported beside the latency.
//!
//! Nanoseconds of the monotonic clock. Commands come as lines on its standard input, each is answered with a line of
//! JSON: `rate R`, `report` (and begin anew), `step R MS` (that rate for so long, then the one before).

use std::collections::VecDeque;
use std::io::{BufRead, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use ebb_tests_bench::monotonic_ns;
use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use crate::arrivals::Arrivals;
use crate::service::Service;
use crate::steps::{Request, served_after_ns};

/// Connections that share the load, in turn.
const CONNECTIONS: usize = 8;
/// Requests without an answer on one connection: beyond it the service is taken to be stuck.
const OUTSTANDING_MAX: usize = 1 << 20;
/// Longest wait between two looks for commands.
const LOOK_NS: u64 = 5_000_000;
/// Largest latency that is told apart.
const LATENCY_MAX_NS: u64 = 60_000_000_000;
/// What is sent before any answer is looked at: under overload, answers still get their turn.
const SENDS_AT_ONCE: usize = 64;

/// What was seen since the last report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Requests that were due.
    pub due: u64,
    /// Latencies from the due time, in nanoseconds, with how many of each.
    pub latencies_ns: Vec<(u64, u64)>,
    /// The 999th thousandth of how late a request was sent, in nanoseconds.
    pub late_p999_ns: u64,
    /// CPU time of the generator, in nanoseconds.
    pub cpu_ns: u64,
    /// How long it was, in nanoseconds.
    pub span_ns: u64,
}

/// What a step of the load did.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Step {
    /// When it began, in milliseconds since 1970.
    pub at_ms: u64,
    /// When every request was served again at the rate at which they came, in nanoseconds since the step; nothing if
    /// that was not before its end.
    pub served_ns: Option<u64>,
}

struct Connection {
    stream: TcpStream,
    /// When what is not answered yet was due.
    due_ns: VecDeque<u64>,
    /// Bytes of the next answer that are there.
    have: usize,
    /// Bytes that the socket had no room for.
    unsent: Vec<u8>,
}

struct RunningStep {
    at_ms: u64,
    at_ns: u64,
    end_ns: u64,
    rate_before: f64,
    requests: Vec<Request>,
}

struct Generator {
    connections: Vec<Connection>,
    request: Vec<u8>,
    answer_len: usize,
    arrivals: Option<(f64, Arrivals)>,
    turn: usize,
    latencies: Histogram<u64>,
    late: Histogram<u64>,
    due: u64,
    since: (Instant, u64),
    step: Option<RunningStep>,
    buffer: Vec<u8>,
}

/// Loads the service on that port until the standard input ends.
///
/// # Errors
/// When the service does not answer as it did at first.
pub fn run(service: Service, port: u16) -> Result<()> {
    let (sender, commands) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut generator = Generator::connect(service, port)?;
    while generator.obey(&commands)? {
        generator.turn()?;
    }
    Ok(())
}

fn say(answer: &impl Serialize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(answer)?)?;
    out.flush().context("nobody listens any more")
}

fn own_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

impl Generator {
    fn connect(service: Service, port: u16) -> Result<Self> {
        let request = service.request();
        let mut connections = Vec::new();
        let mut answer_len = 0;
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .context("the service does not take connections")?;
            stream.set_nodelay(true)?;
            answer_len = service.answer_len(&mut stream)?;
            stream.set_nonblocking(true)?;
            connections.push(Connection {
                stream,
                due_ns: VecDeque::new(),
                have: 0,
                unsent: Vec::new(),
            });
        }
        let histogram = || Histogram::new_with_bounds(1_000, LATENCY_MAX_NS, 3);
        Ok(Self {
            connections,
            request,
            answer_len,
            arrivals: None,
            turn: 0,
            latencies: histogram()?,
            late: histogram()?,
            due: 0,
            since: (Instant::now(), own_cpu_ns()),
            step: None,
            buffer: vec![0; 256 << 10],
        })
    }

    /// Carries out what was commanded; false at the end.
    fn obey(&mut self, commands: &Receiver<String>) -> Result<bool> {
        let line = match commands.try_recv() {
            Ok(line) => line,
            Err(TryRecvError::Empty) => return Ok(true),
            Err(TryRecvError::Disconnected) => return Ok(false),
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["rate", rate] => {
                let rate: f64 = rate.parse()?;
                self.arrivals = (rate > 0.0).then(|| (rate, Arrivals::new(rate, monotonic_ns())));
                say(&true)?;
            }
            ["report"] => {
                let report = self.report();
                say(&report)?;
            }
            ["step", rate, ms] => self.begin_step(rate.parse()?, ms.parse()?)?,
            _ => bail!("{line:?} is no command"),
        }
        Ok(true)
    }

    fn begin_step(&mut self, rate: f64, ms: u64) -> Result<()> {
        let now_ns = monotonic_ns();
        let (before, arrivals) = self.arrivals.as_mut().context("no load to step from")?;
        let rate_before = std::mem::replace(before, rate);
        arrivals.set_rate(rate, now_ns);
        let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
        self.step = Some(RunningStep {
            at_ms: u64::try_from(since.as_millis())?,
            at_ns: now_ns,
            end_ns: now_ns + ms * 1_000_000,
            rate_before,
            requests: Vec::new(),
        });
        Ok(())
    }

    fn end_step(&mut self, now_ns: u64) -> Result<()> {
        let Some(mut step) = self.step.take_if(|step| step.end_ns <= now_ns) else {
            return Ok(());
        };
        if let Some((rate, arrivals)) = self.arrivals.as_mut() {
            *rate = step.rate_before;
            arrivals.set_rate(*rate, now_ns);
        }
        let open = self.connections.iter().flat_map(|one| &one.due_ns);
        step.requests.extend(
            open.filter(|due_ns| **due_ns >= step.at_ns)
                .map(|due_ns| Request {
                    due_ns: *due_ns,
                    done_ns: None,
                }),
        );
        let served_ns = served_after_ns(&step.requests, step.at_ns, step.end_ns);
        say(&Step {
            at_ms: step.at_ms,
            served_ns,
        })
    }

    fn report(&mut self) -> Report {
        let (began, cpu_ns) = std::mem::replace(&mut self.since, (Instant::now(), own_cpu_ns()));
        let values = self.latencies.iter_recorded();
        let report = Report {
            due: std::mem::take(&mut self.due),
            latencies_ns: values
                .map(|value| (value.value_iterated_to(), value.count_at_value()))
                .collect(),
            late_p999_ns: self.late.value_at_quantile(0.999),
            cpu_ns: own_cpu_ns() - cpu_ns,
            span_ns: u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX),
        };
        self.latencies.reset();
        self.late.reset();
        report
    }

    /// Sends what is due, takes what has been answered, waits for the next of both.
    fn turn(&mut self) -> Result<()> {
        let now_ns = monotonic_ns();
        self.end_step(now_ns)?;
        let next_ns = self.send_due(now_ns)?;
        let wait_ns = next_ns.saturating_sub(monotonic_ns()).min(LOOK_NS);
        let wait = Duration::from_nanos(wait_ns);
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: wait.subsec_nanos().into(),
        };
        let ready: Vec<bool> = {
            let mut polled: Vec<PollFd<'_>> = self
                .connections
                .iter()
                .map(|one| {
                    let out = if one.unsent.is_empty() {
                        PollFlags::empty()
                    } else {
                        PollFlags::OUT
                    };
                    PollFd::new(&one.stream, PollFlags::IN | out)
                })
                .collect();
            match poll(&mut polled, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => bail!("cannot wait for answers: {error}"),
            }
            polled.iter().map(|one| !one.revents().is_empty()).collect()
        };
        for (index, ready) in ready.into_iter().enumerate() {
            if ready {
                self.serve(index)?;
            }
        }
        Ok(())
    }

    /// Sends what is due, and tells when the next is.
    fn send_due(&mut self, now_ns: u64) -> Result<u64> {
        for _ in 0..SENDS_AT_ONCE {
            let Some((_, arrivals)) = self.arrivals.as_mut() else {
                return Ok(u64::MAX);
            };
            let due_ns = arrivals.next_ns();
            if due_ns > now_ns {
                return Ok(due_ns);
            }
            arrivals.advance();
            self.due += 1;
            self.late.saturating_record(now_ns - due_ns);
            let connection = &mut self.connections[self.turn];
            self.turn = (self.turn + 1) % CONNECTIONS;
            connection.due_ns.push_back(due_ns);
            ensure!(
                connection.due_ns.len() < OUTSTANDING_MAX,
                "the service has left {OUTSTANDING_MAX} requests without an answer"
            );
            connection.unsent.extend_from_slice(&self.request);
            connection.flush()?;
        }
        Ok(now_ns)
    }

    fn serve(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        connection.flush()?;
        loop {
            let read = match connection.stream.read(&mut self.buffer) {
                Ok(0) => bail!("the service has closed a connection"),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("the service does not answer"),
            };
            let now_ns = monotonic_ns();
            connection.have += read;
            while connection.have >= self.answer_len {
                connection.have -= self.answer_len;
                let due_ns = connection.due_ns.pop_front();
                let due_ns = due_ns.context("the service answers what nobody asked")?;
                self.latencies
                    .saturating_record(now_ns.saturating_sub(due_ns));
                if let Some(step) = self.step.as_mut().filter(|step| due_ns >= step.at_ns) {
                    step.requests.push(Request {
                        due_ns,
                        done_ns: Some(now_ns),
                    });
                }
            }
            if read < self.buffer.len() {
                return Ok(());
            }
        }
    }
}

impl Connection {
    fn flush(&mut self) -> Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(written) => {
                    self.unsent.drain(..written);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("the service takes no request"),
            }
        }
        Ok(())
    }
}
