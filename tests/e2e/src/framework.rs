//! A framework of the SDK that does what a test says, when it says so, and remembers all that it is told.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use ebb_framework::{
    Calls, CommandSpec, Driver, Handle, Outcome, Scheduler, SchedulerConfig, Subscribed,
};
use ebb_types::{
    Filters, InverseOffer, Lots, Offer, OfferId, OperationStatus, Resources, TaskId, TaskInfo,
    TaskState, TaskStatus,
};

use crate::{PATIENCE, wire};

/// Something that the framework was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The subscription stands, for the first time or anew.
    Subscribed,
    /// Resources are on offer.
    Offer(Offer),
    /// An offer is void.
    Rescinded(OfferId),
    /// It is asked to be gone.
    Inverse(InverseOffer),
    /// That is void.
    InverseRescinded(OfferId),
    /// The state of a task.
    Status(TaskStatus),
    /// What became of an operation.
    Operation(OperationStatus),
    /// The connection broke: all offers are void.
    Disconnected,
}

type Order = Box<dyn FnOnce(&mut Calls) + Send>;
type Orders = Arc<Mutex<Vec<Order>>>;

fn lock(orders: &Orders) -> MutexGuard<'_, Vec<Order>> {
    orders.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Puppet {
    orders: Orders,
    told: mpsc::Sender<Heard>,
}

impl Puppet {
    fn tell(&self, heard: Heard) -> Outcome {
        Ok(self.told.send(heard)?)
    }
}

impl Scheduler for Puppet {
    fn subscribed(&mut self, _calls: &mut Calls, _subscribed: &Subscribed) -> Outcome {
        self.tell(Heard::Subscribed)
    }

    fn offers(&mut self, _calls: &mut Calls, offers: Vec<Offer>) -> Outcome {
        offers
            .into_iter()
            .try_for_each(|offer| self.tell(Heard::Offer(offer)))
    }

    fn rescinded(&mut self, _calls: &mut Calls, offer_id: &OfferId) -> Outcome {
        self.tell(Heard::Rescinded(offer_id.clone()))
    }

    fn inverse_offers(&mut self, _calls: &mut Calls, offers: &[InverseOffer]) -> Outcome {
        let mut offers = offers.iter().cloned();
        offers.try_for_each(|offer| self.tell(Heard::Inverse(offer)))
    }

    fn inverse_rescinded(&mut self, _calls: &mut Calls, offer_id: &OfferId) -> Outcome {
        self.tell(Heard::InverseRescinded(offer_id.clone()))
    }

    fn update(&mut self, _calls: &mut Calls, status: &TaskStatus) -> Outcome {
        self.tell(Heard::Status(status.clone()))
    }

    fn operation(&mut self, _calls: &mut Calls, status: &OperationStatus) -> Outcome {
        self.tell(Heard::Operation(status.clone()))
    }

    fn woken(&mut self, calls: &mut Calls) -> Outcome {
        std::mem::take(&mut *lock(&self.orders))
            .into_iter()
            .for_each(|order| order(calls));
        Ok(())
    }

    fn disconnected(&mut self, _calls: &mut Calls, _cause: &str) -> Outcome {
        self.tell(Heard::Disconnected)
    }
}

/// A framework in a thread of its own. At its end it is torn down.
pub struct Framework {
    orders: Orders,
    handle: Handle,
    heard: mpsc::Receiver<Heard>,
    open: BTreeMap<OfferId, Offer>,
    /// All that it was told and that the test has looked at, oldest first.
    pub all: Vec<Heard>,
    thread: Option<JoinHandle<()>>,
}

impl Framework {
    /// Subscribes at a master and waits until the subscription stands.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn start(
        master: SocketAddr,
        name: &str,
        change: impl FnOnce(&mut SchedulerConfig),
    ) -> Self {
        let mut config = SchedulerConfig::new([master.to_string()], name);
        change(&mut config);
        let orders = Orders::default();
        let (told, heard) = mpsc::channel();
        let puppet = Puppet {
            orders: Arc::clone(&orders),
            told,
        };
        let driver = Driver::new(puppet, config);
        let handle = driver.handle();
        let thread = std::thread::spawn(move || {
            let (_, result) = wire::block_on(driver.run_to_end());
            result.unwrap_or_else(|error| panic!("the framework has ended: {error}"));
        });
        let mut framework = Self {
            orders,
            handle,
            heard,
            open: BTreeMap::new(),
            all: Vec::new(),
            thread: Some(thread),
        };
        framework.until("the subscription", |heard| {
            (*heard == Heard::Subscribed).then_some(())
        });
        framework
    }

    /// Has calls made.
    pub fn ask(&self, order: impl FnOnce(&mut Calls) + Send + 'static) {
        lock(&self.orders).push(Box::new(order));
        self.handle.wake();
    }

    /// Waits until it hears something in which `found` finds something; what it heard before that and nobody has
    /// looked at is passed over.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn until<T>(&mut self, what: &str, mut found: impl FnMut(&Heard) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(heard) = self.heard.recv_timeout(left) else {
                panic!(
                    "the framework has not heard of {what}, but of {:#?}",
                    self.all
                );
            };
            self.remember(&heard);
            let thing = found(&heard);
            self.all.push(heard);
            if let Some(thing) = thing {
                return thing;
            }
        }
    }

    fn remember(&mut self, heard: &Heard) {
        match heard {
            Heard::Offer(offer) => {
                self.open.insert(offer.id.clone(), offer.clone());
            }
            Heard::Rescinded(id) => {
                self.open.remove(id);
            }
            Heard::Disconnected => self.open.clear(),
            _ => {}
        }
    }

    /// All that it has heard and that nobody has looked at.
    pub fn news(&mut self) -> Vec<Heard> {
        let news: Vec<Heard> = self.heard.try_iter().collect();
        news.iter().for_each(|heard| self.remember(heard));
        self.all.extend(news.iter().cloned());
        news
    }

    /// Waits for an offer that suits, and gives others back meanwhile.
    pub fn offer(&mut self, what: &str, suits: impl Fn(&Offer) -> bool) -> Offer {
        self.news();
        loop {
            let open = std::mem::take(&mut self.open).into_values();
            let (suitable, others): (Vec<_>, Vec<_>) = open.partition(&suits);
            let mut suitable = suitable.into_iter();
            let first = suitable.next();
            self.open = suitable.map(|offer| (offer.id.clone(), offer)).collect();
            self.decline(&others);
            if let Some(offer) = first {
                return offer;
            }
            self.until(what, |heard| matches!(heard, Heard::Offer(_)).then_some(()));
        }
    }

    /// Gives offers back for the shortest time.
    pub fn decline(&self, offers: &[Offer]) {
        let ids = offers.iter().map(|offer| offer.id.clone()).collect();
        self.ask(move |calls| calls.decline_all(ids, Filters { refuse_ms: 0 }));
    }

    /// Launches a line for the shell on an offer; what is left of it may be offered again at once.
    ///
    /// # Panics
    /// When the id is not valid.
    pub fn launch(
        &self,
        offer: &Offer,
        id: &str,
        line: &str,
        (resources, lots): (Resources, Lots),
    ) {
        let offer_id = offer.id.clone();
        let command = CommandSpec::shell(line).to_command();
        let task = TaskInfo {
            warn_signal: None,
            task_id: TaskId::new(id).expect("a valid id"),
            name: id.to_owned(),
            agent_id: offer.agent_id.clone(),
            resources,
            lots,
            command: Some(command),
            executor: None,
            kill_grace_ms: None,
            max_completion_ms: None,
            cpu_limit_milli: None,
            data: Vec::new(),
            labels: Vec::new(),
        };
        self.ask(move |calls| calls.accept(vec![offer_id], vec![task], Filters { refuse_ms: 0 }));
    }

    /// Waits until a task is in a state.
    ///
    /// # Panics
    /// When it ends in another, or not in time.
    pub fn state(&mut self, task: &str, state: TaskState) -> TaskStatus {
        let what = format!("{} of {task}", state.name());
        self.until(&what, |heard| {
            let Heard::Status(status) = heard else {
                return None;
            };
            let is_meant = status.task_id.as_str() == task;
            if is_meant && status.state != state {
                assert!(
                    !status.state.is_terminal(),
                    "{task} has ended otherwise: {status:#?}"
                );
            }
            (is_meant && status.state == state).then(|| status.clone())
        })
    }

    /// Ends it with its tasks and waits until its thread has ended.
    ///
    /// # Panics
    /// When it had ended before, with an error.
    pub fn finish(mut self) {
        self.end();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the framework ends well");
        }
    }

    fn end(&self) {
        self.ask(Calls::teardown);
    }
}

impl Drop for Framework {
    fn drop(&mut self) {
        self.end();
    }
}
