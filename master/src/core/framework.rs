//! The life of a framework: subscription, fail-over, change, and the loss of its scheduler.
//!
//! A framework is connected or waits for its scheduler until its failover deadline, which is durable
//! before anybody hears of it. Its end is in `removal.rs`.

use std::collections::BTreeSet;

use ebb_types::limits::{MAX_FAILOVER_MS, MAX_ROLES};
use ebb_types::{Capability, Event, FrameworkId, FrameworkInfo, OfferTerms, Role};

use super::claims::FrameworkTerms;
use super::constraints::minima;
use super::input::{ConnectionId, Effect};
use super::limits::MAX_FRAMEWORKS;
use super::record::{FrameworkRecord, RegistryWrite};
use super::state::{Core, Framework};
use super::timers::Deadline;

impl Core {
    pub(super) fn subscribe(
        &mut self,
        connection: ConnectionId,
        mut info: FrameworkInfo,
        suppressed: Vec<Role>,
        terms: OfferTerms,
    ) {
        let checked = check_info(&info, &suppressed).and_then(|()| self.check_terms(&info, &terms));
        if let Err(message) = checked {
            self.refuse_scheduler(connection, &message);
            return;
        }
        let known = info.id.as_ref().and_then(|id| self.frameworks.get(id));
        if known.is_none() && self.frameworks.len() >= MAX_FRAMEWORKS {
            self.refuse_scheduler(
                connection,
                &format!(
                    "The master has {MAX_FRAMEWORKS} frameworks and takes no more; tear some down"
                ),
            );
            return;
        }
        let id = match &info.id {
            None => match self.ids.framework() {
                Ok(id) => id,
                Err(error) => {
                    self.refuse_scheduler(connection, &error.to_string());
                    return;
                }
            },
            Some(id) if self.completed.iter().any(|completed| completed.id == *id) => {
                self.refuse_scheduler(connection, "Framework has been removed");
                return;
            }
            Some(id) => id.clone(),
        };
        if let Some(known) = known {
            // What comes on an older connection than the one in use was overtaken on its way.
            if known.connection.is_some_and(|current| connection < current) {
                self.counters.stale_messages += 1;
                self.close_scheduler(connection, "Framework failed over");
                return;
            }
            let stand_in = known.stand_in;
            if !stand_in && known.info.principal != info.principal {
                self.refuse_scheduler(
                    connection,
                    &format!("The principal of framework {id} may not change; subscribe as before"),
                );
                return;
            }
            if !stand_in {
                info.user.clone_from(&known.info.user);
            }
            self.replace_scheduler(&id);
        }
        info.id = Some(id.clone());
        self.connect(connection, &id, info, (suppressed, terms));
    }

    /// The framework is valid and free to be connected.
    fn connect(
        &mut self,
        connection: ConnectionId,
        id: &FrameworkId,
        info: FrameworkInfo,
        (suppressed, terms): (Vec<Role>, OfferTerms),
    ) {
        let now = self.now;
        let framework = self
            .frameworks
            .entry(id.clone())
            .or_insert_with(|| Framework::new(info.clone(), now));
        framework.info = info;
        framework.stand_in = false;
        framework.suppressed = suppressed.into_iter().collect();
        framework.terms = terms;
        framework.connection = Some(connection);
        let deadline = framework.failover_deadline.take();
        if let Some(deadline) = deadline {
            self.timers.clear(deadline, Deadline::Failover(id.clone()));
        }
        self.schedulers.insert(connection, id.clone());
        self.counters.subscriptions += 1;
        self.persist_framework(id);
        let subscribed = Event::Subscribed {
            framework_id: id.clone(),
            heartbeat_interval_ms: self.config.heartbeat_interval_ms,
            master: self.master_info(),
        };
        self.emit(Effect::ToScheduler {
            connection,
            event: subscribed,
        });
        self.repeat_updates(id, connection);
        self.repeat_answers(id, connection);
        self.publish_terms(id);
        self.apply_constraints(id);
        self.ask_anew();
        self.wake_all = true;
        self.touch_all_lots();
        self.framework_changed(id);
    }

    /// Sends again what the last scheduler may not have seen.
    fn repeat_updates(&mut self, id: &FrameworkId, connection: ConnectionId) {
        let Some(framework) = self.frameworks.get_mut(id) else {
            return;
        };
        for task in framework.tasks.values_mut() {
            if let Some(status) = &task.unacknowledged {
                task.told = Some(status.state);
                self.counters.updates_forwarded += 1;
                self.effects.push(Effect::ToScheduler {
                    connection,
                    event: Event::Update((**status).clone()),
                });
            }
        }
    }

    /// A second scheduler takes over: the first, if it is still there, hears so and is cut off.
    /// Offers are taken back without a word, as the new one never saw them.
    fn replace_scheduler(&mut self, id: &FrameworkId) {
        let old = self
            .frameworks
            .get_mut(id)
            .and_then(|f| f.connection.take());
        self.take_back_offers(id);
        self.forget_inverse_offers(id);
        let Some(old) = old else { return };
        self.schedulers.remove(&old);
        self.counters.frameworks_failed_over += 1;
        self.close_scheduler(old, "Framework failed over");
    }

    pub(super) fn scheduler_gone(&mut self, connection: ConnectionId) {
        let Some(id) = self.schedulers.remove(&connection) else {
            return;
        };
        let Some(framework) = self.frameworks.get_mut(&id) else {
            return;
        };
        framework.connection = None;
        framework.away_since = self.now;
        let timeout_ms = framework.info.failover_timeout_ms;
        if timeout_ms == 0 {
            self.remove_framework(&id, "Framework disconnected and has no failover timeout");
            return;
        }
        let deadline = self.now.plus_ms(timeout_ms);
        framework.failover_deadline = Some(deadline);
        self.set_timer(deadline, Deadline::Failover(id.clone()));
        self.persist_framework(&id);
        self.take_back_offers(&id);
        self.forget_inverse_offers(&id);
        self.publish_terms(&id);
        self.framework_changed(&id);
    }

    pub(super) fn failover_due(&mut self, id: &FrameworkId) {
        let due = self
            .frameworks
            .get(id)
            .and_then(|framework| framework.failover_deadline)
            .is_some_and(|deadline| deadline <= self.now);
        if due {
            self.remove_framework(
                id,
                "Framework did not come back within its failover timeout",
            );
        }
    }

    pub(super) fn update_framework(
        &mut self,
        connection: ConnectionId,
        id: &FrameworkId,
        info: FrameworkInfo,
        (suppressed, terms): (Vec<Role>, OfferTerms),
    ) {
        let Some(framework) = self.frameworks.get(id) else {
            return;
        };
        let problem = if info.id.as_ref() != Some(id) {
            Some(format!(
                "The description names another framework than {id}; name that"
            ))
        } else if info.principal != framework.info.principal {
            Some(format!(
                "The principal of framework {id} may not change; leave it as it is"
            ))
        } else if info.user != framework.info.user {
            Some(format!(
                "The user of framework {id} may not change; leave it as it is"
            ))
        } else {
            let checked = check_info(&info, &suppressed);
            checked.and_then(|()| self.check_terms(&info, &terms)).err()
        };
        if let Some(message) = problem {
            self.break_off(connection, &message);
            return;
        }
        let dropped: Vec<_> = framework
            .offers
            .iter()
            .filter(|offer_id| {
                self.offers
                    .get(*offer_id)
                    .is_some_and(|offer| !info.roles.contains(&offer.role))
            })
            .cloned()
            .collect();
        let suppressed: BTreeSet<Role> = suppressed.into_iter().collect();
        let awake: Vec<Role> = framework
            .suppressed
            .difference(&suppressed)
            .cloned()
            .collect();
        let shared = Capability::SharedResources;
        let is_more_able = info.has(shared) && !framework.info.has(shared);
        let asking = if is_more_able {
            info.roles.clone()
        } else {
            awake
        };
        for offer_id in dropped {
            self.rescind(&offer_id);
        }
        for role in &asking {
            self.roles.void_refusals(id, role);
            self.void_lot_refusals(id, role);
        }
        if let Some(framework) = self.frameworks.get_mut(id) {
            framework.info = info;
            framework.suppressed = suppressed;
            framework.terms = terms;
        }
        self.persist_framework(id);
        self.publish_terms(id);
        self.apply_constraints(id);
        self.rescind_unsuited(id);
        self.wake_all = true;
        self.framework_changed(id);
    }

    pub(super) fn suppress(&mut self, id: &FrameworkId, roles: &[Role]) {
        self.set_suppressed(id, roles, true);
    }

    /// Un-suppresses roles and forgets their refusals.
    pub(super) fn revive(&mut self, id: &FrameworkId, roles: &[Role]) {
        for role in self.set_suppressed(id, roles, false) {
            self.roles.void_refusals(id, &role);
            self.cool_down_again(id, &role);
            self.void_lot_refusals(id, &role);
        }
        self.wake_all = true;
    }

    /// The roles that are meant: all for none. One that the framework is not in voids the whole call.
    fn set_suppressed(&mut self, id: &FrameworkId, roles: &[Role], suppress: bool) -> Vec<Role> {
        let Some(framework) = self.frameworks.get_mut(id) else {
            return Vec::new();
        };
        let meant: Vec<Role> = match roles {
            [] => framework.info.roles.clone(),
            roles if roles.iter().all(|role| framework.info.roles.contains(role)) => roles.to_vec(),
            _ => {
                self.counters.calls_invalid += 1;
                return Vec::new();
            }
        };
        for role in &meant {
            if suppress {
                framework.suppressed.insert(role.clone());
            } else {
                framework.suppressed.remove(role);
            }
        }
        self.publish_terms(id);
        self.framework_changed(id);
        meant
    }

    /// Tells the book of claims how a framework stands now.
    pub(super) fn publish_terms(&mut self, id: &FrameworkId) {
        let Some(framework) = self.frameworks.get(id) else {
            return;
        };
        let terms = FrameworkTerms {
            roles: framework.info.roles.iter().cloned().collect(),
            suppressed: framework.suppressed.clone(),
            active: framework.connection.is_some(),
            revocable: framework.info.has(Capability::RevocableResources),
            any_region: framework.info.has(Capability::RegionAware),
            takes_gpus: framework.info.has(Capability::GpuResources),
            minima: minima(&framework.terms),
        };
        self.roles.set_framework(id, terms);
        self.changed = true;
    }

    pub(super) fn persist_framework(&mut self, id: &FrameworkId) {
        let Some(framework) = self.frameworks.get(id) else {
            return;
        };
        let record = FrameworkRecord {
            info: framework.info.clone(),
            registered_at: framework.registered_at,
            failover_deadline: framework.failover_deadline,
        };
        self.emit(Effect::Persist(vec![RegistryWrite::PutFramework(record)]));
    }

    /// Ends a connection that has no framework.
    pub(super) fn refuse_scheduler(&mut self, connection: ConnectionId, message: &str) {
        self.counters.calls_invalid += 1;
        self.close_scheduler(connection, message);
    }

    /// Ends the connection of a framework that broke the protocol; it may come back on another.
    pub(super) fn break_off(&mut self, connection: ConnectionId, message: &str) {
        self.counters.calls_invalid += 1;
        self.close_scheduler(connection, message);
        self.scheduler_gone(connection);
    }

    /// The last event of a connection, and its end.
    pub(super) fn close_scheduler(&mut self, connection: ConnectionId, message: &str) {
        self.emit(Effect::ToScheduler {
            connection,
            event: Event::Error(message.to_owned()),
        });
        self.emit(Effect::CloseScheduler {
            connection,
            reason: message.to_owned(),
        });
    }
}

fn check_info(info: &FrameworkInfo, suppressed: &[Role]) -> Result<(), String> {
    let distinct: BTreeSet<&Role> = info.roles.iter().collect();
    if info.roles.is_empty() {
        return Err(String::from(
            "The framework has no role; name at least one, for example \"*\"",
        ));
    }
    if info.roles.len() > MAX_ROLES {
        return Err(format!(
            "The framework has more than {MAX_ROLES} roles; use fewer"
        ));
    }
    if distinct.len() != info.roles.len() {
        return Err(String::from(
            "The framework names a role twice; name each once",
        ));
    }
    if let Some(role) = suppressed.iter().find(|role| !distinct.contains(role)) {
        return Err(format!(
            "Role {role} is suppressed but the framework is not in it; suppress only its own roles"
        ));
    }
    if info.failover_timeout_ms > MAX_FAILOVER_MS {
        return Err(format!(
            "The failover timeout is {} ms; at most {MAX_FAILOVER_MS} ms (ten years) are allowed",
            info.failover_timeout_ms
        ));
    }
    Ok(())
}
