//! The order of need among the children of a node: a tournament. Each child has a place of its own at the bottom, and
//! every match above notes which of its two sides is the needier one, so that a change is played out in one match a
//! level, up to where nothing changes any more.
//!
//! A change of a member's need only marks it ([`Order::touch`]); what is marked is played out when somebody asks who is
//! first ([`Order::settle`]). So a thousand declines between two rounds cost one new tournament, and a single one costs
//! O(log members). Stale needs never break the order: it is that of the needs that it has noted.

use crate::core::drf::Need;

/// Where a node stands in its parent's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spot {
    /// One more than its place at the bottom; 0 if it is not in the order.
    place: u32,
    is_stale: bool,
}

impl Spot {
    pub(super) const fn is_in_order(self) -> bool {
        self.place > 0
    }
}

/// Nobody stands in a place; no node has this number.
const NOBODY: u32 = u32::MAX;

/// The children of a node that want something, the neediest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    /// The needs by place, and who stands there: a power of 2 of them, those without anybody the last ones of all.
    needs: Vec<Need>,
    nodes: Vec<u32>,
    /// The places that won the matches: the final stands at 1, and the two sides of the match at `n` at `2n` and `2n + 1`,
    /// which are places at the bottom where they are as many as there are places, or more.
    winners: Vec<u32>,
    free: Vec<u32>,
    stale: Vec<u32>,
    len: usize,
    /// The totals that the needs were made with.
    totals: u64,
}

impl Order {
    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All who are in it, in no order.
    pub(super) fn nodes(&self) -> impl Iterator<Item = u32> {
        self.nodes.iter().copied().filter(|node| *node != NOBODY)
    }

    /// Adds a node that is not in it.
    pub(super) fn insert(&mut self, node: u32, need: Need, spots: &mut [Spot]) {
        let place = self.free.pop().unwrap_or_else(|| self.grow());
        // A node has a `u32`, and so has its place.
        spots[node as usize] = Spot {
            place: place + 1,
            is_stale: false,
        };
        self.nodes[place as usize] = node;
        self.needs[place as usize] = need;
        self.len += 1;
        self.play_out(place);
    }

    /// Doubles the places; a free one.
    fn grow(&mut self) -> u32 {
        let places = self.needs.len();
        let grown = (places * 2).max(1);
        self.needs.resize(grown, Need::LAST);
        self.nodes.resize(grown, NOBODY);
        self.winners.resize(grown, 0);
        self.free.extend((places as u32 + 1..grown as u32).rev());
        self.play_all();
        places as u32
    }

    /// Takes a node out, if it is in.
    pub(super) fn remove(&mut self, node: u32, spots: &mut [Spot]) {
        let spot = std::mem::take(&mut spots[node as usize]);
        if spot.place == 0 {
            return;
        }
        let place = spot.place - 1;
        self.nodes[place as usize] = NOBODY;
        self.needs[place as usize] = Need::LAST;
        self.free.push(place);
        self.len -= 1;
        self.play_out(place);
    }

    /// Marks a node whose need has changed.
    #[inline]
    pub(super) fn touch(&mut self, node: u32, spots: &mut [Spot]) {
        let spot = &mut spots[node as usize];
        if spot.is_in_order() && !spot.is_stale {
            spot.is_stale = true;
            self.stale.push(node);
        }
    }

    /// Plays out what has changed of everybody's need, all if the cluster's totals have (by their number), and says who
    /// is first.
    pub(super) fn settle(
        &mut self,
        totals: u64,
        need_of: impl Fn(u32) -> Need,
        spots: &mut [Spot],
    ) -> Option<u32> {
        // Whoever is alone is first whatever its need, which is noted once there is another.
        if self.len <= 1 {
            return self.first();
        }
        if self.totals != totals || self.stale.len() * 4 > self.len + 4 {
            let all = self.totals != totals;
            self.totals = totals;
            for (node, need) in self.nodes.iter().zip(&mut self.needs) {
                if *node == NOBODY {
                    continue;
                }
                let spot = &mut spots[*node as usize];
                if all || spot.is_stale {
                    *need = need_of(*node);
                    spot.is_stale = false;
                }
            }
            self.stale.clear();
            self.play_all();
        } else {
            while let Some(node) = self.stale.pop() {
                let spot = &mut spots[node as usize];
                // Else it has left since, or came back with its need of then.
                if spot.is_in_order() && std::mem::take(&mut spot.is_stale) {
                    let place = spot.place - 1;
                    self.needs[place as usize] = need_of(node);
                    self.play_out(place);
                }
            }
        }
        self.first()
    }

    fn first(&self) -> Option<u32> {
        let place = self.winners.get(1).copied().unwrap_or(0);
        let node = self.nodes.get(place as usize).copied();
        node.filter(|node| *node != NOBODY)
    }

    /// Plays the matches above a place, up to where nothing changes any more.
    fn play_out(&mut self, place: u32) {
        let (needs, winners) = (&self.needs[..], &mut self.winners[..]);
        let (mut winner, mut rival) = (place, place ^ 1);
        let mut need = &needs[place as usize];
        let mut at = needs.len() + place as usize;
        while at > 1 {
            if let Some(of_rival) = needs.get(rival as usize)
                && of_rival.is_before(need)
            {
                (winner, need) = (rival, of_rival);
            }
            at /= 2;
            let Some(known) = winners.get_mut(at) else {
                return;
            };
            if *known == winner && winner != place {
                return;
            }
            *known = winner;
            // Beside the final stands nobody.
            rival = winners[at ^ 1];
        }
    }

    fn play_all(&mut self) {
        for at in (1..self.needs.len()).rev() {
            let (one, other) = (self.winner_of(2 * at), self.winner_of(2 * at + 1));
            let is_other = self.needs[other as usize].is_before(&self.needs[one as usize]);
            self.winners[at] = if is_other { other } else { one };
        }
    }

    /// The place that stands for one side of a match.
    #[inline]
    fn winner_of(&self, side: usize) -> u32 {
        match side.checked_sub(self.needs.len()) {
            Some(place) => place as u32,
            None => self.winners[side],
        }
    }

    /// What is wrong with it, if anything.
    pub(super) fn fault(&self, spots: &[Spot]) -> Option<String> {
        for (place, node) in self.nodes.iter().enumerate() {
            let is_known = *node == NOBODY || spots[*node as usize].place as usize == place + 1;
            if !is_known {
                return Some(format!("node {node} does not know its place"));
            }
            if *node == NOBODY && self.needs[place] != Need::LAST {
                return Some(format!("place {place} is empty and has a need"));
            }
        }
        for at in 1..self.needs.len() {
            let winner = self.winners[at] as usize;
            let sides = [2 * at, 2 * at + 1].map(|side| self.winner_of(side) as usize);
            if !sides.contains(&winner)
                || sides
                    .iter()
                    .any(|side| self.needs[*side] < self.needs[winner])
            {
                return Some(format!("the match at {at} was not won by place {winner}"));
            }
        }
        (self.nodes().count() != self.len).then(|| String::from("an order is counted wrongly"))
    }
}
