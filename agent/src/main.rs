//! The agent's binary.

use std::process::ExitCode;

use ebb_agent::runtime;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args
        .next()
        .is_some_and(|first| first == runtime::EXECUTOR_ARG)
    {
        return runtime::executor_main(args);
    }
    eprintln!("ebb-agent: only `executor` is known");
    ExitCode::from(2)
}
