//! Ids: newtypes that cannot be mixed up, checked once where they enter.
//!
//! The rules are those of Mesos: 1 to 255 bytes, no control characters, no `/` or `\`, not `.` or
//! `..`, so that every id is also a safe name of one file.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::limits::MAX_ID_BYTES;

/// Why a text is not a valid id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text is empty.
    #[error("{kind} is empty; give it 1 to 255 bytes")]
    Empty {
        /// What kind of id was read.
        kind: &'static str,
    },
    /// The text is longer than [`MAX_ID_BYTES`].
    #[error("{kind} is {len} bytes long; at most 255 are allowed")]
    TooLong {
        /// What kind of id was read.
        kind: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// The text holds a character that ids may not hold, or is `.` or `..`.
    #[error(
        "{kind} {text:?} is not allowed: no control characters, no '/' or '\\', and not '.' or '..'"
    )]
    Forbidden {
        /// What kind of id was read.
        kind: &'static str,
        /// The text, which is at most 255 bytes long.
        text: String,
    },
    /// The text breaks the rules for roles.
    #[error(
        "role {text:?} is not allowed: '*', or parts joined by '/', none of them empty, '.', '..' or '*', \
         none starting with '-', no white space"
    )]
    Role {
        /// The text, which is at most 255 bytes long.
        text: String,
    },
}

fn check_length(kind: &'static str, text: &str) -> Result<(), InvalidId> {
    match text.len() {
        0 => Err(InvalidId::Empty { kind }),
        len if len > MAX_ID_BYTES => Err(InvalidId::TooLong { kind, len }),
        _ => Ok(()),
    }
}

fn check_id(kind: &'static str, text: &str) -> Result<(), InvalidId> {
    check_length(kind, text)?;
    let forbidden = |c: char| c.is_control() || c == '/' || c == '\\';
    if text == "." || text == ".." || text.contains(forbidden) {
        return Err(InvalidId::Forbidden {
            kind,
            text: text.to_owned(),
        });
    }
    Ok(())
}

fn check_role(text: &str) -> Result<(), InvalidId> {
    check_length("role", text)?;
    let bad_part =
        |part: &str| part.is_empty() || matches!(part, "." | ".." | "*") || part.starts_with('-');
    let bad_char = |c: char| c.is_control() || c.is_whitespace() || c == '\\';
    if text != "*" && (text.contains(bad_char) || text.split('/').any(bad_part)) {
        return Err(InvalidId::Role {
            text: text.to_owned(),
        });
    }
    Ok(())
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes a text.
            ///
            /// # Errors
            /// [`InvalidId`] says which rule the text breaks.
            pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidId> {
                let text = text.as_ref();
                let check: fn(&str) -> Result<(), InvalidId> = $check;
                check(text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), &self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }
    };
}

text_id!(
    /// Names a framework for its whole life, across fail-overs of its scheduler and of the master.
    FrameworkId, "framework id", |t| check_id("framework id", t)
);
text_id!(
    /// Names an agent; kept in its work folder, so it survives a restart of the agent.
    AgentId, "agent id", |t| check_id("agent id", t)
);
text_id!(
    /// Names one offer; never used twice.
    OfferId, "offer id", |t| check_id("offer id", t)
);
text_id!(
    /// Names a task within its framework; chosen by the framework.
    TaskId, "task id", |t| check_id("task id", t)
);
text_id!(
    /// Names an executor within its framework and agent; chosen by the framework.
    ExecutorId, "executor id", |t| check_id("executor id", t)
);
text_id!(
    /// Names an operation on lots; chosen by the framework.
    OperationId, "operation id", |t| check_id("operation id", t)
);
text_id!(
    /// Names one run of a container; never used twice, so a late order cannot hit its successor.
    ContainerId, "container id", |t| check_id("container id", t)
);
text_id!(
    /// A role: `*`, or parts joined by `/`.
    Role, "role", check_role
);

impl Role {
    /// The role above it, if it is not at the top.
    pub fn parent(&self) -> Option<Self> {
        let (parent, _) = self.as_str().rsplit_once('/')?;
        Self::new(parent).ok()
    }

    /// Whether it is a role or one below that: `a/b` is within `a` and `a/b`, and not within `a/c`.
    pub fn is_within(&self, above: &Self) -> bool {
        let rest = self.as_str().strip_prefix(above.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// One life of an agent process; larger is later. Messages of an earlier incarnation are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// One term of a leading master; larger is later. Messages of an earlier generation are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// Names one status update, for its acknowledgement: 16 bytes, as in Mesos.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpdateUuid(pub [u8; 16]);

impl UpdateUuid {
    /// The uuid of the `count`-th update that the given incarnation of an agent made.
    ///
    /// Unique among the updates of one agent because an incarnation is never used twice, and
    /// updates are only ever acknowledged to the agent that made them.
    pub fn of(incarnation: Incarnation, count: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&incarnation.0.to_be_bytes());
        bytes[8..].copy_from_slice(&count.to_be_bytes());
        Self(bytes)
    }
}

impl fmt::Display for UpdateUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for UpdateUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UpdateUuid({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_not_safe_file_names_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a\\b",
            "a\0b",
            "a\nb",
            "\u{7f}",
            &"x".repeat(256),
            &"x".repeat(65536),
        ] {
            assert!(TaskId::new(bad).is_err(), "{bad:?} was taken");
        }
        for good in ["a", "...", "a.b", " ", "ü", "😀", &"x".repeat(255)] {
            assert_eq!(
                TaskId::new(good).map(|id| id.to_string()),
                Ok(good.to_owned())
            );
        }
    }

    #[test]
    fn roles_follow_the_rules_of_mesos() {
        for bad in [
            "", "/", "a/", "/a", "a//b", "a/.", "a/..", "a/*", "-a", "a/-b", "a b", "a\tb",
            "a\u{8}",
        ] {
            assert!(Role::new(bad).is_err(), "{bad:?} was taken");
        }
        for good in ["*", "a", "eng/backend/ci", "a-b", "a*"] {
            assert!(Role::new(good).is_ok(), "{good:?} was refused");
        }
    }

    #[test]
    fn uuids_of_different_updates_differ() {
        let mut seen = std::collections::BTreeSet::new();
        for incarnation in 0..20 {
            for count in 0..20 {
                assert!(seen.insert(UpdateUuid::of(Incarnation(incarnation), count)));
            }
        }
    }
}
