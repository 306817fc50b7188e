//! What a framework says of its offers: constraints on agents, and the least that an offer is to hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use ebb_types::limits::{
    MAX_CONSTRAINT_GROUPS, MAX_CONSTRAINTS, MAX_ID_BYTES, MAX_MINIMA, MAX_NAME_BYTES, MAX_PATTERNS,
    MAX_ROLES,
};
use ebb_types::{
    Constraint, OfferTerms, Pattern, Predicate, Quantities, Role, RoleTerms, Selector,
};
use proto::role_terms::constraint::Predicate as Wire;
use proto::role_terms::{self as wire, Of};

use crate::check::{Invalid, bounded, id, quantities, required, text, write_quantities};
use crate::proto;

/// Reads what a framework says, each role once.
pub(crate) fn offer_terms(list: Vec<proto::RoleTerms>) -> Result<OfferTerms, Invalid> {
    bounded("terms", list.len(), MAX_ROLES)?;
    let groups = list.iter().flat_map(|terms| &terms.groups);
    let all = groups.map(|group| group.constraints.len()).sum();
    bounded("terms.constraints", all, MAX_CONSTRAINTS)?;
    let constraints = list
        .iter()
        .flat_map(|terms| &terms.groups)
        .flat_map(|group| &group.constraints);
    let patterns = constraints.filter(|one| {
        matches!(
            one.predicate,
            Some(Wire::TextMatches(_) | Wire::TextNotMatches(_))
        )
    });
    let patterns = patterns.count();
    if patterns > MAX_PATTERNS {
        return Err(Invalid::new(
            "terms.constraints",
            format!("have {patterns} patterns; at most {MAX_PATTERNS} are allowed"),
        ));
    }
    let mut terms = BTreeMap::new();
    for one in list {
        let role = id("terms.role", &one.role, |t| Role::new(t))?;
        let said = role_terms(one)?;
        if terms.insert(role.clone(), said).is_some() {
            return Err(Invalid::new(
                "terms",
                format!("name role {role} twice; name it once"),
            ));
        }
    }
    Ok(terms)
}

fn role_terms(terms: proto::RoleTerms) -> Result<RoleTerms, Invalid> {
    bounded("terms.groups", terms.groups.len(), MAX_CONSTRAINT_GROUPS)?;
    let groups = terms.groups.into_iter().map(|group| {
        if group.constraints.is_empty() {
            return Err(Invalid::new(
                "terms.groups",
                "has an empty group, which would hold of every agent; leave all groups out for that",
            ));
        }
        group.constraints.into_iter().map(constraint).collect()
    });
    Ok(RoleTerms {
        groups: groups.collect::<Result<_, _>>()?,
        minimum: terms.minimum.map(minimum).transpose()?,
    })
}

fn constraint(constraint: wire::Constraint) -> Result<Constraint, Invalid> {
    const FIELD: &str = "terms.constraint";
    let name = text(FIELD, constraint.attribute, MAX_ID_BYTES)?;
    let selector = match Of::try_from(constraint.of) {
        Ok(Of::Attribute) if name.is_empty() => {
            return Err(Invalid::new(FIELD, "names no attribute; name one"));
        }
        Ok(Of::Attribute) => Selector::Attribute(name),
        Ok(_) if !name.is_empty() => {
            return Err(Invalid::new(
                FIELD,
                format!("names attribute {name:?} and is of something else; leave the name out"),
            ));
        }
        Ok(Of::Hostname) => Selector::Hostname,
        Ok(Of::Region) => Selector::Region,
        Ok(Of::Zone) => Selector::Zone,
        Err(_) => {
            return Err(Invalid::new(
                FIELD,
                format!("is of {}, which is nothing known", constraint.of),
            ));
        }
    };
    let value = |value| text(FIELD, value, MAX_NAME_BYTES);
    let pattern =
        |value: String| Pattern::new(&value).map_err(|bad| Invalid::new(FIELD, bad.to_string()));
    let predicate = match required(FIELD, constraint.predicate)? {
        Wire::Exists(_) => Predicate::Exists,
        Wire::NotExists(_) => Predicate::NotExists,
        Wire::TextEquals(text) => Predicate::TextEquals(value(text)?),
        Wire::TextNotEquals(text) => Predicate::TextNotEquals(value(text)?),
        Wire::TextMatches(text) => Predicate::TextMatches(pattern(text)?),
        Wire::TextNotMatches(text) => Predicate::TextNotMatches(pattern(text)?),
    };
    Ok(Constraint {
        selector,
        predicate,
    })
}

/// Reads the least that an offer is to hold.
pub(crate) fn minimum(minimum: wire::Minimum) -> Result<Arc<[Quantities]>, Invalid> {
    const FIELD: &str = "terms.minimum";
    bounded(FIELD, minimum.any_of.len(), MAX_MINIMA)?;
    let any_of = minimum.any_of.iter().map(|amounts| {
        let amounts = quantities(FIELD, &amounts.amounts)?;
        if amounts.is_zero() {
            return Err(Invalid::new(
                FIELD,
                "has an alternative of nothing; an empty list says that there is no minimum",
            ));
        }
        Ok(amounts)
    });
    any_of.collect()
}

/// Writes what a framework says.
pub(crate) fn write_offer_terms(terms: OfferTerms) -> Vec<proto::RoleTerms> {
    let write = |(role, terms): (Role, RoleTerms)| proto::RoleTerms {
        role: role.to_string(),
        groups: terms
            .groups
            .into_iter()
            .map(|group| wire::Group {
                constraints: group.into_iter().map(write_constraint).collect(),
            })
            .collect(),
        minimum: terms.minimum.as_deref().map(write_minimum),
    };
    terms.into_iter().map(write).collect()
}

fn write_constraint(constraint: Constraint) -> wire::Constraint {
    let (of, attribute) = match constraint.selector {
        Selector::Attribute(name) => (Of::Attribute, name),
        Selector::Hostname => (Of::Hostname, String::new()),
        Selector::Region => (Of::Region, String::new()),
        Selector::Zone => (Of::Zone, String::new()),
    };
    let predicate = match constraint.predicate {
        Predicate::Exists => Wire::Exists(proto::Empty {}),
        Predicate::NotExists => Wire::NotExists(proto::Empty {}),
        Predicate::TextEquals(text) => Wire::TextEquals(text),
        Predicate::TextNotEquals(text) => Wire::TextNotEquals(text),
        Predicate::TextMatches(pattern) => Wire::TextMatches(pattern.as_str().to_owned()),
        Predicate::TextNotMatches(pattern) => Wire::TextNotMatches(pattern.as_str().to_owned()),
    };
    wire::Constraint {
        of: of as i32,
        attribute,
        predicate: Some(predicate),
    }
}

/// Writes the least that an offer is to hold.
pub(crate) fn write_minimum(minimum: &[Quantities]) -> wire::Minimum {
    let amounts = |amounts: &Quantities| wire::Amounts {
        amounts: write_quantities(amounts, false),
    };
    wire::Minimum {
        any_of: minimum.iter().map(amounts).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constraint(predicate: Option<Wire>) -> wire::Constraint {
        wire::Constraint {
            of: Of::Attribute as i32,
            attribute: String::from("rack"),
            predicate,
        }
    }

    fn of_one(group: Vec<wire::Constraint>) -> Vec<proto::RoleTerms> {
        vec![proto::RoleTerms {
            role: String::from("a"),
            groups: vec![wire::Group { constraints: group }],
            minimum: None,
        }]
    }

    #[test]
    fn terms_survive_the_wire_unchanged() {
        let said = |selector, predicate| Constraint {
            selector,
            predicate,
        };
        let pattern = || Pattern::new("eu-.*").unwrap();
        let groups = vec![
            vec![
                said(Selector::Attribute(String::from("rack")), Predicate::Exists),
                said(Selector::Hostname, Predicate::TextNotMatches(pattern())),
                said(Selector::Zone, Predicate::TextEquals(String::from("z"))),
            ],
            vec![
                said(Selector::Region, Predicate::TextMatches(pattern())),
                said(Selector::Region, Predicate::NotExists),
                said(Selector::Zone, Predicate::TextNotEquals(String::from("z"))),
            ],
        ];
        let role = |text| Role::new(text).unwrap();
        let none: Arc<[Quantities]> = Arc::from([]);
        let some: Arc<[Quantities]> = Arc::from([Quantities::cpus_mem(1000, 1 << 30)]);
        let of = |groups, minimum| RoleTerms { groups, minimum };
        let terms = OfferTerms::from([
            (role("a"), of(groups, Some(some))),
            (role("b"), of(Vec::new(), Some(none))),
            (role("c"), of(Vec::new(), None)),
        ]);
        let read = offer_terms(write_offer_terms(terms.clone()));
        assert_eq!(read, Ok(terms));
    }

    #[test]
    fn terms_that_break_a_rule_are_refused_with_a_sentence() {
        let exists = || constraint(Some(Wire::Exists(proto::Empty {})));
        let matches = |text: &str| constraint(Some(Wire::TextMatches(text.to_owned())));
        let unnamed = wire::Constraint {
            attribute: String::new(),
            ..exists()
        };
        let of = |of| wire::Constraint { of, ..exists() };
        let twice = [of_one(vec![exists()]), of_one(vec![exists()])].concat();
        let of_nothing = proto::RoleTerms {
            role: String::from("a"),
            minimum: Some(wire::Minimum {
                any_of: vec![wire::Amounts::default()],
            }),
            ..Default::default()
        };
        for (list, said) in [
            (of_one(Vec::new()), "empty group"),
            (of_one(vec![constraint(None)]), "missing"),
            (of_one(vec![unnamed]), "names no attribute"),
            (of_one(vec![of(1)]), "leave the name out"),
            (of_one(vec![of(9)]), "nothing known"),
            (of_one(vec![matches("(")]), "no regular expression"),
            (of_one(vec![matches("((a{90}){90}){90}")]), "memory"),
            (of_one(vec![matches("a"); MAX_PATTERNS + 1]), "patterns"),
            (of_one(vec![exists(); MAX_CONSTRAINTS + 1]), "entries"),
            (twice, "twice"),
            (vec![of_nothing], "no minimum"),
        ] {
            let sentence = offer_terms(list).expect_err(said).to_string();
            assert!(sentence.contains(said), "{sentence}");
        }
    }
}
