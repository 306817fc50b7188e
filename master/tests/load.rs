//! Many tasks through a whole master over its real wire: none is lost, none is told twice over, and
//! everything is free at the end. Prints the rate; the bar for it stands in the benchmarks.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::collections::BTreeSet;
use std::time::Instant;

use ebb_api::proto::StateRequest;
use ebb_types::{
    AgentToMaster, Call, ClusterState, Event, MasterToAgent, Quantities, Resources, Source, TaskId,
    TaskInfo, TaskState, TaskStatus, Timestamp, UpdateUuid,
};
use support::{Agent, Master, accept, agent_info, config, framework_info, soon, task};

const AGENTS: usize = 20;
const TASKS: usize = 10_000;

/// An agent whose tasks end with success as soon as they are launched.
async fn play(mut agent: Agent) {
    let mut count = 0;
    while let Ok(Some(order)) = agent.next().await {
        if let MasterToAgent::Launch {
            framework_id, task, ..
        } = order
        {
            count += 1;
            let now = Timestamp::from_ms(count);
            let mut status =
                TaskStatus::new(task.task_id, TaskState::Finished, Source::Executor, now);
            status.uuid = Some(UpdateUuid::of(agent.incarnation, count));
            agent.say(AgentToMaster::Update {
                framework_id,
                status,
                latest_state: TaskState::Finished,
            });
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_tasks_end_once_each_and_leave_everything_free() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(config(folder.path())).await;
    let mut agents = Vec::new();
    for _ in 0..AGENTS {
        let mut agent = master.agent().await;
        agent.say(AgentToMaster::Register {
            info: agent_info(),
            incarnation: agent.incarnation,
        });
        agent.registered().await;
        agents.push(tokio::spawn(play(agent)));
    }
    let mut scheduler = master.scheduler().await;
    scheduler.subscribe(framework_info("load")).await;
    let started = Instant::now();
    let each = Quantities::cpus_mem(100, 1 << 20);
    let (mut next, mut ended) = (0, BTreeSet::new());
    while ended.len() < TASKS {
        match scheduler.next().await.unwrap().expect("the stream ended") {
            Event::Offers(offers) => {
                for offer in offers {
                    let fits = offer.resources.regular.cpu_milli() / each.cpu_milli();
                    let count = usize::try_from(fits).unwrap().min(TASKS - next);
                    let tasks = (next..next + count).map(|number| TaskInfo {
                        lots: ebb_types::Lots::NONE,
                        resources: Resources::regular(each),
                        ..task(&format!("task-{number}"), &offer.agent_id)
                    });
                    scheduler.call(accept(&offer, tasks.collect()));
                    next += count;
                    if next == TASKS {
                        scheduler.call(Call::Suppress { roles: Vec::new() });
                    }
                }
            }
            Event::Update(status) => {
                assert_eq!(status.state, TaskState::Finished, "{status:?}");
                assert!(
                    ended.insert(status.task_id.clone()),
                    "{} ended twice",
                    status.task_id
                );
                scheduler.call(Call::Acknowledge {
                    agent_id: status.agent_id.unwrap(),
                    task_id: status.task_id,
                    uuid: status.uuid.unwrap(),
                });
            }
            _ => {}
        }
    }
    let rate = TASKS as f64 / started.elapsed().as_secs_f64();
    println!("{rate:.0} tasks a second");
    assert!(ended.contains(&TaskId::new("task-0").unwrap()));
    let mut operator = master.operator().await;
    loop {
        let wire = soon(operator.get_state(StateRequest::default()))
            .await
            .unwrap()
            .into_inner();
        let state = ClusterState::try_from(wire).unwrap();
        let held = state.agents.iter().any(|agent| !agent.allocated.is_zero());
        assert!(!held, "something is still allocated");
        // The last acknowledgements may be on their way.
        if state.tasks.iter().all(|task| task.state.is_terminal())
            && state.frameworks[0].live_tasks == 0
        {
            break;
        }
    }
    master.stop().await;
    for agent in agents {
        soon(agent).await.unwrap();
    }
}
