//! Records as bytes: a head of fixed length with the times, then the description in the format of
//! the wire, so that later versions read what earlier ones wrote. Times are milliseconds since the
//! epoch, big-endian; one that is unset is all ones.

use ebb_api::Stored;
use ebb_types::{AgentInfo, FrameworkId, FrameworkInfo, OperationStatus, Timestamp};

use crate::core::record::{Activity, AgentRecord, FrameworkRecord, OperationRecord};

const UNSET: u64 = u64::MAX;
const HEAD_BYTES: usize = 16;

fn write(first: Timestamp, second: Option<Timestamp>, description: Vec<u8>) -> Vec<u8> {
    let second_ms = second.map_or(UNSET, Timestamp::as_ms);
    let mut bytes = Vec::with_capacity(HEAD_BYTES + description.len());
    bytes.extend_from_slice(&first.as_ms().to_be_bytes());
    bytes.extend_from_slice(&second_ms.to_be_bytes());
    bytes.extend(description);
    bytes
}

fn read<T: Stored>(bytes: &[u8]) -> Result<(Timestamp, Option<Timestamp>, T), String> {
    let (first, rest) = bytes
        .split_first_chunk::<8>()
        .ok_or("a record is cut off")?;
    let (second, rest) = rest.split_first_chunk::<8>().ok_or("a record is cut off")?;
    let second_ms = u64::from_be_bytes(*second);
    let description = T::from_bytes(rest).map_err(|error| error.to_string())?;
    Ok((
        Timestamp::from_ms(u64::from_be_bytes(*first)),
        (second_ms != UNSET).then_some(Timestamp::from_ms(second_ms)),
        description,
    ))
}

pub(super) fn write_framework(record: &FrameworkRecord) -> Vec<u8> {
    write(
        record.registered_at,
        record.failover_deadline,
        record.info.to_bytes(),
    )
}

pub(super) fn read_framework(bytes: &[u8]) -> Result<FrameworkRecord, String> {
    let (registered_at, failover_deadline, info) = read::<FrameworkInfo>(bytes)?;
    Ok(FrameworkRecord {
        info,
        registered_at,
        failover_deadline,
    })
}

pub(super) fn write_agent(record: &AgentRecord) -> Vec<u8> {
    write(
        record.registered_at,
        record.unreachable_since,
        record.info.to_bytes(),
    )
}

pub(super) fn read_agent(bytes: &[u8], activity: Activity) -> Result<AgentRecord, String> {
    let (registered_at, unreachable_since, info) = read::<AgentInfo>(bytes)?;
    Ok(AgentRecord {
        info,
        registered_at,
        unreachable_since,
        activity,
    })
}

/// The number of an activity that is stored, and the longest grace. An active agent has none, as in
/// registries that were written before there were activities.
pub(super) const fn write_activity(activity: Activity) -> Option<(u8, Option<u64>)> {
    match activity {
        Activity::Active => None,
        Activity::Deactivated => Some((1, None)),
        Activity::Draining { max_grace_ms } => Some((2, max_grace_ms)),
        Activity::Drained => Some((3, None)),
    }
}

pub(super) fn read_activity(stored: Option<(u8, Option<u64>)>) -> Result<Activity, String> {
    match stored {
        None => Ok(Activity::Active),
        Some((1, _)) => Ok(Activity::Deactivated),
        Some((2, max_grace_ms)) => Ok(Activity::Draining { max_grace_ms }),
        Some((3, _)) => Ok(Activity::Drained),
        Some((other, _)) => Err(format!("an agent's activity is {other}, which is none")),
    }
}

/// The version of the order, big-endian, then what became of the operation.
pub(super) fn write_operation(record: &OperationRecord) -> Vec<u8> {
    let mut bytes = record.version.to_be_bytes().to_vec();
    bytes.extend(record.status.to_bytes());
    bytes
}

pub(super) fn read_operation(framework_id: &str, bytes: &[u8]) -> Result<OperationRecord, String> {
    let (version, status) = bytes
        .split_first_chunk::<8>()
        .ok_or("an operation is cut off")?;
    Ok(OperationRecord {
        framework_id: FrameworkId::new(framework_id).map_err(|error| error.to_string())?,
        version: u64::from_be_bytes(*version),
        status: OperationStatus::from_bytes(status).map_err(|error| error.to_string())?,
    })
}
