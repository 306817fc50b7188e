//! Answers to operations over the real wire and the real registry: a master is stopped at the worst moments, and its
//! framework learns of each operation exactly what became of it.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::path::Path;

use ebb_types::{
    AgentId, AgentInfo, AgentToMaster, Call, Event, Filters, FrameworkId, FrameworkInfo, LotKey,
    LotValue, Lots, MasterToAgent, Offer, Operation, OperationId, OperationKind, OperationState,
    OperationStatus, Quantities, Reservation, ReservationKind, Role,
};
use support::{Agent, Master, Scheduler, agent_info, config, framework_info};

fn role() -> Role {
    Role::new("eng").unwrap()
}

fn in_role(id: Option<&FrameworkId>) -> FrameworkInfo {
    FrameworkInfo {
        id: id.cloned(),
        roles: vec![role()],
        ..framework_info("f")
    }
}

/// One core, reserved.
fn one_core() -> Lots {
    let mut key = LotKey::named("cpus");
    key.reservations.push(Reservation {
        role: role(),
        kind: ReservationKind::Dynamic,
        principal: String::new(),
        labels: Vec::new(),
    });
    Lots::new([(key, LotValue::Scalar(1000))]).unwrap()
}

fn reserve(scheduler: &Scheduler, offer: Offer, id: &str) {
    scheduler.call(Call::Accept {
        offer_ids: vec![offer.id],
        operations: vec![Operation::Convert {
            id: OperationId::new(id).ok(),
            kind: OperationKind::Reserve,
            lots: one_core(),
        }],
        filters: Filters { refuse_ms: 0 },
    });
}

async fn ordered(agent: &mut Agent) -> u64 {
    agent
        .until(|order| match order {
            MasterToAgent::Lots { version, .. } => Some(version),
            _ => None,
        })
        .await
}

async fn answered(scheduler: &mut Scheduler) -> OperationStatus {
    scheduler
        .until(|event| match event {
            Event::Operation(status) => Some(status),
            _ => None,
        })
        .await
}

/// What is said of an operation that is asked for.
async fn asked(scheduler: &mut Scheduler, id: &str) -> OperationState {
    let ids = vec![OperationId::new(id).unwrap()];
    scheduler.call(Call::ReconcileOperations { ids });
    answered(scheduler).await.state
}

/// A master and a framework that comes back to it.
async fn next(folder: &Path, framework: &FrameworkId) -> (Master, Scheduler) {
    let master = Master::start(config(folder)).await;
    let mut scheduler = master.scheduler().await;
    scheduler.subscribe(in_role(Some(framework))).await;
    (master, scheduler)
}

/// An agent comes back after it has carried out an order.
async fn come_back(master: &Master, agent_id: &AgentId, version: u64) -> Agent {
    let mut agent = master.agent().await;
    agent.say(AgentToMaster::Reregister {
        info: AgentInfo {
            id: Some(agent_id.clone()),
            total: Quantities::cpus_mem(3000, 4 << 30),
            lots: one_core(),
            lots_version: version,
            ..agent_info()
        },
        incarnation: agent.incarnation,
        tasks: Vec::new(),
        executors: Vec::new(),
        oversubscribed: Quantities::ZERO,
    });
    assert_eq!(agent.registered().await, *agent_id);
    agent
}

#[tokio::test]
async fn a_framework_learns_what_became_of_its_operations_over_restarts_of_the_master() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(config(folder.path())).await;
    let mut scheduler = master.scheduler().await;
    let framework = scheduler.subscribe(in_role(None)).await;
    let mut agent = master.agent().await;
    agent.say(AgentToMaster::Register {
        info: agent_info(),
        incarnation: agent.incarnation,
    });
    let agent_id = agent.registered().await;
    let offer = scheduler.offer().await;
    reserve(&scheduler, offer, "a");
    let version = ordered(&mut agent).await;
    // The agent carries it out, and nobody hears of it.
    master.stop().await;

    let (master, mut scheduler) = next(folder.path(), &framework).await;
    assert_eq!(asked(&mut scheduler, "a").await, OperationState::Recovering);
    let agent = come_back(&master, &agent_id, version).await;
    let answer = answered(&mut scheduler).await;
    assert_eq!(answer.state, OperationState::Finished);
    drop((scheduler, agent));
    // The framework never took it in.
    master.stop().await;

    let (master, mut scheduler) = next(folder.path(), &framework).await;
    assert_eq!(answered(&mut scheduler).await, answer);
    let mut agent = come_back(&master, &agent_id, version).await;
    // The same call again, as for want of an answer, does nothing but answer.
    let offer = scheduler.offer().await;
    reserve(&scheduler, offer, "a");
    assert_eq!(answered(&mut scheduler).await, answer);
    let offer = scheduler.offer().await;
    scheduler.call(Call::AcknowledgeOperation {
        id: answer.id.clone(),
        uuid: answer.uuid.unwrap(),
    });
    assert_eq!(asked(&mut scheduler, "a").await, OperationState::Unknown);
    reserve(&scheduler, offer, "b");
    assert_eq!(ordered(&mut agent).await, version + 1, "the first since");
    master.stop().await;

    let (master, mut scheduler) = next(folder.path(), &framework).await;
    assert_eq!(asked(&mut scheduler, "a").await, OperationState::Unknown);
    // The order of the other was lost on the way.
    let _agent = come_back(&master, &agent_id, version).await;
    let answer = answered(&mut scheduler).await;
    assert_eq!(
        (answer.id.as_str(), answer.state),
        ("b", OperationState::Dropped)
    );
    master.stop().await;
}
