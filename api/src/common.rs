//! Labels, attributes, offers, and what frameworks, agents and masters say of themselves.

use ebb_types::limits::{
    MAX_ATTRIBUTES, MAX_FAILOVER_MS, MAX_ID_BYTES, MAX_LABELS, MAX_NAME_BYTES, MAX_ROLES,
};
use ebb_types::{
    AgentId, AgentInfo, Attribute, AttributeValue, Capability, ExecutorId, FaultDomain,
    FrameworkId, FrameworkInfo, Generation, MasterInfo, Offer, OfferId, Role, Timestamp,
};

use crate::check::{Invalid, bounded, duration_ms, id, optional_id, text};
use crate::lasting::{lasting, write_lasting};
use crate::lots::{owned_with_lots, with_lots, write_owned_with_lots, write_with_lots};
use crate::proto;

pub(crate) fn labels(
    field: &'static str,
    list: Vec<proto::Label>,
    max: usize,
    max_value_bytes: usize,
) -> Result<Vec<(String, String)>, Invalid> {
    bounded(field, list.len(), max)?;
    list.into_iter()
        .map(|label| {
            Ok((
                text(field, label.key, MAX_NAME_BYTES)?,
                text(field, label.value, max_value_bytes)?,
            ))
        })
        .collect()
}

pub(crate) fn write_labels(labels: Vec<(String, String)>) -> Vec<proto::Label> {
    labels
        .into_iter()
        .map(|(key, value)| proto::Label { key, value })
        .collect()
}

pub(crate) fn roles(field: &'static str, list: &[String]) -> Result<Vec<Role>, Invalid> {
    bounded(field, list.len(), MAX_ROLES)?;
    list.iter()
        .map(|role| id(field, role, |t| Role::new(t)))
        .collect()
}

pub(crate) fn write_roles(roles: &[Role]) -> Vec<String> {
    roles.iter().map(ToString::to_string).collect()
}

const CAPABILITIES: [(Capability, proto::Capability); 6] = [
    (
        Capability::RevocableResources,
        proto::Capability::RevocableResources,
    ),
    (
        Capability::TaskKillingState,
        proto::Capability::TaskKillingState,
    ),
    (
        Capability::PartitionAware,
        proto::Capability::PartitionAware,
    ),
    (Capability::RegionAware, proto::Capability::RegionAware),
    (Capability::GpuResources, proto::Capability::GpuResources),
    (
        Capability::SharedResources,
        proto::Capability::SharedResources,
    ),
];

/// Unknown capabilities are those of a later version and are left out.
fn capabilities(list: &[i32]) -> Vec<Capability> {
    let known = CAPABILITIES
        .into_iter()
        .filter(|(_, wire)| list.contains(&(*wire as i32)));
    known.map(|(capability, _)| capability).collect()
}

fn write_capabilities(list: &[Capability]) -> Vec<i32> {
    let held = CAPABILITIES
        .into_iter()
        .filter(|(capability, _)| list.contains(capability));
    held.map(|(_, wire)| wire as i32).collect()
}

impl TryFrom<proto::FrameworkInfo> for FrameworkInfo {
    type Error = Invalid;

    fn try_from(info: proto::FrameworkInfo) -> Result<Self, Invalid> {
        let roles = roles("framework_info.roles", &info.roles)?;
        if roles.is_empty() {
            return Err(Invalid::new(
                "framework_info.roles",
                "is empty; name at least one role, such as \"*\"",
            ));
        }
        if (1..roles.len()).any(|at| roles[..at].contains(&roles[at])) {
            return Err(Invalid::new(
                "framework_info.roles",
                "names a role twice; name it once",
            ));
        }
        Ok(Self {
            id: optional_id("framework_info.id", &info.id, |t| FrameworkId::new(t))?,
            name: text("framework_info.name", info.name, MAX_NAME_BYTES)?,
            user: text("framework_info.user", info.user, MAX_NAME_BYTES)?,
            roles,
            failover_timeout_ms: duration_ms(
                "framework_info.failover_timeout_ms",
                info.failover_timeout_ms,
                MAX_FAILOVER_MS,
            )?,
            hostname: text("framework_info.hostname", info.hostname, MAX_NAME_BYTES)?,
            principal: text("framework_info.principal", info.principal, MAX_NAME_BYTES)?,
            webui_url: text("framework_info.webui_url", info.webui_url, MAX_NAME_BYTES)?,
            capabilities: capabilities(&info.capabilities),
            labels: labels(
                "framework_info.labels",
                info.labels,
                MAX_LABELS,
                MAX_NAME_BYTES,
            )?,
        })
    }
}

impl From<FrameworkInfo> for proto::FrameworkInfo {
    fn from(info: FrameworkInfo) -> Self {
        Self {
            id: info.id.map(|id| id.to_string()).unwrap_or_default(),
            name: info.name,
            user: info.user,
            roles: write_roles(&info.roles),
            failover_timeout_ms: info.failover_timeout_ms,
            hostname: info.hostname,
            principal: info.principal,
            webui_url: info.webui_url,
            capabilities: write_capabilities(&info.capabilities),
            labels: write_labels(info.labels),
        }
    }
}

fn attributes(field: &'static str, list: Vec<proto::Attribute>) -> Result<Vec<Attribute>, Invalid> {
    bounded(field, list.len(), MAX_ATTRIBUTES)?;
    list.into_iter()
        .map(|attribute| {
            let name = text(field, attribute.name, MAX_ID_BYTES)?;
            if name.is_empty() {
                return Err(Invalid::new(
                    field,
                    "has an attribute without a name; name it",
                ));
            }
            let value = match attribute.value {
                Some(proto::attribute::Value::ScalarMilli(value)) => {
                    AttributeValue::ScalarMilli(value)
                }
                Some(proto::attribute::Value::Text(value)) => {
                    AttributeValue::Text(text(field, value, MAX_NAME_BYTES)?)
                }
                None => {
                    return Err(Invalid::new(
                        field,
                        format!("{name} has no value; give it one"),
                    ));
                }
            };
            Ok(Attribute { name, value })
        })
        .collect()
}

fn write_attributes(attributes: Vec<Attribute>) -> Vec<proto::Attribute> {
    attributes
        .into_iter()
        .map(|attribute| proto::Attribute {
            name: attribute.name,
            value: Some(match attribute.value {
                AttributeValue::ScalarMilli(value) => proto::attribute::Value::ScalarMilli(value),
                AttributeValue::Text(value) => proto::attribute::Value::Text(value),
            }),
        })
        .collect()
}

pub(crate) fn port(field: &'static str, port: u32) -> Result<u16, Invalid> {
    u16::try_from(port)
        .map_err(|_| Invalid::new(field, format!("is {port}; a port is at most 65535")))
}

fn domain(
    field: &'static str,
    domain: Option<proto::FaultDomain>,
) -> Result<Option<FaultDomain>, Invalid> {
    let Some(domain) = domain else {
        return Ok(None);
    };
    if domain.region.is_empty() || domain.zone.is_empty() {
        return Err(Invalid::new(
            field,
            "has no region or no zone; give both, or leave the domain out",
        ));
    }
    Ok(Some(FaultDomain {
        region: text(field, domain.region, MAX_ID_BYTES)?,
        zone: text(field, domain.zone, MAX_ID_BYTES)?,
    }))
}

impl From<FaultDomain> for proto::FaultDomain {
    fn from(domain: FaultDomain) -> Self {
        Self {
            region: domain.region,
            zone: domain.zone,
        }
    }
}

impl TryFrom<proto::AgentInfo> for AgentInfo {
    type Error = Invalid;

    fn try_from(info: proto::AgentInfo) -> Result<Self, Invalid> {
        let (total, lots) = owned_with_lots("agent_info.total", info.total)?;
        Ok(Self {
            id: optional_id("agent_info.id", &info.id, |t| AgentId::new(t))?,
            hostname: text("agent_info.hostname", info.hostname, MAX_NAME_BYTES)?,
            port: port("agent_info.port", info.port)?,
            total,
            lots,
            lots_version: info.lots_version,
            attributes: attributes("agent_info.attributes", info.attributes)?,
            version: text("agent_info.version", info.version, MAX_NAME_BYTES)?,
            domain: domain("agent_info.domain", info.domain)?,
        })
    }
}

impl From<AgentInfo> for proto::AgentInfo {
    fn from(info: AgentInfo) -> Self {
        Self {
            id: info.id.map(|id| id.to_string()).unwrap_or_default(),
            hostname: info.hostname,
            port: info.port.into(),
            total: write_owned_with_lots(&info.total, &info.lots),
            lots_version: info.lots_version,
            attributes: write_attributes(info.attributes),
            version: info.version,
            domain: info.domain.map(Into::into),
        }
    }
}

impl TryFrom<proto::Offer> for Offer {
    type Error = Invalid;

    fn try_from(offer: proto::Offer) -> Result<Self, Invalid> {
        bounded(
            "offer.executor_ids",
            offer.executor_ids.len(),
            ebb_types::limits::MAX_TASKS_PER_CALL,
        )?;
        let (resources, lots) = with_lots("offer.resources", offer.resources)?;
        Ok(Self {
            id: id("offer.id", &offer.id, |t| OfferId::new(t))?,
            framework_id: id("offer.framework_id", &offer.framework_id, |t| {
                FrameworkId::new(t)
            })?,
            agent_id: id("offer.agent_id", &offer.agent_id, |t| AgentId::new(t))?,
            hostname: text("offer.hostname", offer.hostname, MAX_NAME_BYTES)?,
            role: id("offer.role", &offer.role, |t| Role::new(t))?,
            resources,
            lots,
            attributes: attributes("offer.attributes", offer.attributes)?,
            executor_ids: offer
                .executor_ids
                .iter()
                .map(|text| id("offer.executor_ids", text, |t| ExecutorId::new(t)))
                .collect::<Result<_, _>>()?,
            deadline: offer.deadline_ms.map(Timestamp::from_ms),
            domain: domain("offer.domain", offer.domain)?,
            unavailability: offer.unavailability.map(TryInto::try_into).transpose()?,
            lasting: lasting("offer.lasting", offer.lasting)?,
        })
    }
}

impl From<Offer> for proto::Offer {
    fn from(offer: Offer) -> Self {
        Self {
            id: offer.id.to_string(),
            framework_id: offer.framework_id.to_string(),
            agent_id: offer.agent_id.to_string(),
            hostname: offer.hostname,
            role: offer.role.to_string(),
            resources: write_with_lots(&offer.resources, &offer.lots),
            attributes: write_attributes(offer.attributes),
            executor_ids: offer.executor_ids.iter().map(ToString::to_string).collect(),
            deadline_ms: offer.deadline.map(Timestamp::as_ms),
            domain: offer.domain.map(Into::into),
            unavailability: offer.unavailability.map(Into::into),
            lasting: write_lasting(&offer.lasting),
        }
    }
}

impl TryFrom<proto::MasterInfo> for MasterInfo {
    type Error = Invalid;

    fn try_from(info: proto::MasterInfo) -> Result<Self, Invalid> {
        Ok(Self {
            id: text("master.id", info.id, MAX_ID_BYTES)?,
            generation: Generation(info.generation),
            hostname: text("master.hostname", info.hostname, MAX_NAME_BYTES)?,
            port: port("master.port", info.port)?,
            version: text("master.version", info.version, MAX_NAME_BYTES)?,
            domain: domain("master.domain", info.domain)?,
        })
    }
}

impl From<MasterInfo> for proto::MasterInfo {
    fn from(info: MasterInfo) -> Self {
        Self {
            id: info.id,
            generation: info.generation.0,
            hostname: info.hostname,
            port: info.port.into(),
            version: info.version,
            domain: info.domain.map(Into::into),
        }
    }
}
