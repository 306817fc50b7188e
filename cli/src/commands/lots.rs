//! `ebb reserve`, `unreserve`, `create-volume` and `destroy-volume`: what an operator makes of what an agent has free.
//!
//! People name what there is by its kind, roles and disk, as `ebb status AGENT` shows it; which lots these are exactly,
//! with whom they were reserved by and what for, is looked up in what the agent has. Pure but for the question and the
//! answer.

use clap::Args;
use ebb_api::ConvertLots;
use ebb_types::{
    AgentState, Disk, LotKey, LotValue, Lots, OperationKind, Reservation, ReservationKind,
    ResourceKind, Role, Volume, VolumeMode, WrittenResources,
};
use serde::Serialize;

use crate::args::{ClientArgs, role};
use crate::client::Master;
use crate::error::{CliError, EXIT_OK};
use crate::find;
use crate::output::Out;
use crate::output::json::lots::{LotJson, all};
use crate::output::quantity::{lots_text, parse_bytes};

/// `ebb reserve`.
#[derive(Debug, Args)]
pub(crate) struct ReserveArgs {
    /// The agent, by its id
    agent: String,
    /// For whom: a role, below the one that it is reserved for already
    #[arg(value_parser = role)]
    role: Role,
    /// What, like 'cpus:2;mem:1GiB;ports:[31000-31009]'; 'cpus(eng):1' names what is reserved for eng
    #[arg(value_parser = written)]
    resources: WrittenResources,
    /// In whose name
    #[arg(long, default_value = "")]
    principal: String,
    /// A tag, which tells the reservation from others; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `ebb unreserve`.
#[derive(Debug, Args)]
pub(crate) struct UnreserveArgs {
    /// The agent, by its id
    agent: String,
    /// What, with all its reservations, like 'cpus(eng):2;mem(eng,eng/ci):1GiB'; the last one ends
    #[arg(value_parser = written)]
    resources: WrittenResources,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `ebb create-volume`.
#[derive(Debug, Args)]
pub(crate) struct CreateVolumeArgs {
    /// The agent, by its id
    agent: String,
    /// The role that the disk space is reserved for
    #[arg(value_parser = role)]
    role: Role,
    /// Names the volume
    id: String,
    /// How large, like 10GiB
    #[arg(value_parser = size)]
    size: u64,
    /// Where tasks see it, from the sandbox on
    #[arg(long, value_name = "PATH", default_value = "volume")]
    path: String,
    /// Of which disk, as `ebb status` shows it, like mount:/mnt/d; the work folder's by default
    #[arg(long, value_name = "SOURCE")]
    disk: Option<String>,
    /// Let several tasks use it at once
    #[arg(long)]
    shared: bool,
    /// In whose name
    #[arg(long, default_value = "")]
    principal: String,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `ebb destroy-volume`.
#[derive(Debug, Args)]
pub(crate) struct DestroyVolumeArgs {
    /// The agent, by its id
    agent: String,
    /// The role that it is reserved for
    #[arg(value_parser = role)]
    role: Role,
    /// The volume
    id: String,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Serialize)]
struct Done<'a> {
    agent_id: &'a str,
    operation: &'static str,
    lots: Vec<LotJson>,
}

fn written(text: &str) -> Result<WrittenResources, String> {
    text.parse()
        .map_err(|error: ebb_types::InvalidLot| error.to_string())
}

fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) =
        pair.ok_or_else(|| format!("{text:?} is no label; write it like KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn size(text: &str) -> Result<u64, String> {
    parse_bytes(text).map_err(|error| error.to_string())
}

fn roles(key: &LotKey) -> Vec<&Role> {
    key.reservations.iter().map(|one| &one.role).collect()
}

fn refused(cause: impl Into<String>) -> CliError {
    CliError::Failed(cause.into())
}

fn bag(lots: Vec<(LotKey, LotValue)>) -> Result<Lots, CliError> {
    let lots = Lots::new(lots).map_err(|error| refused(error.to_string()))?;
    match lots.is_none() {
        true => Err(refused("nothing is named; name what is meant, like cpus:1")),
        false => Ok(lots),
    }
}

/// The lots that the agent has by that description.
fn find_all(
    agent: &AgentState,
    wanted: &WrittenResources,
) -> Result<Vec<(LotKey, LotValue)>, CliError> {
    let found = wanted.lots.iter().map(|(like, value)| {
        let is_meant = |key: &&LotKey| {
            key.name == like.name
                && roles(key) == roles(like)
                && key.source() == like.source()
                && key.volume().is_none()
                && bag(vec![((*key).clone(), value.clone())])
                    .is_ok_and(|one| agent.info.lots.contains(&one))
        };
        let mut keys = agent.info.lots.iter().map(|(key, _)| key);
        let key = keys.find(is_meant).cloned().ok_or_else(|| {
            refused(format!(
                "agent {} has no {like} of that much; see `ebb status {}`",
                agent.id, agent.id
            ))
        })?;
        Ok((key, value.clone()))
    });
    found.collect()
}

/// What is to be reserved, as it will be.
fn reservation(args: &ReserveArgs, agent: &AgentState) -> Result<Lots, CliError> {
    let plain = args.resources.plain.iter();
    let plain = plain.map(|(kind, amount)| (LotKey::named(kind.name()), LotValue::Scalar(amount)));
    let mut lots = find_all(agent, &args.resources)?;
    lots.extend(plain);
    for (key, _) in &mut lots {
        key.reservations.push(Reservation {
            role: args.role.clone(),
            kind: ReservationKind::Dynamic,
            principal: args.principal.clone(),
            labels: args.labels.clone(),
        });
    }
    bag(lots)
}

/// The volume that is to be made.
fn new_volume(args: &CreateVolumeArgs, agent: &AgentState) -> Result<Lots, CliError> {
    let lots = agent.info.lots.iter();
    let source = |key: &LotKey| key.source().map(ToString::to_string);
    let mut spaces = lots.filter(|(key, value)| {
        key.kind() == Some(ResourceKind::Disk)
            && key.role() == Some(&args.role)
            && key.volume().is_none()
            && source(key) == args.disk
            && matches!(value, LotValue::Scalar(amount) if *amount >= args.size)
    });
    let Some((space, _)) = spaces.next() else {
        return Err(refused(format!(
            "agent {} has no such disk space reserved for {}; reserve it with `ebb reserve`",
            agent.id, args.role
        )));
    };
    let key = LotKey {
        disk: Some(Box::new(Disk {
            source: space.source().cloned(),
            volume: Some(Volume {
                id: args.id.clone(),
                principal: args.principal.clone(),
                container_path: args.path.clone(),
                mode: VolumeMode::ReadWrite,
            }),
        })),
        shared: args.shared,
        ..space.clone()
    };
    bag(vec![(key, LotValue::Scalar(args.size))])
}

/// The volume that is meant.
fn known_volume(args: &DestroyVolumeArgs, agent: &AgentState) -> Result<Lots, CliError> {
    let lots = agent.info.lots.only(|key| {
        key.role() == Some(&args.role) && key.volume().is_some_and(|volume| volume.id == args.id)
    });
    match lots.is_none() {
        true => Err(refused(format!(
            "agent {} has no volume {} of role {}; see `ebb status {}`",
            agent.id, args.id, args.role, agent.id
        ))),
        false => Ok(lots),
    }
}

async fn convert(
    (client, agent): (&ClientArgs, &str),
    kind: OperationKind,
    out: &mut Out,
    lots: impl FnOnce(&AgentState) -> Result<Lots, CliError>,
) -> Result<u8, CliError> {
    let mut master = Master::connect(&client.master).await?;
    let state = master.state().await?;
    let agent = find::agent(&state, agent)?.clone();
    let lots = lots(&agent)?;
    master
        .convert_lots(ConvertLots {
            agent_id: agent.id.clone(),
            kind,
            lots: lots.clone(),
        })
        .await?;
    if out.json {
        out.json(&Done {
            agent_id: agent.id.as_str(),
            operation: kind.name(),
            lots: all(&lots),
        })?;
    } else {
        let done = match kind {
            OperationKind::Reserve => "has reserved",
            OperationKind::Unreserve => "has unreserved",
            OperationKind::Create => "has made",
            OperationKind::Destroy => "has destroyed",
        };
        out.line(&format!("agent {} {done} {}", agent.id, lots_text(&lots)))?;
    }
    Ok(EXIT_OK)
}

pub(crate) async fn reserve(args: &ReserveArgs, out: &mut Out) -> Result<u8, CliError> {
    let which = (&args.client, args.agent.as_str());
    convert(which, OperationKind::Reserve, out, |agent| {
        reservation(args, agent)
    })
    .await
}

pub(crate) async fn unreserve(args: &UnreserveArgs, out: &mut Out) -> Result<u8, CliError> {
    let which = (&args.client, args.agent.as_str());
    let lots = |agent: &AgentState| {
        if !args.resources.plain.is_zero() {
            return Err(refused(format!(
                "{} is not reserved; name the role, like cpus(eng):1",
                args.resources.plain
            )));
        }
        bag(find_all(agent, &args.resources)?)
    };
    convert(which, OperationKind::Unreserve, out, lots).await
}

pub(crate) async fn create(args: &CreateVolumeArgs, out: &mut Out) -> Result<u8, CliError> {
    let which = (&args.client, args.agent.as_str());
    convert(which, OperationKind::Create, out, |agent| {
        new_volume(args, agent)
    })
    .await
}

pub(crate) async fn destroy(args: &DestroyVolumeArgs, out: &mut Out) -> Result<u8, CliError> {
    let which = (&args.client, args.agent.as_str());
    convert(which, OperationKind::Destroy, out, |agent| {
        known_volume(args, agent)
    })
    .await
}
