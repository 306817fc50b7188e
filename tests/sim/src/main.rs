//! Shows one run of the simulation, step by step: `ebb-sim SEED`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(seed) = std::env::args().nth(1).and_then(|text| text.parse().ok()) else {
        eprintln!(
            "give the seed of the run as a number, for example `cargo run -p ebb-tests-sim -- 7`"
        );
        return ExitCode::from(2);
    };
    match ebb_tests_sim::run(seed, None, true) {
        Ok(report) => {
            println!("{report:?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
