//! What the session and the engine promise, as sentences.

mod operations;

use ebb_types::{
    AgentId, Call, Event, ExitStatus, FrameworkId, Generation, Incarnation, MasterInfo, Offer,
    OfferId, Quantities, Reason, Resources, Role, Source, TaskId, TaskState, TaskStatus, Timestamp,
    UpdateUuid,
};

use super::config::{
    RECONCILE_CAP_MS, RECONNECT_CAP_MS, RECONNECT_FIRST_MS, STABLE_AFTER_MS, SUBSCRIBE_TIMEOUT_MS,
    TEARDOWN_TIMEOUT_MS,
};
use super::session::HOLD_ANSWERS_MS;
use super::*;
use crate::command::CommandSpec;
use crate::offers::Demand;

const HEARTBEAT_MS: u64 = 1_000;

/// Notes what it hears, and does what a test asks for.
#[derive(Default)]
struct Recorder {
    heard: Vec<String>,
    refuse_updates: bool,
    then: Vec<Then>,
    errors: Vec<String>,
}

type Then = Box<dyn FnOnce(&mut Calls) + Send>;

impl Recorder {
    fn act(&mut self, calls: &mut Calls, heard: String) {
        self.heard.push(heard);
        for then in self.then.drain(..) {
            then(calls);
        }
    }
}

impl Scheduler for Recorder {
    fn subscribed(&mut self, calls: &mut Calls, subscribed: &Subscribed) -> Outcome {
        self.act(calls, format!("subscribed again {}", subscribed.again));
        Ok(())
    }

    fn offers(&mut self, calls: &mut Calls, offers: Vec<Offer>) -> Outcome {
        self.act(calls, format!("{} offers", offers.len()));
        if self.refuse_updates {
            calls.suppress(Vec::new());
            return Err("not now".into());
        }
        Ok(())
    }

    fn update(&mut self, calls: &mut Calls, status: &TaskStatus) -> Outcome {
        let heard = format!("{} {}", status.task_id, status.state.name());
        if self.refuse_updates {
            self.heard.push(format!("refused {heard}"));
            return Err("not now".into());
        }
        self.act(calls, heard);
        Ok(())
    }

    fn operation(&mut self, calls: &mut Calls, status: &OperationStatus) -> Outcome {
        let heard = format!("{} {}", status.id, status.state.name());
        if self.refuse_updates {
            return Err("not now".into());
        }
        self.act(calls, heard);
        Ok(())
    }

    fn woken(&mut self, calls: &mut Calls) -> Outcome {
        self.act(calls, "woken".into());
        Ok(())
    }

    fn error(&mut self, message: &str) {
        self.errors.push(message.to_owned());
    }

    fn disconnected(&mut self, calls: &mut Calls, cause: &str) -> Outcome {
        self.act(calls, format!("disconnected: {cause}"));
        Ok(())
    }
}

struct Bench {
    engine: Engine<Recorder>,
    now: Timestamp,
    attempt: u64,
}

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("valid")
}

fn subscribed_event() -> Event {
    Event::Subscribed {
        framework_id: id::<FrameworkId>("f"),
        heartbeat_interval_ms: HEARTBEAT_MS,
        master: MasterInfo {
            id: "m".into(),
            generation: Generation(1),
            hostname: "h".into(),
            port: 1,
            version: "0".into(),
            domain: None,
        },
    }
}

fn status(task: &str, state: TaskState, count: Option<u64>) -> TaskStatus {
    TaskStatus {
        agent_id: Some(id::<AgentId>("a")),
        uuid: count.map(|count| UpdateUuid::of(Incarnation(1), count)),
        ..TaskStatus::new(id(task), state, Source::Agent, Timestamp::from_ms(0))
    }
}

fn answer(task: &str, state: TaskState) -> TaskStatus {
    TaskStatus {
        reason: Some(Reason::Reconciliation),
        source: Source::Master,
        ..status(task, state, None)
    }
}

fn offer() -> Offer {
    Offer {
        id: id::<OfferId>("o"),
        framework_id: id("f"),
        agent_id: id("a"),
        hostname: "h".into(),
        role: id::<Role>("*"),
        lots: ebb_types::Lots::NONE,
        resources: Resources::regular(Quantities::cpus_mem(4000, 4 << 30)),
        attributes: Vec::new(),
        executor_ids: Vec::new(),
        deadline: None,
        domain: None,
        unavailability: None,
        lasting: ebb_types::Lasting::UNKNOWN,
    }
}

fn launch(task: &str) -> Then {
    let task_id: TaskId = id(task);
    Box::new(move |calls| {
        let offer = offer();
        let demand = Demand::cpus_mem(100, 1);
        let task = CommandSpec::shell("true").to_task(task_id, offer.agent_id.clone(), &demand);
        calls.launch(&offer, vec![task]);
    })
}

fn sent(out: &[Output]) -> Vec<Call> {
    out.iter()
        .filter_map(|output| match output {
            Output::Send(call) => Some(call.clone()),
            _ => None,
        })
        .collect()
}

fn asks_for(calls: &[Call]) -> Vec<Vec<String>> {
    calls
        .iter()
        .filter_map(|call| match call {
            Call::Reconcile { tasks } => {
                Some(tasks.iter().map(|task| task.task_id.to_string()).collect())
            }
            _ => None,
        })
        .collect()
}

impl Bench {
    fn new(masters: &[&str], change: impl FnOnce(&mut SchedulerConfig)) -> Self {
        let mut config = SchedulerConfig::new(masters.iter().copied(), "test");
        change(&mut config);
        let now = Timestamp::from_ms(1_000_000);
        Self {
            engine: Engine::new(Recorder::default(), &config, now, 1),
            now,
            attempt: 0,
        }
    }

    fn subscribed() -> Self {
        let mut bench = Self::new(&["m"], |_| {});
        bench.subscribe();
        bench.heard();
        bench
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        let out = self.engine.step(self.now, input);
        for output in &out {
            if let Output::Connect { attempt, .. } = output {
                self.attempt = *attempt;
            }
        }
        out
    }

    fn event(&mut self, event: Event) -> Vec<Output> {
        let attempt = self.attempt;
        self.step(Input::Event { attempt, event })
    }

    fn update(&mut self, status: TaskStatus) -> Vec<Call> {
        sent(&self.event(Event::Update(status)))
    }

    fn broken(&mut self) -> Vec<Output> {
        let attempt = self.attempt;
        self.step(Input::Broken {
            attempt,
            cause: "it broke".into(),
            fatal: false,
        })
    }

    /// Lets time pass until something is due; gives how long that was.
    fn until_due(&mut self) -> (u64, Vec<Output>) {
        let due = self.engine.next_wake().expect("something is due");
        let waited_ms = due.ms_since(self.now);
        self.now = self.now.max(due);
        (waited_ms, self.step(Input::Tick))
    }

    fn pass(&mut self, ms: u64) -> Vec<Output> {
        self.now = self.now.plus_ms(ms);
        self.step(Input::Tick)
    }

    fn subscribe(&mut self) -> Vec<Call> {
        while !self.engine.session().is_subscribed() {
            let (_, out) = self.until_due();
            if out
                .iter()
                .any(|output| matches!(output, Output::Connect { .. }))
            {
                return sent(&self.event(subscribed_event()));
            }
        }
        Vec::new()
    }

    fn then(&mut self, then: Then) {
        self.engine_mut().then.push(then);
    }

    fn wake(&mut self, then: Then) -> Vec<Output> {
        self.then(then);
        self.step(Input::Wake)
    }

    fn engine_mut(&mut self) -> &mut Recorder {
        self.engine.scheduler_mut()
    }

    fn heard(&mut self) -> Vec<String> {
        std::mem::take(&mut self.engine_mut().heard)
    }

    fn counters(&self) -> Counters {
        *self.engine.session().counters()
    }
}

#[test]
fn the_first_wait_is_at_most_100_ms_and_later_ones_grow_to_10_s() {
    let mut bench = Bench::new(&["m"], |_| {});
    assert_eq!(
        bench.until_due().0,
        0,
        "the first connection is due at once"
    );
    let mut waits = Vec::new();
    for _ in 0..40 {
        bench.broken();
        waits.push(bench.until_due().0);
    }
    assert!(waits[0] <= RECONNECT_FIRST_MS);
    assert!(waits.iter().all(|wait| *wait <= RECONNECT_CAP_MS));
    assert!(
        waits[10..].iter().max() > Some(&(RECONNECT_CAP_MS / 2)),
        "{waits:?}"
    );
    let distinct: std::collections::BTreeSet<_> = waits[10..].iter().collect();
    assert!(distinct.len() > 20, "waits are spread: {waits:?}");
}

#[test]
fn a_subscription_that_stood_makes_the_waits_short_again_but_a_flapping_one_does_not() {
    let mut bench = Bench::new(&["m"], |_| {});
    for _ in 0..12 {
        bench.subscribe();
        bench.broken();
    }
    let flapping: u64 = (0..20)
        .map(|_| {
            let (waited_ms, _) = bench.until_due();
            bench.event(subscribed_event());
            bench.broken();
            waited_ms
        })
        .sum();
    assert!(flapping > 20 * RECONNECT_FIRST_MS, "{flapping} ms");
    bench.subscribe();
    bench.now = bench.now.plus_ms(STABLE_AFTER_MS);
    bench.broken();
    assert!(bench.until_due().0 <= RECONNECT_FIRST_MS);
}

#[test]
fn masters_are_tried_in_turn_and_the_one_that_led_first() {
    let mut bench = Bench::new(&["a", "b", "c"], |_| {});
    let mut tried = Vec::new();
    let connect = |out: &[Output]| {
        out.iter().find_map(|output| match output {
            Output::Connect { master, .. } => Some(*master),
            _ => None,
        })
    };
    for _ in 0..4 {
        let (_, out) = bench.until_due();
        tried.extend(connect(&out));
        bench.broken();
    }
    assert_eq!(tried, [0, 1, 2, 0]);
    bench.until_due();
    bench.event(subscribed_event());
    bench.broken();
    let (_, out) = bench.until_due();
    assert_eq!(
        connect(&out),
        Some(1),
        "the second one had taken the subscription"
    );
}

#[test]
fn a_master_that_is_silent_for_five_intervals_is_given_up() {
    let mut bench = Bench::subscribed();
    for _ in 0..20 {
        assert!(bench.pass(4 * HEARTBEAT_MS).is_empty());
        bench.event(Event::Heartbeat);
    }
    let (waited_ms, out) = bench.until_due();
    assert_eq!(waited_ms, 5 * HEARTBEAT_MS);
    assert_eq!(out, [Output::Disconnect]);
    assert!(bench.heard()[0].contains("nothing was heard"));
    assert_eq!(bench.counters().silences, 1);
}

#[test]
fn a_master_that_does_not_answer_a_subscription_is_given_up() {
    let mut bench = Bench::new(&["m"], |_| {});
    bench.until_due();
    let (waited_ms, out) = bench.until_due();
    assert_eq!(waited_ms, SUBSCRIBE_TIMEOUT_MS);
    assert_eq!(out, [Output::Disconnect]);
}

#[test]
fn without_a_first_subscription_in_time_it_gives_up_with_the_cause() {
    let mut bench = Bench::new(&["m"], |config| {
        config.timing.give_up_after_ms = Some(3_000)
    });
    let start = bench.now;
    let finished = loop {
        let (_, out) = bench.until_due();
        match out.as_slice() {
            [Output::Finished(finished)] => break finished.clone(),
            _ => bench.broken(),
        };
    };
    assert_eq!(bench.now.ms_since(start), 3_000);
    let Finished::GaveUp { waited_ms, cause } = finished else {
        panic!("{finished:?}");
    };
    assert_eq!((waited_ms, cause.as_str()), (3_000, "it broke"));
}

#[test]
fn a_status_is_acknowledged_after_its_callback_and_before_what_the_callback_asked_for() {
    let mut bench = Bench::subscribed();
    bench.then(Box::new(|calls| calls.suppress(Vec::new())));
    let calls = bench.update(status("t", TaskState::Running, Some(1)));
    assert!(
        matches!(calls[..], [Call::Acknowledge { .. }, Call::Suppress { .. }]),
        "{calls:?}"
    );
    assert!(
        bench
            .update(status("t", TaskState::Running, None))
            .is_empty(),
        "it has no uuid"
    );
}

#[test]
fn a_status_that_was_taken_comes_no_second_time_but_is_acknowledged_again() {
    let mut bench = Bench::subscribed();
    let update = status("t", TaskState::Running, Some(1));
    bench.update(update.clone());
    let calls = bench.update(update);
    assert!(matches!(calls[..], [Call::Acknowledge { .. }]), "{calls:?}");
    assert_eq!(bench.heard(), ["t TASK_RUNNING"]);
    assert_eq!(bench.counters().duplicates, 1);
}

#[test]
fn a_status_that_was_not_taken_is_not_acknowledged_and_comes_again() {
    let mut bench = Bench::subscribed();
    bench.engine_mut().refuse_updates = true;
    let update = status("t", TaskState::Finished, Some(1));
    assert!(bench.update(update.clone()).is_empty());
    bench.engine_mut().refuse_updates = false;
    assert_eq!(bench.update(update).len(), 1);
    assert_eq!(
        bench.heard(),
        ["refused t TASK_FINISHED", "t TASK_FINISHED"]
    );
    assert_eq!(bench.counters().failed_callbacks, 1);
}

#[test]
fn of_a_callback_that_fails_nothing_is_sent_and_its_offers_are_declined() {
    let mut bench = Bench::subscribed();
    bench.engine_mut().refuse_updates = true;
    let calls = sent(&bench.event(Event::Offers(vec![offer()])));
    assert!(
        matches!(&calls[..], [Call::Decline { offer_ids, .. }] if offer_ids.len() == 1),
        "{calls:?}"
    );
}

#[test]
fn an_explicit_acknowledgement_is_left_to_the_framework() {
    let mut bench = Bench::new(&["m"], |config| {
        config.acknowledgement = Acknowledgement::Explicit;
    });
    bench.subscribe();
    let update = status("t", TaskState::Finished, Some(1));
    assert!(bench.update(update.clone()).is_empty());
    assert!(
        bench.update(update.clone()).is_empty(),
        "and it comes again until then"
    );
    let later = update.clone();
    let out = bench.wake(Box::new(move |calls| calls.acknowledge(&later)));
    assert!(matches!(sent(&out)[..], [Call::Acknowledge { .. }]));
    bench.heard();
    assert_eq!(
        bench.update(update).len(),
        1,
        "known and acknowledged again"
    );
    assert!(bench.heard().is_empty());
}

#[test]
fn a_new_subscription_asks_for_everything_then_by_name_with_growing_waits() {
    let mut bench = Bench::subscribed();
    for task in ["heard", "silent"] {
        bench.wake(launch(task));
    }
    bench.broken();
    let calls = bench.subscribe();
    assert_eq!(asks_for(&calls), [Vec::<String>::new()], "implicit first");
    bench.update(answer("heard", TaskState::Running));
    let mut waits = Vec::new();
    for _ in 0..8 {
        let before = bench.now;
        let mut asked = None;
        for _ in 0..(2 * RECONCILE_CAP_MS / HEARTBEAT_MS) {
            let out = bench.pass(HEARTBEAT_MS);
            bench.event(Event::Heartbeat);
            asked = asks_for(&sent(&out)).pop();
            if asked.is_some() {
                break;
            }
        }
        let asked = asked.expect("it is asked for at least once a minute");
        assert_eq!(asked, ["silent"]);
        waits.push(bench.now.ms_since(before) / 1_000);
    }
    assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60]);
    bench.update(answer("silent", TaskState::Gone));
    for _ in 0..(2 * RECONCILE_CAP_MS / HEARTBEAT_MS) {
        assert!(
            bench.pass(HEARTBEAT_MS).is_empty(),
            "nothing is left to ask for"
        );
        bench.event(Event::Heartbeat);
    }
}

#[test]
fn a_task_that_is_out_of_reach_is_asked_for_now_and_then() {
    let mut bench = Bench::subscribed();
    bench.update(status("t", TaskState::Unreachable, None));
    let mut asked = 0;
    for _ in 0..(3 * RECONCILE_CAP_MS / HEARTBEAT_MS + 1) {
        asked += asks_for(&sent(&bench.pass(HEARTBEAT_MS))).len();
        bench.event(Event::Heartbeat);
    }
    assert_eq!(asked, 3);
}

#[test]
fn a_launch_that_cannot_be_sent_is_said_to_be_dropped() {
    let mut bench = Bench::subscribed();
    bench.then(launch("t"));
    let out = bench.broken();
    assert!(sent(&out).is_empty());
    assert_eq!(bench.heard(), ["disconnected: it broke", "t TASK_DROPPED"]);
    assert_eq!(bench.counters().dropped_tasks, 1);
}

#[test]
fn a_kill_is_said_again_on_a_new_connection_until_the_end_is_known() {
    let mut bench = Bench::subscribed();
    bench.wake(launch("t"));
    bench.wake(Box::new(|calls| calls.kill(&id("t"), None, Some(7))));
    let is_kill = |call: &Call| {
        matches!(
            call,
            Call::Kill {
                grace_ms: Some(7),
                ..
            }
        )
    };
    bench.broken();
    assert!(bench.subscribe().iter().any(is_kill));
    bench.update(status("t", TaskState::Killed, Some(1)));
    bench.broken();
    assert!(!bench.subscribe().iter().any(is_kill));
}

#[test]
fn events_of_an_earlier_connection_are_refused() {
    let mut bench = Bench::subscribed();
    let old = bench.attempt;
    bench.broken();
    bench.subscribe();
    bench.heard();
    let event = Event::Update(status("t", TaskState::Running, Some(1)));
    assert!(
        bench
            .step(Input::Event {
                attempt: old,
                event
            })
            .is_empty()
    );
    let cause = "late".into();
    let fatal = true;
    assert!(
        bench
            .step(Input::Broken {
                attempt: old,
                cause,
                fatal
            })
            .is_empty()
    );
    assert!(bench.heard().is_empty());
    assert_eq!(bench.counters().stale_events, 2);
}

#[test]
fn what_was_suppressed_stays_so_over_connections_even_when_said_between_them() {
    let mut bench = Bench::subscribed();
    bench.wake(Box::new(|calls| calls.suppress(Vec::new())));
    bench.broken();
    let (_, out) = bench.until_due();
    let suppressed = out.iter().find_map(|output| match output {
        Output::Connect { subscribe, .. } => match subscribe.as_ref() {
            Call::Subscribe {
                suppressed_roles, ..
            } => Some(suppressed_roles.len()),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(suppressed, Some(1));
    bench.wake(Box::new(|calls| calls.revive(Vec::new())));
    let calls = sent(&bench.event(subscribed_event()));
    assert!(
        calls.iter().any(|call| matches!(call, Call::Revive { .. })),
        "{calls:?}"
    );
}

#[test]
fn an_error_of_the_master_is_the_end() {
    let mut bench = Bench::subscribed();
    let out = bench.event(Event::Error("Framework failed over".into()));
    assert!(
        matches!(&out[..], [Output::Finished(Finished::Refused { message })] if message.contains("failed over"))
    );
    assert_eq!(bench.engine_mut().errors, ["Framework failed over"]);
    assert_eq!(bench.engine.next_wake(), None);
    assert!(bench.event(Event::Heartbeat).is_empty());
}

#[test]
fn a_teardown_is_repeated_until_it_is_confirmed() {
    let mut bench = Bench::subscribed();
    let out = bench.step(Input::End(Ending::Teardown));
    assert_eq!(sent(&out), [Call::Teardown]);
    bench.broken();
    assert_eq!(bench.subscribe(), [Call::Teardown]);
    let out = bench.event(Event::Error("Framework has been removed".into()));
    let told = Finished::Asked {
        ending: Ending::Teardown,
        told: true,
    };
    assert_eq!(out, [Output::Finished(told)]);
    assert!(
        bench.engine_mut().errors.is_empty(),
        "it is no error: it was asked for"
    );
}

#[test]
fn a_teardown_that_nobody_confirms_ends_all_the_same_and_says_so() {
    let mut bench = Bench::subscribed();
    let start = bench.now;
    bench.step(Input::End(Ending::Teardown));
    let untold = loop {
        if let [Output::Finished(finished)] = &bench.until_due().1[..] {
            break finished.clone();
        }
    };
    assert!(matches!(untold, Finished::Asked { told: false, .. }));
    assert_eq!(bench.now.ms_since(start), TEARDOWN_TIMEOUT_MS);
}

#[test]
fn a_detached_framework_leaves_without_a_word_to_its_tasks() {
    let mut bench = Bench::subscribed();
    let out = bench.step(Input::End(Ending::Detach));
    assert!(sent(&out).is_empty());
    assert!(matches!(
        out[..],
        [Output::Finished(Finished::Asked { told: true, .. })]
    ));
}

#[test]
fn an_answer_that_does_not_say_how_a_task_ended_waits_for_the_agents_own_status() {
    let mut bench = Bench::subscribed();
    bench.update(status("t", TaskState::Running, Some(1)));
    bench.update(status("u", TaskState::Running, Some(1)));
    bench.heard();
    for task in ["t", "u"] {
        bench.update(answer(task, TaskState::Failed));
    }
    assert!(bench.heard().is_empty());
    let mut own = status("t", TaskState::Failed, Some(2));
    own.exit = Some(ExitStatus::Code(3));
    bench.update(own);
    assert_eq!(bench.heard(), ["t TASK_FAILED"]);
    bench.now = bench.now.plus_ms(HOLD_ANSWERS_MS);
    bench.update(answer("u", TaskState::Failed));
    assert_eq!(bench.heard(), ["u TASK_FAILED"], "it stays the only word");
}

#[test]
fn a_scheduler_is_woken_when_it_asked_for_it() {
    let mut bench = Bench::subscribed();
    let at = bench.now.plus_ms(700);
    bench.wake(Box::new(move |calls| {
        calls.wake_at(at.plus_ms(100));
        calls.wake_at(at);
    }));
    bench.heard();
    assert_eq!(bench.until_due().0, 700);
    assert_eq!(bench.heard(), ["woken"]);
}

#[test]
fn inverse_offers_are_accepted_where_a_scheduler_says_nothing_else() {
    let mut bench = Bench::subscribed();
    let inverse = ebb_types::InverseOffer {
        id: id("i1"),
        framework_id: id("framework"),
        agent_id: id("a"),
        hostname: "h".into(),
        unavailability: ebb_types::Unavailability {
            start: bench.now,
            duration_ms: None,
        },
    };
    let out = bench.event(Event::InverseOffers(vec![inverse]));
    let accepted = Call::AcceptInverseOffers {
        offer_ids: vec![id("i1")],
        filters: super::ASK_AGAIN,
    };
    assert_eq!(sent(&out), [accepted]);
    assert_eq!(sent(&bench.event(Event::RescindInverseOffer(id("i1")))), []);
}
