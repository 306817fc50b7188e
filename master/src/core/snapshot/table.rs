//! A persistent table: cheap to clone, rows found by a stable index.

use std::sync::Arc;

use imbl::Vector;

/// A persistent table with stable indices, which are used again.
#[derive(Clone, Debug)]
pub(super) struct Table<T> {
    rows: Vector<Option<Arc<T>>>,
    free: Vector<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            rows: Vector::new(),
            free: Vector::new(),
        }
    }
}

impl<T: Clone> Table<T> {
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        self.rows.get(index as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.rows
            .get_mut(index as usize)?
            .as_mut()
            .map(Arc::make_mut)
    }

    /// A `u32` holds more indices than there can be rows in memory.
    pub(super) fn insert(&mut self, row: T) -> u32 {
        let row = Some(Arc::new(row));
        if let Some(index) = self.free.pop_back() {
            self.rows.set(index as usize, row);
            return index;
        }
        self.rows.push_back(row);
        u32::try_from(self.rows.len() - 1).unwrap_or(u32::MAX)
    }

    pub(super) fn remove(&mut self, index: u32) {
        if let Some(row) = self.rows.get_mut(index as usize)
            && row.take().is_some()
        {
            self.free.push_back(index);
        }
    }
}
