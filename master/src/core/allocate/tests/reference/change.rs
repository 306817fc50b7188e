//! What may happen to a book, done to the book and to the reference alike.

use std::collections::BTreeSet;

use ebb_types::{AgentId, Quantities, Quota, Resources, Timestamp};

use super::super::{agent, framework, role};
use super::{NAMES, Name, Place, Racks, Reference, Refused, amounts, as_terms, info_of};
use crate::core::claims::{Claims, FrameworkTerms};

#[derive(Clone, Debug)]
pub(in super::super) enum Change {
    Agent(usize, Quantities, Quantities),
    AgentGone(usize),
    Place(usize, Place),
    Framework(usize, FrameworkTerms, Racks),
    FrameworkGone(usize),
    Weight(usize, u32),
    Quota(usize, Quota),
    Withheld(usize, Quantities),
    Named(usize, [u64; NAMES.len()]),
    Charge(usize, usize, Resources),
    Credit(usize, usize, Resources),
    ChargeNamed(usize, usize, [u64; NAMES.len()]),
    CreditNamed(usize, usize, [u64; NAMES.len()]),
    Refuse(usize, usize, usize, Resources, u64),
    Revive(usize, usize),
    Expire(u64),
}

pub(in super::super) fn apply(change: &Change, claims: &mut Claims, reference: &mut Reference) {
    match change {
        Change::Agent(number, total, lent) => {
            claims.set_agent(&agent(*number), *total, *lent);
            let old = reference.agents.insert(agent(*number), (*total, *lent));
            let place = reference.places.get(&agent(*number)).copied();
            let info = info_of(&agent(*number), place.unwrap_or_default());
            reference.gate.see_agent(claims, &info);
            if old.is_some_and(|old| old.0 != *total) {
                reference
                    .refusals
                    .retain(|(_, on), _| *on != agent(*number));
            }
        }
        Change::AgentGone(number) => {
            claims.remove_agent(&agent(*number));
            reference.agents.remove(&agent(*number));
            reference.places.remove(&agent(*number));
            reference.withheld.remove(&agent(*number));
            reference.named.remove(&agent(*number));
        }
        Change::Place(number, place) => {
            if reference.agents.contains_key(&agent(*number)) {
                reference.places.insert(agent(*number), *place);
                let info = info_of(&agent(*number), *place);
                reference.gate.see_agent(claims, &info);
            }
        }
        Change::Framework(number, terms, racks) => {
            claims.set_framework(&framework(*number), terms.clone());
            for role in &terms.roles {
                reference.add(&Name::Member(role.clone(), framework(*number)));
            }
            let id = framework(*number);
            reference.frameworks.insert(id.clone(), terms.clone());
            let mut racks = racks.clone();
            racks.retain(|role, _| terms.roles.contains(role));
            let infos = reference.agents.keys().map(|id| {
                let place = reference.places.get(id).copied();
                info_of(id, place.unwrap_or_default())
            });
            let (infos, roles) = (Vec::from_iter(infos), Vec::from_iter(terms.roles.clone()));
            let said = (&roles[..], &as_terms(&racks));
            reference.gate.set_terms(claims, &id, said, infos.iter());
            for info in &infos {
                assert_eq!(reference.gate.fault(claims, info), None);
            }
            reference.racks.insert(id, racks);
        }
        Change::FrameworkGone(number) => {
            claims.remove_framework(&framework(*number));
            reference.gate.forget_framework(&framework(*number));
            reference.racks.remove(&framework(*number));
            reference.frameworks.remove(&framework(*number));
        }
        Change::Weight(number, weight_milli) => {
            claims.set_weight(&role(*number), *weight_milli);
            reference.add(&Name::Role(role(*number)));
            reference.weights.insert(role(*number), *weight_milli);
        }
        Change::Quota(number, quota) => {
            let role = role(*number);
            claims.set_quota(&role, *quota);
            reference.add(&Name::Role(role.clone()));
            if quota.is_none() {
                reference.quotas.remove(&role);
            } else {
                reference.quotas.insert(role, *quota);
            }
        }
        Change::Withheld(number, withheld) => {
            claims.set_withheld(&agent(*number), *withheld);
            if reference.agents.contains_key(&agent(*number)) {
                reference.withheld.insert(agent(*number), *withheld);
            }
        }
        Change::Named(number, of) => {
            if let Some(number) = claims.agent_number(&agent(*number)) {
                claims.set_named(number, amounts(*of));
            }
            if reference.agents.contains_key(&agent(*number)) {
                reference.named.insert(agent(*number), *of);
            }
        }
        Change::ChargeNamed(who, at, of) => {
            claims.charge_named(&framework(*who), &role(*at), amounts(*of));
            let name = Name::Member(role(*at), framework(*who));
            if *of != [0; NAMES.len()] {
                reference.add(&name);
                for name in name.line() {
                    let held = &mut reference.nodes.get_mut(&name).unwrap().named;
                    held.iter_mut().zip(of).for_each(|(held, of)| *held += of);
                }
            }
        }
        Change::CreditNamed(who, at, of) => {
            let credited = claims.credit_named(&framework(*who), &role(*at), amounts(*of));
            let name = Name::Member(role(*at), framework(*who));
            let held = reference
                .nodes
                .get(&name)
                .map_or([0; NAMES.len()], |held| held.named);
            let holds = held.iter().zip(of).all(|(held, of)| held >= of);
            assert_eq!(credited, holds, "{change:?}");
            for name in name.line().into_iter().filter(|_| holds) {
                if let Some(held) = reference.nodes.get_mut(&name) {
                    held.named
                        .iter_mut()
                        .zip(of)
                        .for_each(|(held, of)| *held -= of);
                }
            }
        }
        Change::Charge(who, of, resources) => {
            claims.charge(&framework(*who), &role(*of), resources);
            if !resources.is_zero() {
                reference.add(&Name::Member(role(*of), framework(*who)));
                reference.charge(&(role(*of), framework(*who)), resources);
            }
        }
        Change::Credit(who, of, resources) => {
            let credited = claims.credit(&framework(*who), &role(*of), resources);
            let name = Name::Member(role(*of), framework(*who));
            let held = reference.nodes.get_mut(&name);
            let held = held.is_some_and(|held| held.take(resources));
            assert_eq!(credited.is_ok(), held || resources.is_zero(), "{change:?}");
            if held {
                for name in &name.line()[1..] {
                    assert!(reference.nodes.get_mut(name).unwrap().take(resources));
                }
            }
        }
        Change::Refuse(who, of, on, resources, expires) => {
            let expires = Timestamp::from_ms(*expires);
            let (id, role, on) = (framework(*who), role(*of), agent(*on));
            claims.refuse(&id, &role, &on, resources, expires);
            let key = ((role, id), on);
            let says_all = reference.refusals.get(&key).is_some_and(|earlier| {
                earlier.expires >= expires && earlier.resources.contains(resources)
            });
            if !says_all && !resources.is_zero() {
                let refused = Refused {
                    resources: *resources,
                    expires,
                };
                reference.refusals.insert(key, refused);
            }
        }
        Change::Revive(who, of) => {
            claims.void_refusals(&framework(*who), &role(*of));
            let who = (role(*of), framework(*who));
            reference.refusals.retain(|(by, _), _| *by != who);
        }
        Change::Expire(now) => {
            let now = Timestamp::from_ms(*now);
            let woken = claims.expire(now);
            let ended = reference
                .refusals
                .extract_if(.., |_, refused| refused.expires <= now);
            let agents: BTreeSet<AgentId> = ended.map(|((_, on), _)| on).collect();
            assert_eq!(woken, agents);
            assert!(claims.next_expiry().is_none_or(|next| next > now));
        }
    }
    reference.forget();
    assert_eq!(claims.refusals(), reference.refusals.len(), "{change:?}");
}
