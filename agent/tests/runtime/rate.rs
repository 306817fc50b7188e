//! A thousand launches, one after the other, beside plain fork and exec in the same run.

use std::process::Command;
use std::time::{Duration, Instant};

use ebb_agent::runtime::{Launched, Outcome};

use crate::host::{Host, LONG, program};

const LAUNCHES: usize = 1_000;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn a_thousand_launches() {
    let host = Host::new();
    let (mut plain, mut spawn, mut start, mut whole) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..LAUNCHES {
        let begin = Instant::now();
        assert!(Command::new("/bin/true").status().expect("run").success());
        plain.push(begin.elapsed());

        let begin = Instant::now();
        let Launched {
            executor,
            container,
            start: signal,
        } = host
            .runtime
            .launch(&program(&["/bin/true"]))
            .expect("a launch");
        spawn.push(begin.elapsed());
        assert!(signal.read().is_some());
        start.push(begin.elapsed());
        let record = executor
            .wait_exit(LONG)
            .expect("an answer")
            .expect("an end");
        assert_eq!(record.outcome, Outcome::Exited { code: 0 });
        container.destroy().expect("destroyed");
        whole.push(begin.elapsed());
    }
    let total: Duration = whole.iter().sum();
    let least = |times: &[Duration]| times.iter().min().copied().unwrap_or_default();
    println!(
        "least: to the execution {:?}, to the end {:?}, fork and exec {:?}",
        least(&start),
        least(&whole),
        least(&plain)
    );
    println!(
        "{LAUNCHES} launches: {:.0} a second, one after the other",
        LAUNCHES as f64 / total.as_secs_f64()
    );
    println!(
        "median: launch() {:?}, to the execution of the program {:?}, to the end with everything removed {:?}; fork and exec {:?}",
        median(spawn),
        median(start),
        median(whole),
        median(plain)
    );
    host.finish();
}
