//! `ebb agent probe`: what can be measured on this machine, from where, why not better, and at which price. The probes
//! are attached for a moment, so that it is the kernel that answers and not a guess.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::probe::{
    Attach, Detail, Facts, Hook, Losses, Part, PartPlan, Plan, ProbeCost, Sampler, built_in_object,
};

/// For so long the probes are attached.
const TRIAL: Duration = Duration::from_secs(1);

/// What can be asked of an agent without running one.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Question {
    /// Show what can be measured on this machine, from where, why not better, and at which price
    Probe {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl Question {
    /// The answer, as it is to be printed. Blocks.
    ///
    /// # Errors
    /// If the answer cannot be written as JSON.
    pub fn answer(&self) -> Result<String, serde_json::Error> {
        let Self::Probe { json } = self;
        let report = Report::make();
        if *json {
            serde_json::to_string_pretty(&report).map(|text| text + "\n")
        } else {
            Ok(report.to_string())
        }
    }
}

/// One line: what it is about, what is so, and more about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What it is about.
    pub subject: String,
    /// What is so, in a word.
    pub state: String,
    /// What there is to say about it; empty if nothing.
    pub detail: String,
}

impl Line {
    fn new(subject: &str, state: &str, detail: impl Into<String>) -> Self {
        Self {
            subject: subject.to_owned(),
            state: state.to_owned(),
            detail: detail.into(),
        }
    }
}

/// Everything there is to say, in sections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What is so on this machine.
    pub facts: Vec<Line>,
    /// The parts of the probes: on or off, and why.
    pub probes: Vec<Line>,
    /// Every figure: `ebpf`, `files` or `none`, and why it is no better.
    pub figures: Vec<Line>,
    /// What each program took during the trial.
    pub cost: Vec<Line>,
}

impl Report {
    /// Looks at this machine and tries the probes for a second. Blocks.
    pub fn make() -> Self {
        let facts = Facts::gather();
        let mut sampler: Sampler<()> = Sampler::new(&facts, built_in_object());
        sampler.account_costs_always(true);
        let before = sampler.costs();
        std::thread::sleep(TRIAL);
        drop(sampler.sample(Detail::Full));
        let cost = grown(&before, &sampler.costs());
        Self {
            facts: of_facts(&facts),
            probes: sampler.plan().parts.iter().map(of_part).collect(),
            figures: of_figures(sampler.plan()),
            cost: of_cost(&cost, &sampler.losses()),
        }
    }

    /// The sections with their names.
    pub fn sections(&self) -> [(&'static str, &[Line]); 4] {
        [
            ("facts", &self.facts),
            ("probes", &self.probes),
            ("figures", &self.figures),
            ("cost", &self.cost),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, lines) in self.sections() {
            writeln!(f, "{name}")?;
            let width = |of: fn(&Line) -> &str| {
                let widths = lines.iter().map(|line| of(line).chars().count());
                widths.max().unwrap_or(0)
            };
            let (subject, state) = (width(|line| &line.subject), width(|line| &line.state));
            for line in lines {
                let text = format!(
                    "  {:subject$}  {:state$}  {}",
                    line.subject, line.state, line.detail
                );
                writeln!(f, "{}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

fn of_facts(facts: &Facts) -> Vec<Line> {
    let yes_or_why = |outcome: Result<(), String>| match outcome {
        Ok(()) => ("yes", String::new()),
        Err(why) => ("no", why),
    };
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (btf, why_no_btf) = yes_or_why(facts.fields.as_ref().map(drop).map_err(Clone::clone));
    let (load, why_no_load) = yes_or_why(facts.may_load.clone());
    let v2 = facts.cgroup2.as_ref();
    let controllers = [("memory", facts.memory_v2), ("io", facts.io_v2)]
        .into_iter()
        .filter(|one| one.1)
        .map(|one| one.0)
        .collect::<Vec<_>>()
        .join(" ");
    let v1: Vec<&str> = facts.v1.keys().map(String::as_str).collect();
    let word = |is: bool| if is { "yes" } else { "no" };
    vec![
        Line::new("kernel", kernel.trim(), ""),
        Line::new("BTF", btf, why_no_btf),
        Line::new("may load", load, why_no_load),
        Line::new(
            "cgroup v2",
            word(v2.is_some()),
            v2.map_or(String::new(), |at| {
                let whole = if facts.cgroup2_is_root {
                    ""
                } else {
                    ", seen from within a cgroup namespace"
                };
                let has = if controllers.is_empty() {
                    String::new()
                } else {
                    format!(", with {controllers}")
                };
                format!("at {}{has}{whole}", at.display())
            }),
        ),
        Line::new("cgroup v1", word(!v1.is_empty()), v1.join(" ")),
        Line::new("pressure", word(facts.pressure), "PSI"),
        Line::new("tracefs", word(facts.tracefs), "not needed"),
    ]
}

fn of_part(part: &PartPlan) -> Line {
    let name = match part.part {
        Part::Cpu => "cpu",
        Part::Processes => "processes",
        Part::Reclaim => "reclaim",
        Part::Oom => "oom",
        Part::Disk => "disk",
        Part::Network => "network",
        Part::Pacing => "pacing",
    };
    if let Some(why) = &part.off {
        return Line::new(name, "off", why.clone());
    }
    let programs: Vec<String> = part
        .programs
        .iter()
        .map(|program| {
            let hook = match program.hook {
                Hook::Tracepoint(at) => format!("tracepoint {at}"),
                Hook::Raw(at) => format!("raw tracepoint {at}"),
                Hook::Run => "run at each reading".to_owned(),
                Hook::PacketsIn => "packets into containers".to_owned(),
                Hook::PacketsOut => "packets out of containers".to_owned(),
                Hook::Sockets => "sockets of containers".to_owned(),
            };
            format!("{} ({hook})", program.name)
        })
        .collect();
    Line::new(name, "on", programs.join(", "))
}

fn of_figures(plan: &Plan) -> Vec<Line> {
    let by = match plan.attach {
        Attach::Plain => "by the clock",
        _ => "",
    };
    plan.figures()
        .into_iter()
        .map(|(name, choice)| {
            let source = choice.source.map_or("none", |source| source.name());
            let detail = if name == "on_cpu" && choice.why.is_empty() {
                by.to_owned()
            } else {
                choice.why
            };
            Line::new(name, source, detail)
        })
        .collect()
}

fn grown(before: &[ProbeCost], after: &[ProbeCost]) -> Vec<ProbeCost> {
    let start = |program: &str| before.iter().find(|one| one.program == program);
    after
        .iter()
        .map(|one| {
            let (time_ns, runs) =
                start(one.program).map_or((0, 0), |from| (from.run_time_ns, from.run_count));
            ProbeCost {
                program: one.program,
                run_time_ns: one.run_time_ns.saturating_sub(time_ns),
                run_count: one.run_count.saturating_sub(runs),
            }
        })
        .collect()
}

fn of_cost(costs: &[ProbeCost], losses: &Losses) -> Vec<Line> {
    let mut lines: Vec<Line> = costs
        .iter()
        .map(|cost| {
            let mean_ns = cost.run_time_ns.checked_div(cost.run_count);
            let mean = mean_ns.map_or(String::new(), |ns| format!("{ns} ns each"));
            Line::new(
                cost.program,
                &format!("{} ns", cost.run_time_ns),
                format!("{} runs {mean}", cost.run_count)
                    .trim_end()
                    .to_owned(),
            )
        })
        .collect();
    lines.push(Line::new(
        "missed switches",
        &losses.missed_switches.to_string(),
        "made up for at the next one",
    ));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_every_part_and_figure_and_says_why_one_is_off() {
        let facts = Facts {
            may_load: Err("the agent lacks CAP_BPF".to_owned()),
            ..Facts::gather()
        };
        let sampler: Sampler<()> = Sampler::new(&facts, Some(b"an object"));
        let report = Report {
            facts: of_facts(&facts),
            probes: sampler.plan().parts.iter().map(of_part).collect(),
            figures: of_figures(sampler.plan()),
            cost: of_cost(&[], &Losses::default()),
        };
        assert_eq!(report.probes.len(), 7);
        assert!(report.probes.iter().all(|line| line.state == "off"));
        let text = report.to_string();
        for word in [
            "on_cpu",
            "run_queue",
            "disk",
            "CAP_BPF",
            "cgroup v1",
            "\nfigures\n",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(text.lines().all(|line| line == line.trim_end()));
    }

    #[test]
    fn a_cost_is_what_has_grown() {
        let cost = |run_time_ns, run_count| ProbeCost {
            program: "sched_switch",
            run_time_ns,
            run_count,
        };
        assert_eq!(grown(&[cost(100, 1)], &[cost(400, 4)]), [cost(300, 3)]);
        let lines = of_cost(&[cost(300, 3), cost(0, 0)], &Losses::default());
        assert_eq!(lines[0].detail, "3 runs 100 ns each");
        assert_eq!(lines[1].detail, "0 runs");
    }
}
