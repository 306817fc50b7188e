//! Maintenance on the wire: windows of machines, inverse offers, and what frameworks answer to them.

use ebb_types::limits::{MAX_MACHINES_PER_CALL, MAX_MAINTENANCE_MS, MAX_NAME_BYTES};
use ebb_types::{
    AgentAnswer, AgentId, FrameworkId, InverseAnswer, InverseOffer, Machine, MaintenanceMode,
    MaintenanceState, OfferId, Timestamp, Unavailability, Window,
};
use proto::machine::Machine as Wire;

use crate::check::{Invalid, bounded, duration_ms, id, required, text};
use crate::proto;

const MODES: [(MaintenanceMode, proto::MaintenanceMode); 2] = [
    (
        MaintenanceMode::Scheduled,
        proto::MaintenanceMode::Scheduled,
    ),
    (MaintenanceMode::Down, proto::MaintenanceMode::Down),
];

const ANSWERS: [(InverseAnswer, proto::InverseAnswer); 3] = [
    (InverseAnswer::Open, proto::InverseAnswer::Open),
    (InverseAnswer::Accepted, proto::InverseAnswer::Accepted),
    (InverseAnswer::Declined, proto::InverseAnswer::Declined),
];

impl TryFrom<proto::Unavailability> for Unavailability {
    type Error = Invalid;

    fn try_from(wire: proto::Unavailability) -> Result<Self, Invalid> {
        const FIELD: &str = "unavailability.duration_ms";
        let duration = wire.duration_ms;
        if duration == Some(0) {
            return Err(Invalid::new(
                FIELD,
                "is 0; leave it out for a window without an end",
            ));
        }
        Ok(Self {
            start: Timestamp::from_ms(wire.start_ms),
            duration_ms: duration
                .map(|ms| duration_ms(FIELD, ms, MAX_MAINTENANCE_MS))
                .transpose()?,
        })
    }
}

impl From<Unavailability> for proto::Unavailability {
    fn from(unavailability: Unavailability) -> Self {
        Self {
            start_ms: unavailability.start.as_ms(),
            duration_ms: unavailability.duration_ms,
        }
    }
}

impl TryFrom<proto::Machine> for Machine {
    type Error = Invalid;

    fn try_from(wire: proto::Machine) -> Result<Self, Invalid> {
        Ok(match required("machine", wire.machine)? {
            Wire::AgentId(text) => Self::Agent(id("machine.agent_id", &text, |t| AgentId::new(t))?),
            Wire::Hostname(text) => id("machine.hostname", &text, Self::host)?,
        })
    }
}

impl From<Machine> for proto::Machine {
    fn from(machine: Machine) -> Self {
        Self {
            machine: Some(match machine {
                Machine::Agent(id) => Wire::AgentId(id.to_string()),
                Machine::Host(name) => Wire::Hostname(name),
            }),
        }
    }
}

/// Reads the machines that a call names.
///
/// # Errors
/// [`Invalid`] if there are none or too many, or one breaks a rule.
pub fn machines(request: proto::MachinesRequest) -> Result<Vec<Machine>, Invalid> {
    check_count("machines", request.machines.len())?;
    let machines = request.machines.into_iter();
    machines.map(TryInto::try_into).collect()
}

/// Reads the windows that a call schedules.
///
/// # Errors
/// [`Invalid`] if there are none or too many, or one breaks a rule.
pub fn windows(
    request: proto::ScheduleMaintenanceRequest,
) -> Result<Vec<(Machine, Unavailability)>, Invalid> {
    check_count("windows", request.windows.len())?;
    let windows = request.windows.into_iter();
    windows
        .map(|window| {
            let machine = required("window.machine", window.machine)?;
            let unavailability = required("window.unavailability", window.unavailability)?;
            Ok((machine.try_into()?, unavailability.try_into()?))
        })
        .collect()
}

fn check_count(field: &'static str, count: usize) -> Result<(), Invalid> {
    if count == 0 {
        return Err(Invalid::new(field, "names no machine; name at least one"));
    }
    bounded(field, count, MAX_MACHINES_PER_CALL)
}

impl TryFrom<proto::Window> for Window {
    type Error = Invalid;

    fn try_from(wire: proto::Window) -> Result<Self, Invalid> {
        let mode = MODES
            .into_iter()
            .find(|(_, mode)| *mode as i32 == wire.mode);
        let Some((mode, _)) = mode else {
            return Err(Invalid::new(
                "window.mode",
                format!("is {}, which is no mode", wire.mode),
            ));
        };
        Ok(Self {
            machine: required("window.machine", wire.machine)?.try_into()?,
            unavailability: required("window.unavailability", wire.unavailability)?.try_into()?,
            mode,
        })
    }
}

impl From<Window> for proto::Window {
    fn from(window: Window) -> Self {
        let mode = MODES.into_iter().find(|(mode, _)| *mode == window.mode);
        Self {
            machine: Some(window.machine.into()),
            unavailability: Some(window.unavailability.into()),
            mode: mode.map_or(0, |(_, wire)| wire as i32),
        }
    }
}

impl TryFrom<proto::maintenance_state::Answer> for AgentAnswer {
    type Error = Invalid;

    fn try_from(wire: proto::maintenance_state::Answer) -> Result<Self, Invalid> {
        let answer = ANSWERS
            .into_iter()
            .find(|(_, answer)| *answer as i32 == wire.answer);
        let Some((answer, _)) = answer else {
            return Err(Invalid::new(
                "answer.answer",
                format!("is {}, which is no answer", wire.answer),
            ));
        };
        Ok(Self {
            agent_id: id("answer.agent_id", &wire.agent_id, |t| AgentId::new(t))?,
            framework_id: id("answer.framework_id", &wire.framework_id, |t| {
                FrameworkId::new(t)
            })?,
            answer,
            at: Timestamp::from_ms(wire.at_ms),
        })
    }
}

impl From<AgentAnswer> for proto::maintenance_state::Answer {
    fn from(answer: AgentAnswer) -> Self {
        let of = ANSWERS.into_iter().find(|(one, _)| *one == answer.answer);
        Self {
            agent_id: answer.agent_id.to_string(),
            framework_id: answer.framework_id.to_string(),
            answer: of.map_or(0, |(_, wire)| wire as i32),
            at_ms: answer.at.as_ms(),
        }
    }
}

impl TryFrom<proto::MaintenanceState> for MaintenanceState {
    type Error = Invalid;

    fn try_from(wire: proto::MaintenanceState) -> Result<Self, Invalid> {
        let agents = wire.agent_ids.iter();
        let answers = wire.answers.into_iter();
        Ok(Self {
            window: required("maintenance.window", wire.window)?.try_into()?,
            agents: agents
                .map(|text| id("maintenance.agent_ids", text, |t| AgentId::new(t)))
                .collect::<Result<_, _>>()?,
            answers: answers.map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<MaintenanceState> for proto::MaintenanceState {
    fn from(state: MaintenanceState) -> Self {
        Self {
            window: Some(state.window.into()),
            agent_ids: state.agents.iter().map(ToString::to_string).collect(),
            answers: state.answers.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<proto::InverseOffer> for InverseOffer {
    type Error = Invalid;

    fn try_from(wire: proto::InverseOffer) -> Result<Self, Invalid> {
        Ok(Self {
            id: id("inverse_offer.id", &wire.id, |t| OfferId::new(t))?,
            framework_id: id("inverse_offer.framework_id", &wire.framework_id, |t| {
                FrameworkId::new(t)
            })?,
            agent_id: id("inverse_offer.agent_id", &wire.agent_id, |t| {
                AgentId::new(t)
            })?,
            hostname: text("inverse_offer.hostname", wire.hostname, MAX_NAME_BYTES)?,
            unavailability: required("inverse_offer.unavailability", wire.unavailability)?
                .try_into()?,
        })
    }
}

impl From<InverseOffer> for proto::InverseOffer {
    fn from(offer: InverseOffer) -> Self {
        Self {
            id: offer.id.to_string(),
            framework_id: offer.framework_id.to_string(),
            agent_id: offer.agent_id.to_string(),
            hostname: offer.hostname,
            unavailability: Some(offer.unavailability.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maintenance_survives_the_wire_unchanged() {
        let unavailability = Unavailability {
            start: Timestamp::from_ms(7),
            duration_ms: Some(9),
        };
        let agent_id = AgentId::new("a").unwrap();
        let framework_id = FrameworkId::new("f").unwrap();
        let of = |machine, mode, answer| MaintenanceState {
            window: Window {
                machine,
                unavailability,
                mode,
            },
            agents: vec![agent_id.clone()],
            answers: vec![AgentAnswer {
                agent_id: agent_id.clone(),
                framework_id: framework_id.clone(),
                answer,
                at: Timestamp::from_ms(3),
            }],
        };
        let host = Machine::host("h.example").unwrap();
        for answer in InverseAnswer::ALL {
            for mode in MaintenanceMode::ALL {
                for machine in [Machine::Agent(agent_id.clone()), host.clone()] {
                    let state = of(machine, mode, answer);
                    let wire = proto::MaintenanceState::from(state.clone());
                    assert_eq!(MaintenanceState::try_from(wire), Ok(state));
                }
            }
        }
    }

    #[test]
    fn calls_about_no_machine_too_many_or_a_wrong_one_are_refused_with_a_sentence() {
        let of = |text: &str| proto::Machine {
            machine: Some(Wire::Hostname(text.to_owned())),
        };
        for (list, said) in [
            (Vec::new(), "names no machine"),
            (vec![of("h"); MAX_MACHINES_PER_CALL + 1], "at most"),
            (vec![proto::Machine::default()], "missing"),
            (vec![of("")], "empty"),
            (vec![of("a b")], "not allowed"),
            (vec![of(&"x".repeat(MAX_NAME_BYTES + 1))], "bytes long"),
        ] {
            let error = machines(proto::MachinesRequest { machines: list });
            let sentence = error.expect_err(said).to_string();
            assert!(sentence.contains(said), "{sentence}");
        }
        let wire = proto::Unavailability {
            start_ms: 1,
            duration_ms: Some(0),
        };
        assert!(Unavailability::try_from(wire).is_err());
    }
}
