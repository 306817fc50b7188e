//! What the core counts. Plain numbers that only rise; `metrics.rs` shows them.

use ebb_types::TaskState;

/// Everything that the core counts since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Inputs that were handled.
    pub steps: u64,
    /// Offers sent.
    pub offers_made: u64,
    /// Offers accepted with at least one task.
    pub offers_accepted: u64,
    /// Offers declined, or accepted for nothing.
    pub offers_declined: u64,
    /// Offers withdrawn by the master.
    pub offers_rescinded: u64,
    /// Offers that passed their deadline.
    pub offers_expired: u64,
    /// Inverse offers sent.
    pub inverse_offers_made: u64,
    /// Inverse offers answered.
    pub inverse_offers_answered: u64,
    /// Inverse offers that were not made because too many are out.
    pub inverse_offers_held: u64,
    /// Proposals of the allocator that no longer held.
    pub proposals_refused: u64,
    /// Accepts whose offers were not valid.
    pub accepts_invalid: u64,
    /// Tasks sent to agents.
    pub tasks_launched: u64,
    /// Tasks that entered each state, by the state's number.
    pub tasks_by_state: [u64; TaskState::ALL.len()],
    /// Status updates forwarded to frameworks.
    pub updates_forwarded: u64,
    /// Status updates that nobody could be told of at that moment; agents retry them.
    pub updates_held: u64,
    /// Status updates that the master acknowledged in place of a framework that is no more or has
    /// been told something final already.
    pub updates_settled: u64,
    /// Acknowledgements forwarded to agents.
    pub acknowledgements: u64,
    /// Acknowledgements that no connected agent waits for.
    pub acknowledgements_dropped: u64,
    /// Framework messages in either direction that had no connected receiver.
    pub messages_dropped: u64,
    /// Kills forwarded to agents.
    pub kills: u64,
    /// Kills that could not be remembered for a disconnected agent.
    pub kills_dropped: u64,
    /// Calls and messages of a connection or incarnation that had been replaced.
    pub stale_messages: u64,
    /// Calls that broke a rule of the protocol.
    pub calls_invalid: u64,
    /// Subscriptions, new and renewed.
    pub subscriptions: u64,
    /// Frameworks whose scheduler was replaced by another connection.
    pub frameworks_failed_over: u64,
    /// Frameworks removed.
    pub frameworks_removed: u64,
    /// Agents admitted for the first time.
    pub agents_admitted: u64,
    /// Agents that registered anew.
    pub agents_reregistered: u64,
    /// Agents that became unreachable.
    pub agents_unreachable: u64,
    /// Agents refused.
    pub agents_refused: u64,
    /// Tasks that an agent reported although the master holds another of that name, or its end.
    pub tasks_duplicated: u64,
    /// Times that lots which an agent brought along did not add up with those in the books and were not counted.
    pub lots_uncounted: u64,
    /// Operations on lots that broke a rule.
    pub operations_failed: u64,
    /// Operations that were not carried out because their id is that of another without an acknowledged answer.
    pub operations_repeated: u64,
    /// Answers to operations that were acknowledged.
    pub operations_acknowledged: u64,
    /// Answers to operations that were sent again to a framework that had subscribed anew.
    pub operation_answers_repeated: u64,
    /// Answers to operations that there was no room to keep, so that they come at most once.
    pub operation_answers_unkept: u64,
    /// Refusals of lots that there was no room for.
    pub lot_refusals_dropped: u64,
    /// Evictions that their framework may come back from at once, for want of room.
    pub cool_downs_dropped: u64,
    /// Entries of what agents have seen of classes of tasks, dropped for want of room.
    pub classes_dropped: u64,
    /// Tasks, frameworks or agents forgotten because a bound was reached.
    pub forgotten: u64,
}
