//! Running other programs: always echoed, always checked, their output kept where it is counted.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// The root of the repository.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// A command that starts in the root of the repository.
pub fn command(program: impl AsRef<OsStr>, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(root());
    command
}

/// The cargo that runs this very task.
pub fn cargo(args: &[&str]) -> Command {
    command(
        std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
        args,
    )
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs to the end.
///
/// # Errors
/// When it cannot be started or does not succeed; the sentence holds the command line.
pub fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    eprintln!("$ {line}");
    let status = command
        .status()
        .with_context(|| format!("cannot start `{line}`; is it installed?"))?;
    ensure!(
        status.success(),
        "`{line}` failed with {status}; its output stands above"
    );
    Ok(())
}

/// Runs to the end and gives what it wrote to its standard output, which is echoed as it comes.
///
/// # Errors
/// As [`run`], but what was written is given back with the failure.
pub fn run_read(command: &mut Command) -> (String, Result<()>) {
    let line = line(command);
    eprintln!("$ {line}");
    let mut output = String::new();
    let result = (|| {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{line}`; is it installed?"))?;
        if let Some(stdout) = child.stdout.take() {
            for text in BufReader::new(stdout).lines() {
                let text = text.with_context(|| format!("cannot read the output of `{line}`"))?;
                println!("{text}");
                output.push_str(&text);
                output.push('\n');
            }
        }
        let status = child
            .wait()
            .with_context(|| format!("cannot wait for `{line}`"))?;
        if !status.success() {
            bail!("`{line}` failed with {status}; its output stands above");
        }
        Ok(())
    })();
    (output, result)
}

/// What a short command prints, without its last line break.
///
/// # Errors
/// When it cannot be started or does not succeed.
pub fn read(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output = command
        .output()
        .with_context(|| format!("cannot start `{line}`; is it installed?"))?;
    ensure!(
        output.status.success(),
        "`{line}` failed with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}
