//! Packing tasks into offers: what a task wants, whether an offer holds it, what is left.

use ebb_types::{Offer, Quantities, ResourceKind, Resources, Timestamp};

/// Whose resources a task wants to run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Claim {
    /// Its own until it ends.
    #[default]
    Regular,
    /// CPU and bandwidth lent from the slack of others, which can be taken back by slowing it down;
    /// memory and disk its own.
    RevocableCompressible,
    /// Everything lent from the slack of others.
    Revocable,
}

/// What one task wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// How much of each kind.
    pub amount: Quantities,
    /// On whose resources.
    pub claim: Claim,
}

impl Demand {
    /// CPU in thousandths of a core and memory in bytes, its own.
    pub fn cpus_mem(cpu_milli: u64, mem_bytes: u64) -> Self {
        Self {
            amount: Quantities::cpus_mem(cpu_milli, mem_bytes),
            claim: Claim::Regular,
        }
    }

    /// The same on resources of another claim.
    #[must_use]
    pub const fn claiming(mut self, claim: Claim) -> Self {
        self.claim = claim;
        self
    }

    /// What the task's description asks for.
    pub fn resources(&self) -> Resources {
        let lent = |kind: ResourceKind| match self.claim {
            Claim::Regular => false,
            Claim::RevocableCompressible => kind.is_compressible(),
            Claim::Revocable => true,
        };
        let part = |of_lent: bool| {
            Quantities::from_pairs(
                self.amount
                    .iter()
                    .filter(|(kind, _)| lent(*kind) == of_lent),
            )
        };
        Resources {
            regular: part(false),
            revocable: part(true),
        }
    }
}

/// Whether an offer holds what is wanted.
pub fn fit(wanted: &Resources, offer: &Offer) -> bool {
    offer.resources.contains(wanted)
}

/// How long a task is expected to run where nothing says so, in milliseconds: an hour.
pub const EXPECTED_RUN_MS: u64 = 3_600_000;

/// Whether the agent of an offer will be out of use before a task that starts now has run for so long, in milliseconds.
pub fn is_leaving(offer: &Offer, now: Timestamp, run_ms: u64) -> bool {
    offer.unavailability.is_some_and(|window| {
        let is_over = window.end().is_some_and(|end| end <= now);
        !is_over && window.start < now.plus_ms(run_ms)
    })
}

/// What of an offer can be expected to be there for so long, in milliseconds: all that is its own, and of what may be taken
/// back what its agent says will stay ([`ebb_types::Lasting`]). Where that is not known, nothing of it.
pub fn lasting(offer: &Offer, run_ms: u64) -> Resources {
    let stays = offer.lasting.amount_for(run_ms);
    Resources {
        regular: offer.resources.regular,
        revocable: offer.resources.revocable.min(&stays),
    }
}

/// How many tasks of one demand fit into resources; nothing wanted fits without bound.
pub fn how_many(wanted: &Resources, resources: &Resources) -> u64 {
    let of = |wanted: &Quantities, there: &Quantities| {
        wanted
            .iter()
            .map(|(kind, amount)| there.get(kind) / amount)
            .min()
            .unwrap_or(u64::MAX)
    };
    of(&wanted.regular, &resources.regular).min(of(&wanted.revocable, &resources.revocable))
}

/// What lacks in an offer, as words for people: `cpus:0.500 (revocable)`.
pub fn lacking(wanted: &Resources, offer: &Offer) -> Resources {
    wanted.saturating_sub(&offer.resources)
}

#[cfg(test)]
mod tests {
    use ebb_types::{AgentId, FrameworkId, OfferId, Role};
    use proptest::prelude::*;

    use super::*;

    fn offer(resources: Resources) -> Offer {
        Offer {
            id: OfferId::new("o").expect("valid"),
            framework_id: FrameworkId::new("f").expect("valid"),
            agent_id: AgentId::new("a").expect("valid"),
            hostname: "host".into(),
            role: Role::new("*").expect("valid"),
            lots: ebb_types::Lots::NONE,
            resources,
            attributes: Vec::new(),
            executor_ids: Vec::new(),
            deadline: None,
            domain: None,
            unavailability: None,
            lasting: ebb_types::Lasting::UNKNOWN,
        }
    }

    #[test]
    fn an_agent_is_leaving_where_its_window_begins_within_the_run_and_is_not_over() {
        let at = Timestamp::from_ms;
        let of = |start, duration_ms| Offer {
            unavailability: Some(ebb_types::Unavailability {
                start: at(start),
                duration_ms,
            }),
            ..offer(Resources::ZERO)
        };
        let is = |offer: &Offer| is_leaving(offer, at(1_000), 500);
        assert!(!is(&offer(Resources::ZERO)));
        assert!(is(&of(1_499, None)) && !is(&of(1_500, None)));
        assert!(is(&of(900, Some(101))) && !is(&of(900, Some(100))));
    }

    #[test]
    fn what_lasts_of_an_offer_is_what_is_its_own_and_what_the_agent_says_will_stay() {
        let both = Resources {
            regular: Quantities::cpus_mem(500, 64),
            revocable: Quantities::cpus_mem(2_000, 32),
        };
        let stays = Quantities::cpus_mem(1_500, 0);
        let said = Offer {
            lasting: ebb_types::Lasting {
                confidence_permille: 900,
                points: vec![ebb_types::LastingPoint {
                    time_ms: 600_000,
                    amount: stays,
                }],
            },
            ..offer(both)
        };
        let ten_minutes = lasting(&said, 600_000);
        assert_eq!(
            (ten_minutes.regular, ten_minutes.revocable),
            (both.regular, stays)
        );
        assert!(lasting(&said, 600_001).revocable.is_zero());
        assert!(lasting(&offer(both), 1).revocable.is_zero());
    }

    #[test]
    fn a_revocable_demand_never_takes_regular_resources() {
        let amount = Quantities::cpus_mem(1000, 64)
            .with(ResourceKind::DiskBandwidth, 5)
            .with(ResourceKind::NetworkBandwidth, 7);
        let demand = |claim| Demand { amount, claim }.resources();
        assert!(demand(Claim::Regular).revocable.is_zero());
        assert!(demand(Claim::Revocable).regular.is_zero());
        let mixed = demand(Claim::RevocableCompressible);
        assert_eq!(mixed.regular, Quantities::cpus_mem(0, 64));
        assert_eq!(mixed.revocable.cpu_milli(), 1000);
        assert_eq!(mixed.revocable.get(ResourceKind::DiskBandwidth), 5);
        assert_eq!(mixed.revocable.get(ResourceKind::NetworkBandwidth), 7);
        assert_eq!(mixed.mixed_kind(), None);
        assert!(!fit(&mixed, &offer(Resources::regular(amount))));
        assert!(fit(
            &demand(Claim::Regular),
            &offer(Resources::regular(amount))
        ));
    }

    #[test]
    fn what_lacks_is_named_with_its_part() {
        let wanted = Demand::cpus_mem(1000, 10).claiming(Claim::RevocableCompressible);
        let offer = offer(Resources::regular(Quantities::cpus_mem(4000, 5)));
        let lacking = lacking(&wanted.resources(), &offer);
        assert_eq!(lacking.to_string(), "mem:5 and cpus:1.000 (revocable)");
    }

    proptest! {
        #[test]
        fn as_many_fit_as_can_be_taken_one_by_one(
            wanted in (1u64..50, 0u64..50, 0u64..50, 0u64..50),
            there in (0u64..200, 0u64..200, 0u64..200, 0u64..200),
        ) {
            let resources = |(a, b, c, d)| Resources {
                regular: Quantities::cpus_mem(a, b),
                revocable: Quantities::cpus_mem(c, d),
            };
            let (wanted, mut left) = (resources(wanted), resources(there));
            let expected = how_many(&wanted, &left);
            let mut taken = 0;
            while let Some(rest) = left.checked_sub(&wanted) {
                left = rest;
                taken += 1;
            }
            prop_assert_eq!(taken, expected);
        }
    }
}
