//! Lots in JSON: amounts of each [`ebb_types::ResourceKind`] in its own unit, others in thousandths.

use ebb_types::{DiskSource, LotKey, LotValue, Lots, ReservationKind, VolumeMode};
use serde::Serialize;

/// A lot; of amount, ranges and set one is not null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LotJson {
    name: String,
    amount: Option<u64>,
    ranges: Option<Vec<[u64; 2]>>,
    set: Option<Vec<String>>,
    reservations: Vec<ReservationJson>,
    source: Option<SourceJson>,
    volume: Option<VolumeJson>,
    shared: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ReservationJson {
    role: String,
    dynamic: bool,
    principal: String,
    labels: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum SourceJson {
    Path { root: String },
    Mount { root: String },
    Block { id: String, profile: String },
    Raw { id: String, profile: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct VolumeJson {
    id: String,
    principal: String,
    container_path: String,
    read_only: bool,
}

fn source(source: &DiskSource) -> SourceJson {
    match source.clone() {
        DiskSource::Path { root } => SourceJson::Path { root },
        DiskSource::Mount { root } => SourceJson::Mount { root },
        DiskSource::Block { id, profile } => SourceJson::Block { id, profile },
        DiskSource::Raw { id, profile } => SourceJson::Raw { id, profile },
    }
}

fn lot((key, value): (&LotKey, &LotValue)) -> LotJson {
    let (mut amount, mut ranges, mut set) = (None, None, None);
    match value {
        LotValue::Scalar(scalar) => amount = Some(*scalar),
        LotValue::Ranges(list) => {
            ranges = Some(list.iter().map(|(begin, end)| [begin, end]).collect());
        }
        LotValue::Set(items) => set = Some(items.iter().cloned().collect()),
    }
    let reservations = key.reservations.iter().map(|one| ReservationJson {
        role: one.role.to_string(),
        dynamic: one.kind == ReservationKind::Dynamic,
        principal: one.principal.clone(),
        labels: one.labels.clone(),
    });
    LotJson {
        name: key.name.clone(),
        amount,
        ranges,
        set,
        reservations: reservations.collect(),
        source: key.source().map(source),
        volume: key.volume().map(|volume| VolumeJson {
            id: volume.id.clone(),
            principal: volume.principal.clone(),
            container_path: volume.container_path.clone(),
            read_only: volume.mode == VolumeMode::ReadOnly,
        }),
        shared: key.shared,
    }
}

/// All of some lots.
pub(crate) fn all(lots: &Lots) -> Vec<LotJson> {
    lots.iter().map(lot).collect()
}
