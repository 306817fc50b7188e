//! From what a person types to the one thing that is meant.
//!
//! The problem: ids are long. A text names a thing when it is its id, or the only id that starts
//! with it. The ids that one master makes all start with the name of its cluster, so that part may
//! be left out. Task ids are unique within a framework only: `FRAMEWORK/TASK` names one for certain
//! (ids hold no `/`), each part again by a prefix.
//!
//! The invariants: an exact match wins over prefixes; a text never silently names one of several.

use ebb_types::limits::MAX_ID_BYTES;

use crate::error::{EXIT_ERROR, EXIT_USAGE};
use crate::output::quantity::shown;
use crate::output::table::clean;

/// How many candidates an error lists.
const MAX_CANDIDATES_SHOWN: usize = 10;
/// Longest text that can name anything: two ids and a `/`.
const MAX_TEXT_BYTES: usize = 2 * MAX_ID_BYTES + 1;

/// Why a text names no single thing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResolveError {
    /// The text cannot be the start of any id.
    #[error("{text:?} cannot be the id of {noun}: {rule}; list those that there are with `{list}`")]
    Malformed {
        noun: &'static str,
        text: String,
        rule: &'static str,
        list: &'static str,
    },
    /// Nothing is named so.
    #[error("there is no {noun} {text:?}; list those that there are with `{list}`")]
    NoMatch {
        noun: &'static str,
        text: String,
        list: &'static str,
    },
    /// Several things are.
    #[error("{text:?} may be any of {count}: {candidates}; give more of the id")]
    Ambiguous {
        text: String,
        count: usize,
        candidates: String,
    },
}

impl ResolveError {
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Malformed { .. } => EXIT_USAGE,
            Self::NoMatch { .. } | Self::Ambiguous { .. } => EXIT_ERROR,
        }
    }
}

/// The part of ids that all things of one cluster share, with the `-` behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cluster(String);

impl Cluster {
    /// Takes it from the id of the master, `CLUSTER-GENERATION`.
    pub(crate) fn of_master(master_id: &str) -> Self {
        match master_id.rsplit_once('-') {
            Some((cluster, _)) if !cluster.is_empty() => Self(format!("{cluster}-")),
            _ => Self::default(),
        }
    }

    /// An id without the name of the cluster.
    pub(crate) fn short<'a>(&self, id: &'a str) -> &'a str {
        match id.strip_prefix(&self.0) {
            Some(rest) if !rest.is_empty() => rest,
            _ => id,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    None,
    Prefix,
    /// The id exactly, the framework's by a prefix.
    Near,
    Exact,
}

impl Fit {
    fn of(id: &str, text: &str) -> Self {
        if id == text {
            Self::Exact
        } else if id.starts_with(text) {
            Self::Prefix
        } else {
            Self::None
        }
    }
}

/// Something that a text may name.
#[derive(Clone, Debug)]
pub(crate) struct Candidate<T> {
    /// What it is, as a noun.
    pub(crate) noun: &'static str,
    /// Whose it is, for things whose ids are unique within a framework only.
    pub(crate) owner: Option<String>,
    /// Its id.
    pub(crate) id: String,
    /// The thing.
    pub(crate) thing: T,
}

impl<T> Candidate<T> {
    fn fit(&self, text: &str, cluster: &Cluster) -> Fit {
        let either = |id: &str, text| Fit::of(id, text).max(Fit::of(cluster.short(id), text));
        let whole = either(&self.id, text);
        match (&self.owner, text.split_once('/')) {
            (Some(owner), Some((of, id))) if !of.is_empty() => {
                let both = match (either(owner, of), Fit::of(&self.id, id)) {
                    (Fit::Prefix, Fit::Exact) => Fit::Near,
                    (owner, id) => owner.min(id),
                };
                both.max(whole)
            }
            _ => whole,
        }
    }

    fn full_name(&self) -> String {
        let id = clean(&self.id);
        match &self.owner {
            Some(owner) => format!("{} {owner}/{id}", self.noun),
            None => format!("{} {id}", self.noun),
        }
    }
}

/// The one candidate that `text` names.
///
/// # Errors
/// [`ResolveError`] when it names none or several, or cannot name anything.
pub(crate) fn resolve<'a, T>(
    noun: &'static str,
    list: &'static str,
    text: &str,
    cluster: &Cluster,
    candidates: &'a [Candidate<T>],
) -> Result<&'a T, ResolveError> {
    let rule = if text.is_empty() {
        Some("it is empty")
    } else if text.len() > MAX_TEXT_BYTES {
        Some("no id is longer than 255 bytes")
    } else if text.contains(char::is_control) {
        Some("no id holds control characters")
    } else {
        None
    };
    if let Some(rule) = rule {
        return Err(ResolveError::Malformed {
            noun,
            text: shown(text),
            rule,
            list,
        });
    }
    let mut best = Fit::Prefix;
    let mut found: Vec<&Candidate<T>> = Vec::new();
    for candidate in candidates {
        let fit = candidate.fit(text, cluster);
        if fit > best {
            best = fit;
            found.clear();
        }
        if fit == best {
            found.push(candidate);
        }
    }
    match found.as_slice() {
        [one] => Ok(&one.thing),
        [] => Err(ResolveError::NoMatch {
            noun,
            text: shown(text),
            list,
        }),
        several => {
            let names = several.iter().take(MAX_CANDIDATES_SHOWN);
            let mut names: Vec<String> = names.map(|candidate| candidate.full_name()).collect();
            if several.len() > MAX_CANDIDATES_SHOWN {
                names.push("…".to_owned());
            }
            Err(ResolveError::Ambiguous {
                text: shown(text),
                count: several.len(),
                candidates: names.join(", "),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(owner: Option<&str>, id: &str) -> Candidate<String> {
        Candidate {
            noun: "task",
            owner: owner.map(ToOwned::to_owned),
            id: id.to_owned(),
            thing: format!("{}/{id}", owner.unwrap_or("")),
        }
    }

    fn find<'a>(text: &str, list: &'a [Candidate<String>]) -> Result<&'a str, ResolveError> {
        let cluster = Cluster::of_master("cafe-3");
        resolve("task", "ebb tasks", text, &cluster, list).map(String::as_str)
    }

    #[test]
    fn exact_ids_win_and_ambiguous_ones_are_listed() {
        let list = [
            candidate(None, "cafe-1-S1"),
            candidate(None, "cafe-1-S10"),
            candidate(None, "cafe-2-S1"),
        ];
        assert_eq!(find("cafe-1-S1", &list), Ok("/cafe-1-S1"));
        assert_eq!(find("1-S1", &list), Ok("/cafe-1-S1"));
        assert_eq!(find("1-S10", &list), Ok("/cafe-1-S10"));
        assert_eq!(find("2", &list), Ok("/cafe-2-S1"));
        let sentence = find("1-S", &list).unwrap_err().to_string();
        assert!(sentence.contains("any of 2: task cafe-1-S1, task cafe-1-S10"));
        assert_eq!(find("3", &list).unwrap_err().exit_code(), 1);
    }

    #[test]
    fn tasks_of_one_name_are_told_apart_by_their_framework() {
        let list = [
            candidate(Some("cafe-1-0000"), "web"),
            candidate(Some("cafe-1-0001"), "web"),
            candidate(Some("cafe-1-0001"), "web2"),
        ];
        assert!(matches!(
            find("web", &list),
            Err(ResolveError::Ambiguous { count: 2, .. })
        ));
        assert_eq!(find("cafe-1-0001/web", &list), Ok("cafe-1-0001/web"));
        assert_eq!(find("1-0000/w", &list), Ok("cafe-1-0000/web"));
        assert_eq!(find("1-0001/web", &list), Ok("cafe-1-0001/web"));
        assert_eq!(find("web2", &list), Ok("cafe-1-0001/web2"));
    }

    #[test]
    fn texts_that_cannot_be_ids_are_refused_as_usage() {
        let huge = "x".repeat(65_536);
        for (text, says) in [
            ("", "empty"),
            (huge.as_str(), "255 bytes"),
            ("a\0b", "control"),
            ("a\x1b[31m", "control"),
        ] {
            let error = find(text, &[]).unwrap_err();
            let sentence = error.to_string();
            assert!(sentence.contains(says), "{sentence}");
            assert!(!sentence.contains('\x1b') && sentence.len() < 300);
            assert_eq!(error.exit_code(), 2);
        }
        for text in ["/", "..", "../../etc/passwd", "a/b"] {
            let error = find(text, &[candidate(Some("f"), "t")]).unwrap_err();
            assert!(matches!(error, ResolveError::NoMatch { .. }), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_text_names_a_thing_only_if_it_is_the_only_one_or_the_exact_one(
            ids in prop::collection::btree_set("[ab]{1,4}", 1..12),
            text in "[ab]{1,4}",
        ) {
            let list: Vec<_> = ids.iter().map(|id| candidate(None, id)).collect();
            let prefixed: Vec<&String> = ids.iter().filter(|id| id.starts_with(&text)).collect();
            match find(&text, &list) {
                Ok(found) => {
                    let found = found.trim_start_matches('/');
                    prop_assert!(found == text || prefixed == [found]);
                }
                Err(ResolveError::Ambiguous { count, .. }) => {
                    prop_assert!(count > 1 && count == prefixed.len() && !ids.contains(&text));
                }
                Err(_) => prop_assert!(prefixed.is_empty()),
            }
        }

        #[test]
        fn every_full_id_names_its_thing(
            ids in prop::collection::btree_set(("[ab]{1,3}", "[ab]{1,3}"), 1..12),
        ) {
            let list: Vec<_> = ids.iter().map(|(f, t)| candidate(Some(f), t)).collect();
            for (framework, task) in &ids {
                let name = format!("{framework}/{task}");
                prop_assert_eq!(find(&name, &list), Ok(name.as_str()));
            }
        }
    }
}
