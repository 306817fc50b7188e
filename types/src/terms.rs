//! What a framework says of the offers that it wants in a role: which agents they may be of, and how much must be in
//! them at least. As in Mesos' offer constraints and offer filters.
//!
//! Constraints stand in groups: an agent suits a role where all constraints of any of its groups hold, or where there are
//! none. A pattern matches a whole text in time linear in its length, and takes bounded memory: [`Pattern::new`] refuses
//! what would take more.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use crate::ids::Role;
use crate::limits::{MAX_PATTERN_BYTES, PATTERN_CACHE_BYTES, PATTERN_PROGRAM_BYTES};
use crate::link::{AgentInfo, AttributeValue};
use crate::quantities::Quantities;

/// What a framework says of its offers, by role; nothing of the roles that are not named.
pub type OfferTerms = BTreeMap<Role, RoleTerms>;

/// What a framework says of its offers in one role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleTerms {
    /// Agents suit where all constraints of one of these groups hold; all agents do where there is no group.
    pub groups: Vec<Vec<Constraint>>,
    /// An offer holds at least one of these; an empty list asks for no more than something. Unset leaves it to the
    /// cluster.
    pub minimum: Option<Arc<[Quantities]>>,
}

/// What of an agent a constraint looks at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// Its attribute of that name; the first, where there are several.
    Attribute(String),
    /// Its host name.
    Hostname,
    /// The region that it is in, if it says so.
    Region,
    /// The zone that it is in, if it says so.
    Zone,
}

/// What is to hold of it. As in Mesos, what is said of texts holds of each attribute that is a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Predicate {
    /// There is one.
    Exists,
    /// There is none.
    NotExists,
    /// There is one, and it is this text.
    TextEquals(String),
    /// There is none, or it is another text.
    TextNotEquals(String),
    /// There is one, and all of it matches.
    TextMatches(Pattern),
    /// There is none, or not all of it matches.
    TextNotMatches(Pattern),
}

/// One condition on agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// What of the agent is looked at.
    pub selector: Selector,
    /// What is to hold of it.
    pub predicate: Predicate,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// It is too long.
    #[error("the pattern is {len} bytes long; at most {MAX_PATTERN_BYTES} are allowed")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It is no regular expression.
    #[error(
        "{text:?} is no regular expression; look-around and back-references are not understood"
    )]
    Syntax {
        /// The text.
        text: String,
    },
    /// It would take too much memory.
    #[error(
        "{text:?} would take more than {PATTERN_PROGRAM_BYTES} bytes of memory; repeat less in it, or split it"
    )]
    TooLarge {
        /// The text.
        text: String,
    },
}

/// A regular expression that a whole text is to match. Two are equal where their texts are.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    whole: Regex,
}

impl Pattern {
    /// Reads a regular expression.
    ///
    /// # Errors
    /// [`InvalidPattern`] says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, InvalidPattern> {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(InvalidPattern::TooLong { len: text.len() });
        }
        // By itself first: one whose parentheses do not match could break out of those around it.
        compile(text, text)?;
        Ok(Self {
            whole: compile(text, &format!(r"\A(?:{text})\z"))?,
            text: Arc::from(text),
        })
    }

    /// The regular expression.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether all of a text matches.
    pub fn matches(&self, text: &str) -> bool {
        self.whole.is_match(text)
    }
}

fn compile(text: &str, pattern: &str) -> Result<Regex, InvalidPattern> {
    let built = RegexBuilder::new(pattern)
        .size_limit(PATTERN_PROGRAM_BYTES)
        .dfa_size_limit(PATTERN_CACHE_BYTES)
        .build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => InvalidPattern::TooLarge {
            text: text.to_owned(),
        },
        _ => InvalidPattern::Syntax {
            text: text.to_owned(),
        },
    })
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

/// What a selector finds.
enum Value<'a> {
    None,
    Text(&'a str),
    Number,
}

impl Selector {
    fn of<'a>(&self, agent: &'a AgentInfo) -> Value<'a> {
        let text = |text: Option<&'a String>| text.map_or(Value::None, |text| Value::Text(text));
        let domain = agent.domain.as_ref();
        match self {
            Self::Hostname => Value::Text(&agent.hostname),
            Self::Region => text(domain.map(|domain| &domain.region)),
            Self::Zone => text(domain.map(|domain| &domain.zone)),
            Self::Attribute(name) => {
                let mut attributes = agent.attributes.iter();
                match attributes.find(|attribute| attribute.name == *name) {
                    None => Value::None,
                    Some(attribute) => match &attribute.value {
                        AttributeValue::Text(text) => Value::Text(text),
                        AttributeValue::ScalarMilli(_) => Value::Number,
                    },
                }
            }
        }
    }
}

impl Constraint {
    /// Whether it holds of an agent.
    pub fn holds(&self, agent: &AgentInfo) -> bool {
        let value = self.selector.of(agent);
        match (&self.predicate, value) {
            (Predicate::Exists, value) => !matches!(value, Value::None),
            (Predicate::NotExists, value) => matches!(value, Value::None),
            (_, Value::Number) => true,
            (Predicate::TextEquals(_) | Predicate::TextMatches(_), Value::None) => false,
            (Predicate::TextNotEquals(_) | Predicate::TextNotMatches(_), Value::None) => true,
            (Predicate::TextEquals(wanted), Value::Text(text)) => text == wanted,
            (Predicate::TextNotEquals(other), Value::Text(text)) => text != other,
            (Predicate::TextMatches(pattern), Value::Text(text)) => pattern.matches(text),
            (Predicate::TextNotMatches(pattern), Value::Text(text)) => !pattern.matches(text),
        }
    }

    /// Its pattern, if it has one.
    pub const fn pattern(&self) -> Option<&Pattern> {
        match &self.predicate {
            Predicate::TextMatches(pattern) | Predicate::TextNotMatches(pattern) => Some(pattern),
            _ => None,
        }
    }
}

impl RoleTerms {
    /// Whether they say nothing.
    pub const fn is_none(&self) -> bool {
        self.groups.is_empty() && self.minimum.is_none()
    }

    /// Whether an agent suits.
    pub fn suits(&self, agent: &AgentInfo) -> bool {
        let all = |group: &Vec<Constraint>| group.iter().all(|one| one.holds(agent));
        self.groups.is_empty() || self.groups.iter().any(all)
    }

    /// The constraints of all groups.
    pub fn constraints(&self) -> impl Iterator<Item = &Constraint> {
        self.groups.iter().flatten()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attribute(name) => f.write_str(name),
            Self::Hostname => f.write_str("HOSTNAME"),
            Self::Region => f.write_str("REGION"),
            Self::Zone => f.write_str("ZONE"),
        }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = &self.selector;
        match &self.predicate {
            Predicate::Exists => write!(f, "{of} exists"),
            Predicate::NotExists => write!(f, "{of} does not exist"),
            Predicate::TextEquals(text) => write!(f, "{of} is {text:?}"),
            Predicate::TextNotEquals(text) => write!(f, "{of} is not {text:?}"),
            Predicate::TextMatches(pattern) => write!(f, "{of} matches {:?}", pattern.text),
            Predicate::TextNotMatches(pattern) => {
                write!(f, "{of} does not match {:?}", pattern.text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{Attribute, FaultDomain};
    use crate::lots::Lots;

    fn agent() -> AgentInfo {
        let attribute = |name: &str, value| Attribute {
            name: name.to_owned(),
            value,
        };
        AgentInfo {
            id: None,
            hostname: String::from("a1.example"),
            port: 0,
            total: Quantities::ZERO,
            lots: Lots::NONE,
            lots_version: 0,
            attributes: vec![
                attribute("rack", AttributeValue::Text(String::from("r1"))),
                attribute("rack", AttributeValue::Text(String::from("r2"))),
                attribute("ssds", AttributeValue::ScalarMilli(2000)),
            ],
            version: String::new(),
            domain: Some(FaultDomain {
                region: String::from("eu"),
                zone: String::from("eu-1"),
            }),
        }
    }

    fn holds(selector: Selector, predicate: Predicate) -> bool {
        Constraint {
            selector,
            predicate,
        }
        .holds(&agent())
    }

    #[test]
    fn predicates_hold_as_in_mesos() {
        let named = |name: &str| Selector::Attribute(name.to_owned());
        let text = |text: &str| text.to_owned();
        let pattern = |text: &str| Pattern::new(text).unwrap();
        let all = |selector: &dyn Fn() -> Selector, value: &str| {
            [
                Predicate::Exists,
                Predicate::NotExists,
                Predicate::TextEquals(text(value)),
                Predicate::TextNotEquals(text(value)),
                Predicate::TextMatches(pattern(value)),
                Predicate::TextNotMatches(pattern(value)),
            ]
            .map(|predicate| holds(selector(), predicate))
        };
        let is = [true, false, true, false, true, false];
        let other = [true, false, false, true, false, true];
        assert_eq!(all(&|| named("rack"), "r1"), is);
        assert_eq!(all(&|| named("rack"), "r2"), other, "the first counts");
        assert_eq!(all(&|| named("rack"), "r"), other, "all of it is to match");
        assert_eq!(all(&|| Selector::Hostname, "a1.example"), is);
        assert_eq!(all(&|| Selector::Region, "eu"), is);
        assert_eq!(all(&|| Selector::Zone, "eu"), other);
        let none = [false, true, false, true, false, true];
        assert_eq!(all(&|| named("gpu"), "r1"), none);
        let number = [true, false, true, true, true, true];
        assert_eq!(all(&|| named("ssds"), "2"), number);
    }

    #[test]
    fn an_agent_suits_where_all_of_any_group_holds() {
        let is = |name: &str, text: &str| Constraint {
            selector: Selector::Attribute(name.to_owned()),
            predicate: Predicate::TextEquals(text.to_owned()),
        };
        let suits = |groups| {
            let minimum = None;
            RoleTerms { groups, minimum }.suits(&agent())
        };
        assert!(suits(Vec::new()));
        assert!(!suits(vec![vec![is("rack", "r1"), is("gpu", "yes")]]));
        assert!(suits(vec![vec![is("gpu", "yes")], vec![is("rack", "r1")]]));
    }

    #[test]
    fn patterns_that_cost_too_much_or_are_none_are_refused_with_a_sentence() {
        let long = "x".repeat(MAX_PATTERN_BYTES + 1);
        for (bad, said) in [
            ("a)(b", "no regular expression"),
            ("(", "no regular expression"),
            (r"(a)\1", "no regular expression"),
            ("(?=a)", "no regular expression"),
            ("((a{100}){100}){100}", "memory"),
            (long.as_str(), "bytes long"),
        ] {
            let error = Pattern::new(bad).expect_err(bad).to_string();
            assert!(error.contains(said), "{error}");
        }
        let pattern = Pattern::new(r"eu-(west|north)-\d+[a-c]?").unwrap();
        assert!(pattern.matches("eu-west-1a") && !pattern.matches("x eu-west-1a"));
        assert!(!pattern.matches("eu-west-1a\n"));
        assert!(Pattern::new(r"(\w|-)+").unwrap().matches("é-9"));
    }
}
