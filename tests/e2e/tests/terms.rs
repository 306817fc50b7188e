//! What frameworks say of their offers: several agents that differ, and each framework is offered what suits it.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::fs;

use ebb_framework::SchedulerConfig;
use ebb_tests_e2e::framework::Heard;
use ebb_tests_e2e::{Cluster, Framework};
use ebb_types::{
    AgentId, Capability, Constraint, Filters, FrameworkInfo, Lots, OfferTerms, Pattern, Predicate,
    Quantities, Resources, Role, RoleTerms, Selector, TaskState,
};

fn all(constraints: Vec<Constraint>, minimum: Option<Quantities>) -> OfferTerms {
    let terms = RoleTerms {
        groups: if constraints.is_empty() {
            vec![]
        } else {
            vec![constraints]
        },
        minimum: minimum.map(|least| [least].into()),
    };
    [(Role::new("*").unwrap(), terms)].into()
}

fn rack(name: &str) -> Constraint {
    Constraint {
        selector: Selector::Attribute("rack".into()),
        predicate: Predicate::TextEquals(name.into()),
    }
}

fn aware(config: &mut SchedulerConfig) {
    config.info.capabilities.push(Capability::RegionAware);
    config.info.capabilities.sort();
}

/// The agents that it was ever offered.
fn offered(framework: &mut Framework) -> Vec<AgentId> {
    framework.news();
    let offers = framework.all.iter().filter_map(|heard| match heard {
        Heard::Offer(offer) => Some(offer.agent_id.clone()),
        _ => None,
    });
    let mut agents: Vec<AgentId> = offers.collect();
    agents.sort();
    agents.dedup();
    agents
}

/// What a framework says of itself, with its id.
fn info_of(cluster: &Cluster, name: &str) -> FrameworkInfo {
    let mut frameworks = cluster.state().frameworks.into_iter();
    let one = frameworks.find(|one| one.info.name == name).unwrap();
    FrameworkInfo {
        id: Some(one.id),
        ..one.info
    }
}

/// Each framework holds on to what it was offered. So the next one proves that nobody before it was offered what it is
/// offered now.
#[test]
fn frameworks_are_offered_the_agents_and_amounts_that_they_want_and_no_others() {
    let mut cluster = Cluster::new_with(
        &["--domain", "eu/1"],
        &["--attributes", "rack:a;ssds:2", "--domain", "eu/1"],
    );
    cluster.bring_up();
    let a = cluster.state().agents[0].id.clone();
    let b = cluster.start_other("localhost", &["--attributes", "rack:b", "--domain", "eu/2"]);
    let far = cluster.start_other("127.0.0.2", &["--attributes", "rack:a", "--domain", "us/1"]);
    let address = cluster.address();

    // By an attribute. The remote agent has it too, but this framework does not know of regions.
    let mut of_a = Framework::start(address, "rack-a", |config| {
        config.terms = all(vec![rack("a")], None);
    });
    of_a.offer("the agent of rack a", |offer| offer.agent_id == a);
    // Nothing keeps this one from an agent but the region: two are taken by now, or too far.
    let mut any = Framework::start(address, "any", |_| ());
    let of_b = any.offer("what nobody wants", |offer| offer.agent_id == b);
    // By region and by a pattern of the host name.
    let mut abroad = Framework::start(address, "abroad", |config| {
        aware(config);
        let selector = |selector, pattern: &str| Constraint {
            selector,
            predicate: Predicate::TextMatches(Pattern::new(pattern).unwrap()),
        };
        let region = selector(Selector::Region, "us|ap");
        config.terms = all(vec![region, selector(Selector::Hostname, r"127\..*")], None);
    });
    let of_far = abroad.offer("the remote agent", |offer| offer.agent_id == far);
    assert_eq!(
        of_far.domain.as_ref().map(ToString::to_string),
        Some("us/1".into())
    );
    assert_eq!(offered(&mut of_a), std::slice::from_ref(&a));
    assert_eq!(offered(&mut any), std::slice::from_ref(&b));
    assert_eq!(offered(&mut abroad), std::slice::from_ref(&far));

    // A framework that wants more than is left is not offered it; one that wants less is.
    let gate = cluster.gate("gate");
    let line = format!("read go < {}", gate.display());
    let one = Resources::regular(Quantities::cpus_mem(1000, 16 << 20));
    any.launch(&of_b, "one", &line, (one, Lots::NONE));
    any.state("one", TaskState::Running);
    let mut greedy = Framework::start(address, "greedy", |config| {
        config.terms = all(vec![], Some(Quantities::cpus_mem(3500, 0)));
    });
    let rest = any.offer("the rest", |offer| offer.agent_id == b);
    assert_eq!(rest.resources.regular.cpu_milli(), 3000);
    let greedy_id = info_of(&cluster, "greedy").id.unwrap().to_string();
    let said = cluster.ebb(&["explain", &greedy_id]);
    assert!(said.stdout.contains("at least"), "{said:?}");
    // What nobody else wants stays free until there is enough of it.
    let rest_id = rest.id.clone();
    let for_long = Filters {
        refuse_ms: 3_600_000,
    };
    any.ask(move |calls| {
        calls.suppress(Vec::new());
        calls.decline_all(vec![rest_id], for_long);
    });
    cluster.wait_until("the rest, free", |state| {
        let mut frameworks = state.frameworks.iter();
        let any = frameworks.find(|one| one.info.name == "any")?;
        let is_free = state.offers.iter().all(|offer| offer.agent_id != b);
        (is_free && !any.suppressed_roles.is_empty()).then_some(())
    });
    fs::write(&gate, "go\n").unwrap();
    any.state("one", TaskState::Finished);
    let whole = greedy.offer("all of the agent", |offer| offer.agent_id == b);
    assert_eq!(whole.resources.regular.cpu_milli(), 4000);
    assert_eq!(offered(&mut greedy), std::slice::from_ref(&b));

    // What is said at run time counts as well.
    let info = info_of(&cluster, "any");
    let heard = any.all.len();
    any.ask(move |calls| calls.update_framework(info, Vec::new(), all(vec![rack("a")], None)));
    greedy.finish();
    of_a.finish();
    any.offer("an agent of rack a", |offer| offer.agent_id == a);
    any.news();
    let is_other = |heard: &Heard| matches!(heard, Heard::Offer(offer) if offer.agent_id != a);
    assert!(!any.all[heard..].iter().any(is_other), "{:#?}", any.all);
    // The other agent is free again, and another framework gets it.
    let mut last = Framework::start(address, "last", |_| ());
    last.offer("the agent of rack b", |offer| offer.agent_id == b);
    for framework in [any, abroad, last] {
        framework.finish();
    }
    cluster.finish();
}
