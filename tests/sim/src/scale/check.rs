//! What must hold, at some moments on the way and at the end. Each check reads the whole cluster.

use ebb_master::core::drf::{Class, Sums};
use ebb_types::Resources;

use super::Broken;
use super::peers::{Agent, Stage, roles};
use super::world::World;

impl World {
    /// The master's books: each by itself, against each other, and against what the agents have counted.
    pub(super) fn check_books(&mut self) -> Result<(), Broken> {
        if let Err(what) = self.master.check() {
            return self.fail(what);
        }
        self.check_agents()?;
        self.check_claims()
    }

    /// What is allocated of an agent is what it was told to run.
    fn check_agents(&self) -> Result<(), Broken> {
        for (number, agent) in self.agents.iter().enumerate() {
            let slot = agent.id.as_ref().and_then(|id| self.master.ledger.get(id));
            let allocated = slot.map(|slot| slot.load().allocated);
            self.expect(allocated == Some(agent.used), || {
                format!(
                    "agent {number} runs {}, but {allocated:?} is allocated",
                    agent.used
                )
            })?;
        }
        Ok(())
    }

    /// What the roles hold by the book of claims, and by the planner's copy, is what is in use on all agents.
    fn check_claims(&self) -> Result<(), Broken> {
        for class in Class::ALL {
            let mut in_use = Sums::default();
            for slot in self.master.ledger.slots().values() {
                in_use.add(class.part(&slot.load().in_use()));
            }
            for claims in [self.master.core.claims(), self.master.planner.claims()] {
                let mut held = Sums::default();
                for role in roles() {
                    held.add_sums(claims.role_standing(&role).held(class));
                }
                self.expect(held == in_use, || {
                    format!("{class:?}: {held:?} by the claims, {in_use:?} on the agents")
                })?;
            }
        }
        Ok(())
    }

    /// At the end everything that was asked for has ended, and everything is offered again.
    pub(super) fn check_at_rest(&self) -> Result<(), Broken> {
        let open = self.tasks.iter().find(|task| task.stage != Stage::Settled);
        self.expect(open.is_none(), || {
            let open = open.map(|task| (&task.id, task.stage));
            format!("a task has not ended: {open:?}")
        })?;
        let all = self.tasks.len() == self.scale.placements as usize
            && self.report.placements == self.scale.placements;
        self.expect(all, || {
            format!("{} tasks were launched", self.report.placements)
        })?;
        let busy = |agent: &&Agent| !agent.used.is_zero();
        self.expect(self.agents.iter().find(busy).is_none(), || {
            String::from("an agent still runs something")
        })?;
        for (id, slot) in self.master.ledger.slots().iter() {
            let ledger = slot.load();
            let rests = ledger.allocated == Resources::ZERO && ledger.free() == Resources::ZERO;
            self.expect(rests, || format!("{id} is not offered: {ledger:?}"))?;
        }
        Ok(())
    }
}
