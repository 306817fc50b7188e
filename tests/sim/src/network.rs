//! Streams between processes. One keeps its order while it stands; see the crate's head for what
//! happens when it breaks.

use ebb_types::{AgentToMaster, Call, Event, Generation, Incarnation, MasterToAgent};

use crate::world::{Happening, World};

/// Longest usual delay of a message, in milliseconds.
const DELAY_MS: u64 = 40;
/// Longest delay of what arrives late after a break, in milliseconds.
const LATE_MS: u64 = 3_000;
/// Longest time until one side notices a break, in milliseconds.
const NOTICE_MS: u64 = 4_000;

/// Names a stream; never used twice in a run.
pub type LinkId = u64;

/// Who dialled the master, and in which of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Agent { number: usize, life: u64 },
    Framework { number: usize, life: u64 },
}

/// What goes over a stream.
#[derive(Clone, Debug)]
pub enum Message {
    Call(Call),
    Event(Event),
    Up(Incarnation, Box<AgentToMaster>),
    Down(Generation, Box<MasterToAgent>),
}

/// A stream.
#[derive(Debug)]
pub struct Link {
    pub peer: Peer,
    pub master_life: u64,
    /// When the last message of each direction (to the peer, to the master) arrives.
    last_ms: [u64; 2],
    /// Nothing that arrives later than this gets through, in each direction.
    until_ms: [u64; 2],
    /// Whether each end (the peer, the master) still believes in it.
    pub open: [bool; 2],
    broken: bool,
}

/// The master's end of a stream; the other is the peer's.
pub const AT_MASTER: usize = 1;
/// The peer's end of a stream.
pub const AT_PEER: usize = 0;

impl World {
    /// A stream between a peer and the master that now runs.
    pub fn connect(&mut self, peer: Peer, master_life: u64) -> LinkId {
        self.next_link += 1;
        let link = Link {
            peer,
            master_life,
            last_ms: [0; 2],
            until_ms: [u64::MAX; 2],
            open: [true; 2],
            broken: false,
        };
        self.links.insert(self.next_link, link);
        self.next_link
    }

    /// Sends towards one end. What is sent into a broken stream is lost.
    pub fn send(&mut self, id: LinkId, towards: usize, message: Message) {
        let faulty = self.faulty();
        if faulty && self.rng.chance(1) {
            self.break_link(id);
        }
        let delay = self.rng.between(1, DELAY_MS);
        let repeat = faulty && may_repeat(&message) && self.rng.chance(20);
        let late = self.rng.between(1, 2_000);
        let now = self.now_ms;
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let at = (now + delay).max(link.last_ms[towards]);
        if link.broken || at > link.until_ms[towards] {
            return;
        }
        link.last_ms[towards] = at;
        if repeat {
            self.at(
                at + late,
                Happening::Deliver {
                    link: id,
                    towards,
                    message: Box::new(message.clone()),
                },
            );
        }
        self.at(
            at,
            Happening::Deliver {
                link: id,
                towards,
                message: Box::new(message),
            },
        );
    }

    /// Whether a message that was under way gets through.
    pub fn arrives(&self, id: LinkId, towards: usize) -> bool {
        self.links
            .get(&id)
            .is_some_and(|link| link.open[towards] && self.now_ms <= link.until_ms[towards])
    }

    /// Breaks a stream: each direction loses everything from some point on; either end notices later.
    pub fn break_link(&mut self, id: LinkId) {
        let cuts = [self.rng.between(0, LATE_MS), self.rng.between(0, LATE_MS)];
        let notices = [
            self.rng.between(0, NOTICE_MS),
            self.rng.between(0, NOTICE_MS),
        ];
        let now = self.now_ms;
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if link.broken {
            return;
        }
        link.broken = true;
        for end in [AT_PEER, AT_MASTER] {
            // A message that is delivered after its end has noticed would be of a closed stream.
            link.until_ms[end] = now + cuts[end].min(notices[end]);
        }
        for end in [AT_PEER, AT_MASTER] {
            self.at(now + notices[end], Happening::Gone { link: id, end });
        }
    }

    /// Silences a stream without telling anybody; the ends must find out by themselves.
    pub fn silence_link(&mut self, id: LinkId) {
        let now = self.now_ms;
        if let Some(link) = self.links.get_mut(&id) {
            link.broken = true;
            link.until_ms = [now; 2];
        }
    }

    /// One end closes the stream: the other learns of it after everything that was sent before.
    pub fn close_link(&mut self, id: LinkId, closing: usize) {
        let other = 1 - closing;
        let now = self.now_ms;
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.open[closing] = false;
        if !std::mem::replace(&mut link.broken, true) {
            let at = link.last_ms[other].max(now) + 1;
            self.at(
                at,
                Happening::Gone {
                    link: id,
                    end: other,
                },
            );
        } else if link.until_ms[other] <= now {
            // It was silent; the kernel's own timeouts end it one day.
            self.at(
                now + NOTICE_MS,
                Happening::Gone {
                    link: id,
                    end: other,
                },
            );
        }
    }

    /// Streams that both ends or one still believe in.
    pub fn open_links(&self) -> Vec<LinkId> {
        self.links
            .iter()
            .filter(|(_, link)| !link.broken)
            .map(|(id, _)| *id)
            .collect()
    }
}

fn may_repeat(message: &Message) -> bool {
    match message {
        Message::Up(_, message) => matches!(
            **message,
            AgentToMaster::Update { .. }
                | AgentToMaster::Oversubscribed(_)
                | AgentToMaster::Heartbeat
        ),
        Message::Down(_, message) => matches!(
            **message,
            MasterToAgent::Acknowledge { .. }
                | MasterToAgent::Kill { .. }
                | MasterToAgent::Heartbeat
        ),
        Message::Call(call) => {
            matches!(
                call,
                Call::Acknowledge { .. } | Call::Kill { .. } | Call::Reconcile { .. }
            )
        }
        Message::Event(event) => matches!(
            event,
            Event::Update(_) | Event::Rescind(_) | Event::Heartbeat
        ),
    }
}
