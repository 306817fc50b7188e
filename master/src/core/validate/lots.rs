//! The rules for the lots of a task.

use std::collections::BTreeSet;

use ebb_types::{GPUS, LotKey, LotValue, Lots, TaskInfo};

use super::Ground;

/// Judges the lots of a task and, where one is started for it, of its executor; both together.
pub(super) fn judge(
    task: &TaskInfo,
    executor: Option<&Lots>,
    ground: &Ground<'_>,
) -> Result<Lots, String> {
    let id = &task.task_id;
    let lots = match executor {
        None => Some(task.lots.clone()),
        Some(own) => task.lots.checked_add(own),
    };
    let Some(lots) = lots else {
        return Err(format!(
            "task {id} and its executor use something of {} both; give it to one of the two",
            task.lots
        ));
    };
    if lots.is_none() {
        return Ok(lots);
    }
    if task.executor.is_some()
        && let Some((key, _)) = task.lots.iter().find(|(key, _)| is_of_container(key))
    {
        return Err(format!(
            "task {id} asks for {key}, which the container of its executor would have to have from its start; ask for it in the executor's resources"
        ));
    }
    let left = ground.remaining_lots;
    if !left.covers(&lots) {
        return Err(format!(
            "task {id} uses {lots}, but {left} is left of the offer; ask for no more than that"
        ));
    }
    for (key, value) in task
        .lots
        .iter()
        .chain(executor.iter().flat_map(|own| own.iter()))
    {
        check_whole(task, (key, value), left)?;
    }
    check_paths(task, &task.lots)?;
    if ground.used_lots.checked_add(&lots).is_none() {
        return Err(format!(
            "task {id} shares a volume with more others than can be counted; launch it later"
        ));
    }
    Ok(lots)
}

/// Whether it is given to a container when that is made.
fn is_of_container(key: &LotKey) -> bool {
    key.volume().is_some() || key.name == GPUS
}

/// Volumes and disks of their own are used as a whole.
fn check_whole(
    task: &TaskInfo,
    (key, value): (&LotKey, &LotValue),
    left: &Lots,
) -> Result<(), String> {
    if key.is_whole() && left.get(key) != Some(value) {
        return Err(format!(
            "task {} uses a part of {key}, which is given away as a whole; use all of it",
            task.task_id
        ));
    }
    Ok(())
}

/// No two volumes stand at the same place in the container.
fn check_paths(task: &TaskInfo, lots: &Lots) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    let volumes = lots.iter().filter_map(|(key, _)| key.volume());
    for volume in volumes {
        if !seen.insert(&volume.container_path) {
            return Err(format!(
                "task {} has two volumes at {}; give each a path of its own",
                task.task_id, volume.container_path
            ));
        }
    }
    Ok(())
}
