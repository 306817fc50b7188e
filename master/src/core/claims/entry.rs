//! The log of what has changed in the claims: what one book does, every copy of it repeats.

use std::sync::Arc;

use ebb_types::{AgentId, FrameworkId, Quantities, Quota, Resources, Role, Timestamp};

use super::{Amounts, FrameworkTerms, Traits};

/// Which proposals of the allocator's worker threads a book accounts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchId {
    /// The worker thread.
    pub worker: u32,
    /// Its batch; counted from 1.
    pub number: u64,
}

/// One change. Agents and members are named by their numbers, which all copies give alike.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// An agent has and lends so much.
    Agent {
        /// The agent.
        id: AgentId,
        /// What it has.
        total: Quantities,
        /// What it lends.
        oversubscribed: Quantities,
    },
    /// An agent is gone.
    AgentGone {
        /// The agent.
        agent: u32,
    },
    /// A framework has these terms.
    Framework {
        /// The framework.
        id: FrameworkId,
        /// Its terms; apart, as they are large and rare and every entry takes as much room as the largest.
        terms: Box<FrameworkTerms>,
    },
    /// A framework is gone.
    FrameworkGone {
        /// The framework.
        id: FrameworkId,
    },
    /// A role has this weight.
    Weight {
        /// The role.
        role: Role,
        /// In thousandths.
        weight_milli: u32,
    },
    /// A role has this quota; one that says nothing is none.
    Quota {
        /// The role.
        role: Role,
        /// The quota.
        quota: Box<Quota>,
    },
    /// So much is reserved for a role, without those below it, and held by nobody.
    Reserved {
        /// The role.
        role: Role,
        /// How much.
        reserved: Quantities,
    },
    /// So much of what is owned of an agent is free and yet cannot be offered.
    Withheld {
        /// The agent.
        agent: u32,
        /// How much.
        withheld: Quantities,
    },
    /// An agent has so much of what has a name of its own.
    Named {
        /// The agent.
        agent: u32,
        /// How much.
        amounts: Amounts,
    },
    /// A member holds more of what has a name of its own.
    HoldNamed {
        /// The member.
        member: u32,
        /// How much.
        amounts: Amounts,
    },
    /// A member holds less of it.
    LeaveNamed {
        /// The member.
        member: u32,
        /// How much.
        amounts: Amounts,
    },
    /// A framework in a role is known from now on.
    Member {
        /// The framework.
        id: FrameworkId,
        /// The role.
        role: Role,
    },
    /// A member that holds nothing and is not subscribed is known no more.
    Forget {
        /// The member.
        member: u32,
    },
    /// A member holds more.
    Charge {
        /// The member.
        member: u32,
        /// What.
        resources: Resources,
    },
    /// A member holds less.
    Credit {
        /// The member.
        member: u32,
        /// What.
        resources: Resources,
    },
    /// A member has refused resources of an agent.
    Refuse {
        /// The member.
        member: u32,
        /// The agent.
        agent: u32,
        /// What.
        refused: Resources,
        /// Until when.
        expires: Timestamp,
    },
    /// All refusals of a member are void.
    VoidMember {
        /// The member.
        member: u32,
    },
    /// All refusals of an agent's resources are void.
    VoidAgent {
        /// The agent.
        agent: u32,
    },
    /// Refusals that end by now have ended.
    Expire {
        /// The time.
        now: Timestamp,
    },
    /// A member is kept from these agents and no others: words of bits by their numbers.
    Kept {
        /// The member.
        member: u32,
        /// The words; the last is not 0.
        words: Arc<[u64]>,
    },
    /// These members and no others are kept from an agent.
    KeptFrom {
        /// The agent.
        agent: u32,
        /// From what of it all are kept that do not declare that they take such.
        traits: Traits,
        /// The members, rising.
        members: Arc<[u32]>,
    },
    /// A batch of proposals is accounted for: what of it was taken stands in the entries that follow.
    Batch(BatchId),
}
