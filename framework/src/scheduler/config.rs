//! How a scheduler connects, and its named times.

use ebb_types::{FrameworkId, FrameworkInfo, OfferTerms, Role};

/// First bound of the wait before a new connection, in milliseconds.
pub const RECONNECT_FIRST_MS: u64 = 100;
/// Largest bound of the wait before a new connection, in milliseconds.
pub const RECONNECT_CAP_MS: u64 = 10_000;
/// A subscription that stood so long, in milliseconds, makes the back-off start over.
pub const STABLE_AFTER_MS: u64 = 5_000;
/// So many heartbeat intervals without any event, and the connection counts as lost.
pub const HEARTBEATS_MISSED: u64 = 5;
/// Time from the start of a connection to the subscription, in milliseconds; then another is tried.
pub const SUBSCRIBE_TIMEOUT_MS: u64 = 10_000;
/// After a new subscription, tasks that nothing was heard of for so long are asked for one by one,
/// in milliseconds.
pub const RECONCILE_FIRST_MS: u64 = 2_000;
/// Largest wait between two questions for the same tasks, in milliseconds.
pub const RECONCILE_CAP_MS: u64 = 60_000;
/// A launched task that nothing was heard of for so long is asked for, in milliseconds.
pub const LAUNCH_SILENCE_MS: u64 = 30_000;
/// Failover timeout of a framework that does not say otherwise: five minutes, in milliseconds.
pub const DEFAULT_FAILOVER_MS: u64 = 300_000;
/// How long a teardown may take to be confirmed, in milliseconds.
pub const TEARDOWN_TIMEOUT_MS: u64 = 5_000;

/// Who acknowledges statuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acknowledgement {
    /// The driver, when the callback has returned `Ok`.
    #[default]
    AfterCallback,
    /// The framework, with [`super::Calls::acknowledge`].
    Explicit,
}

/// The times that a session keeps, in milliseconds. The defaults are the constants of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// See [`RECONNECT_FIRST_MS`].
    pub reconnect_first_ms: u64,
    /// See [`RECONNECT_CAP_MS`].
    pub reconnect_cap_ms: u64,
    /// See [`SUBSCRIBE_TIMEOUT_MS`].
    pub subscribe_timeout_ms: u64,
    /// See [`RECONCILE_FIRST_MS`].
    pub reconcile_first_ms: u64,
    /// See [`LAUNCH_SILENCE_MS`].
    pub launch_silence_ms: u64,
    /// Without a first subscription after so long, the driver gives up; unset means never.
    pub give_up_after_ms: Option<u64>,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            reconnect_first_ms: RECONNECT_FIRST_MS,
            reconnect_cap_ms: RECONNECT_CAP_MS,
            subscribe_timeout_ms: SUBSCRIBE_TIMEOUT_MS,
            reconcile_first_ms: RECONCILE_FIRST_MS,
            launch_silence_ms: LAUNCH_SILENCE_MS,
            give_up_after_ms: None,
        }
    }
}

/// Where the masters are and who subscribes.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// Addresses of masters, `host:port`, tried in turn.
    pub masters: Vec<String>,
    /// Who subscribes.
    pub info: FrameworkInfo,
    /// Roles that are suppressed from the start.
    pub suppressed_roles: Vec<Role>,
    /// Which agents it wants, and how much of them at least, by role.
    pub terms: OfferTerms,
    /// Who acknowledges statuses.
    pub acknowledgement: Acknowledgement,
    /// The session's times.
    pub timing: Timing,
    /// Seeds the jitter; unset means from the clock.
    pub seed: Option<u64>,
}

impl SchedulerConfig {
    /// A framework of that name in role `*`, partition-aware, whose tasks outlive five minutes
    /// without it.
    pub fn new(masters: impl IntoIterator<Item = impl Into<String>>, name: &str) -> Self {
        Self {
            masters: masters.into_iter().map(Into::into).collect(),
            info: FrameworkInfo {
                id: None,
                name: name.to_owned(),
                user: String::new(),
                roles: Role::new("*").into_iter().collect(),
                failover_timeout_ms: DEFAULT_FAILOVER_MS,
                hostname: String::new(),
                principal: String::new(),
                webui_url: String::new(),
                capabilities: vec![ebb_types::Capability::PartitionAware],
                labels: Vec::new(),
            },
            suppressed_roles: Vec::new(),
            terms: OfferTerms::new(),
            acknowledgement: Acknowledgement::default(),
            timing: Timing::default(),
            seed: None,
        }
    }

    /// The same with revocable resources offered too.
    #[must_use]
    pub fn revocable(mut self) -> Self {
        let capability = ebb_types::Capability::RevocableResources;
        if !self.info.has(capability) {
            self.info.capabilities.push(capability);
            self.info.capabilities.sort();
        }
        self
    }

    /// The same as the framework of that id: takes over its tasks.
    #[must_use]
    pub fn resuming(mut self, id: Option<FrameworkId>) -> Self {
        self.info.id = id;
        self
    }
}
