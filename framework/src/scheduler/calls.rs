//! What a scheduler may ask for, collected while a callback runs and sent when it has returned.

use ebb_types::{
    AgentId, Call, ExecutorId, Filters, FrameworkId, FrameworkInfo, Offer, OfferId, OfferTerms,
    Operation, OperationId, OperationStatus, ReconcileTask, Role, TaskId, TaskInfo, TaskStatus,
    Timestamp,
};

/// How a framework leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its tasks are ended with it.
    Teardown,
    /// Its tasks live on until its failover timeout, for whoever comes back under its id.
    Detach,
}

/// Collects what a scheduler asks for.
#[derive(Debug)]
pub struct Calls {
    now: Timestamp,
    framework_id: Option<FrameworkId>,
    pub(super) calls: Vec<Call>,
    pub(super) watched: Vec<ReconcileTask>,
    pub(super) wake_at: Option<Timestamp>,
    pub(super) ending: Option<Ending>,
}

impl Calls {
    pub(super) const fn new(now: Timestamp, framework_id: Option<FrameworkId>) -> Self {
        Self {
            now,
            framework_id,
            calls: Vec::new(),
            watched: Vec::new(),
            wake_at: None,
            ending: None,
        }
    }

    /// The time of the callback.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// The framework's id, once it has one.
    pub const fn framework_id(&self) -> Option<&FrameworkId> {
        self.framework_id.as_ref()
    }

    /// Uses one offer for tasks; what is left over is declined for the usual five seconds.
    pub fn launch(&mut self, offer: &Offer, tasks: Vec<TaskInfo>) {
        self.accept(vec![offer.id.clone()], tasks, Filters::default());
    }

    /// Uses offers of one agent and one role for tasks; what is left over is declined with the filters.
    pub fn accept(&mut self, offer_ids: Vec<OfferId>, tasks: Vec<TaskInfo>, filters: Filters) {
        let malformed = Vec::new();
        self.calls.push(Call::Accept {
            offer_ids,
            operations: vec![Operation::Launch { tasks, malformed }],
            filters,
        });
    }

    /// Uses offers of one agent and one role for operations, in order; what is left over is declined with the filters.
    pub fn operate(
        &mut self,
        offer_ids: Vec<OfferId>,
        operations: Vec<Operation>,
        filters: Filters,
    ) {
        self.calls.push(Call::Accept {
            offer_ids,
            operations,
            filters,
        });
    }

    /// Gives an offer back; what is a subset of it does not come again for the usual five seconds.
    pub fn decline(&mut self, offer_id: &OfferId) {
        self.decline_all(vec![offer_id.clone()], Filters::default());
    }

    /// Gives offers back with a filter.
    pub fn decline_all(&mut self, offer_ids: Vec<OfferId>, filters: Filters) {
        if !offer_ids.is_empty() {
            self.calls.push(Call::Decline { offer_ids, filters });
        }
    }

    /// Promises to be gone from agents by the time when they are out of use; it is asked again when the filter ends.
    pub fn accept_inverse(&mut self, offer_ids: Vec<OfferId>, filters: Filters) {
        self.calls
            .push(Call::AcceptInverseOffers { offer_ids, filters });
    }

    /// Says that it will not be gone; it is asked again when the filter ends.
    pub fn decline_inverse(&mut self, offer_ids: Vec<OfferId>, filters: Filters) {
        self.calls
            .push(Call::DeclineInverseOffers { offer_ids, filters });
    }

    /// Wants offers again and forgets all filters; no roles means all.
    pub fn revive(&mut self, roles: Vec<Role>) {
        self.calls.push(Call::Revive { roles });
    }

    /// Wants no offers; no roles means all.
    pub fn suppress(&mut self, roles: Vec<Role>) {
        self.calls.push(Call::Suppress { roles });
    }

    /// Ends a task. Until its end is known the session asks again after every new subscription.
    pub fn kill(&mut self, task_id: &TaskId, agent_id: Option<&AgentId>, grace_ms: Option<u64>) {
        self.calls.push(Call::Kill {
            task_id: task_id.clone(),
            agent_id: agent_id.cloned(),
            grace_ms,
        });
    }

    /// Confirms a status, where acknowledgement is explicit; does nothing for one without a uuid.
    pub fn acknowledge(&mut self, status: &TaskStatus) {
        if let (Some(agent_id), Some(uuid)) = (&status.agent_id, status.uuid) {
            self.calls.push(Call::Acknowledge {
                agent_id: agent_id.clone(),
                task_id: status.task_id.clone(),
                uuid,
            });
        }
    }

    /// Confirms the answer to an operation, where acknowledgement is explicit; does nothing for one without a uuid.
    pub fn acknowledge_operation(&mut self, status: &OperationStatus) {
        if let Some(uuid) = status.uuid {
            let id = status.id.clone();
            self.calls.push(Call::AcknowledgeOperation { id, uuid });
        }
    }

    /// Asks what became of operations; none means of all whose answers are not acknowledged. After every new
    /// subscription the session asks by itself for those that it has sent.
    pub fn reconcile_operations(&mut self, ids: Vec<OperationId>) {
        self.calls.push(Call::ReconcileOperations { ids });
    }

    /// Asks for the states of tasks; none means all. The session does so by itself after every new
    /// subscription.
    pub fn reconcile(&mut self, tasks: Vec<ReconcileTask>) {
        self.calls.push(Call::Reconcile { tasks });
    }

    /// Tells the session of a task that an earlier process of this framework launched, so that it
    /// asks for its state until it is known.
    pub fn watch(&mut self, task_id: TaskId, agent_id: Option<AgentId>) {
        self.watched.push(ReconcileTask { task_id, agent_id });
    }

    /// Sends bytes to the framework's own executor; may be lost.
    pub fn message(&mut self, agent_id: AgentId, executor_id: ExecutorId, data: Vec<u8>) {
        self.calls.push(Call::Message {
            agent_id,
            executor_id,
            data,
        });
    }

    /// Ends one of the framework's own executors with all its tasks.
    pub fn shut_down_executor(&mut self, agent_id: AgentId, executor_id: ExecutorId) {
        self.calls.push(Call::Shutdown {
            executor_id,
            agent_id,
        });
    }

    /// Changes what the framework says of itself and of its offers; its id, principal and user may not differ.
    pub fn update_framework(
        &mut self,
        info: FrameworkInfo,
        suppressed_roles: Vec<Role>,
        terms: OfferTerms,
    ) {
        self.calls.push(Call::UpdateFramework {
            info,
            suppressed_roles,
            terms,
        });
    }

    /// Asks for [`super::Scheduler::woken`] at that time; the earliest time asked for counts.
    pub fn wake_at(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Ends the framework with all its tasks when everything asked for so far is sent.
    pub const fn teardown(&mut self) {
        self.ending = Some(Ending::Teardown);
    }

    /// Leaves the master when everything asked for so far is sent. The tasks live on until the
    /// failover timeout.
    pub const fn detach(&mut self) {
        self.ending = Some(Ending::Detach);
    }
}
