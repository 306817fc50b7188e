//! Quotas in the tree of roles: what is owed to whom, and how much anybody may still be offered without passing a limit
//! or taking what is owed to others. Of what is lent nothing is ever owed: there are only limits, counted apart.
//!
//! A role *lacks* what of its guarantee it and the roles below it do not hold. It is *owed* the larger of what it lacks
//! and what its child roles are owed together, each kind by itself; so a guarantee within another one is not kept free
//! twice. What is owed at the root is the headroom: it stays free for those who are owed.
//!
//! What a member takes *covers* a part of what is owed: on each level what the role lacks beyond what its children are
//! owed, and all that is covered below. The member may be offered, on each level with a bound (the limit of a role, at
//! the root what the cluster has), what the bound leaves beyond what is held and owed to the children, and beyond that
//! what it covers. So nobody's offer makes a guarantee fail that could still be met.
//!
//! The price: a change of a holding settles the terms of the roles above it, where there are any: O(depth).

use ebb_types::{Limits, Quantities, Quota, QuotaState, ResourceKind, Role};

use super::{Kind, Node, ROOT, Tree, need};
use crate::core::claims::order::{Order, Spot};
use crate::core::drf::{Class, Standing, Sums};
use crate::core::limits::is_allocatable;

/// A role's quota and what follows from those below it. Where a node has terms, all above it have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    quota: Quota,
    /// What is reserved for it and for roles below it and held by nobody: it counts as held here. Nothing at the root, where
    /// it is among what cannot be offered.
    reserved: Sums,
    /// What its children are owed together.
    below: Sums,
    /// What it is owed.
    owed: Sums,
}

/// Who is owed something and wants something, the neediest role first.
#[derive(Clone, Debug, Default)]
pub(super) struct Creditors {
    order: Order,
    spots: Vec<Spot>,
    /// How many roles have a quota.
    quotas: usize,
    /// How many of them limit what is lent.
    lent_limits: usize,
    /// How many roles can be offered nothing of a class because of their limits; one that can be offered nothing at all
    /// counts twice.
    full: usize,
}

/// What quotas leave a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) struct Room {
    /// The most that it may be offered.
    pub(in crate::core) most: Quantities,
    /// What of that it would be offered because it is owed it.
    pub(in crate::core) covers: Quantities,
    /// What the limits of its roles leave, whatever is owed to others.
    pub(in crate::core) by_limits: Quantities,
}

impl Terms {
    /// What of the guarantee is not held.
    fn lacks(&self, held: &Sums) -> Quantities {
        each(|kind| {
            bounded(u128::from(self.quota.guarantee.get(kind)).saturating_sub(held.get(kind)))
        })
    }

    /// What it lacks beyond what its children are owed.
    fn lacks_itself(&self, held: &Sums) -> Quantities {
        let lacks = self.lacks(held);
        each(|kind| bounded(u128::from(lacks.get(kind)).saturating_sub(self.below.get(kind))))
    }

    const fn limits(&self, class: Class) -> &Limits {
        match class {
            Class::Regular => &self.quota.limits,
            Class::Revocable => &self.quota.revocable_limits,
        }
    }

    /// What its limits leave.
    fn left(&self, class: Class, held: &Sums) -> Quantities {
        let limits = self.limits(class);
        each(|kind| match limits.get(kind) {
            Some(limit) => bounded(u128::from(limit).saturating_sub(held.get(kind))),
            None => u64::MAX,
        })
    }
}

impl Node {
    fn held(&self) -> Sums {
        let mut held = *self.standing.held(Class::Regular);
        if let Some(terms) = &self.terms {
            held.add_sums(&terms.reserved);
        }
        held
    }

    /// What counts towards the limits of a class.
    fn counted(&self, class: Class) -> Sums {
        match class {
            Class::Regular => self.held(),
            Class::Revocable => *self.standing.held(class),
        }
    }

    /// Whether its limits leave nothing of a class that is worth an offer.
    pub(super) fn is_full(&self, class: Class) -> bool {
        self.terms.as_ref().is_some_and(|terms| {
            !terms.limits(class).is_none()
                && !is_allocatable(&terms.left(class, &self.counted(class)))
        })
    }

    fn lacks_itself(&self) -> Quantities {
        let terms = self.terms.as_ref();
        terms.map_or(Quantities::ZERO, |terms| terms.lacks_itself(&self.held()))
    }

    /// What its terms say it is owed where its children are owed so much.
    fn owed(&self, below: &Sums) -> Sums {
        let lacks = self.terms.as_ref().map(|terms| terms.lacks(&self.held()));
        let mut owed = *below;
        owed.raise_to(&lacks.unwrap_or(Quantities::ZERO));
        owed
    }
}

impl Creditors {
    /// Makes room for one more node.
    pub(super) fn grow(&mut self) {
        self.spots.push(Spot::default());
    }
}

impl Tree {
    /// Sets a role's quota; the role is added where it is new. One that says nothing takes the quota away.
    pub(in crate::core::claims) fn set_quota(&mut self, role: &Role, quota: Quota) {
        let index = self.intern_role(role);
        let had = self.quota(index).copied().unwrap_or_default();
        let was_full = Class::ALL.map(|class| self.nodes[index as usize].is_full(class));
        let mut above = index;
        loop {
            let reserved = self.reserved_below(above);
            if above == ROOT && self.nodes[ROOT as usize].terms.is_none() {
                let held = self.held_by_all();
                self.nodes[ROOT as usize].standing = Standing::of_owned(held);
            }
            let terms = self.nodes[above as usize].terms.get_or_insert_default();
            terms.reserved = reserved;
            if above == ROOT {
                break;
            }
            above = self.nodes[above as usize].parent;
        }
        if let Some(terms) = &mut self.nodes[index as usize].terms {
            terms.quota = quota;
        }
        self.creditors.quotas += usize::from(!quota.is_none());
        self.creditors.quotas -= usize::from(!had.is_none());
        self.creditors.lent_limits += usize::from(!quota.revocable_limits.is_none());
        self.creditors.lent_limits -= usize::from(!had.revocable_limits.is_none());
        for class in Class::ALL {
            self.count_full(index, class, was_full[class as usize]);
        }
        let mut node = index;
        let mut change = None;
        while let Some(next) = self.settle_terms(node, change) {
            change = Some(next);
            if node == ROOT {
                break;
            }
            node = self.nodes[node as usize].parent;
        }
        for class in Class::ALL {
            self.place(index, class);
        }
        self.forget_role_if_idle(index);
    }

    /// What is reserved for a role and those below it and held by nobody.
    fn reserved_below(&self, index: u32) -> Sums {
        let mut sum = Sums::default();
        if let Some(info) = self.role_info(index) {
            let below = self
                .reserved
                .iter()
                .filter(|(role, _)| role.is_within(&info.role));
            below.for_each(|(_, amount)| sum.add(amount));
        }
        sum
    }

    /// Says how much is reserved for a role, without those below it, and held by nobody.
    pub(in crate::core::claims) fn set_reserved(&mut self, role: &Role, reserved: Quantities) {
        match reserved.is_zero() {
            true => self.reserved.remove(role),
            false => self.reserved.insert(role.clone(), reserved),
        };
        let mut above = std::iter::successors(Some(role.clone()), Role::parent);
        let Some(mut index) = above.find_map(|role| self.role(&role)) else {
            return;
        };
        let mut owed = None;
        loop {
            let was_full = self.nodes[index as usize].is_full(Class::Regular);
            let reserved = self.reserved_below(index);
            if let Some(terms) = &mut self.nodes[index as usize].terms {
                terms.reserved = reserved;
                owed = self.settle_terms(index, owed);
                self.count_full(index, Class::Regular, was_full);
            }
            if index == ROOT {
                return;
            }
            index = self.nodes[index as usize].parent;
        }
    }

    /// A role's quota.
    pub(in crate::core::claims) fn quota(&self, index: u32) -> Option<&Quota> {
        let terms = self.nodes[index as usize].terms.as_ref()?;
        (!terms.quota.is_none()).then_some(&terms.quota)
    }

    /// Whether any role has a quota.
    pub(in crate::core::claims) const fn has_quotas(&self) -> bool {
        self.creditors.quotas > 0
    }

    /// Whether some role can be offered nothing of a class because of its limits.
    pub(in crate::core::claims) const fn has_full_roles(&self) -> bool {
        self.creditors.full > 0
    }

    /// Takes in that a node's holding or quota has changed, or what one of its children is owed: from how much to how
    /// much. Says the same of the node itself, for its parent; nothing where it has no terms.
    pub(super) fn settle_terms(
        &mut self,
        index: u32,
        child: Option<(Sums, Sums)>,
    ) -> Option<(Sums, Sums)> {
        let node = &mut self.nodes[index as usize];
        let terms = node.terms.as_mut()?;
        if let Some((before, after)) = child {
            terms.below.replace(&before, &after);
        }
        let (below, before) = (terms.below, terms.owed);
        let owed = node.owed(&below);
        if let Some(terms) = &mut node.terms {
            terms.owed = owed;
        }
        self.place_creditor(index);
        Some((before, owed))
    }

    /// Counts whether a role is full after a change, and puts it into its parent's order or takes it out accordingly.
    pub(super) fn count_full(&mut self, index: u32, class: Class, was_full: bool) {
        let is_full = self.nodes[index as usize].is_full(class);
        if is_full != was_full {
            self.creditors.full += usize::from(is_full);
            self.creditors.full -= usize::from(was_full);
            self.place(index, class);
        }
    }

    /// Puts a role among the creditors or takes it out, as it is owed something of its own and wants something.
    pub(super) fn place_creditor(&mut self, index: u32) {
        let wants = self.spots[Class::Regular as usize][index as usize].is_in_order();
        let is_creditor = wants && !self.nodes[index as usize].lacks_itself().is_zero();
        let Creditors { order, spots, .. } = &mut self.creditors;
        if is_creditor == spots[index as usize].is_in_order() {
            order.touch(index, spots);
        } else if is_creditor {
            let need = need(
                &self.nodes,
                Class::Regular,
                (&self.totals, &self.named_totals),
                index,
            );
            order.insert(index, need, spots);
        } else {
            order.remove(index, spots);
        }
    }

    /// The neediest role that is owed something of its own, and the neediest member below it.
    pub(in crate::core::claims) fn neediest_creditor(&mut self) -> Option<(u32, u32)> {
        let (nodes, totals) = (&self.nodes, (&self.totals, &self.named_totals));
        let Creditors { order, spots, .. } = &mut self.creditors;
        let role = order.settle(
            self.totals_changes[Class::Regular as usize],
            |role| need(nodes, Class::Regular, totals, role),
            spots,
        )?;
        let member = self.neediest_below(role, Class::Regular)?;
        Some((role, member))
    }

    /// [`Self::neediest_creditor`], by comparing all of them: for those who may change nothing.
    pub(in crate::core::claims) fn find_neediest_creditor(&self) -> Option<(&Role, u32)> {
        let need_of = |index: &u32| self.need(Class::Regular, *index);
        let role = self.creditors.order.nodes().min_by_key(need_of)?;
        let mut index = role;
        while !matches!(self.nodes[index as usize].kind, Kind::Member(_)) {
            let children = &self.orders[index as usize][Class::Regular as usize];
            index = children.nodes().min_by_key(need_of)?;
        }
        Some((&self.role_info(role)?.role, index))
    }

    /// What a role and those below it hold of what is owned.
    pub(in crate::core::claims) fn held_below(&self, role: &Role) -> Quantities {
        let index = self.role(role);
        let Some(index) = index else {
            return Quantities::ZERO;
        };
        let mut held = *self.nodes[index as usize].standing.held(Class::Regular);
        held.add_sums(&self.reserved_below(index));
        each(|kind| bounded(held.get(kind)))
    }

    /// What a role and those below it hold of what is lent.
    pub(in crate::core::claims) fn held_revocable_below(&self, role: &Role) -> Quantities {
        let index = self.role(role);
        index.map_or(Quantities::ZERO, |index| {
            self.counted_at(index, Class::Revocable)
        })
    }

    fn counted_at(&self, index: u32, class: Class) -> Quantities {
        let counted = self.nodes[index as usize].counted(class);
        each(|kind| bounded(counted.get(kind)))
    }

    /// The most of what is lent that a member may be offered; nothing where nobody's limits bound it.
    pub(in crate::core::claims) fn revocable_room(&self, member: u32) -> Option<Quantities> {
        if self.creditors.lent_limits == 0 {
            return None;
        }
        let class = Class::Revocable;
        let up = |at: &u32| Some(self.nodes[*at as usize].parent);
        let line = std::iter::successors(Some(member), up).take_while(|at| *at != ROOT);
        let nodes = line.map(|at| &self.nodes[at as usize]);
        let left = nodes.filter_map(|node| {
            let terms = node.terms.as_ref()?;
            (!terms.limits(class).is_none()).then(|| terms.left(class, &node.counted(class)))
        });
        left.reduce(|most, left| most.min(&left))
    }

    /// The quotas of a role and of those above it that have one, its own first.
    pub(in crate::core::claims) fn quotas_above(&self, role: &Role) -> Vec<QuotaState> {
        let Some(index) = self.role(role) else {
            // A role that is not in the tree has none, those above it may.
            return role
                .parent()
                .map_or_else(Vec::new, |above| self.quotas_above(&above));
        };
        let line = std::iter::successors(Some(index), |at| Some(self.nodes[*at as usize].parent));
        let with_quota = line.take_while(|at| *at != ROOT).filter_map(|at| {
            Some(QuotaState {
                role: self.role_info(at)?.role.clone(),
                quota: *self.quota(at)?,
                held: self.counted_at(at, Class::Regular),
                held_revocable: self.counted_at(at, Class::Revocable),
            })
        });
        with_quota.collect()
    }

    /// Whether what a role is owed of its own is worth an offer, to those of its members that are owed no more than that.
    pub(in crate::core::claims) fn is_worth_paying(&self, role: u32) -> bool {
        is_allocatable(&self.covers_at(role))
    }

    /// What a member right below a node covers.
    fn covers_at(&self, index: u32) -> Quantities {
        let mut covers = Quantities::ZERO;
        let mut index = index;
        while index != ROOT {
            let node = &self.nodes[index as usize];
            covers = covers.saturating_add(&node.lacks_itself());
            index = node.parent;
        }
        covers
    }

    /// What a member may be offered; nothing where there is no bound but what is free.
    pub(in crate::core::claims) fn room(&self, member: u32) -> Option<Room> {
        self.room_beyond(member, None)
    }

    /// [`Tree::room`] once the member has taken so much of what is owned.
    pub(in crate::core::claims) fn room_beyond(
        &self,
        member: u32,
        taken: Option<&Quantities>,
    ) -> Option<Room> {
        if !self.has_quotas() {
            return None;
        }
        // What the child on the way is owed now, and would be.
        let mut change: Option<(Sums, Sums)> = None;
        let mut room = Room {
            most: Quantities::MAX,
            covers: Quantities::ZERO,
            by_limits: Quantities::MAX,
        };
        let mut index = member;
        loop {
            let node = &self.nodes[index as usize];
            if let Some(terms) = &node.terms {
                let (mut terms, mut held) = (**terms, node.held());
                if let Some(taken) = taken {
                    held.add(taken);
                    if let Some((before, after)) = &change {
                        terms.below.replace(before, after);
                    }
                    let mut owed = terms.below;
                    owed.raise_to(&terms.lacks(&held));
                    change = Some((terms.owed, owed));
                }
                let covers = room.covers;
                let bound = |kind| match index {
                    ROOT => self.usable(kind, &terms.below),
                    _ => terms.quota.limits.get(kind).map(u128::from),
                };
                let left = each(|kind| {
                    let Some(bound) = bound(kind) else {
                        return u64::MAX;
                    };
                    let left = bound.saturating_sub(held.get(kind));
                    let apart = left.saturating_sub(terms.below.get(kind));
                    bounded(left.min(apart.saturating_add(u128::from(covers.get(kind)))))
                });
                if index != ROOT {
                    let left = each(|kind| match bound(kind) {
                        Some(limit) => bounded(limit.saturating_sub(held.get(kind))),
                        None => u64::MAX,
                    });
                    room.by_limits = room.by_limits.min(&left);
                }
                room.most = room.most.min(&left);
                room.covers = covers.saturating_add(&terms.lacks_itself(&held));
            }
            if index == ROOT {
                return Some(room);
            }
            index = node.parent;
        }
    }

    /// What of a kind the cluster has that can be offered or is held, where somebody is owed some of it.
    fn usable(&self, kind: ResourceKind, owed: &Sums) -> Option<u128> {
        let total = self.totals(Class::Regular).get(kind);
        (owed.get(kind) > 0).then(|| total.saturating_sub(self.withheld.get(kind)))
    }

    /// How much of what is owed is not free to be offered.
    pub(in crate::core::claims) fn shortage(&self) -> Quantities {
        let root = &self.nodes[ROOT as usize];
        let Some(terms) = &root.terms else {
            return Quantities::ZERO;
        };
        each(|kind| {
            let usable = self.usable(kind, &terms.below);
            let wanted = root.held().get(kind).saturating_add(terms.below.get(kind));
            bounded(usable.map_or(0, |usable| wanted.saturating_sub(usable)))
        })
    }

    /// What is wrong with the terms, if anything; `sums` are what the children of each node are owed.
    pub(super) fn fault_of_terms(&self) -> Option<String> {
        let mut below = vec![Sums::default(); self.nodes.len()];
        let (mut quotas, mut full, mut lent_limits) = (0, 0, 0);
        for (index, node) in self.nodes.iter().enumerate().skip(1) {
            let Some(terms) = node
                .terms
                .as_ref()
                .filter(|_| !matches!(node.kind, Kind::Free))
            else {
                continue;
            };
            below[node.parent as usize].add_sums(&terms.owed);
            quotas += usize::from(!terms.quota.is_none());
            let classes = Class::ALL.into_iter();
            full += classes.filter(|class| node.is_full(*class)).count();
            lent_limits += usize::from(!terms.quota.revocable_limits.is_none());
            let wants = self.spots[Class::Regular as usize][index].is_in_order();
            let is_creditor = wants && !node.lacks_itself().is_zero();
            if is_creditor != self.creditors.spots[index].is_in_order() {
                return Some(format!("role {index} is misplaced among the creditors"));
            }
        }
        let Creditors {
            quotas: known,
            full: known_full,
            lent_limits: known_limits,
            ..
        } = self.creditors;
        if (quotas, full, lent_limits) != (known, known_full, known_limits) {
            return Some(String::from("quotas are counted wrongly"));
        }
        for (index, node) in self.nodes.iter().enumerate() {
            let terms = node.terms.as_deref().copied().unwrap_or_default();
            let is_free = matches!(node.kind, Kind::Free);
            if !is_free
                && node.terms.is_some()
                && terms.reserved != self.reserved_below(index as u32)
            {
                return Some(format!(
                    "what is reserved at node {index} is counted wrongly"
                ));
            }
            if !is_free && (terms.below != below[index] || terms.owed != node.owed(&terms.below)) {
                return Some(format!("what is owed at node {index} is counted wrongly"));
            }
        }
        self.creditors.order.fault(&self.creditors.spots)
    }
}

fn each(amount: impl Fn(ResourceKind) -> u64) -> Quantities {
    Quantities::from_pairs(ResourceKind::ALL.map(|kind| (kind, amount(kind))))
}

fn bounded(amount: u128) -> u64 {
    u64::try_from(amount).unwrap_or(u64::MAX)
}
