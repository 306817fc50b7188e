//! Ids that the master makes: never used twice, across restarts of the master too.
//!
//! Every id starts with the name of the cluster (made once, with its registry) and the generation
//! (which grows with every start of a master on that registry); counters follow as in Mesos.

use ebb_types::{AgentId, FrameworkId, Generation, Incarnation, InvalidId, OfferId, UpdateUuid};

/// Makes ids.
#[derive(Debug)]
pub(super) struct IdMaker {
    prefix: String,
    generation: Generation,
    answers: u64,
    frameworks: u64,
    agents: u64,
    offers: u64,
    registrations: u64,
}

impl IdMaker {
    pub(super) fn new(cluster: &str, generation: Generation) -> Self {
        // The text of every id must be valid whatever the registry says.
        let cluster: String = cluster
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(64)
            .collect();
        Self {
            prefix: format!("{cluster}-{}", generation.0),
            generation,
            answers: 0,
            frameworks: 0,
            agents: 0,
            offers: 0,
            registrations: 0,
        }
    }

    /// Names the master process.
    pub(super) fn master(&self) -> &str {
        &self.prefix
    }

    pub(super) fn framework(&mut self) -> Result<FrameworkId, InvalidId> {
        self.frameworks += 1;
        FrameworkId::new(format!("{}-{:04}", self.prefix, self.frameworks - 1))
    }

    pub(super) fn agent(&mut self) -> Result<AgentId, InvalidId> {
        self.agents += 1;
        AgentId::new(format!("{}-S{}", self.prefix, self.agents - 1))
    }

    pub(super) fn offer(&mut self) -> Result<OfferId, InvalidId> {
        self.offers += 1;
        OfferId::new(format!("{}-O{}", self.prefix, self.offers - 1))
    }

    /// Names an answer to an operation.
    pub(super) fn uuid(&mut self) -> UpdateUuid {
        self.answers += 1;
        UpdateUuid::of(Incarnation(self.generation.0), self.answers)
    }

    /// Counts registrations of agents: what the ledger calls an incarnation. An agent that registers
    /// anew in the same life gets a new one too, so that whatever was planned before is void.
    pub(super) const fn registration(&mut self) -> Incarnation {
        self.registrations += 1;
        Incarnation(self.registrations)
    }
}
