//! What may happen to the resources of one agent, as pure functions from one immutable ledger to
//! the next.
//!
//! Units: those of [`Quantities`]. Invariant (conservation), asserted after every transition and by
//! [`AgentLedger::check`]: of the regular resources `offered + allocated + free = total`; of the
//! revocable ones `offered + allocated + free = max(oversubscribed, offered + allocated)`, because
//! an estimate may fall below what is already lent. What is lent beyond the estimate is
//! [`AgentLedger::overdrawn`]: its owner takes it back by rescinding and by evictions on the agent.
//!
//! A ledger adds up quantities and does not know offers or tasks: that an offer is accepted once
//! and a task recovered once is the core's to know. What the ledger guarantees is that a sum never
//! falls below zero and never passes the total, whoever is mistaken.

use ebb_types::{Incarnation, Quantities, Resources};

/// The resources of one agent at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentLedger {
    /// The life of the agent that this ledger speaks of.
    pub incarnation: Incarnation,
    /// How many transitions led here.
    pub version: u64,
    /// What the agent has.
    pub total: Quantities,
    /// What the agent lends beyond that: an absolute estimate.
    pub oversubscribed: Quantities,
    /// Out in offers.
    pub offered: Resources,
    /// Accepted and in use.
    pub allocated: Resources,
}

/// One change of an agent's ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Free resources go out in an offer.
    Offer(Resources),
    /// A whole offer comes back, of which a part is used from now on; the rest is free.
    Accept {
        /// All that the offer (or the offers accepted together) held.
        offered: Resources,
        /// The part that is used.
        used: Resources,
    },
    /// As [`Self::Accept`], and what the agent has changes with it: something of the offer, or of what rode along with it,
    /// was made something else.
    Convert {
        /// All that the offers held.
        offered: Resources,
        /// The part that is used.
        used: Resources,
        /// What the agent has from now on.
        total: Quantities,
    },
    /// A framework refuses an offer (or lets it pass its deadline): it is free.
    Decline(Resources),
    /// The master withdraws an offer: it is free.
    Rescind(Resources),
    /// A task or executor ended: what it used is free.
    Recover(Resources),
    /// The agent has or lends another amount now.
    Resize {
        /// What it has.
        total: Quantities,
        /// What it lends beyond that.
        oversubscribed: Quantities,
    },
    /// A task of an agent that came back still uses this.
    Restore(Resources),
    /// The agent is removed: nothing is free any more, and every later transition is refused.
    Retire,
}

/// The incarnation of a ledger whose agent was removed; no agent ever has it.
pub const RETIRED: Incarnation = Incarnation(u64::MAX);

/// Why a transition is not possible. The ledger is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Less is free than is to be offered or restored.
    #[error("{missing} more is to be taken than is free; plan again with a fresh view")]
    NotFree {
        /// How much is missing.
        missing: Resources,
    },
    /// Less is out in offers than is to come back.
    #[error(
        "{missing} more is to come back from offers than is offered; drop the message, it is a repetition"
    )]
    NotOffered {
        /// How much is missing.
        missing: Resources,
    },
    /// Less is allocated than is to be recovered.
    #[error(
        "{missing} more is to be recovered than is allocated; drop the message, it is a repetition"
    )]
    NotAllocated {
        /// How much is missing.
        missing: Resources,
    },
    /// An accept uses more than its offers held.
    #[error("{excess} more is to be used than was offered; use no more than the offers hold")]
    BeyondOffer {
        /// How much more.
        excess: Resources,
    },
    /// The new total is smaller than what is offered and allocated.
    #[error(
        "{excess} of what the agent loses is offered or in use; rescind its offers and end its tasks first"
    )]
    InUse {
        /// What is offered and allocated beyond the new total.
        excess: Quantities,
    },
    /// The ledger speaks of another life of the agent.
    #[error("the message speaks of incarnation {} of the agent, which is in incarnation {}; drop it", theirs.0, ours.0)]
    Incarnation {
        /// The incarnation in the message.
        theirs: Incarnation,
        /// The incarnation of the ledger.
        ours: Incarnation,
    },
    /// There is no such agent.
    #[error("the ledger has no such agent; drop the message")]
    NoAgent,
    /// A sum would pass the range of its type.
    #[error("a sum would pass the largest quantity; check the amounts that the agent reports")]
    Overflow,
    /// Every exchange of the bounded number of attempts was lost to another thread.
    #[error("{attempts} exchanges in a row were lost to other threads; try again")]
    Contended {
        /// How many were tried.
        attempts: u32,
    },
}

/// A ledger that does not add up: always a fault in Ebb.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger does not add up: {ledger:?}")]
pub struct Imbalance {
    /// The ledger.
    pub ledger: Box<AgentLedger>,
}

impl AgentLedger {
    /// An agent with nothing offered and nothing in use.
    pub const fn new(
        incarnation: Incarnation,
        total: Quantities,
        oversubscribed: Quantities,
    ) -> Self {
        Self {
            incarnation,
            version: 0,
            total,
            oversubscribed,
            offered: Resources::ZERO,
            allocated: Resources::ZERO,
        }
    }

    /// Offered and allocated together.
    #[must_use]
    pub fn in_use(&self) -> Resources {
        self.offered.saturating_add(&self.allocated)
    }

    /// What can be offered, of a ledger that adds up.
    #[must_use]
    #[inline]
    pub fn free(&self) -> Resources {
        let used = self.offered.regular.plus(&self.allocated.regular);
        let mut free = Resources::regular(self.total.without(&used));
        // Most agents lend nothing most of the time.
        if !self.oversubscribed.is_zero() {
            let lent = self.in_use().revocable;
            free.revocable = self.oversubscribed.saturating_sub(&lent);
        }
        free
    }

    /// How much more is lent (offered or in use) than the agent lends now.
    #[must_use]
    pub fn overdrawn(&self) -> Quantities {
        self.in_use().revocable.saturating_sub(&self.oversubscribed)
    }

    /// The ledger after a transition.
    ///
    /// # Errors
    /// [`Refused`] says which sum would not add up.
    pub fn apply(&self, transition: &Transition) -> Result<Self, Refused> {
        let mut next = *self;
        next.change(transition)?;
        Ok(next)
    }

    /// Makes this the ledger after a transition. One that was refused is to be thrown away: some of it may be changed.
    ///
    /// # Errors
    /// [`Refused`] says which sum would not add up.
    #[inline]
    pub(super) fn change(&mut self, transition: &Transition) -> Result<(), Refused> {
        match transition {
            Transition::Offer(wanted) => {
                let free = self.free();
                if !free.contains(wanted) {
                    let missing = wanted.saturating_sub(&free);
                    return Err(Refused::NotFree { missing });
                }
                // What is in use and free is never more than the agent has and lends.
                self.offered.regular = self.offered.regular.plus(&wanted.regular);
                self.offered.revocable = self.offered.revocable.plus(&wanted.revocable);
            }
            Transition::Accept { offered, used } => self.accept(offered, used)?,
            Transition::Convert {
                offered,
                used,
                total,
            } => {
                self.accept(offered, used)?;
                self.set_total(total)?;
            }
            Transition::Decline(back) | Transition::Rescind(back) => self.take_offered(back)?,
            Transition::Recover(back) => {
                if !self.allocated.contains(back) {
                    let missing = back.saturating_sub(&self.allocated);
                    return Err(Refused::NotAllocated { missing });
                }
                self.allocated = self.allocated.without(back);
            }
            Transition::Resize {
                total,
                oversubscribed,
            } => {
                self.set_total(total)?;
                self.oversubscribed = *oversubscribed;
            }
            Transition::Restore(wanted) => {
                // An estimate may have fallen since the task was started: only what is owned is
                // bounded.
                let free = self.free();
                if !free.regular.contains(&wanted.regular) {
                    let missing = wanted.saturating_sub(&free);
                    return Err(Refused::NotFree { missing });
                }
                self.allocated = add(&self.allocated, wanted)?;
                // What is lent is not bounded by what is free: it must have a sum, or `free` would be wrong.
                add(&self.offered, &self.allocated)?;
            }
            Transition::Retire => {
                self.incarnation = RETIRED;
                self.total = self.in_use().regular;
                self.oversubscribed = Quantities::ZERO;
            }
        }
        self.version = self.version.wrapping_add(1);
        debug_assert_eq!(self.check(), Ok(()), "after {transition:?}");
        Ok(())
    }

    /// Of what only changes its place or comes back there is a sum as before.
    fn accept(&mut self, offered: &Resources, used: &Resources) -> Result<(), Refused> {
        if !offered.contains(used) {
            let excess = used.saturating_sub(offered);
            return Err(Refused::BeyondOffer { excess });
        }
        self.take_offered(offered)?;
        self.allocated = add(&self.allocated, used)?;
        Ok(())
    }

    fn set_total(&mut self, total: &Quantities) -> Result<(), Refused> {
        let in_use = self.in_use().regular;
        if !total.contains(&in_use) {
            let excess = in_use.saturating_sub(total);
            return Err(Refused::InUse { excess });
        }
        self.total = *total;
        Ok(())
    }

    fn take_offered(&mut self, back: &Resources) -> Result<(), Refused> {
        if !self.offered.contains(back) {
            let missing = back.saturating_sub(&self.offered);
            return Err(Refused::NotOffered { missing });
        }
        self.offered = self.offered.without(back);
        Ok(())
    }

    /// Whether the ledger adds up.
    ///
    /// # Errors
    /// [`Imbalance`] holds the ledger that does not.
    pub fn check(&self) -> Result<(), Imbalance> {
        let in_use = self.offered.checked_add(&self.allocated);
        // So there is a rest that is free, and of what is lent nothing where more is in use.
        if in_use.is_some_and(|in_use| self.total.contains(&in_use.regular)) {
            Ok(())
        } else {
            Err(Imbalance {
                ledger: Box::new(*self),
            })
        }
    }
}

fn add(a: &Resources, b: &Resources) -> Result<Resources, Refused> {
    a.checked_add(b).ok_or(Refused::Overflow)
}
