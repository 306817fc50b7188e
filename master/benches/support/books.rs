//! The ledger and the book of claims of a large cluster, and what the driver does with them.

use std::collections::BTreeSet;
use std::sync::Arc;

use ebb_master::allocator::Proposal;
use ebb_master::core::claims::{BatchId, Claims, FrameworkTerms};
use ebb_master::ledger::{AgentLedger, Ledger, Transition};
use ebb_types::{AgentId, FrameworkId, Incarnation, Quantities, Role, Timestamp};

use super::error::Error;

pub const ROLES: usize = 10;
pub const AGENT_CPU_MILLI: u64 = 24_000;
pub const AGENT_MEM_BYTES: u64 = 64 << 30;
const LIFE: Incarnation = Incarnation(1);

/// Agents of which nothing is used, and frameworks in roles of several weights.
pub struct Books {
    pub ledger: Arc<Ledger>,
    pub claims: Box<Claims>,
}

impl Books {
    pub fn new(agents: usize, frameworks: usize) -> Result<Self, Error> {
        let (ledger, mut claims) = (Ledger::new(), Box::new(Claims::new()));
        let total = Quantities::cpus_mem(AGENT_CPU_MILLI, AGENT_MEM_BYTES);
        for number in 0..agents {
            let id = AgentId::new(format!("agent-{number:06}"))?;
            claims.set_agent(&id, total, Quantities::ZERO);
            let number = claims.agent_number(&id).ok_or("an agent has no number")?;
            ledger.insert(id, number, AgentLedger::new(LIFE, total, Quantities::ZERO));
        }
        for number in 0..frameworks {
            let role = Role::new(format!("role-{}", number % ROLES))?;
            claims.set_weight(&role, 1000 + 500 * u32::try_from(number % ROLES)?);
            let terms = FrameworkTerms {
                roles: BTreeSet::from([role]),
                active: true,
                ..FrameworkTerms::default()
            };
            claims.set_framework(&FrameworkId::new(format!("framework-{number:05}"))?, terms);
        }
        Ok(Self {
            ledger: Arc::new(ledger),
            claims,
        })
    }

    /// What the driver does with a batch: charge it.
    pub fn take_in(&mut self, batch: BatchId, proposals: &[Proposal]) {
        self.claims.note_batch(batch);
        for proposal in proposals {
            self.claims.charge_seat(proposal.seat, &proposal.resources);
        }
    }

    /// What the driver does when offers are declined.
    pub fn decline(&mut self, proposals: &[Proposal], expires: Timestamp) -> Result<(), Error> {
        for proposal in proposals {
            let back = Transition::Decline(proposal.resources);
            self.ledger
                .apply_at(proposal.agent, proposal.incarnation, &back)?;
            self.credit(proposal)?;
            let (seat, agent) = (proposal.seat, proposal.agent);
            self.claims
                .refuse_seat(seat, agent, &proposal.resources, expires);
        }
        Ok(())
    }

    /// What the driver does when what was proposed is held no more.
    pub fn credit(&mut self, proposal: &Proposal) -> Result<(), Error> {
        if self.claims.credit_seat(proposal.seat, &proposal.resources) {
            return Ok(());
        }
        Err(format!("{proposal:?} is not held").into())
    }
}
