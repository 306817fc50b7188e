//! The switches of a load as the kernel's own tracer notes them: each wait of its threads, and how long the CPU was busy
//! in it.
//!
//! Of all switches only those are kept that concern the load or an idle CPU: the latter tell when a CPU was busy. Programs
//! that are attached by way of perf events, as bpftrace attaches its own, are not run while another one of the kind is;
//! the tracer has no such gaps. Yet there are kernels that hide some switches from every tracepoint, those away from the
//! idle task above all. If a thread of the load leaves that was not seen to come, its wait ended somewhere between, and is
//! told with both bounds. If a CPU was last seen to idle and now something else leaves it, it counts as busy for all of
//! the time between. If a task comes and goes unseen, the scheduler's account of its time on the CPU is seen: it tells for
//! how long.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Traces in an instance of its own, with tracefs in mounts of its own, until its input ends; then tells all.
const SCRIPT: &str = r#"
set -e
test -d /sys/kernel/tracing/events || mount -t tracefs none /sys/kernel/tracing
cd /sys/kernel/tracing/instances
mkdir "$0"
trap 'cd ..; rmdir "$0"' EXIT
cd "$0"
echo mono > trace_clock
echo 32768 > buffer_size_kb
echo "prev_comm == \"$1\" || next_comm == \"$1\" || prev_pid == 0 || next_pid == 0" > events/sched/sched_switch/filter
for event in sched_wakeup sched_wakeup_new; do
  echo "comm == \"$1\"" > events/sched/$event/filter
  echo 1 > events/sched/$event/enable
done
echo 1 > events/sched/sched_stat_runtime/enable
echo 1 > events/sched/sched_switch/enable
echo tracing
read line || true
echo 0 > tracing_on
cat trace
"#;

/// A wait of a thread of the load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wait {
    /// When it ended at the latest, by the monotonic clock.
    pub ended_ns: u64,
    /// The same at the earliest, which is another time only if the end was not seen.
    pub earliest_ns: u64,
    /// The CPU to which the thread came.
    pub cpu: u64,
    /// How long it was at the most.
    pub wait_ns: u64,
    /// For how much of that this CPU was busy.
    pub busy_ns: u64,
}

/// A trace that goes on.
#[derive(Debug)]
pub struct Trace {
    child: Child,
    output: BufReader<ChildStdout>,
    comm: &'static str,
}

impl Trace {
    /// Starts to trace threads of this name.
    pub fn start(comm: &'static str) -> Self {
        let instance = format!("ebb-parity-{}", std::process::id());
        let mut child = Command::new("unshare")
            .args(["-m", "sh", "-c", SCRIPT, &instance, comm])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "tracing", "the kernel does not trace switches");
        Self {
            child,
            output,
            comm,
        }
    }

    /// Ends it and gives all waits.
    pub fn stop(mut self) -> Vec<Wait> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success());
        let mut counts = text
            .lines()
            .find_map(|line| line.strip_prefix("# entries-in-buffer/entries-written: "))
            .unwrap()
            .split([' ', '/']);
        assert_eq!(counts.next(), counts.next(), "the trace is not complete");
        waits(&text, self.comm)
    }
}

/// What is known of a CPU.
#[derive(Clone, Copy, Default)]
struct Cpu {
    busy_ns: u64,
    since_ns: u64,
    is_idle: bool,
}

impl Cpu {
    /// For how long it was busy up to now, if it goes on as it was last seen.
    fn busy_until(&self, now_ns: u64) -> u64 {
        self.busy_ns
            + if self.is_idle {
                0
            } else {
                now_ns - self.since_ns
            }
    }

    /// A task leaves it to another.
    fn switch(&mut self, now_ns: u64, from: u64, to: u64) {
        // It was not seen to have left its rest, and may have done so at any time since.
        self.is_idle &= from == 0;
        self.busy_ns = self.busy_until(now_ns);
        self.since_ns = now_ns;
        self.is_idle = to == 0;
    }

    /// A task is on it now, and has been for so long since its account was last brought up to date.
    fn account(&mut self, now_ns: u64, ran_ns: u64) {
        if self.is_idle {
            self.busy_ns += ran_ns.min(now_ns - self.since_ns);
            self.since_ns = now_ns;
        }
    }
}

fn waits(text: &str, comm: &str) -> Vec<Wait> {
    let mut cpus: BTreeMap<u64, Cpu> = BTreeMap::new();
    let mut runnable: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let mut waits = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(event) = Event::parse(line) else {
            continue;
        };
        let now_ns = event.at_ns;
        if event.name == "sched_stat_runtime" {
            // Accounts of other CPUs' tasks are brought up to date too.
            if event.task == event.number("pid") {
                let cpu = cpus.entry(event.cpu).or_default();
                cpu.account(now_ns, event.number("runtime"));
            }
            continue;
        }
        if event.name != "sched_switch" {
            let to = cpus.entry(event.number("target_cpu")).or_default();
            runnable.insert(event.number("pid"), (now_ns, to.busy_until(now_ns)));
            continue;
        }
        let cpu = cpus.entry(event.cpu).or_default();
        cpu.switch(now_ns, event.number("prev_pid"), event.number("next_pid"));
        let mut ends = |task: u64, is_seen: bool, cpu: &Cpu| {
            if let Some((since_ns, busy_ns)) = runnable.remove(&task) {
                waits.push(Wait {
                    ended_ns: now_ns,
                    earliest_ns: if is_seen { now_ns } else { since_ns },
                    cpu: event.cpu,
                    wait_ns: now_ns - since_ns,
                    busy_ns: cpu.busy_ns.saturating_sub(busy_ns),
                });
            }
        };
        if event.field("prev_comm") == comm {
            ends(event.number("prev_pid"), false, cpu);
        }
        if event.field("next_comm") == comm {
            ends(event.number("next_pid"), true, cpu);
        }
        if event.field("prev_comm") == comm && event.field("prev_state").starts_with('R') {
            runnable.insert(event.number("prev_pid"), (now_ns, cpu.busy_ns));
        }
    }
    waits
}

/// A line of the trace: `TASK-PID [CPU] FLAGS SECONDS.MICROS: NAME: FIELD=VALUE ...`.
struct Event<'a> {
    task: u64,
    cpu: u64,
    at_ns: u64,
    name: &'a str,
    fields: &'a str,
}

impl<'a> Event<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (head, rest) = line.split_once(": ")?;
        let (name, fields) = rest.split_once(": ")?;
        let mut words = head.split_whitespace().rev();
        let (seconds, micros) = words.next()?.split_once('.')?;
        let cpu = words.find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))?;
        let (_, task) = words.next()?.rsplit_once('-')?;
        let seconds: u64 = seconds.parse().ok()?;
        let micros: u64 = micros.parse().ok()?;
        Some(Self {
            task: task.parse().ok()?,
            cpu: cpu.parse().ok()?,
            at_ns: seconds * 1_000_000_000 + micros * 1000,
            name,
            fields,
        })
    }

    /// A field without blanks in it; names of other tasks may have some.
    fn field(&self, name: &str) -> &'a str {
        let mut words = self.fields.split_whitespace();
        let found = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_default()
    }

    fn number(&self, name: &str) -> u64 {
        let value = self.field(name);
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number in {}", self.fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_busy_while_its_cpu_does_not_idle() {
        let switch = |at: &str, prev: &str, state: &str, next: &str| {
            let of = |task: &str| match task {
                "idle" => ("swapper/1", 0),
                "held" => ("held", 7),
                _ => ("some other", 9),
            };
            let ((prev, prev_pid), (next, next_pid)) = (of(prev), of(next));
            format!(
                "  some other-9  [001] d..2.  5.{at}: sched_switch: prev_comm={prev} prev_pid={prev_pid} \
                 prev_prio=120 prev_state={state} ==> next_comm={next} next_pid={next_pid} next_prio=120\n"
            )
        };
        let account = |task: &str, pid: u64, at: &str, ns: u64| {
            format!(
                "  {task}  [001] d..2.  5.{at}: sched_stat_runtime: comm=some pid={pid} runtime={ns} [ns]\n"
            )
        };
        let woken =
            "  x-1  [000] dN.4.  5.000150: sched_wakeup: comm=held pid=7 prio=120 target_cpu=001\n";
        let text = [
            switch("000100", "idle", "R", "other"),
            woken.to_owned(),
            switch("000200", "other", "S", "held"),
            // Held back: the CPU idles and is busy in turn.
            switch("000300", "held", "R+", "idle"),
            switch("000350", "idle", "R", "other"),
            switch("000400", "other", "S", "idle"),
            // It comes and goes unseen; what it has run is seen twice, and what the held one has elsewhere is not.
            account("other-9", 9, "000410", 5_000),
            account("other-9", 9, "000430", 20_000),
            account("x-1", 7, "000440", 10_000),
            switch("000500", "idle", "R", "held"),
            switch("000600", "held", "R", "other"),
            switch("000700", "held", "R", "idle"),
            switch("000900", "other", "S", "held"),
        ];
        let text = text.concat();
        let wait = |ended_us: u64, wait_us: u64, busy_us: u64| Wait {
            ended_ns: 5_000_000_000 + ended_us * 1000,
            earliest_ns: 5_000_000_000 + ended_us * 1000,
            cpu: 1,
            wait_ns: wait_us * 1000,
            busy_ns: busy_us * 1000,
        };
        let unseen = Wait {
            earliest_ns: 5_000_600_000,
            ..wait(700, 100, 100)
        };
        assert_eq!(
            waits(&text, "held"),
            [
                wait(200, 50, 50),
                wait(500, 200, 75),
                unseen,
                wait(900, 200, 200)
            ]
        );
    }
}
