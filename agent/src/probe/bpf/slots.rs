//! Containers and their slots of the counters.
//!
//! A container gets a slot when it is registered, zeroed before the probes can reach it. A slot is handed out again only
//! when no CPU charges to it any more: that is so once its registration is gone and [`Probes::flush`] has passed every
//! CPU, because the probes look up a task's slot anew there and keep it nowhere else. Requests to block devices, which
//! may end much later, are kept by the registration's stamp, which is never used again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ebb_agent_ebpf_common::{
    Class, IDLE_SLOT, IoCounters, Levels, MAX_LEVELS, OwnerKey, Registration, SlotCounters, Surge,
    TREES, Traffic, Tree, UNMANAGED_SLOT, name,
};

use super::super::error::{ProbeError, access};
use super::super::monotonic_ns;
use super::{Probes, Which, sys};

/// Where a container's cgroup stands in the trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its id in the v2 tree.
    pub cgroup_id: u64,
    /// Its depth there; the root has 0.
    pub depth: u32,
    /// The cgroup above it in the v2 tree.
    pub parent: PathBuf,
    /// Its depth in the tree of the cpu controller; 0 if it is not there.
    pub cpu_depth: u32,
    /// Its id and depth in the v1 trees of the memory and the blkio controller.
    pub v1: Vec<(Tree, u64, u32)>,
}

/// The last counters of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct Last {
    /// Its slot's.
    pub slot: SlotCounters,
    /// Its traffic with each device.
    pub disks: Vec<(u32, IoCounters)>,
    /// Its traffic with network devices, if its packets were seen.
    pub traffic: Option<Traffic>,
}

struct Slot {
    index: u32,
    class: Class,
    place: Place,
    stamp: u64,
    /// Whether its packets have been seen since it was registered.
    seen: bool,
}

impl Slot {
    fn registration(&self) -> Registration {
        Registration {
            slot: self.index,
            class: self.class as u16,
            cpu_depth: u16::try_from(self.place.cpu_depth).unwrap_or(0),
            stamp: self.stamp,
        }
    }
}

/// Who has which slot. Every slot but that of all that belongs to none is either a container's, of this agent or of an
/// earlier one, or retired, or free.
pub(super) struct Slots {
    count: u32,
    registered: BTreeMap<u64, Slot>,
    /// Registrations that an earlier agent has left and none of this one's containers has taken over yet.
    inherited: BTreeMap<u64, Registration>,
    free: BTreeSet<u32>,
    /// Of gone containers; a CPU may still charge to them.
    retired: BTreeSet<u32>,
    levels: Levels,
    last_stamp: u64,
}

impl Slots {
    /// None of them is free yet; see [`Probes::find_free`].
    pub(super) fn new(count: u32) -> Self {
        Self {
            count,
            registered: BTreeMap::new(),
            inherited: BTreeMap::new(),
            free: BTreeSet::new(),
            retired: BTreeSet::new(),
            levels: Levels {
                epoch: 1,
                depth: [[0; MAX_LEVELS]; TREES],
            },
            last_stamp: 0,
        }
    }

    /// Slots for containers.
    pub(super) fn capacity(&self) -> u32 {
        self.count - 1
    }

    /// Containers that have a slot.
    pub(super) fn registered(&self) -> usize {
        self.registered.len()
    }

    /// The slot of a container.
    pub(super) fn of(&self, cgroup_id: u64) -> Option<u32> {
        self.registered.get(&cgroup_id).map(|slot| slot.index)
    }

    /// The same, if the container's packets are seen.
    pub(super) fn seen(&self, cgroup_id: u64) -> Option<u32> {
        let slot = self.registered.get(&cgroup_id)?;
        slot.seen.then_some(slot.index)
    }

    /// The containers by the stamps of their registrations.
    pub(super) fn by_stamp(&self) -> BTreeMap<u64, u64> {
        let registered = self.registered.iter();
        registered.map(|(&id, slot)| (slot.stamp, id)).collect()
    }

    /// The container whose registration has this stamp.
    pub(super) fn with_stamp(&self, stamp: u64) -> Option<u64> {
        let mut registered = self.registered.iter();
        let found = registered.find(|(_, slot)| slot.stamp == stamp);
        found.map(|(&id, _)| id)
    }

    /// The cgroups above the containers.
    pub(super) fn parents(&self) -> impl Iterator<Item = &Path> {
        let registered = self.registered.values();
        registered.map(|slot| slot.place.parent.as_path())
    }

    /// A slot that has no container and that no CPU charges to is free, one that is charged to without one is retired.
    fn sort(&mut self, charged: &BTreeSet<u32>) {
        let inherited: BTreeSet<u32> = self.inherited.values().map(|one| one.slot).collect();
        self.free = (UNMANAGED_SLOT + 1..self.count)
            .filter(|slot| !inherited.contains(slot) && !charged.contains(slot))
            .collect();
        self.retired = charged
            .difference(&inherited)
            .copied()
            .filter(|&slot| slot != IDLE_SLOT && slot != UNMANAGED_SLOT)
            .collect();
    }

    /// Makes the slots of gone containers free that no CPU charges to any more.
    fn reclaim(&mut self, charged: &BTreeSet<u32>) {
        let (stuck, free) = self.retired.iter().partition(|slot| charged.contains(slot));
        self.retired = stuck;
        self.free.extend::<BTreeSet<u32>>(free);
    }

    /// Later than all before, also of an earlier agent.
    fn next_stamp(&mut self) -> u64 {
        self.last_stamp = monotonic_ns().max(self.last_stamp + 1);
        self.last_stamp
    }

    fn room_for_depths(&self, place: &Place) -> Result<(), ProbeError> {
        let mut depths: BTreeSet<u32> = self.depths(Tree::V2);
        depths.insert(place.depth);
        if depths.len() > MAX_LEVELS || place.depth == 0 {
            return Err(ProbeError::Depths);
        }
        Ok(())
    }

    fn depths(&self, tree: Tree) -> BTreeSet<u32> {
        let registered = self.registered.values();
        if tree == Tree::V2 {
            return registered.map(|slot| slot.place.depth).collect();
        }
        registered
            .flat_map(|slot| slot.place.v1.iter())
            .filter(|one| one.0 == tree)
            .map(|one| one.2)
            .collect()
    }

    /// The depths of all containers in a new epoch. What an earlier agent has left counts until it is settled.
    fn next_levels(&mut self) -> Levels {
        let before = self.levels;
        self.levels.epoch += 1;
        for tree in [Tree::V2, Tree::Memory, Tree::Io] {
            let mut depths = self.depths(tree);
            if !self.inherited.is_empty() {
                depths.extend(before.depth[tree as usize].iter().filter(|&&one| one > 0));
            }
            let mut places = [0; MAX_LEVELS];
            for (place, depth) in places.iter_mut().zip(depths.into_iter().rev()) {
                *place = depth;
            }
            self.levels.depth[tree as usize] = places;
        }
        self.levels
    }
}

impl Probes {
    /// Takes over what an earlier agent has left.
    pub(super) fn inherit(&mut self) -> Result<(), ProbeError> {
        let levels = sys::look_up(self.map(name::LEVELS)?, &0u32)
            .map_err(|error| access(name::LEVELS, "read", &error))?;
        if let Some(levels) = levels {
            self.slots.levels = levels;
        }
        let registry = sys::all(self.map(name::REGISTRY)?)
            .map_err(|error| access(name::REGISTRY, "read", &error))?;
        self.slots.inherited = registry.into_iter().collect();
        Ok(())
    }

    /// Looks which slots are free. To be called once, before the first container is registered.
    pub(super) fn find_free(&mut self) {
        let charged = self.charged();
        self.slots.sort(&charged);
    }

    /// Charges a container's cgroup, and all below it, to a slot of its own from now on; or goes on with the slot that
    /// an earlier agent has given it.
    pub fn register(&mut self, place: Place, class: Class) -> Result<(), ProbeError> {
        let id = place.cgroup_id;
        if self.slots.registered.contains_key(&id) {
            return Err(ProbeError::Twice { cgroup_id: id });
        }
        self.slots.room_for_depths(&place)?;
        let (index, stamp) = match self.slots.inherited.remove(&id) {
            Some(kept) => (kept.slot, kept.stamp),
            None => (self.fresh_slot()?, self.slots.next_stamp()),
        };
        let seen = self.watch_packets(&place.parent);
        let slot = Slot {
            index,
            class,
            place,
            stamp,
            seen,
        };
        self.publish(&slot)?;
        self.slots.free.remove(&index);
        self.slots.registered.insert(id, slot);
        self.write_levels()?;
        // Tasks that already run in it are charged to it from now on.
        self.flush(Which::Busy)
    }

    /// A slot that is zero.
    fn fresh_slot(&mut self) -> Result<u32, ProbeError> {
        self.reclaim();
        let free = self.slots.free.first();
        let index = *free.ok_or(ProbeError::Full {
            slots: self.slots.count,
        })?;
        for cpu in 0..self.cpus {
            self.counters
                .set(index as usize * self.cpus + cpu, SlotCounters::ZERO);
        }
        self.surges.set(index as usize, Surge::ZERO);
        self.traffic.set(index as usize, Traffic::ZERO);
        Ok(index)
    }

    fn publish(&self, slot: &Slot) -> Result<(), ProbeError> {
        let registration = slot.registration();
        sys::update(
            self.map(name::REGISTRY)?,
            &slot.place.cgroup_id,
            &registration,
        )
        .map_err(|error| access(name::REGISTRY, "changed", &error))?;
        for &(tree, id, _) in &slot.place.v1 {
            let key = OwnerKey {
                id,
                tree: tree as u64,
            };
            sys::update(self.map(name::OWNERS)?, &key, &registration)
                .map_err(|error| access(name::OWNERS, "changed", &error))?;
        }
        Ok(())
    }

    /// Reads a container a last time and forgets it. What its cgroup uses from now on belongs to none.
    pub fn unregister(&mut self, cgroup_id: u64) -> Result<Last, ProbeError> {
        self.flush(Which::Busy)?;
        let index = self.slots.of(cgroup_id);
        let last = Last {
            slot: self.sum(index.ok_or(ProbeError::Unknown { cgroup_id })?),
            disks: self.disks()?.remove(&cgroup_id).unwrap_or_default(),
            traffic: self.traffic(cgroup_id),
        };
        let slot = self
            .slots
            .registered
            .remove(&cgroup_id)
            .ok_or(ProbeError::Unknown { cgroup_id })?;
        self.slots.retired.insert(slot.index);
        self.surges.set(slot.index as usize, Surge::ZERO);
        self.traffic.set(slot.index as usize, Traffic::ZERO);
        self.forget(cgroup_id, &slot.place.v1)?;
        self.forget_disks(slot.stamp)?;
        self.write_levels()?;
        self.flush(Which::All)?;
        self.reclaim();
        Ok(last)
    }

    /// Forgets what an earlier agent has left and no container of this one has taken over.
    pub fn settle(&mut self) -> Result<(), ProbeError> {
        let inherited = std::mem::take(&mut self.slots.inherited);
        if inherited.is_empty() {
            return Ok(());
        }
        let stamps: BTreeSet<u64> = inherited.values().map(|one| one.stamp).collect();
        let owners: Vec<(OwnerKey, Registration)> = sys::all(self.map(name::OWNERS)?)
            .map_err(|error| access(name::OWNERS, "read", &error))?;
        for (key, _) in owners.iter().filter(|one| stamps.contains(&one.1.stamp)) {
            sys::delete(self.map(name::OWNERS)?, key)
                .map_err(|error| access(name::OWNERS, "changed", &error))?;
        }
        for (cgroup_id, registration) in inherited {
            self.forget(cgroup_id, &[])?;
            self.forget_disks(registration.stamp)?;
            self.slots.retired.insert(registration.slot);
        }
        self.write_levels()?;
        self.flush(Which::All)?;
        self.reclaim();
        Ok(())
    }

    fn forget(&self, cgroup_id: u64, v1: &[(Tree, u64, u32)]) -> Result<(), ProbeError> {
        sys::delete(self.map(name::REGISTRY)?, &cgroup_id)
            .map_err(|error| access(name::REGISTRY, "changed", &error))?;
        for &(tree, id, _) in v1 {
            let key = OwnerKey {
                id,
                tree: tree as u64,
            };
            sys::delete(self.map(name::OWNERS)?, &key)
                .map_err(|error| access(name::OWNERS, "changed", &error))?;
        }
        Ok(())
    }

    fn forget_disks(&self, stamp: u64) -> Result<(), ProbeError> {
        for (key, _) in self.io()? {
            if key.stamp == stamp {
                sys::delete(self.map(name::IO)?, &key)
                    .map_err(|error| access(name::IO, "changed", &error))?;
            }
        }
        Ok(())
    }

    /// Tells the probes at which depths containers stand, and that what they remember of cgroups is old.
    fn write_levels(&mut self) -> Result<(), ProbeError> {
        let levels = self.slots.next_levels();
        sys::update(self.map(name::LEVELS)?, &0u32, &levels)
            .map_err(|error| access(name::LEVELS, "changed", &error))
    }

    fn reclaim(&mut self) {
        if !self.slots.retired.is_empty() {
            let charged = self.charged();
            self.slots.reclaim(&charged);
        }
    }

    /// The slots that CPUs charge to at this moment.
    fn charged(&self) -> BTreeSet<u32> {
        self.current.iter().map(|one| one.slot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(inherited: &[(u64, u32)]) -> Slots {
        let mut slots = Slots::new(6);
        slots.inherited = inherited
            .iter()
            .map(|&(id, slot)| {
                let registration = Registration {
                    slot,
                    class: Class::Owned as u16,
                    cpu_depth: 0,
                    stamp: id,
                };
                (id, registration)
            })
            .collect();
        slots
    }

    fn registered(slots: &mut Slots, cgroup_id: u64, depth: u32) {
        let place = Place {
            cgroup_id,
            depth,
            parent: PathBuf::new(),
            cpu_depth: 0,
            v1: vec![(Tree::Memory, cgroup_id, depth + 1)],
        };
        let slot = Slot {
            index: 1,
            class: Class::Owned,
            place,
            stamp: cgroup_id,
            seen: false,
        };
        slots.registered.insert(cgroup_id, slot);
    }

    #[test]
    fn a_slot_is_free_once_it_has_no_container_and_no_cpu_charges_to_it() {
        let mut slots = slots(&[(70, 2), (80, 3)]);
        slots.sort(&BTreeSet::from([UNMANAGED_SLOT, IDLE_SLOT, 3, 4]));
        assert_eq!(slots.free, BTreeSet::from([1, 5]));
        assert_eq!(slots.retired, BTreeSet::from([4]));
        slots.reclaim(&BTreeSet::from([3, 4]));
        assert_eq!(slots.retired, BTreeSet::from([4]));
        slots.reclaim(&BTreeSet::from([3]));
        assert_eq!(slots.free, BTreeSet::from([1, 4, 5]));
        assert!(slots.retired.is_empty());
    }

    #[test]
    fn depths_stand_deepest_first_and_those_of_an_earlier_agent_until_it_is_settled() {
        let mut slots = slots(&[(70, 2)]);
        slots.levels.depth[Tree::V2 as usize] = [7, 0, 0, 0];
        registered(&mut slots, 80, 3);
        registered(&mut slots, 90, 5);
        let levels = slots.next_levels();
        assert_eq!(levels.epoch, 2);
        assert_eq!(levels.depth[Tree::V2 as usize], [7, 5, 3, 0]);
        assert_eq!(levels.depth[Tree::Memory as usize], [6, 4, 0, 0]);
        slots.inherited.clear();
        let levels = slots.next_levels();
        assert_eq!(levels.epoch, 3);
        assert_eq!(levels.depth[Tree::V2 as usize], [5, 3, 0, 0]);
    }

    #[test]
    fn traffic_is_told_and_limited_only_where_packets_are_seen() {
        let mut slots = slots(&[]);
        registered(&mut slots, 80, 3);
        assert_eq!((slots.of(80), slots.seen(80)), (Some(1), None));
        slots.registered.get_mut(&80).unwrap().seen = true;
        assert_eq!((slots.seen(80), slots.seen(90)), (Some(1), None));
    }

    #[test]
    fn a_stamp_is_never_given_twice() {
        let mut slots = slots(&[]);
        let stamps: Vec<u64> = (0..3).map(|_| slots.next_stamp()).collect();
        assert!(stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
    }
}
