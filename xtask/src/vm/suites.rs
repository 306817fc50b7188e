//! Which tests run in the guests, and in which boots.

/// The tests of one package that run in guests.
pub struct Suite {
    /// The package.
    pub package: &'static str,
    /// Its test programs.
    pub tests: &'static [&'static str],
    /// Its programs that those start.
    pub programs: &'static [&'static str],
    /// The one kernel it runs on, if it asks nothing of a kernel that the others could not answer as well. Where
    /// tests are asked for by name, it runs on all.
    pub only_on: Option<&'static str>,
    /// Tests that do not run there.
    pub skipped: &'static [Skipped],
}

impl Suite {
    /// Whether it runs on a kernel.
    pub fn runs_on(&self, series: &str, filter: Option<&str>) -> bool {
        filter.is_some() || self.only_on.is_none_or(|only| only == series)
    }
}

/// A test that does not run in guests.
pub struct Skipped {
    /// Its name, in full.
    pub test: &'static str,
    /// The reason.
    pub why: &'static str,
}

/// Parity's test programs that need tools which the guests do not have, or more work than an emulated processor can do.
#[cfg(test)]
const HOST_ONLY: [&str; 9] = [
    "alerts", "cpu", "io", "latency", "net", "oom", "quota", "restart", "traffic",
];

/// All of them.
pub const SUITES: &[Suite] = &[
    Suite {
        package: "ebb-tests-parity",
        tests: &["containers", "parity", "figures", "stubs"],
        programs: &["ebb-parity-load"],
        only_on: None,
        skipped: &[],
    },
    Suite {
        package: "ebb-agent",
        tests: &["runtime"],
        programs: &["ebb-agent"],
        // It is about the pure v2 tree, and takes as long as all of the others together.
        only_on: Some("6.12"),
        skipped: &[
            Skipped {
                test: "rate::a_thousand_launches",
                why: "a measurement; in a guest it would measure the emulation",
            },
            Skipped {
                test: "launch::the_arguments_and_the_name_are_exactly_those_asked_for",
                why: "it gives the shell another name, and by its name busybox knows that it is a shell",
            },
            Skipped {
                test: "devices::python_and_apt_run_beside_devices",
                why: "the guests have neither",
            },
            Skipped {
                test: "hierarchies::v1_alone_limits_freezes_and_kills",
                why: "the guests have no v1 hierarchies",
            },
            Skipped {
                test: "hierarchies::v2_without_controllers_runs_tasks_and_refuses_limits",
                why: "the guests' v2 tree has every controller",
            },
        ],
    },
];

/// One boot of a machine.
pub struct Boot {
    /// What it is for.
    pub name: &'static str,
    /// What is added to the kernel's command line.
    pub append: &'static str,
    /// What runs: the suites, or one test by its full name that applies to this boot alone.
    pub work: Work,
}

/// What runs in a boot.
pub enum Work {
    /// Every suite.
    Suites,
    /// This test of this program, which others play or which needs this very boot.
    Only {
        /// The test program.
        program: &'static str,
        /// The test's full name.
        test: &'static str,
    },
}

/// The kernel that is booted without one of its features.
const STUBBED: &str = "6.12";

/// The boots of a kernel. Where only some tests are asked for, features are not taken away.
pub fn boots(series: &str, filter: Option<&str>) -> Vec<Boot> {
    let mut boots = vec![Boot {
        name: "plain",
        append: "psi=1",
        work: Work::Suites,
    }];
    if series == STUBBED && filter.is_none() {
        boots.push(Boot {
            name: "without-pressure",
            append: "psi=0",
            work: Work::Only {
                program: "ebb-tests-parity/stubs",
                test: "played_without_pressure",
            },
        });
    }
    boots
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::super::kernels::SERIES;
    use super::*;
    use crate::shell::root;

    #[test]
    fn no_test_program_of_parity_is_left_out_unseen() {
        let parity = SUITES
            .iter()
            .find(|suite| suite.package == "ebb-tests-parity");
        let run = parity.unwrap().tests.iter().copied();
        let known: BTreeSet<String> = run.chain(HOST_ONLY).map(str::to_owned).collect();
        let files = fs::read_dir(root().join("tests/parity/tests")).unwrap();
        let found: BTreeSet<String> = files
            .filter_map(|file| file.unwrap().file_name().into_string().ok())
            .filter_map(|name| name.strip_suffix(".rs").map(str::to_owned))
            .collect();
        assert_eq!(found, known, "each runs in guests, or stands in HOST_ONLY");
    }

    #[test]
    fn every_suite_runs_on_a_kernel_that_is_booted() {
        for suite in SUITES {
            let runs = |series: &&str| suite.runs_on(series, None);
            assert!(SERIES.iter().any(runs), "{}", suite.package);
            assert!(SERIES.iter().all(|series| suite.runs_on(series, Some("x"))));
        }
        assert!(SUITES[0].only_on.is_none(), "parity runs on all of them");
    }

    #[test]
    fn a_kernel_is_booted_without_pressure_unless_few_tests_are_asked_for() {
        assert_eq!(boots("6.1", None).len(), 1);
        assert_eq!(boots(STUBBED, None).len(), 2);
        assert_eq!(boots(STUBBED, Some("x")).len(), 1);
    }
}
