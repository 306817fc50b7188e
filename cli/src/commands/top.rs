//! `ebb top`: a live view by the stream of changes.
//!
//! On a terminal the picture is drawn over the last one, on the alternate screen, until Ctrl-C or SIGTERM; else
//! one picture (or, with `--json`, one line of JSON) is printed at each interval. When the master
//! goes away the view says so and comes back with it.

use std::io::{self, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ebb_types::{Change, Timestamp};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::args::TopArgs;
use crate::client::{Master, Watch};
use crate::error::{CliError, EXIT_OK};
use crate::output::{Out, terminal_size};
use crate::signals::Signals;
use crate::top::model::Model;
use crate::top::render::{Room, lines};

/// Wait before the master is tried again after its stream has ended.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);
/// Longest wait for the first picture of `--once`.
const FIRST_TIMEOUT: Duration = Duration::from_secs(15);

/// A clock that starts at the machine's and never runs backwards.
struct Clock {
    started: Instant,
    started_ms: u64,
}

impl Clock {
    fn new() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            started: Instant::now(),
            started_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn now(&self) -> Timestamp {
        let passed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_ms(self.started_ms).plus_ms(passed)
    }
}

/// The alternate screen, left again when this is dropped.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Self> {
        let mut stdout = io::stdout();
        stdout.write_all(b"\x1b[?1049h\x1b[?25l")?;
        stdout.flush()?;
        Ok(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut stdout = io::stdout();
        // When the terminal is gone there is nothing left to restore.
        let _ = stdout.write_all(b"\x1b[?25h\x1b[?1049l");
        let _ = stdout.flush();
    }
}

pub(crate) async fn perform(args: &TopArgs, out: &mut Out) -> Result<u8, CliError> {
    let mut master = Master::connect(&args.client.master).await?;
    let watch = master.watch().await?;
    if args.once {
        once(watch, out).await?;
        return Ok(EXIT_OK);
    }
    let mut signals = Signals::listen()?;
    let on_screen = out.is_terminal && !out.json;
    let screen = on_screen.then(Screen::enter).transpose()?;
    let result = tokio::select! {
        result = live(args, watch, out) => result,
        () = signals.next() => Ok(()),
    };
    drop(screen);
    result.map(|()| EXIT_OK)
}

/// One picture of the first snapshot.
async fn once(mut watch: Watch, out: &mut Out) -> Result<(), CliError> {
    let clock = Clock::new();
    let mut model = Model::default();
    let first = async {
        while let Some(change) = watch.next().await? {
            let is_snapshot = matches!(change, Change::Snapshot(_));
            model.apply(change, clock.now());
            if is_snapshot {
                return Ok(true);
            }
        }
        Ok::<bool, CliError>(false)
    };
    match tokio::time::timeout(FIRST_TIMEOUT, first).await {
        Ok(Ok(true)) => print(&model, &clock, None, out),
        Ok(Err(error)) => Err(error),
        Ok(Ok(false)) | Err(_) => Err(CliError::Failed(
            "the master ended its stream without showing its state; look at its log".to_owned(),
        )),
    }
}

/// The stream of changes, or the attempt to have one again.
enum Link {
    Up(Box<Watch>),
    Dialling(JoinHandle<Result<Watch, CliError>>),
}

impl Link {
    fn dial(args: &TopArgs) -> Self {
        let address = args.client.master.clone();
        Self::Dialling(tokio::spawn(async move {
            tokio::time::sleep(RECONNECT_AFTER).await;
            Master::connect(&address).await?.watch().await
        }))
    }

    /// The next change; the error is why there is none for now. Loses nothing when it is dropped.
    async fn next(&mut self, args: &TopArgs) -> Result<Change, String> {
        loop {
            let trouble = match self {
                Self::Up(watch) => match watch.next().await {
                    Ok(Some(change)) => return Ok(change),
                    Ok(None) => "the master ended the stream; connecting anew".to_owned(),
                    Err(error) => error.to_string(),
                },
                Self::Dialling(attempt) => match attempt.await {
                    Ok(Ok(watch)) => {
                        *self = Self::Up(Box::new(watch));
                        continue;
                    }
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => format!("the attempt to connect broke off: {error}"),
                },
            };
            *self = Self::dial(args);
            return Err(trouble);
        }
    }
}

/// Pictures at each interval, for as long as the reader reads.
async fn live(args: &TopArgs, watch: Watch, out: &mut Out) -> Result<(), CliError> {
    let clock = Clock::new();
    let mut model = Model::default();
    let mut link = Link::Up(Box::new(watch));
    let mut trouble = None;
    let mut seen = false;
    let mut ticks = tokio::time::interval(Duration::from_millis(args.interval));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            change = link.next(args) => {
                let is_first = !seen && change.is_ok();
                trouble = match change {
                    Ok(change) => {
                        model.apply(change, clock.now());
                        None
                    }
                    Err(trouble) => Some(trouble),
                };
                if is_first {
                    seen = true;
                    print(&model, &clock, trouble.as_deref(), out)?;
                    ticks.reset();
                }
            }
            _ = ticks.tick(), if seen => print(&model, &clock, trouble.as_deref(), out)?,
        }
    }
}

fn print(
    model: &Model,
    clock: &Clock,
    trouble: Option<&str>,
    out: &mut Out,
) -> Result<(), CliError> {
    let view = model.view(clock.now(), trouble);
    if out.json {
        return Ok(out.json_line(&view)?);
    }
    if !out.is_terminal {
        for line in lines(&view, out.palette, Room::ENDLESS) {
            out.line(&line)?;
        }
        return Ok(out.line("")?);
    }
    let (columns, rows) = terminal_size().unwrap_or((80, 24));
    // The last row stays free, so that the line's end does not scroll.
    let rows = rows.saturating_sub(1);
    let mut picture = String::from("\x1b[H");
    for line in lines(&view, out.palette, Room { columns, rows }) {
        picture.push_str(&line);
        picture.push_str("\x1b[K\r\n");
    }
    picture.push_str("\x1b[J");
    Ok(out.raw(picture.as_bytes())?)
}
