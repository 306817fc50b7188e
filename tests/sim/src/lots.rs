//! What frameworks do with lots: they take ports, reserve and unreserve, make, use and destroy volumes, at random.

use ebb_types::{
    Disk, LotKey, LotValue, Lots, Offer, Operation, OperationId, OperationKind, Ranges,
    Reservation, ReservationKind, ResourceKind, Volume, VolumeMode, WrittenResources,
};

use crate::planted::Planted;
use crate::rng::Rng;
use crate::world::World;

/// What every machine has beside plain quantities.
const LOTS: &str = "ports:[1000-1063];zones:{a,b};disk[path:/data]:1GiB";
/// Chances in a thousand that an answer to an offer comes with each operation.
const RESERVES: u64 = 120;
const UNRESERVES: u64 = 200;
const CREATES: u64 = 300;
const DESTROYS: u64 = 300;
/// Most ports of one task.
const MAX_PORTS: u64 = 4;

/// What every machine has beside plain quantities.
pub(crate) fn of_machine() -> Lots {
    let written = LOTS.parse::<WrittenResources>();
    written.map_or(Lots::NONE, |written| written.lots)
}

/// Whether a number or item is in both, however it is reserved.
fn overlap(a: &Lots, b: &Lots) -> bool {
    let pairs = a
        .iter()
        .flat_map(|one| b.iter().map(move |other| (one, other)));
    let mut same = pairs.filter(|((a, _), (b, _))| a.name == b.name);
    same.any(|((_, a), (_, b))| match (a, b) {
        (LotValue::Ranges(a), LotValue::Ranges(b)) => !a.is_disjoint(b),
        (LotValue::Set(a), LotValue::Set(b)) => !a.is_disjoint(b),
        _ => false,
    })
}

/// What the master says of lots agrees with what the tasks on the machines use at that moment.
impl World {
    /// No port, item or volume that a running task has may be offered; `offers` are on their way.
    pub(crate) fn check_lots_offered(&mut self, offers: &mut [Offer]) {
        for offer in offers {
            let machine = offer.hostname.strip_prefix("machine-");
            let Some(number) = machine.and_then(|number| number.parse().ok()) else {
                continue;
            };
            // An agent that died before it knew its id has left the one on its machine nothing.
            let in_use = self.lots_in_use(number).into_iter();
            let in_use = in_use.filter(|(agent_id, _)| *agent_id == offer.agent_id);
            let in_use = Vec::from_iter(in_use.map(|(_, lots)| lots));
            if self.planted == Some(Planted::PortTwice) {
                for lots in &in_use {
                    let ports = lots.only(|key| key.name == "ports");
                    offer.lots = offer.lots.checked_add(&ports).unwrap_or_default();
                }
            }
            let twice = in_use.iter().find(|lots| overlap(lots, &offer.lots));
            if let Some(lots) = twice.cloned() {
                let id = &offer.id;
                self.fail(format!(
                    "offer {id} has {}, of which a task uses {lots}",
                    offer.lots
                ));
            }
        }
    }

    /// No volume that a running task has may go by an order.
    pub(crate) fn check_lots_ordered(&mut self, number: usize, dynamic: &mut Lots) {
        if self.planted == Some(Planted::VolumeDestroyedInUse) {
            *dynamic = dynamic.only(|key| key.volume().is_none());
        }
        for (_, lots) in self.lots_in_use(number) {
            let volumes = lots.only(|key| key.volume().is_some());
            if !dynamic.covers(&volumes) {
                self.fail(format!(
                    "machine {number} is ordered to end {volumes}, which a task uses"
                ));
            }
        }
    }
}

/// What is left of an offer while it is answered.
pub(crate) struct Left {
    /// Its lots.
    pub(crate) lots: Lots,
    role: ebb_types::Role,
    count: u64,
}

fn one(key: LotKey, value: LotValue) -> Lots {
    Lots::new([(key, value)]).unwrap_or_default()
}

impl Left {
    pub(crate) fn of(offer: &Offer) -> Self {
        Self {
            lots: offer.lots.clone(),
            role: offer.role.clone(),
            count: 0,
        }
    }

    /// Takes some ports, and now and then a volume, for a task.
    pub(crate) fn take(&mut self, rng: &mut Rng) -> Lots {
        let mut taken = Vec::new();
        for (key, value) in self.lots.iter() {
            let part = match value {
                LotValue::Ranges(ranges) if rng.chance(500) => {
                    let Some((begin, end)) = ranges.iter().next() else {
                        continue;
                    };
                    let last = end.min(begin + rng.between(0, MAX_PORTS - 1));
                    LotValue::Ranges(Ranges::new([(begin, last)]).unwrap_or_default())
                }
                LotValue::Scalar(_) if key.volume().is_some() && rng.chance(300) => value.clone(),
                LotValue::Scalar(amount) if key.kind() == Some(ResourceKind::Cpus) => {
                    LotValue::Scalar(amount / 2)
                }
                _ => continue,
            };
            taken.push((key.clone(), part));
        }
        // Two volumes would stand at one place.
        let mut volumes = 0;
        taken.retain(|(key, _)| {
            volumes += usize::from(key.volume().is_some());
            key.volume().is_none() || volumes == 1
        });
        let taken = Lots::new(taken).unwrap_or_default();
        self.lots = self.lots.saturating_sub(&taken);
        taken
    }

    /// The operations of an answer; `name` begins their ids.
    pub(crate) fn operations(&mut self, rng: &mut Rng, name: &str) -> Vec<Operation> {
        if self.role.as_str() == "*" {
            return Vec::new();
        }
        let mut operations = Vec::new();
        let keys: Vec<(LotKey, LotValue)> = self
            .lots
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        for (key, value) in keys {
            let is_mine = key.role() == Some(&self.role);
            let (kind, lots) = match (key.volume(), is_mine) {
                (Some(_), _) if rng.chance(DESTROYS) => {
                    (OperationKind::Destroy, one(key.clone(), value.clone()))
                }
                (None, true) if key.source().is_some() && rng.chance(CREATES) => {
                    let mut volume = key.clone();
                    volume.disk = Some(Box::new(Disk {
                        source: key.source().cloned(),
                        volume: Some(Volume {
                            id: format!("{name}-{}", self.count),
                            principal: String::from("simulated"),
                            container_path: String::from("data"),
                            mode: VolumeMode::ReadWrite,
                        }),
                    }));
                    (OperationKind::Create, one(volume, value.clone()))
                }
                (None, true) if rng.chance(UNRESERVES) => {
                    (OperationKind::Unreserve, one(key.clone(), value.clone()))
                }
                (None, false) if key.reservations.is_empty() && rng.chance(RESERVES) => (
                    OperationKind::Reserve,
                    one(self.reserved(&key), value.clone()),
                ),
                _ => continue,
            };
            self.lots = self.lots.saturating_sub(&one(key, value));
            operations.push(self.operation(name, kind, lots));
        }
        if rng.chance(RESERVES) {
            let cpus = self.reserved(&LotKey::named("cpus"));
            let amount = LotValue::Scalar(rng.between(1, 4) * 100);
            operations.push(self.operation(name, OperationKind::Reserve, one(cpus, amount)));
        }
        operations
    }

    fn reserved(&self, key: &LotKey) -> LotKey {
        let mut key = key.clone();
        key.reservations.push(Reservation {
            role: self.role.clone(),
            kind: ReservationKind::Dynamic,
            principal: String::from("simulated"),
            labels: Vec::new(),
        });
        key
    }

    fn operation(&mut self, name: &str, kind: OperationKind, lots: Lots) -> Operation {
        self.count += 1;
        let id = OperationId::new(format!("{name}-{}", self.count)).ok();
        Operation::Convert { id, kind, lots }
    }
}
