//! Why a framework is offered something in a role, or nothing: facts, from which people's sentences are made elsewhere.
//!
//! Counts and a few examples, never lists of all agents. What is counted is what the master's core knows: what the
//! allocator has just taken and not yet reported counts as free.

use crate::ids::{AgentId, FrameworkId, Role};
use crate::quantities::Quantities;
use crate::quota::{Limits, LotQuota, Quota};
use crate::resources::Resources;
use crate::time::Timestamp;

/// Whom an explanation is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExplainSubject {
    /// A framework, in each of its roles.
    Framework(FrameworkId),
    /// A role, for each of its own frameworks.
    Role(Role),
}

/// Why those that are meant are offered something now, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// When this was true.
    pub at: Timestamp,
    /// Whom it is about.
    pub subject: ExplainSubject,
    /// The agents of the cluster.
    pub agents: AgentCounts,
    /// A part of an agent is offered by itself where it holds as much as this of one of the kinds.
    pub minimum: Quantities,
    /// Whether as many offers are out as there may be: then nobody is made one.
    pub offers_full: bool,
    /// The master's region, if it has one.
    pub region: Option<String>,
    /// The role that comes before all others with what is owned, because it is owed some of its guarantee.
    pub paid_first: Option<Role>,
    /// Each framework that is meant, in each role that is meant.
    pub claims: Vec<ExplainedClaim>,
    /// How many more there are that were left out.
    pub left_out: u64,
}

/// How many agents there are, by whether resources of them can be offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentCounts {
    /// Connected, so that what is free of them can be offered.
    pub usable: u64,
    /// Connected, but their tasks hold more than they have.
    pub overfull: u64,
    /// Connected, but an operator has deactivated or drained them.
    pub inactive: u64,
    /// Those of them that are out of use for maintenance.
    pub in_maintenance: u64,
    /// Connected, but nothing is offered before most agents are back after a start of the master, since roles have quotas.
    pub waiting: u64,
    /// Their connection broke; they may still come back.
    pub disconnected: u64,
    /// Silent for too long, or not heard of since the master started.
    pub absent: u64,
}

/// A framework in a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedClaim {
    /// The framework.
    pub framework_id: FrameworkId,
    /// Its display name.
    pub framework_name: String,
    /// The role.
    pub role: Role,
    /// Set while its scheduler is not connected.
    pub away: Option<Away>,
    /// Whether it is in the role; else it only holds something there still.
    pub subscribed: bool,
    /// Whether it wants no offers in the role now.
    pub suppressed: bool,
    /// Whether it may be offered revocable resources.
    pub takes_revocable: bool,
    /// Whether it may be offered agents of other regions than the master's.
    pub any_region: bool,
    /// Whether it may be offered agents with GPUs.
    pub takes_gpus: bool,
    /// The least that it states for an offer, if it does.
    pub minimum: Option<Vec<Quantities>>,
    /// Its constraints that do not hold of some of the agents that it is kept from.
    pub failed: Vec<FailedConstraint>,
    /// What is out in offers to it in the role.
    pub offers: OffersOut,
    /// The quotas of its role and of those above it that have one, its own first.
    pub quotas: Vec<QuotaState>,
    /// The limits of named lots of its role and of those above it, its own first.
    pub lot_quotas: Vec<LotQuota>,
    /// How much more of what is owned it may be offered by all quotas: its limits, and what is owed to others.
    pub most: Limits,
    /// What is free, in its eyes.
    pub free: FreeCounts,
    /// How it stands among those who want what is owned.
    pub regular: InLine,
    /// How it stands among those who want what is lent.
    pub revocable: InLine,
}

/// A constraint that keeps a framework from agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedConstraint {
    /// What it asks for, as a phrase.
    pub constraint: String,
    /// Of how many usable agents, of those that the framework is kept from by its constraints, it does not hold.
    pub agents: u64,
}

/// A role's quota and what counts towards it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaState {
    /// The role.
    pub role: Role,
    /// Its quota.
    pub quota: Quota,
    /// What it and the roles below it hold of what is owned, offers that are out included.
    pub held: Quantities,
    /// What they hold of what is lent, the same way.
    pub held_revocable: Quantities,
}

/// A scheduler that is not connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away {
    /// Since when; at the earliest since this master started.
    pub since: Timestamp,
    /// Until when it may come back; unset where the master knows of it by an agent only.
    pub until: Option<Timestamp>,
}

/// Offers that are out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OffersOut {
    /// How many.
    pub count: u64,
    /// What is in them.
    pub resources: Resources,
    /// When the first of them lapses; unset where none does.
    pub first_deadline: Option<Timestamp>,
}

/// The usable agents, by what a framework would be offered of them in a role if it were connected, wanted offers and
/// nobody else did. Each stands in one of `open`, `refused`, `over_quota`, `only_revocable`, `unsuited`, `other_region`,
/// `with_gpus`, `below_minimum` and `small`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FreeCounts {
    /// Agents of which it would be offered something.
    pub open: u64,
    /// Agents of which it has refused as much as is free.
    pub refused: u64,
    /// When the first refusal of those agents ends.
    pub first_refusal_end: Option<Timestamp>,
    /// Agents of which enough is free, but by quotas it may be offered less than is offered by itself.
    pub over_quota: u64,
    /// Those of them of which limits alone leave it too little.
    pub over_limit: u64,
    /// Agents of which only revocable resources are free, which it does not take.
    pub only_revocable: u64,
    /// Agents of which its constraints do not hold.
    pub unsuited: u64,
    /// Agents in another region than the master's, of which it takes none.
    pub other_region: u64,
    /// Agents with GPUs, which it does not declare that it can use.
    pub with_gpus: u64,
    /// Agents of which enough is free for an offer, but less than it states as its minimum.
    pub below_minimum: u64,
    /// Agents of which less is free than is offered by itself.
    pub small: u64,
    /// Those of the small ones of which enough is out in offers.
    pub in_offers: u64,
    /// Agents with too little CPU free for an offer of CPU alone, of what it may take.
    pub short_of_cpu: u64,
    /// Agents with too little memory free for an offer of memory alone, of what it may take.
    pub short_of_mem: u64,
    /// The first of the open ones.
    pub examples: Vec<OpenAgent>,
}

/// An agent, and what would be offered of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenAgent {
    /// The agent.
    pub agent_id: AgentId,
    /// What.
    pub resources: Resources,
}

/// How a framework stands among those who want resources of one class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InLine {
    /// Its place on each level of the tree of roles, from the top; none where it is not in line.
    pub places: Vec<Place>,
    /// What of this class a pass over all agents would offer first, where it is first on each level and some agent
    /// is open. What is lent is handed out before what is owned.
    pub next: Option<OpenAgent>,
}

/// Who competes on a level of the tree of roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimant {
    /// A role with all that is below it.
    Role(Role),
    /// The frameworks of a role itself, as one beside the roles below it.
    Own(Role),
    /// A framework, beside the others of its role.
    Framework(FrameworkId),
}

/// What somebody holds beside the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contender {
    /// Who.
    pub claimant: Claimant,
    /// The dominant share in thousandths, rounded down, not divided by the weight.
    pub share_milli: u64,
    /// The weight, in thousandths.
    pub weight_milli: u64,
}

/// A place on one level of the tree of roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Who stands there: the framework, or what it stands below.
    pub own: Contender,
    /// The place; the neediest has 1.
    pub place: u64,
    /// How many want something on this level.
    pub of: u64,
    /// Who has place 1.
    pub first: Contender,
}

/// What decides, of all that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Its scheduler is not connected.
    Away,
    /// It is not in the role any more.
    NotInRole,
    /// It wants no offers in the role.
    Suppressed,
    /// As many offers are out as there may be.
    OffersFull,
    /// There is no agent that resources can be offered of.
    NoAgent,
    /// It has refused what is free.
    Refused,
    /// Its role, or one above it, is at the limit of its quota.
    AtLimit,
    /// What is free is kept for roles that are owed their guarantees.
    OwedToOthers,
    /// Only revocable resources are free, which it does not take.
    OnlyRevocable,
    /// Less is free than it states as its minimum.
    BelowMinimum,
    /// Its constraints hold of no agent of which something is free.
    Unsuited,
    /// What is free is in another region, of which it takes nothing.
    OtherRegion,
    /// What is free is of agents with GPUs, which it does not declare that it can use.
    WithGpus,
    /// Too little is free of each agent.
    TooLittle,
    /// Something is free for it, and others in line are needier: they come first with what they have not refused.
    Behind,
    /// Something is free for it, and nobody is needier.
    Next,
}

impl Verdict {
    /// The name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::NotInRole => "not_in_role",
            Self::Suppressed => "suppressed",
            Self::OffersFull => "offers_full",
            Self::NoAgent => "no_agent",
            Self::Refused => "refused",
            Self::AtLimit => "at_limit",
            Self::OwedToOthers => "owed_to_others",
            Self::OnlyRevocable => "only_revocable",
            Self::BelowMinimum => "below_minimum",
            Self::Unsuited => "unsuited",
            Self::OtherRegion => "other_region",
            Self::WithGpus => "with_gpus",
            Self::TooLittle => "too_little",
            Self::Behind => "behind",
            Self::Next => "next",
        }
    }
}

impl Explanation {
    /// What decides about one of the claims.
    pub const fn verdict(&self, claim: &ExplainedClaim) -> Verdict {
        let free = &claim.free;
        if claim.away.is_some() {
            Verdict::Away
        } else if !claim.subscribed {
            Verdict::NotInRole
        } else if claim.suppressed {
            Verdict::Suppressed
        } else if self.offers_full {
            Verdict::OffersFull
        } else if self.agents.usable == 0 {
            Verdict::NoAgent
        } else if free.open > 0 {
            match (&claim.regular.next, &claim.revocable.next) {
                (None, None) => Verdict::Behind,
                _ => Verdict::Next,
            }
        } else if free.refused > 0 {
            Verdict::Refused
        } else if free.over_quota > 0 {
            if free.over_limit > 0 {
                Verdict::AtLimit
            } else {
                Verdict::OwedToOthers
            }
        } else if free.only_revocable > 0 {
            Verdict::OnlyRevocable
        } else if free.below_minimum > 0 {
            Verdict::BelowMinimum
        } else if free.unsuited > 0 {
            Verdict::Unsuited
        } else if free.other_region > 0 {
            Verdict::OtherRegion
        } else if free.with_gpus > 0 {
            Verdict::WithGpus
        } else {
            Verdict::TooLittle
        }
    }
}
