//! Gives the engine a clock and a connection. It decides nothing: inputs go in, outputs are carried
//! out in order.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ebb_types::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::transport::Endpoint;

use super::connection::{Connection, endpoint};
use super::engine::{Finished, Input, Output};
use super::{Ending, Engine, Scheduler, SchedulerConfig};

/// Orders from handles that wait to be carried out.
const MAX_ORDERS: usize = 64;
/// Longest sleep of the loop; it only bounds what a wrong far-away time can do.
const MAX_SLEEP_MS: u64 = 3_600_000;

/// Why a framework ended before its scheduler said so.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// No master address was given.
    #[error("no master is given; name at least one as host:port")]
    NoMaster,
    /// An address is no address.
    #[error("the master address {address:?} is not valid; write it as host:port")]
    Address {
        /// The address.
        address: String,
        /// The cause.
        #[source]
        source: tonic::transport::Error,
    },
    /// The master will not have the framework.
    #[error("the framework was refused: {message}")]
    Refused {
        /// What the master said.
        message: String,
    },
    /// No master took the subscription in time.
    #[error(
        "no master took the subscription within {waited_ms} ms; check that one runs at {masters}. Last attempt: {cause}"
    )]
    GaveUp {
        /// The addresses.
        masters: String,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
        /// What the last attempt met.
        cause: String,
    },
}

/// Reaches a running scheduler from outside its callbacks.
#[derive(Clone, Debug)]
pub struct Handle {
    orders: mpsc::Sender<Order>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Wake,
    End(Ending),
}

impl Handle {
    /// Calls [`Scheduler::woken`] soon; several calls may become one.
    pub fn wake(&self) {
        // A full queue already holds an order to wake, or the end.
        let _ = self.orders.try_send(Order::Wake);
    }

    /// Ends the framework with all its tasks.
    pub async fn teardown(&self) {
        // The driver is gone: the framework has ended already.
        let _ = self.orders.send(Order::End(Ending::Teardown)).await;
    }

    /// Leaves the master; the tasks live on until the failover timeout.
    pub async fn detach(&self) {
        let _ = self.orders.send(Order::End(Ending::Detach)).await;
    }
}

/// A clock that starts at the wall's time and then only goes forward.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    wall_ms: u64,
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            wall_ms: wall.map_or(0, |wall| {
                u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
            }),
            start: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_ms(self.wall_ms.saturating_add(elapsed))
    }
}

/// A seed that differs between processes.
pub(crate) fn seed() -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = wall.map_or(0, |wall| wall.subsec_nanos());
    u64::from(nanos) << 32 | u64::from(std::process::id())
}

/// Runs a scheduler.
pub struct Driver<S> {
    scheduler: S,
    config: SchedulerConfig,
    orders: mpsc::Receiver<Order>,
    handle: Handle,
}

impl<S: Scheduler> Driver<S> {
    /// Joins a scheduler with its configuration; nothing is connected yet.
    pub fn new(scheduler: S, config: SchedulerConfig) -> Self {
        let (sender, orders) = mpsc::channel(MAX_ORDERS);
        Self {
            scheduler,
            config,
            orders,
            handle: Handle { orders: sender },
        }
    }

    /// Reaches the scheduler while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until the scheduler ends it, and gives the scheduler back.
    ///
    /// # Errors
    /// When no address is valid, the master refuses the framework, or none took it in time.
    pub async fn run(self) -> Result<S, DriverError> {
        let (scheduler, result) = self.run_to_end().await;
        result.map(|()| scheduler)
    }

    /// Runs until the end, and gives the scheduler back whatever the end was.
    pub async fn run_to_end(self) -> (S, Result<(), DriverError>) {
        let addresses = match self.addresses() {
            Ok(addresses) => addresses,
            Err(error) => return (self.scheduler, Err(error)),
        };
        let clock = Clock::start();
        let seed = self.config.seed.unwrap_or_else(seed);
        let mut running = Running {
            engine: Engine::new(self.scheduler, &self.config, clock.now(), seed),
            orders: self.orders,
            _keeps_orders_open: self.handle,
            clock,
            addresses,
            connection: None,
            finished: None,
        };
        let result = running.run().await;
        (running.engine.into_scheduler(), result)
    }

    fn addresses(&self) -> Result<Vec<(String, Endpoint)>, DriverError> {
        if self.config.masters.is_empty() {
            return Err(DriverError::NoMaster);
        }
        self.config
            .masters
            .iter()
            .map(|address| Ok((address.clone(), endpoint(address)?)))
            .collect()
    }
}

struct Running<S> {
    engine: Engine<S>,
    orders: mpsc::Receiver<Order>,
    _keeps_orders_open: Handle,
    clock: Clock,
    addresses: Vec<(String, Endpoint)>,
    connection: Option<(u64, Connection)>,
    finished: Option<Finished>,
}

impl<S: Scheduler> Running<S> {
    async fn run(&mut self) -> Result<(), DriverError> {
        let mut input = Input::Tick;
        loop {
            for output in self.engine.step(self.clock.now(), input) {
                self.carry_out(output);
            }
            if let Some(finished) = self.finished.take() {
                return self.finish(finished).await;
            }
            input = self.wait().await;
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Connect {
                attempt,
                master,
                subscribe,
            } => {
                let (address, endpoint) = self.addresses[master % self.addresses.len()].clone();
                tracing::debug!(%address, attempt, "connecting to the master");
                self.connection = Some((attempt, Connection::open(address, endpoint, *subscribe)));
            }
            Output::Disconnect => self.connection = None,
            Output::Send(call) => {
                if let Some((_, connection)) = &mut self.connection {
                    connection.send(call);
                }
            }
            Output::Finished(finished) => self.finished = Some(finished),
        }
    }

    /// Waits for the next thing to happen.
    async fn wait(&mut self) -> Input {
        let now = self.clock.now();
        let sleep_ms = self
            .engine
            .next_wake()
            .map_or(MAX_SLEEP_MS, |at| at.ms_since(now).min(MAX_SLEEP_MS));
        tokio::select! {
            Some(order) = self.orders.recv() => match order {
                Order::Wake => Input::Wake,
                Order::End(ending) => Input::End(ending),
            },
            input = heard(&mut self.connection) => input,
            () = tokio::time::sleep(Duration::from_millis(sleep_ms)) => Input::Tick,
        }
    }

    async fn finish(&mut self, finished: Finished) -> Result<(), DriverError> {
        match finished {
            Finished::Asked { ending, told } => {
                if !told {
                    tracing::warn!(
                        ?ending,
                        "no master could be told that the framework leaves; it is removed after its failover timeout"
                    );
                }
                if let Some((_, connection)) = self.connection.take() {
                    connection.close().await;
                }
                Ok(())
            }
            Finished::Refused { message } => Err(DriverError::Refused { message }),
            Finished::GaveUp { waited_ms, cause } => {
                let addresses: Vec<&str> = self.addresses.iter().map(|(a, _)| a.as_str()).collect();
                Err(DriverError::GaveUp {
                    masters: addresses.join(", "),
                    waited_ms,
                    cause,
                })
            }
        }
    }
}

async fn heard(connection: &mut Option<(u64, Connection)>) -> Input {
    let Some((attempt, open)) = connection else {
        return std::future::pending().await;
    };
    let attempt = *attempt;
    match open.next().await {
        Ok(event) => Input::Event { attempt, event },
        Err(broken) => {
            *connection = None;
            Input::Broken {
                attempt,
                cause: broken.cause,
                fatal: broken.fatal,
            }
        }
    }
}

/// Runs a scheduler until it ends, and gives it back.
///
/// # Errors
/// When no address is valid, the master refuses the framework, or none took it in time.
pub async fn run<S: Scheduler>(scheduler: S, config: SchedulerConfig) -> Result<S, DriverError> {
    Driver::new(scheduler, config).run().await
}
