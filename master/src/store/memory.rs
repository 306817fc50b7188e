//! A registry that lives as long as its process: for tests and trials.

use ebb_types::Generation;

use super::{Registry, RegistryError};
use crate::core::record::{RegistryWrite, Restored};

/// A registry in memory.
#[derive(Clone, Debug)]
pub struct Memory {
    held: Restored,
}

impl Memory {
    /// An empty registry of a cluster of that name.
    pub fn new(cluster: &str) -> Self {
        Self {
            held: Restored {
                cluster: cluster.to_owned(),
                ..Restored::default()
            },
        }
    }
}

impl Registry for Memory {
    fn load(&mut self) -> Result<Restored, RegistryError> {
        self.held.generation = Generation(self.held.generation.0 + 1);
        Ok(self.held.clone())
    }

    fn commit(&mut self, writes: &[RegistryWrite]) -> Result<(), RegistryError> {
        for write in writes {
            self.held.apply(write.clone());
        }
        Ok(())
    }
}
