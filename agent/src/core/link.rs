//! The agent's side of the link to the master: registration, heartbeats, silence, and what orders mean.

use ebb_types::{
    AgentId, AgentToMaster, Generation, MasterToAgent, RunningExecutor, RunningTask, TaskInfo,
    Timestamp,
};

use super::state::{Core, Link, Outbox};
use super::timers::Timer;
use super::{Conn, Effect, Observation, REGISTRATION_TIMEOUT_MS, Record};

impl Core {
    /// The connection over which the agent is registered.
    pub(super) fn registered_conn(&self) -> Option<Conn> {
        self.link
            .filter(|link| link.registered)
            .map(|link| link.conn)
    }

    /// Tells the master of an end that is told once. While a registration is on its way, which may have named what has
    /// ended since, that waits for its answer; the next one will not name it.
    pub(super) fn tell_end(&mut self, message: AgentToMaster, out: &mut Outbox) {
        match self.link {
            Some(link) if link.registered => out.tell(link.conn, message),
            Some(_) => self.owed.push(message),
            None => {}
        }
    }

    /// A connection stands: says who the agent is and what it has.
    pub(super) fn link_up(&mut self, conn: Conn, out: &mut Outbox) {
        if conn <= self.last_conn {
            self.counters.stale_messages += 1;
            return;
        }
        self.last_conn = conn;
        self.link = Some(Link {
            conn,
            registered: false,
            heard_at: self.now,
            heartbeat_interval_ms: 0,
            unreachable_after_ms: 0,
        });
        self.owed.clear();
        self.clear_link_timers();
        self.timers.set(
            Timer::Registration,
            self.now.plus_ms(REGISTRATION_TIMEOUT_MS),
        );
        let message = self.registration();
        out.tell(conn, message);
    }

    fn registration(&self) -> AgentToMaster {
        let info = self.info();
        let incarnation = self.incarnation;
        if self.agent_id.is_none() {
            return AgentToMaster::Register { info, incarnation };
        }
        let tasks = self.tasks.values().map(|task| RunningTask {
            framework_id: task.framework_id.clone(),
            info: without_payload(task.info.clone()),
            state: task.state,
            container_id: Some(task.container_id.clone()),
        });
        let executors = self.executors.values().map(|executor| RunningExecutor {
            framework_id: executor.framework_id.clone(),
            info: executor.info.clone(),
        });
        AgentToMaster::Reregister {
            info,
            incarnation,
            tasks: tasks.collect(),
            executors: executors.collect(),
            oversubscribed: self.samples.lent(),
        }
    }

    /// A connection is gone. Tasks run on.
    pub(super) fn link_down(&mut self, conn: Conn) {
        if self.link.is_some_and(|link| link.conn == conn) {
            self.link = None;
            self.clear_link_timers();
        }
    }

    fn clear_link_timers(&mut self) {
        for timer in [Timer::Registration, Timer::Heartbeat, Timer::Silence] {
            self.timers.clear(&timer);
        }
    }

    /// Gives the connection up.
    pub(super) fn reconnect(&mut self, reason: &str, out: &mut Outbox) {
        if let Some(link) = self.link.take() {
            self.clear_link_timers();
            out.effect(Effect::Reconnect {
                conn: link.conn,
                reason: reason.to_owned(),
            });
        }
    }

    /// The registration was not answered in time.
    pub(super) fn registration_timed_out(&mut self, out: &mut Outbox) {
        self.reconnect(
            "the master did not answer the registration within 10 s",
            out,
        );
    }

    /// The master has to hear something.
    pub(super) fn heartbeat(&mut self, now: Timestamp, out: &mut Outbox) {
        if let Some(link) = self.link.filter(|link| link.registered) {
            out.tell(link.conn, AgentToMaster::Heartbeat);
            self.timers
                .set(Timer::Heartbeat, now.plus_ms(link.heartbeat_interval_ms));
        }
    }

    /// Looks whether the master has been silent for too long.
    pub(super) fn silence(&mut self, now: Timestamp, out: &mut Outbox) {
        let Some(link) = self.link else {
            return;
        };
        let until = link.heard_at.plus_ms(link.unreachable_after_ms);
        if until > now {
            self.timers.set(Timer::Silence, until);
        } else {
            self.reconnect("the master has been silent for too long", out);
        }
    }

    /// A message of the master. Those of an earlier connection or generation are refused.
    pub(super) fn hear_master(
        &mut self,
        conn: Conn,
        generation: Generation,
        message: MasterToAgent,
        out: &mut Outbox,
    ) {
        let now = self.now;
        let current = self.link.as_mut().filter(|link| link.conn == conn);
        let Some(link) = current else {
            self.counters.stale_messages += 1;
            return;
        };
        if generation < self.generation {
            self.counters.stale_messages += 1;
            let reason = "the master at the other end no longer leads; if its registry was removed on \
                          purpose, end this agent's tasks and start it with an empty work folder";
            self.reconnect(reason, out);
            return;
        }
        link.heard_at = now;
        let registered = link.registered;
        match message {
            MasterToAgent::Registered {
                agent_id,
                heartbeat_interval_ms,
                unreachable_after_ms,
                ..
            } => {
                if !registered {
                    let times = (heartbeat_interval_ms.max(1), unreachable_after_ms.max(1));
                    self.registered(conn, agent_id, generation, times, out);
                }
            }
            MasterToAgent::Refused { message } => {
                out.effect(Effect::Stop { message });
            }
            MasterToAgent::Heartbeat => {}
            _ if !registered => self.counters.early_messages += 1,
            order => self.order(order, out),
        }
    }

    fn registered(
        &mut self,
        conn: Conn,
        agent_id: AgentId,
        generation: Generation,
        (heartbeat_interval_ms, unreachable_after_ms): (u64, u64),
        out: &mut Outbox,
    ) {
        let now = self.now;
        if let Some(mine) = &self.agent_id
            && *mine != agent_id
        {
            let message = format!(
                "The master calls this agent {agent_id}, but it is {mine}; end its tasks and start \
                 it with an empty work folder to join as a new agent"
            );
            out.effect(Effect::Stop { message });
            return;
        }
        if self.agent_id.is_none() {
            self.agent_id = Some(agent_id.clone());
            out.persist(Record::AgentId(agent_id.clone()));
        }
        if generation > self.generation {
            self.generation = generation;
            out.persist(Record::Generation(generation));
        }
        self.link = Some(Link {
            conn,
            registered: true,
            heard_at: now,
            heartbeat_interval_ms,
            unreachable_after_ms,
        });
        self.timers.clear(&Timer::Registration);
        self.timers
            .set(Timer::Heartbeat, now.plus_ms(heartbeat_interval_ms));
        self.timers
            .set(Timer::Silence, now.plus_ms(unreachable_after_ms));
        out.effect(Effect::Observe(Observation::Registered {
            agent_id,
            generation,
        }));
        self.tell_lent(out);
        self.samples.tell_all_classes();
        for message in std::mem::take(&mut self.owed) {
            out.tell(conn, message);
        }
        self.resend_all(now, out);
    }

    fn order(&mut self, order: MasterToAgent, out: &mut Outbox) {
        let now = self.now;
        match order {
            MasterToAgent::Launch {
                framework_id,
                user,
                incarnation,
                task,
            } => self.launch(framework_id, user, incarnation, *task, out),
            MasterToAgent::Kill {
                framework_id,
                task_id,
                grace_ms,
            } => self.kill(&(framework_id, task_id), grace_ms, out),
            MasterToAgent::Acknowledge {
                framework_id,
                task_id,
                uuid,
            } => self.acknowledge(&(framework_id, task_id), uuid, now, out),
            MasterToAgent::ShutdownFramework { framework_id } => {
                self.shutdown_framework(&framework_id, out);
            }
            MasterToAgent::ShutdownExecutor {
                framework_id,
                executor_id,
            } => self.shutdown_executor(&(framework_id, executor_id), out),
            MasterToAgent::Message {
                framework_id,
                executor_id,
                data,
            } => self.message_to_executor(&(framework_id, executor_id), data, out),
            MasterToAgent::Lots { version, dynamic } => self.take_lots(version, dynamic, out),
            MasterToAgent::Registered { .. }
            | MasterToAgent::Refused { .. }
            | MasterToAgent::Heartbeat => {}
        }
    }
}

/// A task without what only its program needs. Every task goes into the one message that registers the
/// agent anew; with payloads of up to half a MiB each it would not fit into a frame.
fn without_payload(mut info: TaskInfo) -> TaskInfo {
    info.data = Vec::new();
    if let Some(command) = &mut info.command {
        command.environment = Vec::new();
    }
    info
}
