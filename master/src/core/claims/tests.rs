//! Who is needier than whom, in scenes that can be followed by hand: the behaviours that Mesos' sorter has tests for.

use std::collections::BTreeSet;

use ebb_types::{AgentId, FrameworkId, Quantities, ResourceKind, Resources, Role};

use super::{Claims, FrameworkTerms};
use crate::core::drf::Class;

const GIB: u64 = 1 << 30;

/// A cluster of 100 cores and 100 GiB.
struct Scene {
    claims: Claims,
}

fn framework(name: &str) -> FrameworkId {
    FrameworkId::new(name).unwrap()
}

fn role(name: &str) -> Role {
    Role::new(name).unwrap()
}

fn amount(cpus: u64, gib: u64) -> Quantities {
    Quantities::cpus_mem(cpus * 1000, gib * GIB)
}

impl Scene {
    fn new() -> Self {
        let mut scene = Self {
            claims: Claims::new(),
        };
        scene.agent("agent", amount(100, 100));
        scene
    }

    fn agent(&mut self, name: &str, total: Quantities) {
        let id = AgentId::new(name).unwrap();
        self.claims.set_agent(&id, total, Quantities::ZERO);
    }

    /// Each is a framework of the name of its only role.
    fn join(&mut self, roles: &[&str]) {
        for name in roles {
            self.terms(name, true);
        }
    }

    fn terms(&mut self, name: &str, active: bool) {
        let terms = FrameworkTerms {
            roles: BTreeSet::from([role(name)]),
            active,
            ..FrameworkTerms::default()
        };
        self.claims.set_framework(&id_of(name), terms);
    }

    fn leave(&mut self, name: &str) {
        self.claims.remove_framework(&id_of(name));
    }

    fn holds(&mut self, name: &str, cpus: u64, gib: u64) {
        let resources = Resources::regular(amount(cpus, gib));
        self.claims.charge(&id_of(name), &role(name), &resources);
    }

    fn gives_back(&mut self, name: &str, cpus: u64, gib: u64) {
        let resources = Resources::regular(amount(cpus, gib));
        let credited = self.claims.credit(&id_of(name), &role(name), &resources);
        credited.unwrap();
    }

    fn weight(&mut self, name: &str, weight_milli: u32) {
        self.claims.set_weight(&role(name), weight_milli);
    }

    /// All who want something, the neediest first, by their roles.
    fn order(&self) -> Vec<String> {
        let mut claims = self.claims.copy();
        let mut order = Vec::new();
        while let Some(member) = claims.neediest(Class::Regular) {
            order.push(claims.names(member).unwrap().1.to_string());
            claims.set_aside(member, Class::Regular);
        }
        assert_eq!(self.claims.fault(), None);
        order
    }
}

fn id_of(role: &str) -> FrameworkId {
    framework(&role.replace('/', "."))
}

#[test]
fn the_smallest_dominant_share_is_first() {
    let mut scene = Scene::new();
    scene.join(&["a", "b", "c", "d"]);
    scene.holds("a", 5, 5);
    scene.holds("b", 6, 6);
    assert_eq!(scene.order(), ["c", "d", "a", "b"]);
    scene.holds("c", 1, 1);
    scene.holds("d", 3, 1);
    assert_eq!(scene.order(), ["c", "d", "a", "b"]);
    // Its memory dominates now.
    scene.holds("c", 0, 30);
    assert_eq!(scene.order(), ["d", "a", "b", "c"]);
    scene.gives_back("b", 4, 4);
    assert_eq!(scene.order(), ["b", "d", "a", "c"]);
    scene.leave("a");
    assert_eq!(scene.order(), ["b", "d", "c"]);
}

#[test]
fn a_weight_divides_a_share_and_may_change_at_any_time() {
    let mut scene = Scene::new();
    scene.join(&["a", "b"]);
    scene.weight("b", 2000);
    scene.holds("a", 5, 5);
    scene.holds("b", 6, 6);
    assert_eq!(scene.order(), ["b", "a"]);
    scene.holds("b", 5, 5);
    assert_eq!(scene.order(), ["a", "b"]);
    scene.weight("a", 500);
    assert_eq!(scene.order(), ["b", "a"]);
    scene.weight("b", 1000);
    assert_eq!(scene.order(), ["a", "b"]);
}

#[test]
fn of_equal_shares_the_one_with_fewer_allocations_is_first_and_then_who_came_first() {
    let mut scene = Scene::new();
    scene.join(&["b", "a", "c"]);
    assert_eq!(scene.order(), ["b", "a", "c"]);
    scene.holds("b", 2, 0);
    scene.holds("a", 1, 0);
    scene.holds("a", 1, 0);
    scene.holds("c", 2, 0);
    assert_eq!(scene.order(), ["b", "c", "a"]);
    scene.gives_back("b", 2, 0);
    scene.gives_back("a", 2, 0);
    scene.gives_back("c", 2, 0);
    assert_eq!(scene.order(), ["b", "c", "a"], "allocations are counted on");
}

#[test]
fn the_children_of_a_role_share_what_it_has() {
    let mut scene = Scene::new();
    scene.join(&["a", "b/c", "b/d"]);
    scene.holds("a", 3, 3);
    scene.holds("b/c", 2, 2);
    scene.holds("b/d", 2, 2);
    // Each of them has less than `a`, together they have more.
    assert_eq!(scene.order(), ["a", "b/c", "b/d"]);
    scene.holds("b/c", 1, 1);
    scene.holds("a", 3, 3);
    assert_eq!(scene.order(), ["b/d", "b/c", "a"]);
}

#[test]
fn every_level_of_a_deep_tree_has_its_own_order() {
    let mut scene = Scene::new();
    scene.join(&["a", "b/c/d/e", "b/c/d/f", "b/g"]);
    scene.holds("a", 9, 9);
    scene.holds("b/c/d/e", 2, 2);
    scene.holds("b/c/d/f", 1, 1);
    scene.holds("b/g", 4, 4);
    assert_eq!(scene.order(), ["b/c/d/f", "b/c/d/e", "b/g", "a"]);
    scene.holds("b/c/d/f", 5, 5);
    assert_eq!(scene.order(), ["a", "b/g", "b/c/d/e", "b/c/d/f"]);
}

#[test]
fn the_frameworks_of_a_role_stand_as_one_beside_the_roles_below_it() {
    let mut scene = Scene::new();
    scene.join(&["a", "b"]);
    scene.holds("a", 4, 4);
    scene.holds("b", 6, 6);
    // A leaf gets a child, and is a leaf of its own among its children from then on.
    scene.join(&["a/c"]);
    assert_eq!(scene.order(), ["a/c", "a", "b"]);
    scene.holds("a/c", 5, 5);
    assert_eq!(scene.order(), ["b", "a", "a/c"]);
    // What is taken from the child is the parent's again.
    scene.gives_back("a/c", 5, 5);
    scene.leave("a/c");
    assert_eq!(scene.order(), ["a", "b"]);
    assert_eq!(scene.claims.weight_milli(&role("a/c")), 1000);
}

#[test]
fn a_role_that_is_only_above_others_can_get_frameworks_and_lose_them() {
    let mut scene = Scene::new();
    scene.join(&["a/b", "c"]);
    scene.holds("a/b", 3, 3);
    scene.holds("c", 5, 5);
    scene.join(&["a"]);
    assert_eq!(scene.order(), ["a", "a/b", "c"]);
    scene.holds("a", 4, 4);
    assert_eq!(scene.order(), ["c", "a/b", "a"]);
    scene.gives_back("a", 4, 4);
    scene.leave("a");
    assert_eq!(scene.order(), ["a/b", "c"]);
}

#[test]
fn the_weight_of_a_role_counts_for_all_below_it() {
    let mut scene = Scene::new();
    scene.join(&["a/b", "a/c", "d"]);
    scene.holds("a/b", 4, 4);
    scene.holds("a/c", 4, 4);
    scene.holds("d", 6, 6);
    assert_eq!(scene.order(), ["d", "a/b", "a/c"]);
    scene.weight("a", 2000);
    assert_eq!(scene.order(), ["a/b", "a/c", "d"]);
    scene.weight("a/c", 3000);
    assert_eq!(scene.order(), ["a/c", "a/b", "d"]);
    scene.weight("a", 1000);
    assert_eq!(scene.order(), ["d", "a/c", "a/b"]);
}

#[test]
fn who_is_inactive_wants_nothing_and_what_it_holds_counts_on() {
    let mut scene = Scene::new();
    scene.join(&["a/b", "a/c", "d"]);
    scene.holds("a/b", 9, 9);
    scene.holds("d", 5, 5);
    scene.terms("a/b", false);
    assert_eq!(scene.order(), ["d", "a/c"]);
    scene.gives_back("a/b", 9, 9);
    assert_eq!(scene.order(), ["a/c", "d"]);
    scene.terms("a/b", true);
    // Its allocation is remembered.
    assert_eq!(scene.order(), ["a/c", "a/b", "d"]);
}

#[test]
fn shares_are_of_what_the_cluster_has_now() {
    let mut scene = Scene::new();
    scene.join(&["a", "b"]);
    scene.holds("a", 10, 0);
    scene.holds("b", 0, 20);
    assert_eq!(scene.order(), ["a", "b"]);
    // Memory is plentiful, cores are dear.
    scene.agent("second", amount(0, 300));
    assert_eq!(scene.order(), ["b", "a"]);
    scene.agent("second", amount(300, 300));
    assert_eq!(scene.order(), ["a", "b"]);
    scene.claims.remove_agent(&AgentId::new("second").unwrap());
    assert_eq!(scene.order(), ["a", "b"]);
    // A kind that nobody has makes no share.
    let disk = Resources::regular(Quantities::ZERO.with(ResourceKind::Disk, GIB));
    scene.claims.charge(&id_of("a"), &role("a"), &disk);
    assert_eq!(scene.order(), ["a", "b"]);
}

#[test]
fn what_is_lent_makes_no_share_of_what_is_owned() {
    let mut scene = Scene::new();
    scene.join(&["a", "b"]);
    let lent = Resources::revocable(amount(50, 50));
    scene.claims.charge(&id_of("a"), &role("a"), &lent);
    scene.holds("b", 1, 1);
    assert_eq!(scene.order(), ["a", "b"]);
}

#[test]
fn a_framework_in_several_roles_has_a_place_in_each() {
    let mut scene = Scene::new();
    scene.join(&["a", "b"]);
    let both = FrameworkTerms {
        roles: BTreeSet::from([role("a"), role("b")]),
        suppressed: BTreeSet::from([role("b")]),
        active: true,
        revocable: false,
        ..FrameworkTerms::default()
    };
    scene.claims.set_framework(&framework("both"), both.clone());
    scene.holds("a", 5, 5);
    assert_eq!(scene.order(), ["b", "a", "a"]);
    let none = BTreeSet::new();
    let revived = FrameworkTerms {
        suppressed: none,
        ..both
    };
    scene.claims.set_framework(&framework("both"), revived);
    assert_eq!(scene.order(), ["b", "b", "a", "a"]);
    let held = Resources::regular(amount(1, 1));
    scene.claims.charge(&framework("both"), &role("b"), &held);
    assert_eq!(
        scene
            .claims
            .role_standing(&role("b"))
            .allocations(Class::Regular),
        1
    );
    assert!(
        scene
            .claims
            .standing(&framework("both"), &role("a"))
            .is_zero()
    );
}
