//! The rules that a run compares, for each set.

use crate::trace::Kind;

/// Rules that are run without a golden file: those that ship somewhere at their defaults, and the best of each family.
const OTHERS: [&str; 18] = [
    "no-overcommit (limit)",
    "last value (no margin)",
    "borg-default phi=0.9",
    "mesos fixed 40 % + threshold 0.8 (blue-yonder)",
    "mesos/serenity slack (cap 0.7)",
    "volcano extend (ratio 60 %)",
    "koordinator batch (usage policy)",
    "koordinator mid, cold start 2 h",
    "katalyst canonical (x1.25 cpu, x1.1 mem)",
    "crane-like (max(now, 1.2 x same hours yesterday))",
    "borg-reclamation-like (margin 25 %, half-life 1 h)",
    "max(N-sigma 5, RC-like p99) W=24h",
    "RC-like p100 W=10h",
    "RC-like p100 W=24h",
    "machine p100 W=48h x1.1",
    "k-surge 1+1 W=72h",
    "combined max(conformal 0.02 72h, k-surge 1+0.5+0.25 72h)",
    "combined max(conformal 0.05 72h, k-surge 1+1 72h)",
];

/// The name of what an hour's foresight saves.
pub fn oracle(kind: Kind) -> String {
    format!("ORACLE H={}", kind.hour())
}

/// The names of the rules to run on a set.
pub fn all(kind: Kind) -> Vec<String> {
    let mut names: Vec<String> = OTHERS.iter().map(|name| (*name).to_owned()).collect();
    names.push(oracle(kind));
    names
}
