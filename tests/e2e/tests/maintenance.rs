//! Maintenance of a machine, from its plan to its end, over restarts of the master.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use ebb_tests_e2e::framework::Heard;
use ebb_tests_e2e::{Cluster, Framework, host};
use ebb_types::{
    AgentActivity, AgentId, Filters, InverseAnswer, InverseOffer, Lots, MaintenanceMode, Offer,
    Quantities, Resources, TaskState,
};

const HOST: &str = "127.0.0.1";

fn inverse(framework: &mut Framework) -> InverseOffer {
    framework.until("an inverse offer", |heard| match heard {
        Heard::Inverse(offer) => Some(offer.clone()),
        _ => None,
    })
}

fn wait_for_answer(cluster: &Cluster, answer: InverseAnswer) {
    cluster.wait_until(answer.name(), |state| {
        let answers = &state.maintenance.first()?.answers;
        answers.iter().any(|one| one.answer == answer).then_some(())
    });
}

fn maintenance(cluster: &Cluster, args: &[&str]) {
    let mut all = vec!["maintenance"];
    all.extend(args);
    let ended = cluster.ebb(&all);
    assert_eq!(ended.code(), 0, "{ended:?}");
}

/// What each task takes.
fn small() -> Resources {
    Resources::regular(Quantities::cpus_mem(100, 16 << 20))
}

fn plan_is_answered_and_outlives_the_master(
    cluster: &mut Cluster,
    framework: &mut Framework,
    offer: &Offer,
) {
    // It is planned: whoever has tasks there is asked, and offers say when.
    maintenance(cluster, &["schedule", "--in", "1h", "--for", "30m", HOST]);
    let asked = inverse(framework);
    assert_eq!(asked.agent_id, offer.agent_id);
    assert_eq!(asked.unavailability.duration_ms, Some(30 * 60 * 1000));
    let warned = framework.offer("an offer with its end", |offer| {
        offer.unavailability.is_some()
    });
    assert_eq!(warned.unavailability, Some(asked.unavailability));
    let for_long = Filters {
        refuse_ms: 3_600_000,
    };
    framework.ask(move |calls| calls.decline_inverse(vec![asked.id], for_long));
    wait_for_answer(cluster, InverseAnswer::Declined);
    let shown = cluster.ebb(&["maintenance", "status", "--json"]).json();
    assert_eq!(shown[0]["mode"], "scheduled", "{shown:#}");
    assert_eq!(shown[0]["answers"][0]["answer"], "declined", "{shown:#}");

    // The plan outlives the master, and the framework is asked by the next.
    cluster.kill9_master();
    cluster.start_master();
    let again = inverse(framework);
    assert_eq!(again.unavailability, warned.unavailability.unwrap());
    framework.ask(move |calls| calls.accept_inverse(vec![again.id], for_long));
    wait_for_answer(cluster, InverseAnswer::Accepted);
}

fn start_ends_what_is_left_for_this_master_and_the_next(
    cluster: &mut Cluster,
    framework: &mut Framework,
    container: &str,
) {
    // It is started: what is left there ends, and nothing of it is offered.
    let pids = host::processes_of(cluster.base(), container);
    assert!(!pids.is_empty(), "no process in {container}");
    framework.news();
    maintenance(cluster, &["start", HOST]);
    let ended = framework.until("the end of the task", |heard| match heard {
        Heard::Status(status) if status.state.is_terminal() => Some(status.clone()),
        _ => None,
    });
    assert_eq!(
        ended.reason,
        Some(ebb_types::Reason::AgentDraining),
        "{ended:#?}"
    );
    host::await_gone(&pids, ebb_tests_e2e::PATIENCE);
    let is_drained = |state: &ebb_types::ClusterState| {
        let drained = state.agents.first()?.activity == AgentActivity::Drained;
        let down = state.maintenance.first()?.window.mode == MaintenanceMode::Down;
        let is_back = state.agents[0].status == ebb_types::AgentStatus::Registered;
        (drained && down && is_back && state.offers.is_empty()).then_some(())
    };
    cluster.wait_until("a drained agent", is_drained);
    cluster.kill9_master();
    cluster.start_master();
    cluster.wait_until("an agent that is drained still", is_drained);
    let refused = cluster.ebb(&["maintenance", "cancel", HOST]);
    assert_eq!(refused.code(), 1, "{refused:?}");
    assert!(refused.stderr.contains("stop"), "{refused:?}");
}

fn stop_offers_the_agent_again(cluster: &Cluster, framework: &mut Framework, agent_id: &AgentId) {
    // It is stopped: the agent is offered as before. Nothing was before that.
    framework.until("the master that was started last", |heard| {
        (*heard == Heard::Subscribed).then_some(())
    });
    let id = cluster.state().frameworks.remove(0).id.to_string();
    let explained = cluster.ebb(&["explain", &id]);
    assert!(explained.stdout.contains("drained"), "{explained:?}");
    let offers = framework
        .news()
        .into_iter()
        .filter(|heard| matches!(heard, Heard::Offer(_)));
    assert_eq!(offers.count(), 0, "it was offered while it is out of use");
    maintenance(cluster, &["stop", HOST]);
    let offer = framework.offer("the agent again", |_| true);
    assert_eq!((offer.unavailability, &offer.agent_id), (None, agent_id));
    assert_eq!(cluster.state().maintenance, []);
    framework.launch(&offer, "next", "exit 0", (small(), Lots::NONE));
    framework.state("next", TaskState::Finished);
}

#[test]
fn a_machine_is_asked_back_taken_out_of_use_and_brought_back_over_restarts_of_the_master() {
    let mut cluster = Cluster::start();
    let mut framework = Framework::start(cluster.address(), "tenant", |_| ());
    let offer = framework.offer("an offer", |_| true);
    assert_eq!(offer.unavailability, None);
    let line = "trap 'exit 0' TERM; while :; do sleep 1; done";
    framework.launch(&offer, "tenant", line, (small(), Lots::NONE));
    let status = framework.state("tenant", TaskState::Running);
    let container = status.container_id.unwrap().to_string();

    plan_is_answered_and_outlives_the_master(&mut cluster, &mut framework, &offer);
    start_ends_what_is_left_for_this_master_and_the_next(&mut cluster, &mut framework, &container);
    stop_offers_the_agent_again(&cluster, &mut framework, &offer.agent_id);
    framework.finish();
    cluster.finish();
}
