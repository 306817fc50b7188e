//! An executor that runs its tasks as threads of one process: the task's data is a number, and the
//! task adds up all numbers below it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ebb_framework::executor::{Executor, ExecutorConfig, ExecutorHandle, run_executor};
use ebb_types::{TaskId, TaskInfo, TaskState};

#[derive(Default)]
struct Threads {
    killed: BTreeMap<TaskId, Arc<AtomicBool>>,
}

fn add_up(below: u64, killed: &AtomicBool) -> Option<u64> {
    (0..below).try_fold(0u64, |sum, number| {
        (!killed.load(Ordering::Relaxed)).then(|| sum.wrapping_add(number))
    })
}

impl Executor for Threads {
    fn launch(&mut self, handle: &ExecutorHandle, task: TaskInfo) {
        let (handle, killed) = (handle.clone(), Arc::new(AtomicBool::new(false)));
        self.killed
            .insert(task.task_id.clone(), Arc::clone(&killed));
        std::thread::spawn(move || {
            let id = &task.task_id;
            let below = String::from_utf8_lossy(&task.data).trim().parse();
            let said = handle
                .update(id, TaskState::Running, "")
                .and_then(|()| match below {
                    Err(error) => {
                        handle.update(id, TaskState::Failed, format!("no number: {error}"))
                    }
                    Ok(below) => match add_up(below, &killed) {
                        Some(sum) => handle.update(id, TaskState::Finished, sum.to_string()),
                        None => handle.update(id, TaskState::Killed, ""),
                    },
                });
            if let Err(error) = said {
                eprintln!("{id}: {error}");
            }
        });
    }

    fn kill(&mut self, _handle: &ExecutorHandle, task_id: &TaskId, _grace_ms: u64) {
        if let Some(killed) = self.killed.get(task_id) {
            killed.store(true, Ordering::Relaxed);
        }
    }

    fn shutdown(&mut self, _handle: &ExecutorHandle) {
        for killed in self.killed.values() {
            killed.store(true, Ordering::Relaxed);
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    run_executor(Threads::default(), ExecutorConfig::from_environment()?).await?;
    Ok(())
}
