//! Who has a claim: roles, their members (a framework in a role), what each holds, and the order of
//! need, kept incrementally.
//!
//! Invariants: a member is in its role's order of a class exactly when it may be offered resources
//! of that class; a role is in the order of roles exactly when one of its members is in its own. A
//! role holds the sum of what its members hold. Indices are reused after removal.
//!
//! The price: a change of one member costs O(log members + log roles). A change of the cluster's
//! totals changes every share above 0 and is caught up with by [`Claimants::refresh`], once for any
//! number of changes: O(holders × log members).

use ebb_types::{FrameworkId, Resources, Role};
use imbl::{OrdMap, OrdSet};

use super::table::Table;
use crate::core::drf::{Class, Place, Standing, Sums};

/// Weight of a role that was given none, in thousandths.
pub const DEFAULT_WEIGHT_MILLI: u32 = 1000;

const CLASSES: usize = Class::ALL.len();

/// A framework in a role.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) framework_id: FrameworkId,
    /// Index of its role.
    pub(crate) role: u32,
    pub(crate) standing: Standing,
    /// Which classes it may be offered.
    wants: [bool; CLASSES],
    /// Whether its framework is subscribed in the role; else it is here for what it holds.
    subscribed: bool,
    /// Its refusals with a stamp up to this are void.
    pub(crate) refusals_from: u64,
    places: [Option<Place<FrameworkId>>; CLASSES],
}

impl Member {
    pub(crate) const fn wants(&self, class: Class) -> bool {
        self.wants[class as usize]
    }

    pub(crate) const fn place(&self, class: Class) -> Option<&Place<FrameworkId>> {
        self.places[class as usize].as_ref()
    }
}

/// A role with its members.
#[derive(Clone, Debug)]
pub(crate) struct RoleEntry {
    pub(crate) role: Role,
    pub(crate) weight_milli: u32,
    pub(crate) standing: Standing,
    members: OrdMap<FrameworkId, u32>,
    order: [OrdSet<Place<FrameworkId>>; CLASSES],
    places: [Option<Place<Role>>; CLASSES],
}

impl RoleEntry {
    /// Its members that may be offered a class, the neediest first.
    pub(crate) const fn order(&self, class: Class) -> &OrdSet<Place<FrameworkId>> {
        &self.order[class as usize]
    }

    pub(crate) const fn place(&self, class: Class) -> Option<&Place<Role>> {
        self.places[class as usize].as_ref()
    }
}

/// Whose places were made with other totals. While the cluster keeps the same kinds of resources,
/// who has no share of them has none of another total either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stale {
    #[default]
    Nobody,
    /// Those with a share above 0.
    Holders,
    Everybody,
}

/// Those at the end of an order as long as `concerned` says so of their having a share.
fn indices<N: Ord>(order: &OrdSet<Place<N>>, concerned: impl Fn(bool) -> bool) -> Vec<u32> {
    order
        .iter()
        .rev()
        .take_while(|place| concerned(place.has_share()))
        .map(Place::index)
        .collect()
}

/// All roles and members.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claimants {
    totals: [Sums; CLASSES],
    /// Whose places of a class were made with other totals.
    stale: [Stale; CLASSES],
    roles: Table<RoleEntry>,
    role_index: OrdMap<Role, u32>,
    members: Table<Member>,
    order: [OrdSet<Place<Role>>; CLASSES],
}

impl Claimants {
    /// What the cluster has of a class.
    pub(crate) const fn totals(&self, class: Class) -> &Sums {
        &self.totals[class as usize]
    }

    /// The roles with a member that may be offered a class, the neediest first.
    pub(crate) const fn order(&self, class: Class) -> &OrdSet<Place<Role>> {
        &self.order[class as usize]
    }

    pub(crate) fn role(&self, index: u32) -> Option<&RoleEntry> {
        self.roles.get(index)
    }

    pub(crate) fn role_named(&self, role: &Role) -> Option<&RoleEntry> {
        self.roles.get(*self.role_index.get(role)?)
    }

    pub(crate) fn roles(&self) -> impl Iterator<Item = &RoleEntry> {
        self.role_index
            .values()
            .filter_map(|index| self.role(*index))
    }

    pub(crate) fn member(&self, index: u32) -> Option<&Member> {
        self.members.get(index)
    }

    pub(crate) fn member_index(&self, framework_id: &FrameworkId, role: &Role) -> Option<u32> {
        self.role_named(role)?.members.get(framework_id).copied()
    }

    /// Replaces what the cluster has.
    pub(crate) fn set_total(&mut self, class: Class, total: Sums) {
        let slot = class as usize;
        let old = std::mem::replace(&mut self.totals[slot], total);
        let stale = if old == total {
            Stale::Nobody
        } else if old.has_same_kinds(&total) {
            Stale::Holders
        } else {
            Stale::Everybody
        };
        self.stale[slot] = self.stale[slot].max(stale);
    }

    /// Whether the order of need is out of date.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale != [Stale::Nobody; CLASSES]
    }

    /// Makes places anew where totals have changed.
    pub(crate) fn refresh(&mut self) {
        for class in Class::ALL {
            let stale = std::mem::take(&mut self.stale[class as usize]);
            if stale == Stale::Nobody {
                continue;
            }
            // Whoever is in no order has no place; those with a share are at the end.
            let concerned = |has_share: bool| has_share || stale == Stale::Everybody;
            let roles = indices(self.order(class), concerned);
            for role in roles {
                let members = self
                    .role(role)
                    .map(|entry| indices(entry.order(class), concerned))
                    .unwrap_or_default();
                for member in members {
                    self.place_member(member);
                }
                self.place_role(role);
            }
        }
    }

    /// The index of a framework in a role, which is added where it is new; refusals of the new one
    /// count from after `stamp`.
    pub(crate) fn intern(&mut self, framework_id: &FrameworkId, role: &Role, stamp: u64) -> u32 {
        if let Some(index) = self.member_index(framework_id, role) {
            return index;
        }
        let role_index = self.intern_role(role);
        let index = self.members.insert(Member {
            framework_id: framework_id.clone(),
            role: role_index,
            standing: Standing::default(),
            wants: [false; CLASSES],
            subscribed: false,
            refusals_from: stamp,
            places: [None, None],
        });
        if let Some(entry) = self.roles.get_mut(role_index) {
            entry.members.insert(framework_id.clone(), index);
        }
        index
    }

    fn intern_role(&mut self, role: &Role) -> u32 {
        if let Some(index) = self.role_index.get(role) {
            return *index;
        }
        let index = self.roles.insert(RoleEntry {
            role: role.clone(),
            weight_milli: DEFAULT_WEIGHT_MILLI,
            standing: Standing::default(),
            members: OrdMap::new(),
            order: Default::default(),
            places: [None, None],
        });
        self.role_index.insert(role.clone(), index);
        index
    }

    /// Sets a role's weight.
    pub(crate) fn set_weight(&mut self, role: &Role, weight_milli: u32) {
        let index = self.intern_role(role);
        if let Some(entry) = self.roles.get_mut(index) {
            entry.weight_milli = weight_milli.max(1);
        }
        self.place_role(index);
        self.forget_role_if_empty(index);
    }

    /// Says whether a member is subscribed and which classes it may be offered.
    pub(crate) fn set_wants(&mut self, index: u32, subscribed: bool, wants: [bool; CLASSES]) {
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        member.subscribed = subscribed;
        member.wants = wants;
        let role = member.role;
        self.place_member(index);
        self.place_role(role);
        self.forget_if_idle(index);
    }

    /// Voids a member's refusals up to now.
    pub(crate) fn void_refusals(&mut self, index: u32, stamp: u64) {
        if let Some(member) = self.members.get_mut(index) {
            member.refusals_from = stamp;
        }
    }

    /// Counts resources as held.
    pub(crate) fn charge(&mut self, index: u32, resources: &Resources) {
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        member.standing.charge(resources);
        let role = member.role;
        if let Some(entry) = self.roles.get_mut(role) {
            entry.standing.charge(resources);
        }
        self.place_member(index);
        self.place_role(role);
    }

    /// Counts resources as held no more; false, and nothing is changed, where less is held.
    #[must_use]
    pub(crate) fn credit(&mut self, index: u32, resources: &Resources) -> bool {
        let Some(member) = self.members.get_mut(index) else {
            return false;
        };
        if !member.standing.credit(resources) {
            return false;
        }
        let role = member.role;
        let credited = self
            .roles
            .get_mut(role)
            .is_some_and(|entry| entry.standing.credit(resources));
        debug_assert!(credited, "role {role} holds less than its member {index}");
        self.place_member(index);
        self.place_role(role);
        self.forget_if_idle(index);
        credited
    }

    fn place_member(&mut self, index: u32) {
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        let Some(role) = self.roles.get_mut(member.role) else {
            return;
        };
        for class in Class::ALL {
            let slot = class as usize;
            let order = &mut role.order[slot];
            if let Some(old) = member.places[slot].take() {
                order.remove(&old);
            }
            if member.wants[slot] {
                let place = Place::new(
                    member.standing.held(class),
                    member.standing.allocations(class),
                    &self.totals[slot],
                    DEFAULT_WEIGHT_MILLI,
                    member.framework_id.clone(),
                    index,
                );
                order.insert(place.clone());
                member.places[slot] = Some(place);
            }
        }
    }

    fn place_role(&mut self, index: u32) {
        let Some(role) = self.roles.get_mut(index) else {
            return;
        };
        for class in Class::ALL {
            let slot = class as usize;
            if let Some(old) = role.places[slot].take() {
                self.order[slot].remove(&old);
            }
            if !role.order[slot].is_empty() {
                let place = Place::new(
                    role.standing.held(class),
                    role.standing.allocations(class),
                    &self.totals[slot],
                    role.weight_milli,
                    role.role.clone(),
                    index,
                );
                self.order[slot].insert(place.clone());
                role.places[slot] = Some(place);
            }
        }
    }

    fn forget_if_idle(&mut self, index: u32) {
        let Some(member) = self.members.get(index) else {
            return;
        };
        if member.subscribed || !member.standing.is_zero() {
            return;
        }
        let (framework_id, role) = (member.framework_id.clone(), member.role);
        self.members.remove(index);
        if let Some(entry) = self.roles.get_mut(role) {
            entry.members.remove(&framework_id);
        }
        self.forget_role_if_empty(role);
    }

    fn forget_role_if_empty(&mut self, index: u32) {
        let idle = |entry: &RoleEntry| {
            entry.members.is_empty() && entry.weight_milli == DEFAULT_WEIGHT_MILLI
        };
        let Some(entry) = self.roles.get(index).filter(|entry| idle(entry)) else {
            return;
        };
        self.role_index.remove(&entry.role.clone());
        self.roles.remove(index);
    }

    /// What is wrong with the table, if anything: for checks after every step.
    pub(crate) fn fault(&self) -> Option<String> {
        for role in self.roles() {
            let mut held = [Sums::default(); CLASSES];
            for index in role.members.values() {
                let Some(member) = self.member(*index) else {
                    return Some(format!("role {} has a member that is gone", role.role));
                };
                for class in Class::ALL {
                    held[class as usize].add_sums(member.standing.held(class));
                    let placed = member
                        .place(class)
                        .is_some_and(|place| role.order(class).contains(place));
                    if placed != member.wants(class) {
                        return Some(format!(
                            "{} is misplaced in role {}",
                            member.framework_id, role.role
                        ));
                    }
                }
            }
            for class in Class::ALL {
                if held[class as usize] != *role.standing.held(class) {
                    return Some(format!(
                        "role {} does not hold the sum of its members",
                        role.role
                    ));
                }
                let placed = role
                    .place(class)
                    .is_some_and(|place| self.order(class).contains(place));
                if placed == role.order(class).is_empty() {
                    return Some(format!("role {} is misplaced among the roles", role.role));
                }
            }
        }
        None
    }
}
