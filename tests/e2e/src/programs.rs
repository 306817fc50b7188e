//! Where the programs under test are: beside the test's own executable.

use std::path::PathBuf;
use std::process::Command;

/// A command that starts one of the programs, by its name.
///
/// # Panics
/// When the program was not built.
pub fn program(name: &str) -> Command {
    let path = path_of(name);
    let mut command = Command::new(path);
    command
        .env("NO_COLOR", "1")
        .env_remove("EBB_MASTER")
        .env_remove("EBB_LOG");
    command
}

/// Where one of the programs is.
///
/// # Panics
/// When the program was not built.
pub fn path_of(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the test has a path");
    let deps = own.parent().expect("the test stands in a folder");
    let path = deps
        .parent()
        .expect("the test stands in target/…/deps")
        .join(name);
    assert!(
        path.is_file(),
        "{} is missing, so nothing can be tested; build the programs first with `cargo build --bins`",
        path.display()
    );
    path
}
