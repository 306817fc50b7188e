//! The smallest framework: runs one command on the first offer that holds it, and exits with its
//! status. `cargo run -p ebb-framework --example hello -- 127.0.0.1:5050 'echo hello; exit 3'`

use std::process::ExitCode;

use ebb_framework::{Calls, CommandSpec, Demand, Outcome, Scheduler, SchedulerConfig, fit, run};
use ebb_types::{ExitStatus, Offer, TaskId, TaskStatus};

struct Hello {
    command: CommandSpec,
    launched: bool,
    exit: u8,
}

impl Scheduler for Hello {
    fn offers(&mut self, calls: &mut Calls, offers: Vec<Offer>) -> Outcome {
        let wanted = Demand::cpus_mem(100, 32 << 20);
        for offer in offers {
            if self.launched || !fit(&wanted.resources(), &offer) {
                calls.decline(&offer.id);
                continue;
            }
            let agent_id = offer.agent_id.clone();
            let task = self
                .command
                .to_task(TaskId::new("hello")?, agent_id, &wanted);
            calls.launch(&offer, vec![task]);
            self.launched = true;
        }
        Ok(())
    }

    fn update(&mut self, calls: &mut Calls, status: &TaskStatus) -> Outcome {
        println!("{} {}", status.state.name(), status.message);
        if status.state.is_terminal() {
            self.exit = match status.exit {
                Some(ExitStatus::Code(code)) => u8::try_from(code)?,
                _ => 1,
            };
            calls.teardown();
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let master = words.next().ok_or("usage: hello MASTER COMMAND")?;
    let hello = Hello {
        command: CommandSpec::shell(words.next().unwrap_or("echo hello".into())),
        launched: false,
        exit: 1,
    };
    let hello = run(hello, SchedulerConfig::new([master], "hello")).await?;
    Ok(ExitCode::from(hello.exit))
}
