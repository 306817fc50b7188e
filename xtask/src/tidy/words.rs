//! Which words may stand where: the walls between the rooms.

use super::Finding;
use super::source::Source;

struct Rule {
    words: &'static [&'static str],
    /// Whether the rule speaks of this path.
    within: fn(&str) -> bool,
    /// Where the words may stand all the same.
    except: fn(&str) -> bool,
    in_tests: bool,
    why: &'static str,
}

fn anywhere(_: &str) -> bool {
    true
}

fn nowhere(_: &str) -> bool {
    false
}

fn is_core(path: &str) -> bool {
    path.contains("/src/core/") || path.starts_with("types/src/")
}

const RULES: &[Rule] = &[
    Rule {
        words: &["aya"],
        within: anywhere,
        except: |path| {
            path == "agent/src/probe/bpf/object.rs" || path.starts_with("agent-ebpf")
                // Loads what the probes are measured beside, which is no part of the agent.
                || path == "tests/bench/src/monitor.rs"
                || path.starts_with("tests/bench-ebpf/")
        },
        in_tests: true,
        why: "only agent/src/probe/bpf/object.rs and the loader of what it is measured beside name aya",
    },
    Rule {
        words: &["redb"],
        within: anywhere,
        except: |path| path.starts_with("master/src/store/"),
        in_tests: true,
        why: "only master/src/store names a database",
    },
    Rule {
        words: &["prost", "tonic_prost"],
        within: anywhere,
        except: |path| path.starts_with("api/"),
        in_tests: false,
        why: "only api names the encoding of the wire",
    },
    Rule {
        words: &[
            "counter!",
            "gauge!",
            "histogram!",
            "describe_counter!",
            "describe_gauge!",
            "describe_histogram!",
        ],
        within: anywhere,
        except: |path| path.ends_with("/metrics.rs") || path.contains("/metrics/"),
        in_tests: false,
        why: "only metrics.rs names the metrics macros; names are declared once, in its table",
    },
    Rule {
        words: &[
            "tokio",
            "tonic",
            "Instant",
            "SystemTime",
            "std::fs",
            "std::net",
            "std::thread",
            "File",
            "HashMap",
            "HashSet",
            "thread_rng",
            "tracing",
            "metrics",
            "rustix",
            "libc",
            "f32",
            "f64",
        ],
        within: is_core,
        except: nowhere,
        in_tests: false,
        why: "a core is pure: no runtime, clock, file, socket, thread, chance, unordered map, log, metric or float",
    },
    Rule {
        words: &["unsafe"],
        within: anywhere,
        except: |path| {
            path == "master/src/ledger/slot.rs"
                || path == "agent/src/runtime/launch.rs"
                || path.starts_with("agent/src/runtime/launch/")
                || path.starts_with("agent/src/probe/bpf/")
                || path.starts_with("agent-ebpf")
                || path.starts_with("tests/bench-ebpf/")
        },
        in_tests: true,
        why: "unsafe stands only in the ledger's slot, the probes and their Pod impls, and the launcher",
    },
    Rule {
        words: &["todo!", "unimplemented!", "dbg!"],
        within: anywhere,
        except: nowhere,
        in_tests: true,
        why: "nothing is left for later under the name of done",
    },
];

/// Words that may stand in no line at all, comments included. Split so that this list is no finding.
const MARKS: &[(&str, &str)] = &[
    (
        concat!("TO", "DO"),
        "nothing is left for later under the name of done",
    ),
    (
        concat!("FIX", "ME"),
        "nothing is left for later under the name of done",
    ),
    (
        concat!("/wo", "rk/"),
        "no path of one machine belongs in the project",
    ),
    (
        concat!("/ro", "ot/"),
        "no path of one machine belongs in the project",
    ),
];

/// What a file says that it may not say.
pub fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let own = source.path.starts_with("xtask/src/tidy/");
    for rule in RULES
        .iter()
        .filter(|rule| (rule.within)(&source.path) && !(rule.except)(&source.path))
    {
        if own || (source.is_test() && !rule.in_tests) {
            continue;
        }
        for line in source.code() {
            if let Some(word) = rule
                .words
                .iter()
                .find(|word| has_word(&without_strings(line.text), word))
            {
                findings.push(format!(
                    "{}:{}: names `{word}`; {}",
                    source.path, line.number, rule.why
                ));
            }
        }
    }
    for (mark, why) in MARKS {
        for line in source.all().filter(|line| has_mark(line.text, mark)) {
            findings.push(format!(
                "{}:{}: holds `{mark}`; {why}",
                source.path, line.number
            ));
        }
    }
    findings
}

/// The line with what stands between double quotes left out.
pub fn without_strings(line: &str) -> String {
    line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

/// A path only counts where it begins: `/proc/self/root/x` is none of one machine's.
fn has_mark(line: &str, mark: &str) -> bool {
    let mut found = line.match_indices(mark);
    found.any(|(at, _)| !line[..at].ends_with(char::is_alphanumeric))
}

/// Whether a line has a word as a whole.
pub fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let mut from = 0;
    while let Some(at) = line[from..].find(word) {
        let (start, end) = (from + at, from + at + word.len());
        let before = line[..start].chars().next_back().is_some_and(part);
        let after = line[end..].chars().next().is_some_and(part);
        if !before && !after {
            return true;
        }
        from = end;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, line: &str) -> usize {
        check(&Source::new(path, &format!("//! x\n{line}\n"))).len()
    }

    #[test]
    fn each_wall_is_seen_from_its_wrong_side_only() {
        for (line, wrong, right) in [
            (
                "use aya::Ebpf;",
                "agent/src/driver.rs",
                "agent/src/probe/bpf/object.rs",
            ),
            (
                "use redb::Database;",
                "master/src/driver.rs",
                "master/src/store/embedded.rs",
            ),
            ("use prost::Message;", "cli/src/main.rs", "api/src/lib.rs"),
            (
                "counter!(NAME);",
                "master/src/driver.rs",
                "master/src/metrics.rs",
            ),
            (
                "use std::time::Instant;",
                "master/src/core/step.rs",
                "master/src/driver.rs",
            ),
            (
                "let map: HashMap<u8, u8>;",
                "agent/src/core/qos.rs",
                "agent/src/driver.rs",
            ),
            (
                "unsafe { x() }",
                "agent/src/driver.rs",
                "agent/src/runtime/launch.rs",
            ),
        ] {
            assert_eq!(findings(wrong, line), 1, "{line} in {wrong}");
            assert_eq!(findings(right, line), 0, "{line} in {right}");
        }
    }

    #[test]
    fn words_in_comments_strings_and_longer_words_are_nothing() {
        for line in [
            "// tokio",
            "let a = \"tokio\";",
            "let tokio_like = 1;",
            "fn profile() {}",
        ] {
            assert_eq!(findings("master/src/core/step.rs", line), 0, "{line}");
        }
    }

    #[test]
    fn marks_are_seen_even_in_comments() {
        assert_eq!(
            findings("master/src/driver.rs", concat!("// TO", "DO: later")),
            1
        );
    }
}
