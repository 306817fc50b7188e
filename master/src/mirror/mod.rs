//! The mirror: a copy of the master's books on a thread of its own, which answers whoever reads them.
//!
//! The problem: reading everything takes time in proportion to the cluster, and the driver, which alone
//! has the books, makes no offers meanwhile. So it hands on what each step has changed ([`News`], a
//! little for each step, whether anybody reads or not), and nobody ever asks it for more. The mirror
//! follows the news when somebody reads or watches, or when many wait, and shows a [`View`]: pointers to
//! lines that never change. Making a message of a view is the reader's own work, on its own thread.
//!
//! Invariants: a view is what the books were after some step; a later one is never of an earlier step; it
//! shows all that the driver had told anybody (an operator, a scheduler, an agent) before the reading
//! was asked for. What is not yet durable is in no view.
//!
//! The price: the driver's share is a few per cent of a step; the copy takes about as much memory as the
//! books. At most [`MAX_READS_AT_ONCE`] readings are made at a time, and not more than there are CPUs beside one for those
//! who decide, so that many readers wait for each other instead of taking CPUs and caches from them; and on threads that
//! give way to others.
//! Lock-free between driver and mirror but for waking a thread that is parked; among readers there is a queue.
//!
//! Rejected: persistent maps in the core (each write copies a path while a reader holds a version: the
//! driver pays); a second core fed with the same inputs (twice the work); two copies in turns, as writers and
//! readers swap them (a slow reader holds up the writer).

mod advice;
mod books;
mod feed;
mod view;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use ebb_types::{Change, MasterInfo, Timestamp};
use rustix::process::setpriority_process;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

pub use advice::AdviceGauges;
pub use books::Books;
pub use feed::{Feed, MAX_MESSAGES_BEHIND, MAX_NEWS_BEHIND, MirrorFigures};
use feed::{Shared, What};
pub use view::{Gauges, MAX_QUOTAS_SHOWN, Parts, QuotaGauge, View};

use crate::core::News;
use crate::driver::{Cut, Inlet, Outbox, Stopped, Unsent, outbox};

/// Most readings that are made at once, however many CPUs there are; whoever comes then waits for its turn.
pub const MAX_READS_AT_ONCE: usize = 2;
/// How far the threads on which views are read give way to others, in steps of the scheduler's niceness.
const READER_NICE: i32 = 15;
/// Most changes that wait to be read by a watching operator.
pub const MAX_WATCH_OUTBOX: usize = 65_536;
/// Most operators that watch.
pub const MAX_WATCHERS: usize = 10_000;

/// The mirror's thread cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("the mirror's thread cannot be started; raise the limit of threads (ulimit -u)")]
pub struct StartError(#[source] std::io::Error);

/// Somebody wants to read.
#[derive(Debug)]
struct Request {
    answer: oneshot::Sender<View>,
    /// Of one who wants to hear of all changes after the view, too.
    watcher: Option<Outbox<Arc<Change>>>,
}

/// Starts a mirror of the books of this master: the driver's end and the readers'.
///
/// # Errors
/// [`StartError`].
pub fn start(master: MasterInfo) -> Result<(Feed, Reads), StartError> {
    start_bounded(master, MAX_NEWS_BEHIND)
}

pub(crate) fn start_bounded(
    master: MasterInfo,
    max_news: usize,
) -> Result<(Feed, Reads), StartError> {
    let shared = Arc::new(Shared::new(max_news));
    let (sender, requests) = mpsc::channel(MAX_READS_AT_ONCE);
    let mirror = Mirror {
        books: Books::new(master),
        at: Timestamp::from_ms(0),
        shared: Arc::clone(&shared),
        waiting: Vec::new(),
        watchers: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(StartError)?;
    let thread = std::thread::Builder::new()
        .name(String::from("ebb-mirror"))
        .spawn(move || runtime.block_on(mirror.run(requests)))
        .map_err(StartError)?;
    let feed = Feed {
        shared,
        thread: Some(thread),
    };
    let reads = Reads {
        requests: sender,
        turns: Arc::new(Semaphore::new(reads_at_once())),
    };
    Ok((feed, reads))
}

/// One CPU is for those who decide.
fn reads_at_once() -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    cpus.saturating_sub(1).clamp(1, MAX_READS_AT_ONCE)
}

/// The readers' end.
#[derive(Clone, Debug)]
pub struct Reads {
    requests: mpsc::Sender<Request>,
    turns: Arc<Semaphore>,
}

/// A view, and the turn of the one who reads it: to be dropped when it is read.
#[derive(Debug)]
pub struct Reading {
    view: View,
    _turn: OwnedSemaphorePermit,
}

impl Deref for Reading {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl Reads {
    /// Everything as it is now, when it is this reader's turn.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn read(&self) -> Result<Reading, Stopped> {
        self.ask(None).await
    }

    /// What is made of everything as it is now, on a thread that may take its time.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn make<T: Send + 'static>(
        &self,
        make: impl FnOnce(&View) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        off_loop(self.read().await?, make).await
    }

    /// What is made of everything as it is now, and all changes that come after it; at most `limit` of them
    /// wait to be read.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn watch<T: Send + 'static>(
        &self,
        limit: usize,
        make: impl FnOnce(&View) -> T + Send + 'static,
    ) -> Result<(T, Inlet<Arc<Change>>), Stopped> {
        let (sender, inlet) = outbox(limit.min(MAX_WATCH_OUTBOX));
        let reading = self.ask(Some(sender)).await?;
        Ok((off_loop(reading, make).await?, inlet))
    }

    async fn ask(&self, watcher: Option<Outbox<Arc<Change>>>) -> Result<Reading, Stopped> {
        let turn = Arc::clone(&self.turns).acquire_owned();
        let turn = turn.await.map_err(|_| Stopped)?;
        let (answer, view) = oneshot::channel();
        let request = Request { answer, watcher };
        self.requests.send(request).await.map_err(|_| Stopped)?;
        let view = view.await.map_err(|_| Stopped)?;
        Ok(Reading { view, _turn: turn })
    }
}

/// Has a reading be read on a thread of its own, which gives way to those who decide.
async fn off_loop<T: Send + 'static>(
    reading: Reading,
    make: impl FnOnce(&View) -> T + Send + 'static,
) -> Result<T, Stopped> {
    let (sender, made) = oneshot::channel();
    let read = move || {
        // Where it is not allowed, this reading is as urgent as everything else.
        let _as_urgent = setpriority_process(None, READER_NICE).is_err();
        // Whoever asked may have gone.
        let _unheard = sender.send(make(&reading)).is_err();
    };
    let thread = std::thread::Builder::new().name(String::from("ebb-read"));
    if let Err(error) = thread.spawn(read) {
        tracing::error!(%error, "a thread to read the state on cannot be started; raise the limit of threads (ulimit -u)");
    }
    made.await.map_err(|_| Stopped)
}

struct Mirror {
    books: Books,
    /// The time up to which the copy has followed.
    at: Timestamp,
    shared: Arc<Shared>,
    waiting: Vec<Request>,
    watchers: Vec<Outbox<Arc<Change>>>,
}

impl Mirror {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut is_read = true;
        while !self.shared.is_closed.load(Ordering::Acquire) {
            tokio::select! {
                () = self.shared.wake.notified() => {}
                request = requests.recv(), if is_read => match request {
                    Some(request) => self.waiting.push(request),
                    None => is_read = false,
                },
            }
            while let Ok(request) = requests.try_recv() {
                self.waiting.push(request);
            }
            self.catch_up();
        }
    }

    /// Follows what has come, and answers.
    fn catch_up(&mut self) {
        let is_behind = self.shared.is_behind.load(Ordering::Acquire);
        let at = Timestamp::from_ms(self.shared.at_ms.load(Ordering::Acquire));
        // What comes meanwhile is for the next time.
        for message in self.shared.queue.take() {
            self.at = self.at.max(message.at);
            match message.what {
                What::News(news) => {
                    self.shared.waiting.fetch_sub(news.len(), Ordering::Relaxed);
                    self.books.follow(news);
                    self.tell_changes();
                }
                What::Everything(everything) => self.start_anew(everything),
            }
        }
        if is_behind {
            self.shared.wants_everything.notify_one();
            return;
        }
        self.at = self.at.max(at);
        for Request { answer, watcher } in std::mem::take(&mut self.waiting) {
            self.shared.reads.fetch_add(1, Ordering::Relaxed);
            // Whoever asked may have gone.
            let heard = answer.send(self.books.show(self.at)).is_ok();
            if let Some(watcher) = watcher.filter(|_| heard) {
                self.admit(watcher);
            }
        }
    }

    fn start_anew(&mut self, everything: Vec<News>) {
        self.books.start_anew(everything);
        if !self.watchers.is_empty() {
            let state = self.books.show(self.at).state(Parts::ALL);
            self.tell(Change::Snapshot(Box::new(state)));
        }
    }

    fn admit(&mut self, watcher: Outbox<Arc<Change>>) {
        if self.watchers.len() >= MAX_WATCHERS {
            watcher.end(Cut::Closed(format!(
                "{MAX_WATCHERS} operators watch the master already and no more may; end some"
            )));
            return;
        }
        self.watchers.push(watcher);
        self.attend();
    }

    fn attend(&mut self) {
        let is_watched = !self.watchers.is_empty();
        self.shared.is_eager.store(is_watched, Ordering::Relaxed);
        self.books.observe(is_watched);
        // What came before the driver saw this did not wake the mirror.
        fence(Ordering::SeqCst);
        self.shared.wake.notify_one();
    }

    fn tell_changes(&mut self) {
        for change in self.books.changes() {
            self.tell(change);
        }
    }

    fn tell(&mut self, change: Change) {
        let change = Arc::new(change);
        let before = self.watchers.len();
        for watcher in std::mem::take(&mut self.watchers) {
            match watcher.push(Arc::clone(&change)) {
                Ok(()) => self.watchers.push(watcher),
                Err(Unsent::Gone) => {}
                Err(Unsent::Full) => {
                    self.shared.slow_readers_cut.fetch_add(1, Ordering::Relaxed);
                    watcher.cut_off();
                }
            }
        }
        if self.watchers.len() < before {
            self.attend();
        }
    }
}
