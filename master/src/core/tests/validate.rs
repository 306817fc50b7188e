//! The rules that a task must keep.

use super::*;
use crate::core::validate::{Ground, judge};
use ebb_types::limits::{MAX_GRACE_MS, MAX_QUANTITY};

fn verdict(spoil: impl FnOnce(&mut TaskInfo)) -> Result<Resources, String> {
    let agent = AgentId::new("a").unwrap();
    let mut task = command_task("t", &agent, res(1000, 64));
    spoil(&mut task);
    let ground = Ground {
        agent_id: &agent,
        remaining: &Resources {
            regular: Quantities::cpus_mem(4000, 4096 * MIB),
            revocable: Quantities::cpus_mem(4000, 0),
        },
        remaining_lots: &ebb_types::Lots::NONE,
        used_lots: &ebb_types::Lots::NONE,
        id_in_use: false,
        running_executor: None,
    };
    judge(&task, &ground).map(|charge| charge.sum())
}

fn command(task: &mut TaskInfo) -> &mut CommandInfo {
    task.command.as_mut().unwrap()
}

#[test]
fn a_proper_task_is_charged_what_it_asks_for() {
    assert_eq!(verdict(|_| {}), Ok(res(1000, 64)));
}

#[test]
fn every_rule_that_a_task_breaks_is_named() {
    type Spoil = fn(&mut TaskInfo);
    let wrong: [(Spoil, &str); 20] = [
        (
            |t| t.agent_id = AgentId::new("b").unwrap(),
            "name the agent of the offer",
        ),
        (|t| t.kill_grace_ms = Some(MAX_GRACE_MS + 1), "kill grace"),
        (|t| t.max_completion_ms = Some(0), "0 ms"),
        (|t| t.name = "x".repeat(2000), "name above"),
        (|t| t.labels = vec![Default::default(); 129], "labels"),
        (|t| t.data = vec![0; 600_000], "data"),
        (|t| t.resources = Resources::ZERO, "no resources"),
        (|t| t.resources = res(MAX_QUANTITY + 1, 0), "can be counted"),
        (|t| t.resources = res(u64::MAX, 0), "can be counted"),
        (
            |t| t.resources.revocable = Quantities::cpus_mem(1, 0),
            "both as revocable and as regular",
        ),
        (|t| t.resources = res(4001, 0), "left of the offer"),
        (|t| t.cpu_limit_milli = Some(999), "below the 1000"),
        (
            |t| {
                t.resources = res(0, 1);
                t.cpu_limit_milli = Some(1)
            },
            "asks for none",
        ),
        (|t| t.command = None, "neither"),
        (|t| command(t).value.clear(), "empty command"),
        (|t| command(t).value = "x".repeat(200_000), "command above"),
        (
            |t| command(t).arguments = vec![String::new(); 5000],
            "arguments",
        ),
        (|t| command(t).value = String::from("a\0b"), "NUL"),
        (
            |t| command(t).environment = vec![(String::new(), String::new())],
            "variable",
        ),
        (
            |t| command(t).environment = vec![(String::from("a=b"), String::new())],
            "variable",
        ),
    ];
    for (spoil, rule) in wrong {
        let message = verdict(spoil).expect_err(rule);
        assert!(
            message.contains(rule),
            "{message:?} does not speak of {rule:?}"
        );
    }
}

#[test]
fn revocable_and_regular_of_different_kinds_may_be_mixed() {
    let mixed = verdict(|task| {
        task.resources = Resources {
            regular: Quantities::cpus_mem(0, 64 * MIB),
            revocable: Quantities::cpus_mem(1000, 0),
        };
    });
    assert!(mixed.is_ok(), "{mixed:?}");
}

#[test]
fn a_command_and_an_executor_exclude_each_other() {
    let message = verdict(|task| {
        task.executor = Some(ebb_types::ExecutorInfo {
            executor_id: ebb_types::ExecutorId::new("e").unwrap(),
            name: String::new(),
            command: command(task).clone(),
            resources: Resources::ZERO,
            lots: ebb_types::Lots::NONE,
            data: Vec::new(),
        });
    });
    assert!(
        message
            .unwrap_err()
            .contains("both a command and an executor")
    );
}
