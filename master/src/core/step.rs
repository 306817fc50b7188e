//! One step of the core: an input is handed to whom it concerns, then what has changed is announced.

use std::sync::Arc;

use ebb_types::{Call, Event, FrameworkId, InverseAnswer, MasterToAgent, Timestamp};

use super::input::{ConnectionId, Effect, Input};
use super::record::Restored;
use super::state::{Absence, AbsentAgent, CompletedFramework, Core, Framework};
use super::task::Remembered;
use super::timers::Deadline;

impl Core {
    /// Takes in one input at a given time and answers with what is to be done, in order.
    ///
    /// Time must not run backwards; a `now` before the last one counts as the last one.
    pub fn step(&mut self, now: Timestamp, input: Input) -> Vec<Effect> {
        self.now = self.now.max(now);
        self.counters.steps += 1;
        match input {
            Input::Scheduler { connection, call } => self.on_call(connection, call),
            Input::SchedulerGone { connection } => self.scheduler_gone(connection),
            Input::Agent {
                connection,
                incarnation,
                message,
            } => self.on_agent(connection, incarnation, message),
            Input::AgentGone { connection } => self.agent_gone(connection),
            Input::Proposals { batch, proposals } => self.on_proposals(batch, proposals),
            Input::Operator { request, command } => {
                let outcome = self.operate(command);
                self.emit(Effect::Answer { request, outcome });
            }
            Input::Tick => self.on_tick(),
        }
        self.announce();
        self.check_sometimes();
        std::mem::take(&mut self.effects)
    }

    /// Tells the allocator what this step has changed, once.
    fn announce(&mut self) {
        self.settle_maintenance();
        self.finish_drains();
        if !self.is_awaiting_agents() {
            for agent_id in std::mem::take(&mut self.enter_ledger) {
                self.insert_slot(&agent_id);
            }
        }
        self.offer_touched_lots();
        self.settle_outside();
        if std::mem::take(&mut self.changed) {
            self.emit(Effect::Publish);
        }
        let woken = std::mem::take(&mut self.wake);
        let held_back = std::mem::take(&mut self.wake_held_back) && self.roles.has_quotas();
        if std::mem::take(&mut self.wake_all) {
            self.emit(Effect::WakeAll);
            return;
        }
        if held_back {
            self.emit(Effect::WakeHeldBack);
        }
        if !woken.is_empty() {
            self.emit(Effect::Wake(woken.into_iter().collect()));
        }
    }

    fn on_call(&mut self, connection: ConnectionId, call: Call) {
        let framework_id = self.schedulers.get(&connection).cloned();
        match (framework_id, call) {
            (
                None,
                Call::Subscribe {
                    info,
                    suppressed_roles,
                    terms,
                },
            ) => self.subscribe(connection, info, suppressed_roles, terms),
            (None, _) => self.refuse_scheduler(
                connection,
                "Framework is not subscribed; the first call of a stream must be subscribe",
            ),
            (Some(_), Call::Subscribe { .. }) => self.break_off(
                connection,
                "Framework is subscribed on this stream already; open another to fail over, or call update_framework",
            ),
            (Some(framework_id), call) => self.on_framework_call(connection, &framework_id, call),
        }
    }

    fn on_framework_call(
        &mut self,
        connection: ConnectionId,
        framework_id: &FrameworkId,
        call: Call,
    ) {
        match call {
            // Handled by `on_call`, which alone knows connections without a framework.
            Call::Subscribe { .. } => {}
            Call::Teardown => self.remove_framework(framework_id, "Framework was torn down"),
            Call::Accept {
                offer_ids,
                operations,
                filters,
            } => self.accept(framework_id, &offer_ids, operations, filters),
            Call::Decline { offer_ids, filters } => self.decline(framework_id, &offer_ids, filters),
            Call::AcceptInverseOffers { offer_ids, filters } => {
                let answer = (InverseAnswer::Accepted, filters);
                self.answer_inverse(framework_id, &offer_ids, answer);
            }
            Call::DeclineInverseOffers { offer_ids, filters } => {
                let answer = (InverseAnswer::Declined, filters);
                self.answer_inverse(framework_id, &offer_ids, answer);
            }
            Call::Revive { roles } => self.revive(framework_id, &roles),
            Call::Suppress { roles } => self.suppress(framework_id, &roles),
            Call::Kill {
                task_id,
                agent_id,
                grace_ms,
            } => self.kill(framework_id, &task_id, agent_id.as_ref(), grace_ms),
            Call::Acknowledge {
                agent_id,
                task_id,
                uuid,
            } => self.acknowledge(framework_id, &agent_id, &task_id, uuid),
            Call::Reconcile { tasks } => self.reconcile(framework_id, tasks),
            Call::AcknowledgeOperation { id, uuid } => {
                self.acknowledge_operation(framework_id, &id, uuid);
            }
            Call::ReconcileOperations { ids } => self.reconcile_operations(framework_id, ids),
            Call::Message {
                agent_id,
                executor_id,
                data,
            } => self.order(
                &agent_id,
                MasterToAgent::Message {
                    framework_id: framework_id.clone(),
                    executor_id,
                    data,
                },
            ),
            Call::Shutdown {
                executor_id,
                agent_id,
            } => self.order(
                &agent_id,
                MasterToAgent::ShutdownExecutor {
                    framework_id: framework_id.clone(),
                    executor_id,
                },
            ),
            Call::UpdateFramework {
                info,
                suppressed_roles,
                terms,
            } => {
                let said = (suppressed_roles, terms);
                self.update_framework(connection, framework_id, info, said);
            }
        }
    }

    fn on_tick(&mut self) {
        while let Some(deadline) = self.timers.pop(self.now) {
            match deadline {
                Deadline::Heartbeat => self.heartbeat(),
                Deadline::Offer(offer_id) => self.expire_offer(&offer_id),
                Deadline::Failover(framework_id) => self.failover_due(&framework_id),
                Deadline::Silence(agent_id) => self.silence_due(&agent_id),
                Deadline::Recovery(agent_id) => self.recovery_due(&agent_id),
                Deadline::WindowEnd(machine) => self.window_due(&machine),
                Deadline::Inverse(agent_id) => self.inverse_due(&agent_id),
                Deadline::Lots(agent_id) => self.lots_due(&agent_id),
                Deadline::LotRefusals(agent_id) => self.lot_refusals_due(&agent_id),
            }
        }
        self.expire_filters();
    }

    fn heartbeat(&mut self) {
        for connection in self.schedulers.keys() {
            self.effects.push(Effect::ToScheduler {
                connection: *connection,
                event: Event::Heartbeat,
            });
        }
        for connection in self.links.keys() {
            self.effects.push(Effect::ToAgent {
                connection: *connection,
                message: MasterToAgent::Heartbeat,
            });
        }
        self.set_next_heartbeat();
    }

    fn set_next_heartbeat(&mut self) {
        let interval_ms = self.config.heartbeat_interval_ms.max(1);
        self.set_timer(self.now.plus_ms(interval_ms), Deadline::Heartbeat);
    }

    /// Takes in what the registry holds. Frameworks and agents get their time to come back.
    pub(super) fn restore(&mut self, restored: Restored) {
        self.set_next_heartbeat();
        for id in restored.completed {
            self.completed.push_back(CompletedFramework {
                id,
                tasks: Remembered::default(),
            });
        }
        for record in restored.frameworks {
            let Some(id) = record.info.id.clone() else {
                continue;
            };
            let earliest = self.now.plus_ms(self.config.framework_recovery_ms);
            let deadline = record
                .failover_deadline
                .unwrap_or_else(|| self.now.plus_ms(record.info.failover_timeout_ms))
                .max(earliest);
            let mut framework = Framework::new(record.info, record.registered_at);
            framework.failover_deadline = Some(deadline);
            framework.away_since = self.now;
            self.set_timer(deadline, Deadline::Failover(id.clone()));
            self.frameworks.insert(id.clone(), framework);
            self.publish_terms(&id);
        }
        for record in restored.agents {
            let Some(id) = record.info.id.clone() else {
                continue;
            };
            let absence = match record.unreachable_since {
                Some(since) => Absence::Unreachable { since },
                None => {
                    let deadline = self.now.plus_ms(self.config.agent_reregister_timeout_ms);
                    self.set_timer(deadline, Deadline::Recovery(id.clone()));
                    self.awaited += 1;
                    self.recovered += 1;
                    Absence::Recovered { deadline }
                }
            };
            let absent = AbsentAgent {
                info: Arc::new(record.info),
                registered_at: record.registered_at,
                incarnation: None,
                activity: record.activity,
                absence,
            };
            self.absent.insert(id, absent);
        }
        self.restore_operations(restored.operations);
        for (role, weight_milli) in restored.weights {
            let weight_milli = u32::try_from(weight_milli).unwrap_or(u32::MAX).max(1);
            self.roles.set_weight(&role, weight_milli);
            self.weights.insert(role, weight_milli);
        }
        for (role, quota) in restored.quotas {
            self.roles.set_quota(&role, quota);
            self.quotas.insert(role, quota);
        }
        self.lots.limits = restored.lot_limits.into_iter().collect();
        self.restore_windows(restored.windows);
    }
}
