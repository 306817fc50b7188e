//! A framework that brings its own executor: the program of `examples/threads.rs` runs once on an agent
//! and adds up numbers in threads, one task each.
//! `cargo run -p ebb-framework --example sums -- 127.0.0.1:5050 target/debug/examples/threads`

use ebb_framework::{Calls, CommandSpec, Demand, Outcome, Scheduler, SchedulerConfig, fit, run};
use ebb_types::{ExecutorId, ExecutorInfo, Offer, TaskId, TaskInfo, TaskState, TaskStatus};

/// How many numbers each task adds up.
const BELOW: [u64; 4] = [10, 1_000, 100_000, 10_000_000];

struct Sums {
    executor: ExecutorInfo,
    launched: bool,
    open: usize,
    failed: bool,
}

impl Sums {
    fn tasks(&self, offer: &Offer, each: &Demand) -> Result<Vec<TaskInfo>, ebb_types::InvalidId> {
        let task = |below: &u64| {
            let id = TaskId::new(format!("sum-{below}"))?;
            let mut task = CommandSpec::default().to_task(id, offer.agent_id.clone(), each);
            task.command = None;
            task.executor = Some(self.executor.clone());
            task.data = below.to_string().into_bytes();
            Ok(task)
        };
        BELOW.iter().map(task).collect()
    }
}

impl Scheduler for Sums {
    fn offers(&mut self, calls: &mut Calls, offers: Vec<Offer>) -> Outcome {
        let each = Demand::cpus_mem(100, 16 << 20);
        let all = Demand::cpus_mem(500, 96 << 20);
        for offer in offers {
            if self.launched || !fit(&all.resources(), &offer) {
                calls.decline(&offer.id);
                continue;
            }
            calls.launch(&offer, self.tasks(&offer, &each)?);
            self.launched = true;
        }
        Ok(())
    }

    fn update(&mut self, calls: &mut Calls, status: &TaskStatus) -> Outcome {
        println!(
            "{} {} {}",
            status.task_id,
            status.state.name(),
            status.message
        );
        if status.state.is_terminal() {
            self.open -= 1;
            self.failed |= status.state != TaskState::Finished;
        }
        if self.open == 0 {
            calls.teardown();
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let master = words.next().ok_or("usage: sums MASTER EXECUTOR")?;
    let program = words.next().ok_or("usage: sums MASTER EXECUTOR")?;
    let program = std::fs::canonicalize(program)?.display().to_string();
    let executor = ExecutorInfo {
        executor_id: ExecutorId::new("threads")?,
        name: "threads".into(),
        command: CommandSpec::exec([program]).to_command(),
        lots: ebb_types::Lots::NONE,
        resources: Demand::cpus_mem(100, 32 << 20).resources(),
        data: Vec::new(),
    };
    let sums = Sums {
        executor,
        launched: false,
        open: BELOW.len(),
        failed: false,
    };
    let sums = run(sums, SchedulerConfig::new([master], "sums")).await?;
    if sums.failed {
        return Err("not every sum was found".into());
    }
    Ok(())
}
