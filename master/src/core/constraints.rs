//! What frameworks say of their offers: which agents they may be of, and what an offer holds at least.
//!
//! Terms come with a subscription and with each change of a framework, whole; what was said before is void. They are not
//! durable: a framework that comes back says them again before it is offered anything. The agents that are kept from it
//! stand in the book of claims, so that no proposal is made of them; one that was planned with an older book is refused
//! when it comes in. Invariant: no offer that is out stands against the constraints or the region of its framework, or
//! is of an agent with GPUs to one that cannot use them.

use std::collections::BTreeMap;
use std::sync::Arc;

use ebb_types::{
    AgentInfo, Capability, FrameworkId, FrameworkInfo, OfferId, OfferTerms, Quantities, Role,
};

use super::check::Violation;
use super::claims::has_gpus;
use super::limits::{MAX_CONSTRAINED_CLAIMS, MAX_PATTERNS_IN_ALL};
use super::state::{Core, OfferRecord};

/// The least that is stated for an offer, by role.
pub(super) fn minima(terms: &OfferTerms) -> BTreeMap<Role, Arc<[Quantities]>> {
    let stated = terms.iter();
    stated
        .filter_map(|(role, terms)| Some((role.clone(), Arc::clone(terms.minimum.as_ref()?))))
        .collect()
}

impl Core {
    /// What is wrong with what a framework says, as a sentence.
    pub(super) fn check_terms(
        &self,
        info: &FrameworkInfo,
        terms: &OfferTerms,
    ) -> Result<(), String> {
        if let Some(role) = terms.keys().find(|role| !info.roles.contains(role)) {
            return Err(format!(
                "Terms are stated for role {role} but the framework is not in it; state them for its own roles"
            ));
        }
        let size = self.gate.would_have(info.id.as_ref(), terms);
        if size.claims > MAX_CONSTRAINED_CLAIMS || size.patterns > MAX_PATTERNS_IN_ALL {
            return Err(format!(
                "Frameworks have constraints in {} roles with {} patterns together; at most {MAX_CONSTRAINED_CLAIMS} and {MAX_PATTERNS_IN_ALL} are kept, so state fewer",
                size.claims, size.patterns
            ));
        }
        Ok(())
    }

    /// Holds a framework's constraints against all agents.
    pub(super) fn apply_constraints(&mut self, id: &FrameworkId) {
        let Some(framework) = self.frameworks.get(id) else {
            return;
        };
        let agents = self.agents.values().map(|agent| &*agent.info);
        let said = (&framework.info.roles[..], &framework.terms);
        self.gate.set_terms(&mut self.roles, id, said, agents);
        self.changed = true;
    }

    /// Withdraws the offers of agents that a framework does not want any more.
    pub(super) fn rescind_unsuited(&mut self, id: &FrameworkId) {
        let Some(framework) = self.frameworks.get(id) else {
            return;
        };
        let offers = framework.offers.iter();
        let unsuited = offers.filter(|offer_id| {
            let offer = self.offers.get(*offer_id);
            offer.is_some_and(|offer| !self.suits(offer))
        });
        let unsuited: Vec<OfferId> = unsuited.cloned().collect();
        for offer_id in unsuited {
            self.rescind(&offer_id);
        }
    }

    /// Whether an offer is of an agent that its framework may be offered.
    fn suits(&self, offer: &OfferRecord) -> bool {
        let agent = self.agents.get(&offer.agent_id);
        let framework = self.frameworks.get(&offer.framework_id);
        let suits = |info: &AgentInfo, framework: &super::state::Framework| {
            let terms = framework.terms.get(&offer.role);
            let takes_region =
                !self.gate.is_remote(info) || framework.info.has(Capability::RegionAware);
            let takes_gpus = !has_gpus(info) || framework.info.has(Capability::GpuResources);
            takes_region && takes_gpus && terms.is_none_or(|terms| terms.suits(info))
        };
        agent
            .zip(framework)
            .is_some_and(|(agent, framework)| suits(&agent.info, framework))
    }

    pub(super) fn check_constraints(&self) -> Result<(), Violation> {
        for (id, offer) in &self.offers {
            if !self.suits(offer) {
                return Err(Violation(format!(
                    "offer {id} is of an agent that its framework is kept from"
                )));
            }
        }
        let mut agents = self.agents.values();
        match agents.find_map(|agent| self.gate.fault(&self.roles, &agent.info)) {
            Some(fault) => Err(Violation(fault)),
            None => Ok(()),
        }
    }
}
