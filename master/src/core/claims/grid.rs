//! Of which agents members have refused something, of one class: a row of words for 64 agents, and a word in it for each
//! member.
//!
//! A pass hands out the agents of one row before those of the next, to members in no order. Were the words of a member
//! together, nearly each decision of a large cluster would wait for memory that nobody has read lately; so it waits for
//! the next row, which is read from its beginning to its end ([`Grid::by_anybody`]).
//!
//! A row stays as long as its book, also when nothing in it is refused any more: there are as many as the agents need, and
//! each is as long as there were members at once.

/// A bit for each pair of a member and an agent.
#[derive(Clone, Debug, Default)]
pub(super) struct Grid {
    rows: Vec<Row>,
}

#[derive(Clone, Debug, Default)]
struct Row {
    words: Vec<u64>,
    /// How many bits are set.
    len: usize,
}

/// So many words of a row cost no more to be read one after another than one that is far away.
const WORDS_FOR_ONE: usize = 128;

impl Grid {
    /// The agents of a row that a member has refused.
    #[inline]
    pub(super) fn word(&self, member: u32, row: u32) -> u64 {
        let words = self.rows.get(row as usize).map(|row| &row.words);
        words
            .and_then(|words| words.get(member as usize))
            .copied()
            .unwrap_or(0)
    }

    #[inline]
    pub(super) fn has(&self, member: u32, agent: u32) -> bool {
        self.word(member, agent / 64) & bit(agent) != 0
    }

    /// The agents of a row that anybody has refused; all, where it is not worth reading all of the row to hand out so
    /// many agents of it.
    pub(super) fn by_anybody(&self, row: u32, agents: u32) -> u64 {
        match self.rows.get(row as usize) {
            Some(row) if row.len == 0 => 0,
            Some(row) if agents as usize * WORDS_FOR_ONE >= row.words.len() => {
                row.words.iter().fold(0, |all, word| all | word)
            }
            Some(_) => u64::MAX,
            None => 0,
        }
    }

    pub(super) fn set(&mut self, member: u32, agent: u32) {
        let (at, column) = (agent as usize / 64, member as usize);
        if at >= self.rows.len() {
            self.rows.resize(at + 1, Row::default());
        }
        let row = &mut self.rows[at];
        if column >= row.words.len() {
            row.words.resize(column + 1, 0);
        }
        let word = &mut row.words[column];
        row.len += usize::from(*word & bit(agent) == 0);
        *word |= bit(agent);
    }

    pub(super) fn unset(&mut self, member: u32, agent: u32) {
        let Some(row) = self.rows.get_mut(agent as usize / 64) else {
            return;
        };
        let Some(word) = row.words.get_mut(member as usize) else {
            return;
        };
        row.len -= usize::from(*word & bit(agent) != 0);
        *word &= !bit(agent);
    }

    /// The members that have refused an agent, in order.
    pub(super) fn members(&self, agent: u32) -> impl Iterator<Item = u32> {
        let row = self.rows.get(agent as usize / 64);
        let words = row.into_iter().flat_map(|row| &row.words);
        (0u32..)
            .zip(words)
            .filter_map(move |(member, word)| (word & bit(agent) != 0).then_some(member))
    }
}

const fn bit(agent: u32) -> u64 {
    1 << (agent % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_grid_is_a_set_of_pairs(
            changes in prop::collection::vec((0..300u32, 0..300u32, any::<bool>()), 0..300),
            agents in 1..=64u32,
        ) {
            let (mut grid, mut set) = (Grid::default(), BTreeSet::new());
            for (member, agent, is_in) in changes {
                if is_in {
                    grid.set(member, agent);
                    set.insert((member, agent));
                } else {
                    grid.unset(member, agent);
                    set.remove(&(member, agent));
                }
                prop_assert_eq!(grid.has(member, agent), is_in);
            }
            for agent in 0..300 {
                let members = (0..300).filter(|member| set.contains(&(*member, agent)));
                prop_assert!(grid.members(agent).eq(members));
            }
            for row in 0..6 {
                let any = (0..300).fold(0, |any, member| any | grid.word(member, row));
                let said = grid.by_anybody(row, agents);
                prop_assert!(said == any || said == u64::MAX && agents < 3, "{said:x} for {any:x}");
            }
        }
    }
}
