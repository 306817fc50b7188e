//! The order of need among the children of a node: a tournament. Each child has a place of its own at the bottom, and
//! every match above notes which of its two sides is the needier one, so that a change is played out in one match a
//! level, up to where nothing changes any more.
//!
//! A change of a member's need only marks it ([`Order::touch`]); what is marked is played out when somebody asks who is
//! first ([`Order::settle`]). So a thousand declines between two rounds cost one new tournament, and a single one costs
//! O(log members) at most. Stale needs never break the order: it is that of the needs that it has noted.
//!
//! What need not be played is not. A noted need may be too needy: that matters once its node wins the final, and is
//! corrected then. Those few who are needier than is noted of them are held against the winner of the final one by one,
//! and play once they are more than [`MAX_AHEAD`]. So whoever gives something back and is given it again, which is what
//! happens most often, moves nobody in the tournament.

use crate::core::drf::Need;

/// Where a node stands in its parent's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spot {
    /// One more than its place at the bottom; 0 if it is not in the order.
    place: u32,
    /// It was touched since the last look at its need.
    is_stale: bool,
    is: Noted,
}

/// What is noted of a node's need, as of the last look at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Noted {
    /// Its need.
    #[default]
    Right,
    /// A need that is too needy.
    TooNeedy,
    /// One that is not needy enough: its need stands among those who are ahead.
    NotEnough,
}

impl Spot {
    pub(super) const fn is_in_order(self) -> bool {
        self.place > 0
    }
}

/// Nobody stands in a place; no node has this number.
const NOBODY: u32 = u32::MAX;

/// So many are held against the winner of the final one by one.
const MAX_AHEAD: usize = 4;

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
    /// Who is needier than is noted of it, and its need.
    ahead: Vec<(Need, u32)>,
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
            ..Spot::default()
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
        if spot.is == Noted::NotEnough {
            self.drop_ahead(node);
        }
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
    #[inline(always)]
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
            self.settle_all(totals, need_of, spots);
            return self.first();
        }
        loop {
            while let Some(node) = self.stale.pop() {
                let spot = &mut spots[node as usize];
                // Else it has left since, or came back with its need of then.
                if std::mem::take(&mut spot.is_stale) {
                    self.look(node, need_of(node), spot);
                }
            }
            if self.ahead.len() > MAX_AHEAD {
                self.play_ahead(spots);
            }
            let winner = self.winner() as usize;
            let node = self.nodes[winner];
            let spot = &mut spots[node as usize];
            if spot.is == Noted::TooNeedy {
                spot.is_stale = true;
                self.stale.push(node);
                continue;
            }
            let mut first = (&self.needs[winner], node);
            for (need, node) in &self.ahead {
                if need.is_before(first.0) {
                    first = (need, *node);
                }
            }
            return Some(first.1);
        }
    }

    /// Plays out the needs of those who are ahead.
    #[cold]
    fn play_ahead(&mut self, spots: &mut [Spot]) {
        while let Some((need, node)) = self.ahead.pop() {
            self.correct(need, &mut spots[node as usize]);
        }
    }

    /// Notes all that has changed, and plays everything.
    #[cold]
    fn settle_all(&mut self, totals: u64, need_of: impl Fn(u32) -> Need, spots: &mut [Spot]) {
        let all = self.totals != totals;
        self.totals = totals;
        for (node, need) in self.nodes.iter().zip(&mut self.needs) {
            if *node == NOBODY {
                continue;
            }
            let spot = &mut spots[*node as usize];
            if all || spot.is_stale || spot.is != Noted::Right {
                *need = need_of(*node);
                (spot.is_stale, spot.is) = (false, Noted::Right);
            }
        }
        self.stale.clear();
        self.ahead.clear();
        self.play_all();
    }

    /// Takes in what the need of a node is.
    #[inline(always)]
    fn look(&mut self, node: u32, need: Need, spot: &mut Spot) {
        let place = spot.place - 1;
        if spot.is == Noted::NotEnough {
            self.drop_ahead(node);
        }
        if need.is_before(&self.needs[place as usize]) {
            spot.is = Noted::NotEnough;
            self.ahead.push((need, node));
        } else if place == self.winner() {
            self.correct(need, spot);
        } else {
            spot.is = Noted::TooNeedy;
        }
    }

    fn drop_ahead(&mut self, node: u32) {
        let mut ahead = self.ahead.iter();
        if let Some(at) = ahead.position(|(_, ahead)| *ahead == node) {
            self.ahead.swap_remove(at);
        }
    }

    /// Notes a need and plays it out.
    #[inline(never)]
    fn correct(&mut self, need: Need, spot: &mut Spot) {
        spot.is = Noted::Right;
        let place = spot.place - 1;
        self.needs[place as usize] = need;
        self.play_out(place);
    }

    fn first(&self) -> Option<u32> {
        let node = self.nodes.get(self.winner() as usize).copied();
        node.filter(|node| *node != NOBODY)
    }

    /// The place that won the final.
    #[inline]
    fn winner(&self) -> u32 {
        self.winners.get(1).copied().unwrap_or(0)
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
            let is_ahead = self
                .ahead
                .iter()
                .any(|(need, ahead)| ahead == node && need.is_before(&self.needs[place]));
            let is_to_be = *node != NOBODY && spots[*node as usize].is == Noted::NotEnough;
            if is_ahead != is_to_be {
                return Some(format!("it is not noted who in place {place} is ahead"));
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
        (self.nodes().count() != self.len || self.ahead.len() > self.len)
            .then(|| String::from("an order is counted wrongly"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::drf::Share;

    const NODES: usize = 40;

    #[derive(Clone, Debug)]
    enum Change {
        /// A node comes or goes.
        Turn(usize),
        /// A node holds so much now.
        Hold(usize, u64),
        /// The whole is another.
        Total(u64),
        Ask,
    }

    fn change() -> impl Strategy<Value = Change> {
        let node = || 0..NODES;
        prop_oneof![
            1 => node().prop_map(Change::Turn),
            4 => (node(), 0..6u64).prop_map(|(node, held)| Change::Hold(node, held)),
            4 => Just(Change::Ask),
            1 => (1..3u64).prop_map(Change::Total),
        ]
    }

    proptest! {
        #[test]
        fn who_is_first_is_the_neediest_whatever_was_played(
            first in prop::collection::vec(node_and_amount(), 0..NODES),
            changes in prop::collection::vec(change(), 0..200),
        ) {
            let (mut order, mut spots) = (Order::default(), vec![Spot::default(); NODES]);
            let (mut held, mut total, mut totals) = ([0; NODES], 1, 0);
            let mut allocations = [0; NODES];
            let need = |node: u32, held: &[u64; NODES], allocations: &[u64; NODES], total: u64| {
                let (at, born) = (node as usize, u64::from(node));
                Need::of(Share::of(held[at].into(), (10 * total).into(), 1000), allocations[at], born)
            };
            let begin = first.into_iter().flat_map(|(node, amount)| {
                [Change::Turn(node), Change::Hold(node, amount)]
            });
            for change in begin.chain(changes) {
                match change {
                    Change::Turn(node) if spots[node].is_in_order() => order.remove(node as u32, &mut spots),
                    Change::Turn(node) => {
                        let need = need(node as u32, &held, &allocations, total);
                        order.insert(node as u32, need, &mut spots);
                    }
                    Change::Hold(node, amount) => {
                        allocations[node] += u64::from(amount > held[node]);
                        held[node] = amount;
                        order.touch(node as u32, &mut spots);
                    }
                    Change::Total(new) => {
                        totals += u64::from(new != total);
                        total = new;
                    }
                    Change::Ask => {
                        let need_of = |node| need(node, &held, &allocations, total);
                        let first = (0..NODES as u32)
                            .filter(|node| spots[*node as usize].is_in_order())
                            .min_by_key(|node| need_of(*node));
                        prop_assert_eq!(order.settle(totals, need_of, &mut spots), first);
                    }
                }
                prop_assert_eq!(order.fault(&spots), None);
            }
        }
    }

    fn node_and_amount() -> impl Strategy<Value = (usize, u64)> {
        (0..NODES, 0..6u64)
    }
}
