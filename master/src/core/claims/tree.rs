//! The tree of roles with the frameworks at its leaves, what each holds, and the order of need at every node.
//!
//! A role `a/b` is a child of `a`. The frameworks of a role stand under a node of their own beside its child roles, so
//! that they compete with those as one (Mesos' virtual leaf). A node holds the sum of what its children hold; that of the
//! root is kept where there are quotas. A node is in its parent's order of a class exactly while somebody below it wants that class.
//!
//! A role may have a quota ([`quota`]); one whose limits leave nothing of a class to offer is in no order of that class.
//!
//! The price: a change of a holding marks one node on each level; the neediest is found in one settled order a level.

mod quota;

use std::collections::BTreeMap;

use ebb_types::{Claimant, Contender, FrameworkId, Place, Quantities, Resources, Role};

pub(in crate::core) use quota::Room;
use quota::{Creditors, Terms};

use super::access::Access;
use super::named::{Amounts, Named};
use super::order::{Order, Spot};
use super::refusals::Refusals;
use crate::core::drf::{Class, Need, Share, Standing, Sums, Totals};

/// Weight of a role that was given none, in thousandths.
pub const DEFAULT_WEIGHT_MILLI: u32 = 1000;

const CLASSES: usize = Class::ALL.len();
const ROOT: u32 = 0;

/// A framework in a role.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) framework_id: FrameworkId,
    pub(super) role: Role,
    /// Which classes it may be offered.
    pub(super) wants: [bool; CLASSES],
    /// Whether its framework is subscribed in the role; else it is here for what it holds.
    pub(super) is_subscribed: bool,
    /// Whether it is subscribed and connected.
    pub(super) is_active: bool,
    pub(super) refusals: Refusals,
    pub(super) access: Access,
}

/// A role.
#[derive(Clone, Debug)]
pub(super) struct RoleInfo {
    pub(super) role: Role,
    /// The node of its own frameworks, while it has any.
    own: Option<u32>,
    members: BTreeMap<FrameworkId, u32>,
    children: u32,
}

#[derive(Clone, Debug)]
enum Kind {
    Root,
    Role(Box<RoleInfo>),
    /// The frameworks of a role.
    Own,
    Member(Box<Member>),
    /// To be used again.
    Free,
}

#[derive(Clone, Debug)]
struct Node {
    kind: Kind,
    parent: u32,
    weight_milli: u32,
    born: u64,
    standing: Standing,
    /// What it holds of what has a name of its own.
    named: Option<Box<Named>>,
    /// Its quota, and what is owed below it.
    terms: Option<Box<Terms>>,
}

/// The tree.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    orders: Vec<[Order; CLASSES]>,
    spots: [Vec<Spot>; CLASSES],
    free: Vec<u32>,
    roles: BTreeMap<Role, u32>,
    born: u64,
    totals: [Totals; CLASSES],
    named_totals: Named,
    /// How often each of the totals has changed.
    totals_changes: [u64; CLASSES],
    /// What of the owned is free and yet cannot be offered.
    withheld: Sums,
    /// What is reserved for each role, without those below it, and held by nobody.
    reserved: BTreeMap<Role, Quantities>,
    creditors: Creditors,
}

impl Default for Tree {
    fn default() -> Self {
        let mut tree = Self {
            nodes: Vec::new(),
            orders: Vec::new(),
            spots: Default::default(),
            free: Vec::new(),
            roles: BTreeMap::new(),
            born: 0,
            totals: Default::default(),
            named_totals: Named::default(),
            totals_changes: [0; CLASSES],
            withheld: Sums::default(),
            reserved: BTreeMap::new(),
            creditors: Creditors::default(),
        };
        tree.add(Kind::Root, ROOT);
        tree
    }
}

impl Tree {
    fn add(&mut self, kind: Kind, parent: u32) -> u32 {
        self.born += 1;
        let node = Node {
            kind,
            parent,
            weight_milli: DEFAULT_WEIGHT_MILLI,
            born: self.born,
            standing: Standing::default(),
            named: None,
            terms: None,
        };
        if let Some(index) = self.free.pop() {
            self.nodes[index as usize] = node;
            return index;
        }
        self.nodes.push(node);
        self.orders.push(Default::default());
        for spots in &mut self.spots {
            spots.push(Spot::default());
        }
        self.creditors.grow();
        // Each takes far more than a byte of memory, so a `u32` holds them.
        self.nodes.len() as u32 - 1
    }

    fn drop_node(&mut self, index: u32) {
        for class in Class::ALL {
            self.set_aside(index, class);
        }
        let node = &mut self.nodes[index as usize];
        node.kind = Kind::Free;
        node.born = 0;
        node.named = None;
        node.terms = None;
        self.orders[index as usize] = Default::default();
        self.free.push(index);
    }

    /// What the cluster has of a class.
    pub(super) const fn totals(&self, class: Class) -> &Sums {
        self.totals[class as usize].sums()
    }

    /// Replaces what the cluster has.
    pub(super) fn set_totals(&mut self, class: Class, totals: Sums) {
        let totals = Totals::new(totals);
        let old = std::mem::replace(&mut self.totals[class as usize], totals);
        if old != totals {
            self.totals_changes[class as usize] += 1;
        }
    }

    /// Takes in that an agent has other amounts of what has a name of its own.
    pub(super) fn change_named_totals(&mut self, old: &Amounts, new: &Amounts) {
        if old != new {
            self.named_totals.add(new);
            self.named_totals.take(old);
            self.totals_changes[Class::Regular as usize] += 1;
        }
    }

    /// What a node holds of what has a name of its own; nothing where it holds nothing.
    pub(super) fn named(&self, index: u32) -> Option<&Named> {
        self.nodes.get(index as usize)?.named.as_deref()
    }

    /// Changes what a member and all above it but the root hold of what has a name of its own.
    pub(super) fn change_named(&mut self, member: u32, to: impl Fn(&mut Named)) {
        let mut index = member;
        while index != ROOT {
            let node = &mut self.nodes[index as usize];
            let parent = node.parent;
            let named = node.named.get_or_insert_default();
            to(named);
            if named.is_none() {
                node.named = None;
            }
            self.touch(index, Class::Regular);
            if self.nodes[index as usize].terms.is_some() {
                self.place_creditor(index);
            }
            index = parent;
        }
    }

    fn need(&self, class: Class, index: u32) -> Need {
        need(
            &self.nodes,
            class,
            (&self.totals, &self.named_totals),
            index,
        )
    }

    /// Takes in that of the owned so much more or less is free and yet cannot be offered.
    pub(super) fn change_withheld(&mut self, old: &Quantities, new: &Quantities) {
        let held = self.withheld.sub(old);
        debug_assert!(held, "less is withheld than of one agent");
        self.withheld.add(new);
    }

    pub(super) fn role(&self, role: &Role) -> Option<u32> {
        self.roles.get(role).copied()
    }

    fn role_info(&self, index: u32) -> Option<&RoleInfo> {
        match &self.nodes.get(index as usize)?.kind {
            Kind::Role(info) => Some(info),
            _ => None,
        }
    }

    fn role_info_mut(&mut self, index: u32) -> Option<&mut RoleInfo> {
        match &mut self.nodes.get_mut(index as usize)?.kind {
            Kind::Role(info) => Some(info),
            _ => None,
        }
    }

    pub(super) fn member(&self, index: u32) -> Option<&Member> {
        match &self.nodes.get(index as usize)?.kind {
            Kind::Member(member) => Some(member),
            _ => None,
        }
    }

    pub(super) fn member_mut(&mut self, index: u32) -> Option<&mut Member> {
        match &mut self.nodes.get_mut(index as usize)?.kind {
            Kind::Member(member) => Some(member),
            _ => None,
        }
    }

    /// A framework in a role.
    pub(super) fn member_of(&self, framework_id: &FrameworkId, role: &Role) -> Option<u32> {
        self.role_info(self.role(role)?)?
            .members
            .get(framework_id)
            .copied()
    }

    /// All members, by number.
    pub(super) fn members(&self) -> impl Iterator<Item = (u32, &Member)> {
        (0..)
            .zip(&self.nodes)
            .filter_map(|(index, node)| match &node.kind {
                Kind::Member(member) => Some((index, &**member)),
                _ => None,
            })
    }

    /// When a node came; nodes come and go, and their numbers are used again.
    pub(super) fn born(&self, index: u32) -> u64 {
        self.nodes.get(index as usize).map_or(0, |node| node.born)
    }

    /// What a node holds.
    pub(super) fn standing(&self, index: u32) -> &Standing {
        &self.nodes[index as usize].standing
    }

    /// What the frameworks of a role hold, those of its child roles left out.
    pub(super) fn own_standing(&self, role: u32) -> Standing {
        let own = self.role_info(role).and_then(|info| info.own);
        own.map_or_else(Standing::default, |own| *self.standing(own))
    }

    pub(super) fn weight_milli(&self, index: u32) -> u32 {
        self.nodes[index as usize].weight_milli
    }

    /// Sets a role's weight; the role is added where it is new.
    pub(super) fn set_weight(&mut self, role: &Role, weight_milli: u32) {
        let index = self.intern_role(role);
        self.nodes[index as usize].weight_milli = weight_milli.max(1);
        for class in Class::ALL {
            self.touch(index, class);
        }
        self.place_creditor(index);
        self.forget_role_if_idle(index);
    }

    fn intern_role(&mut self, role: &Role) -> u32 {
        if let Some(index) = self.role(role) {
            return index;
        }
        let parent = match role.parent() {
            Some(parent) => self.intern_role(&parent),
            None => ROOT,
        };
        if let Some(info) = self.role_info_mut(parent) {
            info.children += 1;
        }
        let info = RoleInfo {
            role: role.clone(),
            own: None,
            members: BTreeMap::new(),
            children: 0,
        };
        let index = self.add(Kind::Role(Box::new(info)), parent);
        self.roles.insert(role.clone(), index);
        index
    }

    /// The number of a framework in a role, which is added where it is new.
    pub(super) fn intern(&mut self, framework_id: &FrameworkId, role: &Role) -> u32 {
        if let Some(index) = self.member_of(framework_id, role) {
            return index;
        }
        let of = self.intern_role(role);
        let own = match self.role_info(of).and_then(|info| info.own) {
            Some(own) => own,
            None => self.add(Kind::Own, of),
        };
        let member = Member {
            framework_id: framework_id.clone(),
            role: role.clone(),
            wants: [false; CLASSES],
            is_subscribed: false,
            is_active: false,
            refusals: Refusals::default(),
            access: Access::default(),
        };
        let index = self.add(Kind::Member(Box::new(member)), own);
        if let Some(info) = self.role_info_mut(of) {
            info.own = Some(own);
            info.members.insert(framework_id.clone(), index);
        }
        index
    }

    /// Removes a member that holds nothing, and what of its role nobody needs any more.
    pub(super) fn forget(&mut self, index: u32) {
        let Some(member) = self.member(index) else {
            return;
        };
        let framework_id = member.framework_id.clone();
        let own = self.nodes[index as usize].parent;
        let role = self.nodes[own as usize].parent;
        self.drop_node(index);
        let Some(info) = self.role_info_mut(role) else {
            return;
        };
        info.members.remove(&framework_id);
        if info.members.is_empty() {
            info.own = None;
            self.drop_node(own);
            self.forget_role_if_idle(role);
        }
    }

    fn forget_role_if_idle(&mut self, index: u32) {
        let is_default = self.weight_milli(index) == DEFAULT_WEIGHT_MILLI;
        let Some(info) = self.role_info(index) else {
            return;
        };
        let has_quota = self.quota(index).is_some();
        if !is_default || has_quota || info.own.is_some() || info.children > 0 {
            return;
        }
        let role = info.role.clone();
        let parent = self.nodes[index as usize].parent;
        self.roles.remove(&role);
        self.drop_node(index);
        if let Some(info) = self.role_info_mut(parent) {
            info.children -= 1;
            self.forget_role_if_idle(parent);
        }
    }

    /// Counts resources as held by a member.
    pub(super) fn charge(&mut self, member: u32, resources: &Resources) {
        self.change(member, resources, Standing::charge);
    }

    /// Undoes a charge.
    pub(super) fn uncharge(&mut self, member: u32, resources: &Resources) {
        self.change(member, resources, Standing::uncharge);
    }

    /// Counts resources as held no more; false, and nothing is changed, where less is held.
    #[must_use]
    pub(super) fn credit(&mut self, member: u32, resources: &Resources) -> bool {
        let Some(node) = self.nodes.get(member as usize) else {
            return false;
        };
        // What a framework holds, its role holds.
        let holds = |class: Class| {
            let part = class.part(resources);
            part.is_zero() || node.standing.held(class).contains(part)
        };
        let holds = holds(Class::Regular) && holds(Class::Revocable);
        if holds {
            self.change(member, resources, Standing::take);
        }
        holds
    }

    #[inline(always)]
    fn change(
        &mut self,
        member: u32,
        resources: &Resources,
        to: impl Fn(&mut Standing, Class, &Quantities),
    ) {
        let Resources { regular, revocable } = resources;
        if !regular.is_zero() {
            let class = Class::Regular;
            self.change_class(member, class, |standing| to(standing, class, regular));
        }
        if !revocable.is_zero() {
            let class = Class::Revocable;
            self.change_class(member, class, |standing| to(standing, class, revocable));
        }
    }

    /// Compiled for each class by itself: a change of all that is held on the way up is what is done most often here.
    #[inline(always)]
    fn change_class(&mut self, member: u32, class: Class, to: impl Fn(&mut Standing)) {
        let slot = class as usize;
        let mut index = member;
        while index != ROOT {
            let node = &mut self.nodes[index as usize];
            if node.terms.is_some() {
                return self.change_bounded(index, class, to);
            }
            to(&mut node.standing);
            let parent = node.parent;
            self.orders[parent as usize][slot].touch(index, &mut self.spots[slot]);
            index = parent;
        }
        if self.nodes[ROOT as usize].terms.is_some() {
            self.change_bounded(ROOT, class, to);
        }
    }

    /// [`Tree::change_class`] from a node on that has terms, as all above it have.
    #[inline(never)]
    fn change_bounded(&mut self, from: u32, class: Class, to: impl Fn(&mut Standing)) {
        let (mut index, mut owed) = (from, None);
        while index != ROOT {
            let node = &mut self.nodes[index as usize];
            let was_full = node.is_full(class);
            to(&mut node.standing);
            if class == Class::Regular {
                owed = self.settle_terms(index, owed);
            }
            self.count_full(index, class, was_full);
            self.touch(index, class);
            index = self.nodes[index as usize].parent;
        }
        // What all hold together is asked for where there are quotas.
        if class == Class::Regular {
            to(&mut self.nodes[ROOT as usize].standing);
            self.settle_terms(ROOT, owed);
        }
    }

    /// What all hold together of what is owned.
    fn held_by_all(&self) -> Sums {
        let mut held = Sums::default();
        for role in self.roles.values().map(|role| &self.nodes[*role as usize]) {
            if role.parent == ROOT {
                held.add_sums(role.standing.held(Class::Regular));
            }
        }
        held
    }

    fn touch(&mut self, index: u32, class: Class) {
        let parent = self.nodes[index as usize].parent;
        let slot = class as usize;
        self.orders[parent as usize][slot].touch(index, &mut self.spots[slot]);
    }

    /// Says whether a member is subscribed and connected, and which classes it may be offered.
    pub(super) fn set_wants(
        &mut self,
        index: u32,
        (is_subscribed, is_connected): (bool, bool),
        wants: [bool; CLASSES],
    ) {
        let Some(member) = self.member_mut(index) else {
            return;
        };
        member.is_subscribed = is_subscribed;
        member.is_active = is_subscribed && is_connected;
        member.wants = wants;
        for class in Class::ALL {
            self.place(index, class);
        }
    }

    /// Whether a node is to be in its parent's order of a class.
    fn belongs(&self, index: u32, class: Class) -> bool {
        match &self.nodes[index as usize].kind {
            Kind::Member(member) => member.wants[class as usize],
            Kind::Free => false,
            Kind::Root | Kind::Role(_) | Kind::Own => {
                let is_full = || self.nodes[index as usize].is_full(class);
                !self.orders[index as usize][class as usize].is_empty() && !is_full()
            }
        }
    }

    /// Puts a node into its parent's order of a class or takes it out, as it belongs there, and so on upwards.
    pub(super) fn place(&mut self, index: u32, class: Class) {
        self.set_in_order(index, class, self.belongs(index, class));
    }

    /// Takes a node out of its parent's order of a class until it is [placed](Self::place) again.
    pub(super) fn set_aside(&mut self, index: u32, class: Class) {
        self.set_in_order(index, class, false);
    }

    fn set_in_order(&mut self, index: u32, class: Class, is_in: bool) {
        let slot = class as usize;
        let (mut index, mut is_in) = (index, is_in);
        while index != ROOT && self.spots[slot][index as usize].is_in_order() != is_in {
            let parent = self.nodes[index as usize].parent;
            let order = &mut self.orders[parent as usize][slot];
            if is_in {
                let need = need(
                    &self.nodes,
                    class,
                    (&self.totals, &self.named_totals),
                    index,
                );
                order.insert(index, need, &mut self.spots[slot]);
            } else {
                order.remove(index, &mut self.spots[slot]);
            }
            if class == Class::Regular && self.nodes[index as usize].terms.is_some() {
                self.place_creditor(index);
            }
            index = parent;
            is_in = self.belongs(index, class);
        }
    }

    /// The neediest member that wants a class.
    pub(super) fn neediest(&mut self, class: Class) -> Option<u32> {
        // Compiled for each class by itself.
        match class {
            Class::Regular => self.neediest_below(ROOT, Class::Regular),
            Class::Revocable => self.neediest_below(ROOT, Class::Revocable),
        }
    }

    #[inline(always)]
    fn neediest_below(&mut self, node: u32, class: Class) -> Option<u32> {
        let slot = class as usize;
        let (nodes, totals) = (&self.nodes[..], (&self.totals, &self.named_totals));
        let mut index = node;
        while !matches!(nodes[index as usize].kind, Kind::Member(_)) {
            index = self.orders[index as usize][slot].settle(
                self.totals_changes[slot],
                |child| need(nodes, class, totals, child),
                &mut self.spots[slot],
            )?;
        }
        Some(index)
    }

    /// How needy a member and the nodes above it up to a role are, from the top; to the root where that is not above it.
    pub(super) fn needs_below(&self, member: u32, above: &Role) -> Vec<Need> {
        let end = self.role(above).unwrap_or(ROOT);
        let up = |at: &u32| Some(self.nodes[*at as usize].parent);
        let line = std::iter::successors(Some(member), up);
        let line = line.take_while(|at| *at != end && *at != ROOT);
        let mut needs: Vec<Need> = line.map(|at| self.need(Class::Regular, at)).collect();
        needs.reverse();
        needs
    }

    /// The frameworks that are in a role itself, or hold something there.
    pub(super) fn members_of(&self, role: &Role) -> impl Iterator<Item = &FrameworkId> {
        let info = self.role(role).and_then(|index| self.role_info(index));
        info.into_iter().flat_map(|info| info.members.keys())
    }

    /// Where a member stands among those who want a class, on each level from the top; nothing where it does not want
    /// it. Compares it with all of each level.
    pub(super) fn places(&self, member: u32, class: Class) -> Vec<Place> {
        let slot = class as usize;
        let need_of = |index| self.need(class, index);
        let is_in_order = |index: u32| {
            (self.spots[slot].get(index as usize)).is_some_and(|spot| spot.is_in_order())
        };
        let mut places = Vec::new();
        let mut index = member;
        while index != ROOT {
            if !is_in_order(index) {
                return Vec::new();
            }
            let parent = self.nodes[index as usize].parent;
            let mine = need_of(index);
            let (mut place, mut of, mut first) = (1, 0, (mine, index));
            for other in self.orders[parent as usize][slot].nodes() {
                let theirs = need_of(other);
                of += 1;
                place += u64::from(theirs < mine);
                if theirs < first.0 {
                    first = (theirs, other);
                }
            }
            let contenders = (self.contender(index, class), self.contender(first.1, class));
            if let (Some(own), Some(first)) = contenders {
                places.push(Place {
                    own,
                    place,
                    of,
                    first,
                });
            }
            index = parent;
        }
        places.reverse();
        places
    }

    /// What a node holds beside its siblings; nothing of the root, which has none.
    fn contender(&self, index: u32, class: Class) -> Option<Contender> {
        let node = &self.nodes[index as usize];
        let claimant = match &node.kind {
            Kind::Role(info) => Claimant::Role(info.role.clone()),
            Kind::Member(member) => Claimant::Framework(member.framework_id.clone()),
            Kind::Own => Claimant::Own(self.role_info(node.parent)?.role.clone()),
            Kind::Root | Kind::Free => return None,
        };
        let share = share(node, class, (&self.totals, &self.named_totals), 1);
        Some(Contender {
            claimant,
            share_milli: share.as_milli(),
            weight_milli: u64::from(node.weight_milli),
        })
    }

    /// Whether nobody wants a class.
    pub(super) fn is_idle(&self, class: Class) -> bool {
        self.orders[ROOT as usize][class as usize].is_empty()
    }

    /// What is wrong with the tree, if anything: for checks after every step.
    pub(super) fn fault(&self) -> Option<String> {
        let mut sums = vec![[Sums::default(); CLASSES]; self.nodes.len()];
        let mut named = vec![Named::default(); self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate().skip(1) {
            if matches!(node.kind, Kind::Free) {
                continue;
            }
            for class in Class::ALL {
                let slot = class as usize;
                let wants = self.belongs(index as u32, class);
                let is_in_order = self.spots[slot][index].is_in_order();
                let parents = self.orders[node.parent as usize][slot].nodes();
                if wants != is_in_order
                    || is_in_order != parents.into_iter().any(|one| one as usize == index)
                {
                    return Some(format!("node {index} is misplaced: {:?}", node.kind));
                }
                sums[node.parent as usize][slot].add_sums(node.standing.held(class));
            }
            if let Some(held) = &node.named {
                named[node.parent as usize].add_all(held);
            }
        }
        for (index, node) in self.nodes.iter().enumerate() {
            if matches!(node.kind, Kind::Free | Kind::Member(_)) {
                continue;
            }
            let is_named = *node.named.as_deref().unwrap_or(&Named::default()) == named[index];
            if index != ROOT as usize && !is_named {
                return Some(format!(
                    "node {index} does not hold what its children hold by name"
                ));
            }
            for class in Class::ALL {
                let is_kept =
                    index != ROOT as usize || class == Class::Regular && node.terms.is_some();
                if is_kept && sums[index][class as usize] != *node.standing.held(class) {
                    return Some(format!(
                        "node {index} does not hold the sum of its children"
                    ));
                }
                let slot = class as usize;
                if let Some(fault) = self.orders[index][slot].fault(&self.spots[slot]) {
                    return Some(fault);
                }
            }
        }
        self.fault_of_terms()
    }
}

/// What the cluster has: of each class, and of what has a name of its own.
type Whole<'a> = (&'a [Totals; CLASSES], &'a Named);

/// How needy a node is: compiled into those who ask, as nothing is asked more often.
#[inline(always)]
fn need(nodes: &[Node], class: Class, totals: Whole<'_>, index: u32) -> Need {
    let node = &nodes[index as usize];
    let share = share(node, class, totals, node.weight_milli);
    Need::of(share, node.standing.allocations(class), node.born)
}

/// The largest share that a node holds of anything.
#[inline(always)]
fn share(node: &Node, class: Class, (totals, named): Whole<'_>, weight_milli: u32) -> Share {
    let held = node.standing.held(class);
    let share = Share::dominant(held, &totals[class as usize], weight_milli);
    match &node.named {
        None => share,
        Some(held) => larger_named(share, class, held, named, weight_milli),
    }
}

/// What has a name of its own is never lent.
#[cold]
#[inline(never)]
fn larger_named(share: Share, class: Class, held: &Named, all: &Named, weight_milli: u32) -> Share {
    match class {
        Class::Regular => share.max(held.share(all, weight_milli)),
        Class::Revocable => share,
    }
}
