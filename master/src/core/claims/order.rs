//! The order of need among the children of a node: a binary heap whose members know where they stand.
//!
//! A change of a member's need only marks it ([`Order::touch`]); what is marked is put in its place when somebody asks
//! who is first ([`Order::settle`]). So a thousand declines between two rounds cost one rebuilding, and a single one
//! costs O(log members). Stale needs never break the heap: it is a heap of the needs that it has noted.

use crate::core::drf::Need;

/// Where a node stands in its parent's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spot {
    /// One more than its place in the heap; 0 if it is not in the order.
    place: u32,
    is_stale: bool,
}

impl Spot {
    pub(super) const fn is_in_order(self) -> bool {
        self.place > 0
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    need: Need,
    node: u32,
}

/// The children of a node that want something, the neediest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    heap: Vec<Entry>,
    stale: Vec<u32>,
    /// The totals that the needs were made with.
    totals: u64,
}

impl Order {
    pub(super) const fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// All who are in it, in no order.
    pub(super) fn nodes(&self) -> impl Iterator<Item = u32> {
        self.heap.iter().map(|entry| entry.node)
    }

    /// Adds a node that is not in it.
    pub(super) fn insert(&mut self, node: u32, need: Need, spots: &mut [Spot]) {
        self.heap.push(Entry { need, node });
        let at = self.heap.len() - 1;
        spots[node as usize].is_stale = false;
        self.note(at, spots);
        self.rise(at, spots);
    }

    /// Takes a node out, if it is in.
    pub(super) fn remove(&mut self, node: u32, spots: &mut [Spot]) {
        let spot = std::mem::take(&mut spots[node as usize]);
        if spot.place == 0 {
            return;
        }
        let at = spot.place as usize - 1;
        self.heap.swap_remove(at);
        if at < self.heap.len() {
            self.note(at, spots);
            self.put_in_place(at, spots);
        }
    }

    /// Marks a node whose need has changed.
    pub(super) fn touch(&mut self, node: u32, spots: &mut [Spot]) {
        let spot = &mut spots[node as usize];
        if spot.is_in_order() && !spot.is_stale {
            spot.is_stale = true;
            self.stale.push(node);
        }
    }

    /// Puts everybody in place whose need has changed, all if the cluster's totals have (by their number), and says who
    /// is first.
    pub(super) fn settle(
        &mut self,
        totals: u64,
        need_of: impl Fn(u32) -> Need,
        spots: &mut [Spot],
    ) -> Option<u32> {
        // Whoever is alone is first whatever its need, which is noted once there is another.
        if self.heap.len() == 1 {
            return self.heap.first().map(|entry| entry.node);
        }
        if self.totals != totals || self.stale.len() * 4 > self.heap.len() + 4 {
            let all = self.totals != totals;
            self.totals = totals;
            for entry in &mut self.heap {
                let spot = &mut spots[entry.node as usize];
                if all || spot.is_stale {
                    entry.need = need_of(entry.node);
                    spot.is_stale = false;
                }
            }
            self.stale.clear();
            for at in (0..self.heap.len() / 2).rev() {
                self.sink(at, spots);
            }
        } else {
            while let Some(node) = self.stale.pop() {
                let spot = &mut spots[node as usize];
                // Else it has left since, or came back with its need of then.
                if spot.is_in_order() && std::mem::take(&mut spot.is_stale) {
                    let at = spot.place as usize - 1;
                    self.heap[at].need = need_of(node);
                    self.put_in_place(at, spots);
                }
            }
        }
        self.heap.first().map(|entry| entry.node)
    }

    fn note(&self, at: usize, spots: &mut [Spot]) {
        // A node has a `u32`, and so has its place.
        spots[self.heap[at].node as usize].place = at as u32 + 1;
    }

    fn put_in_place(&mut self, at: usize, spots: &mut [Spot]) {
        if !self.rise(at, spots) {
            self.sink(at, spots);
        }
    }

    fn rise(&mut self, mut at: usize, spots: &mut [Spot]) -> bool {
        let start = at;
        let entry = self.heap[at];
        while at > 0 {
            let above = (at - 1) / 2;
            if self.heap[above].need <= entry.need {
                break;
            }
            self.put(at, self.heap[above], spots);
            at = above;
        }
        if at != start {
            self.put(at, entry, spots);
        }
        at != start
    }

    /// Who was first and got something is mostly among the last now: so the way down is taken to its end at one
    /// comparison a level, and then back up as far as is too far.
    fn sink(&mut self, start: usize, spots: &mut [Spot]) {
        let entry = self.heap[start];
        let len = self.heap.len();
        let mut at = start;
        loop {
            let mut least = 2 * at + 1;
            if least >= len {
                break;
            }
            if least + 1 < len && self.heap[least + 1].need < self.heap[least].need {
                least += 1;
            }
            self.put(at, self.heap[least], spots);
            at = least;
        }
        while at > start {
            let above = (at - 1) / 2;
            if self.heap[above].need <= entry.need {
                break;
            }
            self.put(at, self.heap[above], spots);
            at = above;
        }
        self.put(at, entry, spots);
    }

    fn put(&mut self, at: usize, entry: Entry, spots: &mut [Spot]) {
        self.heap[at] = entry;
        self.note(at, spots);
    }

    /// What is wrong with it, if anything.
    pub(super) fn fault(&self, spots: &[Spot]) -> Option<String> {
        for (at, entry) in self.heap.iter().enumerate() {
            if spots[entry.node as usize].place as usize != at + 1 {
                return Some(format!("node {} does not know its place", entry.node));
            }
            if at > 0 && self.heap[(at - 1) / 2].need > entry.need {
                return Some(format!("node {} stands below one less needy", entry.node));
            }
        }
        None
    }
}
