//! Which classes of tasks have shown how they behave.

use std::collections::BTreeMap;

/// Tasks after which a class is known.
const ENOUGH: u32 = 20;
/// Most classes that are counted; those beyond stay unknown, so that their tasks count their limits.
const MAX_CLASSES: usize = 4_096;

/// How many tasks of each class have shown themselves.
#[derive(Clone, Debug)]
pub(super) struct Classes<C> {
    shown: BTreeMap<C, u32>,
}

impl<C> Default for Classes<C> {
    fn default() -> Self {
        Self {
            shown: BTreeMap::new(),
        }
    }
}

impl<C: Ord + Clone> Classes<C> {
    /// Another task of a class has shown itself, or ended.
    pub(super) fn shown(&mut self, class: &C) {
        if let Some(count) = self.shown.get_mut(class) {
            *count = count.saturating_add(1);
        } else if self.shown.len() < MAX_CLASSES {
            self.shown.insert(class.clone(), 1);
        }
    }

    /// Whether enough have.
    pub(super) fn is_known(&self, class: &C) -> bool {
        self.shown.get(class).is_some_and(|count| *count >= ENOUGH)
    }
}
