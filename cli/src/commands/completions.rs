//! `ebb completions`: what a shell needs to complete the command line.

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};
use crate::error::{CliError, EXIT_OK};
use crate::output::Out;

pub(crate) fn perform(args: &CompletionsArgs, out: &mut Out) -> Result<u8, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ebb", &mut script);
    out.raw(&script)?;
    Ok(EXIT_OK)
}
