//! The invariants of the core, asserted after every step of a debug build and by the simulator.

use std::collections::BTreeSet;

use ebb_types::{ContainerId, ResourceKind, Resources, TaskKey};

use super::state::{Core, Owner, Task};

impl Core {
    /// Says which invariant is broken.
    ///
    /// # Errors
    /// A sentence that names what contradicts what.
    pub fn check(&self) -> Result<(), String> {
        self.check_held()?;
        self.check_lots()?;
        self.check_containers()?;
        let mut pending = 0;
        for (key, task) in &self.tasks {
            check_task(key, task)?;
            pending += task.updates.len();
        }
        if pending != self.pending_updates {
            return Err(format!(
                "{pending} statuses wait for an acknowledgement, but {} are counted",
                self.pending_updates
            ));
        }
        let sessions: Vec<_> = self.executors.values().filter_map(|e| e.session).collect();
        if sessions.iter().collect::<BTreeSet<_>>().len() != sessions.len() {
            return Err("two executors share a session".to_owned());
        }
        Ok(())
    }

    /// What is held is what live tasks and executors hold, and no more than there is.
    fn check_held(&self) -> Result<(), String> {
        let tasks = self.tasks.values().filter(|task| task.is_live());
        let executors = self.executors.values().map(|e| e.info.resources);
        let held = tasks
            .map(|task| task.info.resources)
            .chain(executors)
            .fold(Resources::ZERO, |sum, resources| {
                sum.saturating_add(&resources)
            });
        if held != self.held {
            return Err(format!("tasks hold {held}, but {} is counted", self.held));
        }
        let most = Resources {
            regular: self.config.total.max(&self.restored_held.regular),
            revocable: self.config.total.max(&self.restored_held.revocable),
        };
        for kind in ResourceKind::ALL {
            if held.regular.get(kind) > most.regular.get(kind)
                || held.revocable.get(kind) > most.revocable.get(kind)
            {
                return Err(format!(
                    "more {} is allocated than there is: {held} of {most}",
                    kind.name()
                ));
            }
        }
        Ok(())
    }

    /// Each live task and executor has its container, and no other has one.
    fn check_containers(&self) -> Result<(), String> {
        let mut seen: BTreeSet<&ContainerId> = BTreeSet::new();
        for (key, task) in &self.tasks {
            if !task.is_live() || !task.has_own_container() {
                continue;
            }
            if self.containers.get(&task.container_id) != Some(&Owner::Task(key.clone())) {
                return Err(format!("task {} lives without a container", key.1));
            }
            seen.insert(&task.container_id);
        }
        for (key, executor) in &self.executors {
            if self.containers.get(&executor.container_id) != Some(&Owner::Executor(key.clone())) {
                return Err(format!("executor {} lives without a container", key.1));
            }
            seen.insert(&executor.container_id);
        }
        if seen.len() != self.containers.len() {
            return Err("a container belongs to nothing that lives".to_owned());
        }
        Ok(())
    }
}

/// The statuses of a task are ordered, and it is kept only as long as there is something to tell.
fn check_task(key: &TaskKey, task: &Task) -> Result<(), String> {
    if task.is_live() == task.state.is_terminal() {
        return Err(format!(
            "task {} is {} but its container says otherwise",
            key.1,
            task.state.name()
        ));
    }
    if !task.is_live() && task.updates.len() == 0 {
        return Err(format!("task {} is over but was not forgotten", key.1));
    }
    let mut uuids = BTreeSet::new();
    let mut ended = false;
    for status in task.updates.iter() {
        let Some(uuid) = status.uuid else {
            return Err(format!("a status of task {} has no uuid", key.1));
        };
        if ended || !uuids.insert(uuid) {
            return Err(format!("the statuses of task {} are out of order", key.1));
        }
        ended = status.state.is_terminal();
    }
    Ok(())
}
