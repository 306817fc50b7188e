//! What a framework has refused in a role, agent by agent, in pages of 64 agents: who looks for an agent that a member
//! has not refused passes over 64 of them in one step, however many refusals there are.
//!
//! A member has one refusal of an agent: the latest, unless an earlier one says all that it says. At worst it is offered
//! once more what it refused. Amounts are kept once for all who refused the same ([`Profiles`]).

use std::collections::BTreeMap;

use ebb_types::{Quantities, ResourceKind, Resources, Timestamp};

use crate::core::drf::Class;

const CLASSES: usize = Class::ALL.len();

/// One refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What was refused, by its number in [`Profiles`].
    pub(super) profile: u32,
    pub(super) expires: Timestamp,
}

/// What became of a refusal that was to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Added,
    Replaced(Refusal),
}

/// The refusals of 64 agents.
#[derive(Clone, Debug, Default)]
struct Page {
    present: u64,
    /// One for each bit in `present`, in their order.
    refusals: Vec<Refusal>,
}

impl Page {
    const fn at(&self, bit: u64) -> usize {
        (self.present & (bit - 1)).count_ones() as usize
    }
}

/// What one member has refused.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals {
    pages: BTreeMap<u32, Page>,
    /// Of each page those agents of which something of a class was refused, up to the last page that has one.
    words: [Vec<u64>; CLASSES],
    len: usize,
}

const fn place(agent: u32) -> (u32, u64) {
    (agent / 64, 1 << (agent % 64))
}

fn set_bit(words: &mut Vec<u64>, page: u32, bit: u64, is_set: bool) {
    let page = page as usize;
    if is_set && page >= words.len() {
        words.resize(page + 1, 0);
    }
    if let Some(word) = words.get_mut(page) {
        *word = if is_set { *word | bit } else { *word & !bit };
    }
}

impl Refusals {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Which of the 64 agents of a page it has refused something of a class of.
    pub(super) fn word(&self, page: u32, class: Class) -> u64 {
        let words = &self.words[class as usize];
        words.get(page as usize).copied().unwrap_or(0)
    }

    pub(super) fn get(&self, agent: u32) -> Option<Refusal> {
        let (page, bit) = place(agent);
        let page = self.pages.get(&page)?;
        (page.present & bit != 0).then(|| page.refusals[page.at(bit)])
    }

    /// Sets the refusal of an agent to what `next` makes of the one that was there, with the classes that there is some
    /// of in it; the one that was there. Nothing changes where `next` has none.
    pub(super) fn set(
        &mut self,
        agent: u32,
        next: impl FnOnce(Option<Refusal>) -> Option<(Refusal, [bool; CLASSES])>,
    ) -> Change {
        let (number, bit) = place(agent);
        let page = self.pages.entry(number).or_default();
        let at = page.at(bit);
        let earlier = (page.present & bit != 0).then(|| page.refusals[at]);
        let Some((refusal, of_class)) = next(earlier) else {
            return Change::None;
        };
        for (words, is_some) in self.words.iter_mut().zip(of_class) {
            set_bit(words, number, bit, is_some);
        }
        if let Some(earlier) = earlier {
            page.refusals[at] = refusal;
            return Change::Replaced(earlier);
        }
        page.present |= bit;
        page.refusals.insert(at, refusal);
        self.len += 1;
        Change::Added
    }

    /// Drops the refusal of an agent if it is one of those.
    pub(super) fn remove_if(
        &mut self,
        agent: u32,
        is_one: impl FnOnce(&Refusal) -> bool,
    ) -> Option<Refusal> {
        let (number, bit) = place(agent);
        let page = self.pages.get_mut(&number)?;
        let at = page.at(bit);
        if page.present & bit == 0 || !is_one(&page.refusals[at]) {
            return None;
        }
        let refusal = page.refusals.remove(at);
        page.present &= !bit;
        for words in &mut self.words {
            set_bit(words, number, bit, false);
        }
        if page.present == 0 {
            self.pages.remove(&number);
        }
        self.len -= 1;
        Some(refusal)
    }

    /// All of them, by agent.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Refusal)> {
        self.pages.iter().flat_map(|(number, page)| {
            let bits = (0..64).filter(|bit| page.present & (1 << bit) != 0);
            bits.map(move |bit| number * 64 + bit)
                .zip(page.refusals.iter().copied())
        })
    }
}

type Amounts = [u64; 2 * ResourceKind::ALL.len()];

fn amounts(resources: &Resources) -> Amounts {
    let mut amounts = Amounts::default();
    let parts = [&resources.regular, &resources.revocable];
    let all = parts
        .into_iter()
        .flat_map(|part| ResourceKind::ALL.map(|kind| part.get(kind)));
    for (slot, amount) in amounts.iter_mut().zip(all) {
        *slot = amount;
    }
    amounts
}

#[derive(Clone, Debug)]
struct Profile {
    resources: Resources,
    users: u32,
}

/// The different amounts that were refused, each kept once.
#[derive(Clone, Debug, Default)]
pub(super) struct Profiles {
    all: Vec<Profile>,
    free: Vec<u32>,
    numbers: BTreeMap<Amounts, u32>,
    /// The last one that was asked for: most refusals of a round are alike.
    last: u32,
}

impl Profiles {
    pub(super) fn get(&self, number: u32) -> &Resources {
        &self.all[number as usize].resources
    }

    /// The number of these amounts, which have one user more from now on.
    pub(super) fn take(&mut self, resources: &Resources) -> u32 {
        let last = self.all.get_mut(self.last as usize);
        if let Some(last) = last.filter(|last| last.users > 0 && last.resources == *resources) {
            last.users += 1;
            return self.last;
        }
        let key = amounts(resources);
        let number = match self.numbers.get(&key) {
            Some(number) => *number,
            None => self.add(key, resources),
        };
        self.all[number as usize].users += 1;
        self.last = number;
        number
    }

    fn add(&mut self, key: Amounts, resources: &Resources) -> u32 {
        let profile = Profile {
            resources: *resources,
            users: 0,
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.all[number as usize] = profile;
                number
            }
            None => {
                self.all.push(profile);
                // There are at most as many as refusals, whose number is bounded.
                self.all.len() as u32 - 1
            }
        };
        self.numbers.insert(key, number);
        number
    }

    /// These amounts have one user less.
    pub(super) fn leave(&mut self, number: u32) {
        let profile = &mut self.all[number as usize];
        profile.users -= 1;
        if profile.users == 0 {
            self.numbers.remove(&amounts(&profile.resources));
            self.free.push(number);
        }
    }

    /// How many are in use.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }
}

/// What of an agent's resources everybody who refused some of a class has refused: where all that is free is within it,
/// each refusal withholds it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meet([Option<Quantities>; CLASSES]);

impl Meet {
    pub(super) fn add(&mut self, refused: &Resources) {
        for class in Class::ALL {
            let part = class.part(refused);
            if !part.is_zero() {
                let meet = &mut self.0[class as usize];
                *meet = Some(meet.map_or(*part, |meet| meet.min(part)));
            }
        }
    }

    /// Whether some refusal of this class might not withhold as much as this.
    pub(super) fn is_passed_by(&self, class: Class, part: &Quantities) -> bool {
        self.0[class as usize].is_some_and(|meet| !meet.contains(part))
    }
}
