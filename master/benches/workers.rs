//! Whether more worker threads ever make the allocator slower.
//!
//! Subject: the real [`Allocator`] with 2 threads, and with 4 where there are as many CPUs; yardstick: the same with 1.
//! Each has a cluster of its own; they alternate in one process. A round is driven as by the driver: refusals expire,
//! all agents are woken, the batches are taken in and published until everything is offered (`offered`), and everything
//! is declined with a filter, a few hundred at a time (`round`). A commit is lost where another thread was faster.
//! Printed on standard output, a row a line: `{"case","metric","value","unit","bar"}`.
//!
//! Arguments: `AGENTSxFRAMEWORKS` (else 10000x1000). `--bench`, which cargo adds, is ignored.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use ebb_master::allocator::{Allocator, Batch};
use ebb_master::ledger::LedgerFigures;
use ebb_types::Timestamp;

use support::books::Books;
use support::error::Error;
use support::row::Row;
use support::times::{at, micros};

mod support {
    pub mod books;
    pub mod error;
    pub mod row;
    pub mod times;
}

/// As in `ebb-master`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SHAPE: (usize, usize) = (10_000, 1000);
const WORKERS: [u32; 3] = [1, 2, 4];
const ROUNDS: u64 = 206;
/// The first rounds of each, which do not count: memory is taken and refusals come about.
const WARM_UP: u64 = 6;
/// Never slower than with one.
const MAX_OVER_ONE: f64 = 1.0;
/// As many as the driver takes in at once.
const DECLINED_AT_ONCE: usize = 512;
const ROUND_MS: u64 = 1000;
const REFUSE_MS: u64 = 5000;
/// How long a batch may take to come before something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is measured of a round, and how often the time with one worker it may take.
type Part = (&'static str, fn(&Stand) -> &[Duration], Option<f64>);
const PARTS: [Part; 2] = [
    ("offered", |stand| &stand.offered, Some(MAX_OVER_ONE)),
    ("round", |stand| &stand.whole, Some(MAX_OVER_ONE)),
];

struct Stand {
    workers: u32,
    books: Books,
    allocator: Allocator,
    batches: Receiver<Batch>,
    offered: Vec<Duration>,
    whole: Vec<Duration>,
    /// What the workers' exchanges came to in the rounds that count.
    commits: u64,
    lost: u64,
}

impl Stand {
    fn new(workers: u32, (agents, frameworks): (usize, usize)) -> Result<Self, Error> {
        let books = Books::new(agents, frameworks)?;
        // One batch a worker is all that can be under way, as in the driver.
        let (sender, batches) = sync_channel(workers as usize);
        let sink = move |batch| {
            sender.try_send(batch).map_err(|error| match error {
                std::sync::mpsc::TrySendError::Full(batch)
                | std::sync::mpsc::TrySendError::Disconnected(batch) => batch,
            })
        };
        let ledger = Arc::clone(&books.ledger);
        Ok(Self {
            workers,
            allocator: Allocator::start(workers, ledger, &books.claims, sink)?,
            books,
            batches,
            offered: Vec::new(),
            whole: Vec::new(),
            commits: 0,
            lost: 0,
        })
    }

    fn publish(&mut self) {
        let entries = self.books.claims.publish();
        let claims = &self.books.claims;
        self.allocator.publish(&entries, || claims.copy());
    }

    fn round(&mut self, round: u64, agents: usize) -> Result<(), Error> {
        let now = Timestamp::from_ms(1 + round * ROUND_MS);
        let start = Instant::now();
        self.books.claims.expire(now);
        self.publish();
        let before = self.books.ledger.stats().figures();
        let mut offers = Vec::with_capacity(agents);
        self.allocator.wake_all();
        while offers.len() < agents {
            let mut next = Some(self.batches.recv_timeout(PATIENCE)?);
            while let Some(batch) = next {
                self.books.take_in(batch.id, &batch.proposals);
                offers.extend(batch.proposals);
                next = self.batches.try_recv().ok();
            }
            self.publish();
        }
        let offered = start.elapsed();
        let after = self.books.ledger.stats().figures();
        for some in offers.chunks(DECLINED_AT_ONCE) {
            self.books.decline(some, now.plus_ms(REFUSE_MS))?;
            self.publish();
        }
        if round >= WARM_UP {
            self.offered.push(offered);
            self.whole.push(start.elapsed());
            self.count(&before, &after);
        }
        Ok(())
    }

    /// Every exchange since was a worker's; those that were refused or tried again found that another was faster.
    fn count(&mut self, before: &LedgerFigures, after: &LedgerFigures) {
        let refused = after.refused - before.refused + after.contended - before.contended;
        self.commits += after.applied - before.applied + refused;
        self.lost += after.conflicts - before.conflicts + refused;
    }
}

fn main() -> Result<(), Error> {
    let asked = std::env::args().skip(1).find(|arg| arg != "--bench");
    let shape = match asked.as_deref() {
        Some(shape) => {
            let (agents, frameworks) = shape
                .split_once('x')
                .ok_or_else(|| format!("{shape:?} is no shape; say for example 10000x1000"))?;
            (agents.parse()?, frameworks.parse()?)
        }
        None => SHAPE,
    };
    let cpus = std::thread::available_parallelism()?.get();
    let numbers = WORKERS
        .into_iter()
        .filter(|workers| *workers <= 2 || *workers as usize <= cpus);
    let mut stands = numbers
        .map(|workers| Stand::new(workers, shape))
        .collect::<Result<Vec<_>, _>>()?;
    for round in 0..ROUNDS {
        // Whoever is first in one round is last in the next.
        stands.rotate_left(1);
        for stand in &mut stands {
            stand.round(round, shape.0)?;
        }
    }
    stands.sort_by_key(|stand| stand.workers);
    for stand in &stands {
        let row = |metric: &str, value, unit, at_most| Row {
            case: format!("{}x{} with {} workers", shape.0, shape.1, stand.workers),
            metric: metric.to_owned(),
            value,
            unit,
            at_most,
        };
        for (name, of, bar) in PARTS {
            let [fastest, median] = [0.0, 0.5].map(|part| micros(at(of(stand), part)));
            row(&format!("{name}_min"), fastest, "us", None).print();
            row(&format!("{name}_median"), median, "us", None).print();
            if stand.workers > 1 {
                let one = micros(at(of(&stands[0]), 0.5));
                let metric = format!("{name}_median_over_one");
                row(&metric, median / one, "ratio", bar).print();
            }
        }
        let rate = stand.lost as f64 / stand.commits as f64;
        row("conflict_rate", rate, "ratio", None).print();
    }
    Ok(())
}
