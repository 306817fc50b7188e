//! No lock on the way from an event to an offer: not in the allocator, the ledger, the core and the vocabulary, and not
//! in the crates that these call.
//!
//! An uncontended lock of the standard library is neither a call of the system nor a symbol that a test could put itself
//! before, so nothing that runs shows that none was taken. The sources do: whoever locks, waits for another thread, or
//! spins until that has gone on, names one of a few words. The crates are those that the modules name, and all that
//! those depend on, where cargo has put their sources. What may stand all the same is listed with its reason; a line of
//! that list that nothing needs any more is a finding too.
//!
//! What this cannot see: a wait that is made of atomics alone, without a hint to the processor. For the modules' own code
//! the allocator's test of pauses stops a thread before each step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Finding;
use super::source::{self, Source};
use super::words::{has_word, without_strings};
use crate::shell::{cargo, read};

/// The modules of the way.
const MODULES: [&str; 4] = [
    "master/src/allocator/",
    "master/src/ledger/",
    "master/src/core/",
    "types/src/",
];
/// The crates whose manifests name what the modules may call.
const MANIFESTS: [&str; 2] = ["ebb-master", "ebb-types"];

/// What locks, waits or spins.
const WORDS: [&str; 20] = [
    "Mutex",
    "RwLock",
    "ReentrantLock",
    "ShardedLock",
    "Condvar",
    "Once",
    "OnceLock",
    "LazyLock",
    "Barrier",
    "mpsc",
    "tokio",
    "parking_lot",
    "once_cell",
    "lazy_static",
    "Backoff",
    "spin_loop",
    "spin_loop_hint",
    "yield_now",
    "park",
    "park_timeout",
];

/// Files that name such a word all the same, and why that is no lock on the way.
const ALLOWED: &[(&str, &str)] = &[
    (
        "master/src/allocator/worker.rs",
        "a worker without work is parked",
    ),
    (
        "master/src/ledger/slot.rs",
        "the slot's model for loom keeps its ledgers in a mutex that loom does not see",
    ),
    (
        "crossbeam-epoch/src/default.rs",
        "the collector is made once, when the first thread pins; named in workers.rs",
    ),
    (
        "crossbeam-epoch/src/sync/once_lock.rs",
        "what that is made with",
    ),
    (
        "crossbeam-utils/src/",
        "crossbeam-epoch calls its cache padding and consuming loads, not its locks",
    ),
    (
        "arc-swap/src/strategy/",
        "the strategy over a lock is for arc-swap's own tests; ArcSwap is the hybrid one",
    ),
    (
        "crossbeam-epoch/src/sync/list.rs",
        "its tests use a barrier",
    ),
    (
        "regex-automata/src/util/",
        "patterns are matched by the core's own thread when an agent comes or a framework says what it wants, never by a planner; the pool of caches only tries its mutexes and makes another cache where one is held",
    ),
    (
        "regex-automata/src/lib.rs",
        "names one in its documentation",
    ),
    ("regex/src/lib.rs", "names them in its documentation"),
    (
        "aho-corasick/src/lib.rs",
        "begins a sentence of its documentation so",
    ),
    (
        "imbl/src/sync.rs",
        "locks the focus of a vector; only maps are used",
    ),
];

/// Locks on the way.
///
/// # Errors
/// When cargo does not say where the sources are, they cannot be read, or none are found.
pub fn check(root: &Path, sources: &[Source]) -> Result<Vec<Finding>> {
    let own: Vec<&Source> = sources.iter().filter(|source| is_module(source)).collect();
    ensure!(!own.is_empty(), "the modules of {MODULES:?} are gone");
    let manifest = root.join("Cargo.toml");
    let path = manifest.to_string_lossy();
    let said = [
        "metadata",
        "--format-version",
        "1",
        "--manifest-path",
        &*path,
    ];
    let metadata: Value = serde_json::from_str(&read(&mut cargo(&said))?)
        .context("cargo metadata says something that is no JSON")?;
    let packages = Packages::read(&metadata);
    let mut all = Vec::new();
    for id in packages.called(&own) {
        all.extend(packages.sources(id)?);
    }
    ensure!(
        !all.is_empty(),
        "the modules call no crate at all: unlikely"
    );
    Ok(judge(own.into_iter().chain(&all)))
}

fn is_module(source: &Source) -> bool {
    MODULES.iter().any(|module| source.path.starts_with(module)) && !source.is_test()
}

fn judge<'a>(sources: impl Iterator<Item = &'a Source>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut needed = BTreeSet::new();
    for source in sources {
        let allowed = ALLOWED
            .iter()
            .position(|(path, _)| source.path.starts_with(path));
        for (number, word) in locks(source) {
            match allowed {
                Some(at) => {
                    needed.insert(at);
                }
                None => findings.push(format!(
                    "{}:{number}: names `{word}`; nothing locks or waits between an event and an offer (or it is allowed, with its reason, in xtask/src/tidy/locks.rs)",
                    source.path
                )),
            }
        }
    }
    let idle = (0..ALLOWED.len()).filter(|at| !needed.contains(at));
    findings.extend(idle.map(|at| {
        let (path, why) = ALLOWED[at];
        format!("xtask/src/tidy/locks.rs: allows {path} ({why}), which locks nothing; take it out")
    }));
    findings
}

/// The words in a file that lock, with their lines.
fn locks(source: &Source) -> Vec<(usize, &'static str)> {
    let lines = source
        .code()
        .map(|line| (line.number, without_strings(line.text)));
    lines
        .filter_map(|(number, text)| {
            let word = WORDS.into_iter().find(|word| has_word(&text, word))?;
            Some((number, word))
        })
        .collect()
}

/// What cargo says of the packages.
struct Packages<'a> {
    by_id: BTreeMap<&'a str, &'a Value>,
    /// What each depends on outside of its tests and builds: under which name, and which.
    needs: BTreeMap<&'a str, Vec<(&'a str, &'a str)>>,
}

impl<'a> Packages<'a> {
    fn read(metadata: &'a Value) -> Self {
        let list = |value: &'a Value| value.as_array().into_iter().flatten();
        let text = |value: &'a Value| value.as_str().unwrap_or("");
        let by_id = list(&metadata["packages"])
            .map(|package| (text(&package["id"]), package))
            .collect();
        let is_normal =
            |need: &&'a Value| list(&need["dep_kinds"]).any(|kind| kind["kind"].is_null());
        let needs = list(&metadata["resolve"]["nodes"]).map(|node| {
            let needs = list(&node["deps"]).filter(is_normal);
            let needs = needs.map(|need| (text(&need["name"]), text(&need["pkg"])));
            (text(&node["id"]), needs.collect())
        });
        Self {
            by_id,
            needs: needs.collect(),
        }
    }

    /// The packages that the modules name, and all that those need, but for macros, which run in the compiler, and this
    /// repository's own.
    fn called(&self, modules: &[&Source]) -> BTreeSet<&'a str> {
        let is_named = |name: &str| {
            let mut lines = modules.iter().flat_map(|source| source.code());
            lines.any(|line| has_word(&without_strings(line.text), name))
        };
        let of_manifests = self.by_id.iter().filter(|(_, package)| {
            MANIFESTS
                .iter()
                .any(|manifest| package["name"] == **manifest)
        });
        let mut open: Vec<&str> = of_manifests
            .filter_map(|(id, _)| self.needs.get(id))
            .flatten()
            .filter(|(name, _)| is_named(name))
            .map(|(_, id)| *id)
            .collect();
        let mut called = BTreeSet::new();
        while let Some(id) = open.pop() {
            if self.is_foreign(id) && called.insert(id) {
                let needs = self.needs.get(id).into_iter().flatten();
                open.extend(needs.map(|(_, id)| *id));
            }
        }
        called
    }

    fn is_foreign(&self, id: &str) -> bool {
        self.by_id.get(id).is_some_and(|package| {
            let targets = package["targets"].as_array().into_iter().flatten();
            let mut kinds = targets.map(|target| &target["kind"][0]);
            package["source"].is_string() && !kinds.any(|kind| kind == "proc-macro")
        })
    }

    fn sources(&self, id: &str) -> Result<Vec<Source>> {
        let package = self.by_id.get(id).copied().unwrap_or(&Value::Null);
        let name = package["name"].as_str().unwrap_or("");
        let manifest = package["manifest_path"].as_str().unwrap_or("");
        let folder = Path::new(manifest).parent().unwrap_or(Path::new(""));
        let files = source::read_all(&folder.join("src"))?;
        ensure!(
            !files.is_empty(),
            "{name} has no sources in {}",
            folder.display()
        );
        let named = files.into_iter().map(|mut file| {
            file.path = format!("{name}/src/{}", file.path);
            file
        });
        Ok(named.filter(|file| !file.is_test()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, line: &str) -> usize {
        locks(&Source::new(path, &format!("//! x\n{line}\n"))).len()
    }

    #[test]
    fn what_locks_waits_or_spins_is_found_and_nothing_else() {
        for line in [
            "let lock: std::sync::Mutex<u8>;",
            "use parking_lot::RwLock;",
            "let backoff = Backoff::new();",
            "std::hint::spin_loop();",
            "let (sender, receiver) = std::sync::mpsc::channel();",
        ] {
            assert_eq!(found("master/src/core/x.rs", line), 1, "{line}");
        }
        for line in [
            "// Mutex",
            "let text = \"RwLock\";",
            "thread.unpark();",
            "let once = 1;",
        ] {
            assert_eq!(found("master/src/core/x.rs", line), 0, "{line}");
        }
    }

    #[test]
    fn a_lock_in_a_module_is_a_finding_and_what_is_allowed_must_be_needed() {
        let source = Source::new("master/src/core/x.rs", "//! x\nuse std::sync::Mutex;\n");
        let findings = judge([&source].into_iter());
        assert!(findings[0].starts_with("master/src/core/x.rs:2: names `Mutex`"));
        assert_eq!(findings.len(), 1 + ALLOWED.len(), "{findings:?}");
    }

    #[test]
    fn a_crate_that_the_modules_name_is_followed_to_what_it_needs() {
        let package = |id: &str, kind: &str| {
            serde_json::json!({ "id": id, "name": id, "targets": [{ "kind": [kind] }],
                "source": if id.starts_with("ebb") { Value::Null } else { Value::from("registry") } })
        };
        let need = |id: &str| serde_json::json!({ "name": id, "pkg": id, "dep_kinds": [{ "kind": null }] });
        let metadata = serde_json::json!({
            "packages": [package("ebb-master", "lib"), package("queue", "lib"), package("spins", "lib"),
                package("derives", "proc-macro"), package("web", "lib")],
            "resolve": { "nodes": [
                { "id": "ebb-master", "deps": [need("queue"), need("web")] },
                { "id": "queue", "deps": [need("spins"), need("derives")] },
            ] },
        });
        let module = Source::new("master/src/allocator/x.rs", "//! x\nuse queue::Queue;\n");
        let called = Packages::read(&metadata).called(&[&module]);
        assert_eq!(called, BTreeSet::from(["queue", "spins"]));
    }
}
