//! What a guest says on its serial line: the output of one program after the other, framed by markers.
//!
//! `@@ebb begin NAME`, the output, `@@ebb end NAME CODE`, and `@@ebb off` when all is done. A run counts only between
//! both of its markers.

/// What a marker line begins with.
pub const MARKER: &str = "@@ebb ";

/// One program's run.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    /// Its name.
    pub name: String,
    /// What it wrote.
    pub output: String,
    /// How it ended, if it did.
    pub code: Option<i32>,
}

/// Everything that a guest has said so far.
#[derive(Debug, Default)]
pub struct Console {
    runs: Vec<Run>,
    outside: String,
    off: bool,
}

impl Console {
    /// Takes one line. True if it is a test's or a test run's result, which is worth showing at once.
    pub fn take(&mut self, line: &str) -> bool {
        let line = line.trim_end_matches(['\r', '\n']);
        if let Some(marker) = line.strip_prefix(MARKER) {
            self.mark(marker);
            return false;
        }
        let open = self.runs.last_mut().filter(|run| run.code.is_none());
        let output = open.map_or(&mut self.outside, |run| &mut run.output);
        output.push_str(line);
        output.push('\n');
        let verdict = line.starts_with("test ") && line.contains(" ... ");
        verdict || line.starts_with("test result:") || line.ends_with(": test")
    }

    fn mark(&mut self, marker: &str) {
        let words: Vec<&str> = marker.split_whitespace().collect();
        match words[..] {
            ["begin", name] => self.runs.push(Run {
                name: name.to_owned(),
                output: String::new(),
                code: None,
            }),
            ["end", name, code] => {
                let last = self.runs.last_mut().filter(|run| run.name == name);
                if let Some(run) = last {
                    run.code = code.parse().ok();
                }
            }
            ["off"] => self.off = true,
            _ => {}
        }
    }

    /// The runs, in order.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Whether a run has come to its end.
    pub fn has_ended(&self, name: &str) -> bool {
        let mut runs = self.runs.iter();
        runs.any(|run| run.name == name && run.code.is_some())
    }

    /// Puts what ended in an earlier boot before what this one has said.
    pub fn go_on_from(&mut self, earlier: Self) {
        let ended = earlier.runs.into_iter().filter(|run| run.code.is_some());
        self.runs.splice(0..0, ended);
    }

    /// What is wrong with it, in sentences, given the runs that were asked for. With `needs_tests`, a run in which no
    /// test ran is wrong too.
    pub fn problems(&self, expected: &[String], needs_tests: bool) -> Vec<String> {
        let mut problems = Vec::new();
        for name in expected {
            let Some(run) = self.runs.iter().find(|run| run.name == *name) else {
                problems.push(format!("{name} did not start"));
                continue;
            };
            match run.code {
                None => problems.push(format!("{name} did not end")),
                Some(0) if needs_tests && !run.has_passed_any() => {
                    problems.push(format!("in {name} no test ran"));
                }
                Some(0) => {}
                Some(code) => problems.push(format!("{name} failed with {code}")),
            }
        }
        if !self.off {
            problems.push("the guest did not come to its end".to_owned());
        }
        problems
    }

    /// The output of what failed or did not end, and what was said outside of any run.
    pub fn evidence(&self) -> String {
        let mut text = self.outside.clone();
        for run in self.runs.iter().filter(|run| run.code != Some(0)) {
            text.push_str(&format!("---- {} ----\n{}", run.name, run.output));
        }
        text
    }
}

impl Run {
    /// Whether a result line says that at least one test passed.
    fn has_passed_any(&self) -> bool {
        self.output
            .lines()
            .filter(|line| line.starts_with("test result:"))
            .any(|line| !line.contains(" 0 passed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(lines: &str) -> Console {
        let mut console = Console::default();
        for line in lines.lines() {
            console.take(line);
        }
        console
    }

    const GOOD: &str = "\
hello
@@ebb begin a\r
test one ... ok\r
test result: ok. 1 passed; 0 failed; 0 ignored
@@ebb end a 0
@@ebb off
";

    #[test]
    fn a_run_between_its_markers_with_a_passed_test_is_good() {
        let console = console(GOOD);
        assert_eq!(
            console.problems(&["a".to_owned()], true),
            Vec::<String>::new()
        );
        assert_eq!(console.runs().len(), 1);
        assert!(console.off);
        assert_eq!(
            console.runs()[0].output,
            "test one ... ok\ntest result: ok. 1 passed; 0 failed; 0 ignored\n"
        );
        assert_eq!(console.evidence(), "hello\n");
    }

    #[test]
    fn whatever_is_missing_or_failed_is_told() {
        type Change = (&'static str, &'static str, &'static str);
        let changes: [Change; 6] = [
            ("@@ebb begin a", "", "a did not start"),
            ("@@ebb end a 0", "", "a did not end"),
            ("@@ebb end a 0", "@@ebb end b 0", "a did not end"),
            ("@@ebb end a 0", "@@ebb end a 101", "a failed with 101"),
            (" 1 passed", " 0 passed", "in a no test ran"),
            ("@@ebb off", "", "did not come to its end"),
        ];
        for (from, to, told) in changes {
            assert!(GOOD.contains(from), "{from}");
            let problems = console(&GOOD.replace(from, to)).problems(&["a".to_owned()], true);
            assert_eq!(problems.len(), 1, "{told}: {problems:?}");
            assert!(problems[0].contains(told), "{told}: {problems:?}");
        }
    }

    #[test]
    fn two_boots_make_one_console() {
        let earlier = console("@@ebb begin a\n@@ebb end a 0\n@@ebb begin b\nhalf");
        let mut later = console("@@ebb begin b\nwhole\n@@ebb end b 0\n@@ebb off");
        later.go_on_from(earlier);
        let asked = ["a".to_owned(), "b".to_owned()];
        assert_eq!(later.problems(&asked, false), Vec::<String>::new());
        assert_eq!(later.runs().len(), 2);
        assert_eq!(later.runs()[1].output, "whole\n");
    }

    #[test]
    fn only_results_are_shown_as_they_come() {
        let mut console = Console::default();
        assert!(!console.take("@@ebb begin a"));
        assert!(console.take("test x ... ok"));
        assert!(console.take("test result: FAILED. 0 passed; 1 failed"));
        assert!(!console.take("thread 'x' panicked"));
        assert!(!console.take("@@ebb end a 101"));
        assert!(console.evidence().contains("---- a ----\ntest x"));
    }
}
