//! `ebb quota`: what a role is guaranteed and limited to, with all roles below it.
//!
//! The invariant: a quota that is wrong in itself is refused before the master is asked, so that what is refused by the
//! master says something about the cluster. A limit of 0 is a limit of nothing, and never the absence of one.

use clap::{ArgGroup, Args};
use ebb_types::{Limits, LotLimits, LotQuota, Quantities, Quota, ResourceKind, Role, RoleState};
use serde::Serialize;

use crate::args::{ClientArgs, role};
use crate::client::Master;
use crate::error::{CliError, EXIT_OK};
use crate::output::Out;
use crate::output::json::QuantitiesJson;
use crate::output::json::quota::{LotLimitJson, LotQuotaJson, QuotaJson};
use crate::output::quantity::{
    amounts, milli, parse_bandwidth, parse_bytes, parse_count, parse_cpus, quantities, shown,
};
use crate::output::table::clean;

const HELP: &str = "\
What the tasks of the role and of all roles below it hold counts, and what is out in offers to them: owned resources for
--guarantee and --limit, lent ones for --revocable-limit. The quota that is given replaces the whole quota of the role: a kind that is
left out is not guaranteed, or not limited. A limit of 0 allows nothing. Without options the quota is shown.

Kinds: cpus=0.5, mem=64MiB, disk=10GiB, disk-bandwidth=10MiB/s, network-bandwidth=100Mbit; limits also of lots by their
names, like gpus=4 or ports=100 (so many numbers or items)

Examples:
  ebb quota eng --guarantee cpus=2,mem=4GiB --limit cpus=8
  ebb quota eng --limit gpus=4,licences=2.5
  ebb quota batch --revocable-limit cpus=32,mem=64GiB
  ebb quota eng --remove";

/// One amount of a quota.
type Amount = (ResourceKind, u64);

/// What a limit is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// A [`ResourceKind`].
    Kind(Amount),
    /// A named lot, in thousandths.
    Lot(String, u64),
}

/// `ebb quota`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
#[command(group(ArgGroup::new("amounts").args(["guarantee", "limit", "revocable_limit"]).multiple(true)))]
pub(crate) struct QuotaArgs {
    /// The role
    #[arg(value_parser = role)]
    pub(crate) role: Role,
    /// What is kept free for the role while it does not hold it; may be given several times
    #[arg(long, value_name = "KIND=AMOUNT,…", value_delimiter = ',', value_parser = amount)]
    pub(crate) guarantee: Vec<Amount>,
    /// The most that the role is offered; may be given several times
    #[arg(long, value_name = "KIND=AMOUNT,…", value_delimiter = ',', value_parser = limit)]
    pub(crate) limit: Vec<Limit>,
    /// The most of what is lent that the role is offered; may be given several times
    #[arg(long, value_name = "KIND=AMOUNT,…", value_delimiter = ',', value_parser = lent_amount)]
    pub(crate) revocable_limit: Vec<Amount>,
    /// Take the quota away: guarantee and limit nothing
    #[arg(long, conflicts_with_all = ["guarantee", "limit", "revocable_limit", "force"])]
    pub(crate) remove: bool,
    /// Even if the role holds more than the limit, or more is guaranteed than the cluster has
    #[arg(long, requires = "amounts")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// What was set.
#[derive(Serialize)]
struct Done<'a> {
    role: &'a str,
    quota: QuotaJson,
    lot_limits: Vec<LotLimitJson>,
}

/// What there is.
#[derive(Serialize)]
struct Shown<'a> {
    role: &'a str,
    quota: QuotaJson,
    consumed: Option<QuantitiesJson>,
    consumed_revocable: Option<QuantitiesJson>,
    lot_quotas: Vec<LotQuotaJson>,
}

pub(crate) async fn perform(args: &QuotaArgs, out: &mut Out) -> Result<u8, CliError> {
    let wanted = args.quota()?;
    let mut master = Master::connect(&args.client.master).await?;
    match wanted {
        Some((quota, lots)) => {
            let role = &args.role;
            let force = args.force;
            master.set_quota(role, quota, lots.clone(), force).await?;
            done(role, &quota, &lots, out)?;
        }
        None => show(&args.role, master.role(&args.role).await?.as_ref(), out)?,
    }
    Ok(EXIT_OK)
}

fn done(role: &Role, quota: &Quota, lots: &LotLimits, out: &mut Out) -> Result<(), CliError> {
    if out.json {
        out.json(&Done {
            role: role.as_str(),
            quota: quota.into(),
            lot_limits: lots.iter().map(Into::into).collect(),
        })?;
    } else {
        out.line(&sentence(role, quota, lots))?;
    }
    Ok(())
}

fn show(role: &Role, state: Option<&RoleState>, out: &mut Out) -> Result<(), CliError> {
    let quota = state.map_or_else(Quota::default, |state| state.quota);
    if out.json {
        out.json(&Shown {
            role: role.as_str(),
            quota: (&quota).into(),
            consumed: state.map(|state| (&state.consumed).into()),
            consumed_revocable: state.map(|state| (&state.consumed_revocable).into()),
            lot_quotas: state.map_or_else(Vec::new, |state| {
                state.lot_quotas.iter().map(Into::into).collect()
            }),
        })?;
        return Ok(());
    }
    match state {
        Some(state) => {
            out.labelled("role", role.as_str())?;
            for (label, value) in lines(state) {
                out.labelled(label, &value)?;
            }
        }
        None => out.line(&sentence(role, &quota, &LotLimits::default()))?,
    }
    Ok(())
}

fn sentence(role: &Role, quota: &Quota, lots: &LotLimits) -> String {
    let guarantee = quantities(&quota.guarantee);
    if quota.is_none() && lots.is_none() {
        return format!("role {role} has no quota");
    }
    let limits = if quota.limits.is_none() && lots.is_none() {
        String::from("not limited")
    } else {
        format!("limited to {}", all_limits(&quota.limits, lots.iter()))
    };
    let lent = if quota.revocable_limits.is_none() {
        String::new()
    } else {
        let most = amounts(quota.revocable_limits.iter());
        format!("; of what is lent it is limited to {most}")
    };
    format!("role {role} is guaranteed {guarantee} and {limits}{lent}")
}

/// So much of a named lot.
pub(crate) fn lot(name: &str, amount_milli: u64) -> String {
    format!("{} {}", milli(amount_milli), clean(name))
}

/// All limits, those of named lots behind the others.
pub(crate) fn all_limits<'a>(
    limits: &Limits,
    lots: impl Iterator<Item = (&'a str, u64)>,
) -> String {
    let kinds = Some(limits).filter(|limits| !limits.is_none());
    let kinds = kinds.map(|limits| amounts(limits.iter()));
    let all = kinds
        .into_iter()
        .chain(lots.map(|(name, of)| lot(name, of)));
    all.collect::<Vec<_>>().join(", ")
}

/// A role's quota and what counts towards it, as labelled lines: how much is left up to the limits, and how much of the
/// guarantee the role is still owed.
pub(crate) fn lines(role: &RoleState) -> Vec<(&'static str, String)> {
    let Quota {
        guarantee,
        limits,
        revocable_limits,
    } = &role.quota;
    let none_or = |is_none: bool, text: String| if is_none { "none".to_owned() } else { text };
    let of_lots = |amount: fn(&LotQuota) -> u64| {
        let quotas = role.lot_quotas.iter();
        quotas.map(move |quota| (quota.name.as_str(), amount(quota)))
    };
    let with_lots = |text: String| {
        let held = of_lots(|quota| quota.held).map(|(name, held)| lot(name, held));
        std::iter::once(text)
            .chain(held)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut lines = vec![
        (
            "guarantee",
            none_or(guarantee.is_zero(), quantities(guarantee)),
        ),
        (
            "limit",
            none_or(
                limits.is_none() && role.lot_quotas.is_empty(),
                all_limits(limits, of_lots(|quota| quota.limit)),
            ),
        ),
        ("consumed", with_lots(quantities(&role.consumed))),
    ];
    if !limits.is_none() || !role.lot_quotas.is_empty() {
        let left = limits
            .iter()
            .map(|(kind, limit)| (kind, limit.saturating_sub(role.consumed.get(kind))));
        let left = left.fold(Limits::NONE, |left, (kind, most)| {
            left.with(kind, Some(most))
        });
        let lots = of_lots(|quota| quota.limit.saturating_sub(quota.held));
        lines.push(("left", all_limits(&left, lots)));
    }
    if !guarantee.is_zero() {
        let owed = guarantee.saturating_sub(&role.consumed);
        lines.push(("owed", quantities(&owed)));
    }
    if !revocable_limits.is_none() {
        let held = &role.consumed_revocable;
        let left = revocable_limits.left(held);
        let left = revocable_limits
            .iter()
            .map(|(kind, _)| (kind, left.get(kind)));
        lines.push(("lent limit", amounts(revocable_limits.iter())));
        lines.push(("lent consumed", quantities(held)));
        lines.push(("lent left", amounts(left)));
    }
    lines
}

impl QuotaArgs {
    /// The quota that is to be set; none where it is only to be shown.
    ///
    /// # Errors
    /// When it is wrong in itself.
    fn quota(&self) -> Result<Option<(Quota, LotLimits)>, CliError> {
        if self.remove {
            return Ok(Some((Quota::default(), LotLimits::default())));
        }
        if self.guarantee.is_empty() && self.limit.is_empty() && self.revocable_limit.is_empty() {
            return Ok(None);
        }
        let guarantee = once("--guarantee", &self.guarantee)?;
        let (mut kinds, mut lots) = (Vec::new(), Vec::new());
        for limit in &self.limit {
            match limit {
                Limit::Kind(amount) => kinds.push(*amount),
                Limit::Lot(name, amount) => lots.push((name.clone(), *amount)),
            }
        }
        let lots = LotLimits::new(lots);
        let lots = lots.map_err(|error| CliError::Usage(format!("--limit: {error}")))?;
        let quota = Quota {
            guarantee: Quantities::from_pairs(guarantee.iter()),
            limits: once("--limit", &kinds)?,
            revocable_limits: once("--revocable-limit", &self.revocable_limit)?,
        };
        if quota.is_none() && lots.is_none() {
            return Err(CliError::Usage(
                "this guarantees and limits nothing; take the quota of a role away with --remove"
                    .to_owned(),
            ));
        }
        let above = |(kind, limit): &Amount| quota.guarantee.get(*kind) > *limit;
        if let Some((kind, _)) = quota.limits.iter().find(above) {
            return Err(CliError::Usage(format!(
                "the guarantee of {0} is above the limit of {0}, so that it could never be held; guarantee less or raise the limit",
                name(kind)
            )));
        }
        Ok(Some((quota, lots)))
    }
}

/// The amount of each kind that is named; none may be named twice.
fn once(option: &str, amounts: &[Amount]) -> Result<Limits, CliError> {
    let mut named = Limits::NONE;
    for (kind, amount) in amounts {
        if named.get(*kind).is_some() {
            return Err(CliError::Usage(format!(
                "{option} names {} twice; name each kind once",
                name(*kind)
            )));
        }
        named = named.with(*kind, Some(*amount));
    }
    Ok(named)
}

/// The name of a kind as the command line has it.
fn name(kind: ResourceKind) -> String {
    kind.name().replace('_', "-")
}

/// Reads `KIND=AMOUNT` of what is lent.
fn lent_amount(text: &str) -> Result<Amount, String> {
    match text.split_once('=') {
        Some((named, _)) if !is_kind(named.trim()) => Err(format!(
            "{:?} is never lent; {} are",
            shown(named.trim()),
            ResourceKind::ALL.map(name).join(", ")
        )),
        _ => amount(text),
    }
}

/// Reads `KIND=AMOUNT`.
fn amount(text: &str) -> Result<Amount, String> {
    let Some((kind, amount)) = text.split_once('=') else {
        return Err(format!(
            "{:?} is no amount of a kind; write it like cpus=2,mem=4GiB",
            shown(text)
        ));
    };
    let of_that_name = |known: &ResourceKind| {
        let wanted = kind.trim();
        known.name() == wanted || name(*known) == wanted
    };
    let Some(kind) = ResourceKind::ALL.into_iter().find(of_that_name) else {
        let known = ResourceKind::ALL.map(name).join(", ");
        return Err(format!(
            "{:?} cannot be guaranteed; {known} can, and GPUs and other lots can be limited only",
            shown(kind)
        ));
    };
    let read = match kind {
        ResourceKind::Cpus => parse_cpus(amount),
        ResourceKind::Mem | ResourceKind::Disk => parse_bytes(amount),
        ResourceKind::DiskBandwidth | ResourceKind::NetworkBandwidth => parse_bandwidth(amount),
    };
    let amount = read.map_err(|error| error.to_string())?;
    Ok((kind, amount))
}

/// Reads `KIND=AMOUNT` or `NAME=AMOUNT`.
fn limit(text: &str) -> Result<Limit, String> {
    let split = text
        .split_once('=')
        .map(|(name, amount)| (name.trim(), amount));
    match split {
        Some((named, count)) if !named.is_empty() && !is_kind(named) => {
            let count = parse_count(count).map_err(|error| error.to_string())?;
            let limits = LotLimits::new([(named.to_owned(), count)]);
            limits.map_err(|error| error.to_string())?;
            Ok(Limit::Lot(named.to_owned(), count))
        }
        _ => amount(text).map(Limit::Kind),
    }
}

fn is_kind(text: &str) -> bool {
    let mut kinds = ResourceKind::ALL.into_iter();
    kinds.any(|kind| kind.name() == text || name(kind) == text)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use clap::error::ErrorKind;
    use ebb_types::Resources;

    use super::*;
    use crate::args::{Cli, Command};

    fn read(options: &[&str]) -> Result<QuotaArgs, clap::Error> {
        let line = [&["ebb", "quota", "eng/web"], options].concat();
        match Cli::try_parse_from(line)?.command {
            Command::Quota(args) => Ok(args),
            other => panic!("read as {other:?}"),
        }
    }

    fn quota(options: &[&str]) -> Option<Quota> {
        let args = read(options).expect("can be read");
        let (quota, lots) = args.quota().expect("is in order")?;
        assert!(lots.is_none());
        Some(quota)
    }

    #[test]
    fn amounts_are_given_with_commas_or_one_by_one() {
        let wanted = Quota {
            guarantee: Quantities::cpus_mem(500, 64 << 20),
            limits: Limits::NONE
                .with(ResourceKind::Cpus, Some(8_000))
                .with(ResourceKind::Disk, Some(10 << 30))
                .with(ResourceKind::DiskBandwidth, Some(10 << 20))
                .with(ResourceKind::NetworkBandwidth, Some(12_500_000)),
            ..Quota::default()
        };
        let commas = [
            "--guarantee",
            "cpus=0.5,mem=64MiB",
            "--limit",
            "cpus=8, disk=10 GiB,disk-bandwidth=10MiB/s,network-bandwidth=100Mbit",
        ];
        let apart = [
            "--limit=disk_bandwidth=10MiB",
            "--limit=network_bandwidth=12.5MB/s",
            "--limit=disk=10GiB",
            "--guarantee=mem=64MiB",
            "--limit=cpus=8",
            "--guarantee=cpus=0.5",
            "--force",
        ];
        assert_eq!(quota(&commas), Some(wanted));
        assert_eq!(quota(&apart), Some(wanted));
        assert!(read(&apart).is_ok_and(|args| args.force));
        assert_eq!(quota(&[]), None);
        assert_eq!(quota(&["--remove"]), Some(Quota::default()));
    }

    #[test]
    fn a_limit_of_nothing_is_a_limit() {
        let none = quota(&["--limit", "cpus=0,mem=0"]).expect("a quota");
        assert_eq!(none.limits.get(ResourceKind::Cpus), Some(0));
        assert_eq!(none.limits.get(ResourceKind::Mem), Some(0));
        assert_eq!(none.limits.get(ResourceKind::Disk), None);
        let role = Role::new("eng").expect("valid");
        let said = sentence(&role, &none, &LotLimits::default());
        assert_eq!(
            said,
            "role eng is guaranteed nothing and limited to 0 cpus, 0 B"
        );
        let both = quota(&["--guarantee", "cpus=0", "--limit", "cpus=0"]);
        assert_eq!(
            both.map(|both| both.limits.get(ResourceKind::Cpus)),
            Some(Some(0))
        );
    }

    #[test]
    fn what_is_no_amount_of_a_kind_is_refused_with_the_remedy() {
        let huge = format!("cpus={}", "9".repeat(65_536));
        for (value, says) in [
            ("cpus", "write it like cpus=2,mem=4GiB"),
            ("", "write it like"),
            ("cpus=1,", "write it like"),
            (
                "=1",
                "cannot be guaranteed; cpus, mem, disk, disk-bandwidth, network-bandwidth can",
            ),
            ("mem=64", "64MiB"),
            ("cpus=-1", "negative"),
            ("cpus=", "0.5"),
            ("disk-bandwidth=1GiB/h", "GiB/h"),
            ("network-bandwidth=1Gb", "\"Gb\" is no unit of bandwidth"),
            ("network-bandwidth=12bit", "multiple of 8 bits"),
            (&huge, "ask for less"),
        ] {
            for option in ["--guarantee", "--limit"] {
                let error = read(&[option, value]).expect_err(value);
                assert_eq!(error.kind(), ErrorKind::ValueValidation, "{value:.60}");
                assert!(error.to_string().contains(says), "{error:.300}");
            }
        }
    }

    #[test]
    fn named_lots_are_limited_and_not_guaranteed() {
        let args = read(&["--limit", "gpus=4,cpus=2,licences=2.5"]).expect("can be read");
        let (quota, lots) = args.quota().expect("is in order").expect("a quota");
        assert_eq!(quota.limits.get(ResourceKind::Cpus), Some(2_000));
        let expected = [("gpus", 4_000), ("licences", 2_500)];
        assert_eq!(lots.iter().collect::<Vec<_>>(), expected);
        let role = Role::new("eng").expect("valid");
        assert_eq!(
            sentence(&role, &quota, &lots),
            "role eng is guaranteed nothing and limited to 2 cpus, 4 gpus, 2.5 licences"
        );
        for (options, says) in [
            (["--guarantee", "gpus=1"], "can be limited only"),
            (["--limit", "gpus=0.5"], "whole"),
            (["--limit", "licences=-1"], "negative"),
            (["--limit", "a:b=1"], "a:b"),
        ] {
            let error = read(&options).expect_err("a wrong line").to_string();
            assert!(error.contains(says), "{options:?}: {error}");
        }
        let twice = read(&["--limit", "gpus=1,gpus=2"]).expect("can be read");
        let error = twice.quota().expect_err("is wrong").to_string();
        assert!(error.contains("gpus is limited twice"), "{error}");
    }

    #[test]
    fn options_that_do_not_go_together_are_refused() {
        for (options, kind) in [
            (
                &["--remove", "--limit", "cpus=1"][..],
                ErrorKind::ArgumentConflict,
            ),
            (
                &["--guarantee", "cpus=1", "--remove"],
                ErrorKind::ArgumentConflict,
            ),
            (&["--remove", "--force"], ErrorKind::ArgumentConflict),
            (&["--force"], ErrorKind::MissingRequiredArgument),
        ] {
            let error = read(options).expect_err("a wrong line");
            assert_eq!(error.kind(), kind, "{options:?}: {error}");
        }
        let error = Cli::try_parse_from(["ebb", "quota"]).expect_err("no role");
        assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument);
    }

    #[test]
    fn a_quota_that_is_wrong_in_itself_is_refused() {
        for (options, says) in [
            (
                &["--limit", "cpus=1,mem=1GiB,cpus=2"][..],
                "--limit names cpus twice",
            ),
            (
                &["--guarantee=mem=1GiB", "--guarantee=mem=1GiB"],
                "--guarantee names mem twice",
            ),
            (
                &["--limit", "disk_bandwidth=1MiB,disk-bandwidth=1MiB"],
                "names disk-bandwidth twice",
            ),
            (&["--limit", "cpus=0,cpus=0"], "names cpus twice"),
            (&["--guarantee", "cpus=0"], "--remove"),
            (
                &[
                    "--guarantee",
                    "cpus=2,mem=1GiB",
                    "--limit",
                    "mem=1023MiB,cpus=2",
                ],
                "guarantee of mem is above the limit of mem",
            ),
            (
                &["--guarantee", "disk=1GiB", "--limit", "disk=0"],
                "guarantee less or raise the limit",
            ),
        ] {
            let error = read(options)
                .expect("can be read")
                .quota()
                .expect_err("is wrong");
            assert!(error.to_string().contains(says), "{options:?}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn what_is_left_and_what_is_owed_stand_below_what_counts() {
        let mut role = RoleState {
            role: Role::new("eng").expect("valid"),
            weight_milli: 1_000,
            frameworks: Vec::new(),
            offered: Resources::ZERO,
            allocated: Resources::ZERO,
            quota: Quota {
                guarantee: Quantities::cpus_mem(4_000, 1 << 30),
                limits: Limits::NONE
                    .with(ResourceKind::Cpus, Some(2_000))
                    .with(ResourceKind::Mem, Some(4 << 30))
                    .with(ResourceKind::Disk, Some(0)),
                revocable_limits: Limits::NONE.with(ResourceKind::Cpus, Some(8_000)),
            },
            consumed: Quantities::cpus_mem(3_000, 3 << 30),
            consumed_revocable: Quantities::cpus_mem(5_000, 1 << 30),
            lot_quotas: vec![LotQuota {
                role: Role::new("eng").expect("valid"),
                name: "gpus".into(),
                limit: 4_000,
                held: 3_000,
            }],
        };
        let line = |label, value: &str| (label, value.to_owned());
        assert_eq!(
            lines(&role),
            [
                line("guarantee", "4 cpus, 1 GiB"),
                line("limit", "2 cpus, 4 GiB, 0 B disk, 4 gpus"),
                line("consumed", "3 cpus, 3 GiB, 3 gpus"),
                line("left", "0 cpus, 1 GiB, 0 B disk, 1 gpus"),
                line("owed", "1 cpu"),
                line("lent limit", "8 cpus"),
                line("lent consumed", "5 cpus, 1 GiB"),
                line("lent left", "3 cpus"),
            ]
        );
        (role.quota, role.consumed) = (Quota::default(), Quantities::ZERO);
        role.lot_quotas.clear();
        assert_eq!(
            lines(&role),
            [
                line("guarantee", "none"),
                line("limit", "none"),
                line("consumed", "nothing")
            ]
        );
    }
}
