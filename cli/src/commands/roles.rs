//! `ebb roles`: the roles, their weights and quotas, and what each holds.
//!
//! What counts towards a quota stands beside it, and is another thing than what the role's own tasks hold: it is of what
//! is owned, with what is offered, and with all roles below. Where no role has a quota there are no columns for them.

use ebb_types::{Limits, LotQuota, Quantities, ResourceKind, RoleState};

use super::quota::lot;
use super::text;
use crate::args::ClientArgs;
use crate::client::Master;
use crate::error::{CliError, EXIT_OK};
use crate::output::Out;
use crate::output::json::RoleJson;
use crate::output::quantity::{amounts, milli};
use crate::output::table::{Cell, Style, Table};

pub(crate) async fn perform(args: &ClientArgs, out: &mut Out) -> Result<u8, CliError> {
    let state = Master::connect(&args.master).await?.state().await?;
    if out.json {
        let roles: Vec<RoleJson> = state.roles.iter().map(Into::into).collect();
        out.json(&roles)?;
    } else {
        let empty = "no role is in use and none has a weight or a quota";
        out.table(&table(&state.roles), empty)?;
    }
    Ok(EXIT_OK)
}

fn table(roles: &[RoleState]) -> Table {
    let has_quotas = roles
        .iter()
        .any(|role| !role.quota.is_none() || !role.lot_quotas.is_empty());
    let mut headings = vec![
        "ROLE",
        "WEIGHT",
        "FRAMEWORKS",
        "CPUS",
        "MEM",
        "OFFERED CPUS",
    ];
    if has_quotas {
        headings.extend(["CONSUMED", "GUARANTEE", "LIMIT"]);
    }
    let mut table = Table::new(&headings);
    for role in roles {
        let RoleState {
            offered, allocated, ..
        } = role;
        let mut row = vec![
            role.role.as_str().into(),
            Cell::right(milli(role.weight_milli)),
            Cell::right(role.frameworks.len().to_string()),
            text::cpus(allocated),
            text::mem(allocated),
            text::cpus(offered),
        ];
        if has_quotas {
            row.extend(quota(role));
        }
        table.row(row);
    }
    table
}

/// What counts towards the quota, of the kinds that it names; the guarantee; the limit.
fn quota(role: &RoleState) -> [Cell; 3] {
    let (guarantee, limits) = (&role.quota.guarantee, &role.quota.limits);
    let named = ResourceKind::ALL
        .into_iter()
        .filter(|kind| guarantee.get(*kind) > 0 || limits.get(*kind).is_some());
    let consumed = named.map(|kind| (kind, role.consumed.get(kind)));
    let with_lots = |text: String, amount: fn(&LotQuota) -> u64| {
        let of_lots = role.lot_quotas.iter();
        let of_lots = of_lots.map(|quota| lot(&quota.name, amount(quota)));
        let all = Some(text).filter(|text| !text.is_empty());
        all.into_iter()
            .chain(of_lots)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let is_passed_of_lots = (role.lot_quotas.iter()).any(|quota| quota.held > quota.limit);
    let lent_limits = &role.quota.revocable_limits;
    let lent = |amount: &dyn Fn(ResourceKind, u64) -> u64| {
        let of_lent = lent_limits.iter();
        let amounts = amounts(of_lent.map(|(kind, limit)| (kind, amount(kind, limit))));
        (!lent_limits.is_none()).then(|| format!("lent: {amounts}"))
    };
    let and_lent = |text: String, lent: Option<String>| {
        let all = Some(text).filter(|text| !text.is_empty());
        all.into_iter().chain(lent).collect::<Vec<_>>().join("; ")
    };
    let style = if is_passed_of_lots
        || is_passed(limits, &role.consumed)
        || is_passed(lent_limits, &role.consumed_revocable)
    {
        Style::Warn
    } else {
        Style::Plain
    };
    [
        short(and_lent(
            with_lots(amounts(consumed), |quota| quota.held),
            lent(&|kind, _| role.consumed_revocable.get(kind)),
        ))
        .styled(style),
        short(amounts(guarantee.iter())),
        short(and_lent(
            with_lots(amounts(limits.iter()), |quota| quota.limit),
            lent(&|_, limit| limit),
        )),
    ]
}

fn is_passed(limits: &Limits, consumed: &Quantities) -> bool {
    limits
        .iter()
        .any(|(kind, limit)| consumed.get(kind) > limit)
}

fn short(text: String) -> Cell {
    if text.is_empty() {
        return "-".into();
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use ebb_types::{Quota, Resources, Role};

    use super::*;
    use crate::output::table::Palette;

    fn role(name: &str, quota: Quota) -> RoleState {
        RoleState {
            role: Role::new(name).expect("valid"),
            weight_milli: 1_000,
            frameworks: Vec::new(),
            offered: Resources::ZERO,
            allocated: Resources::regular(Quantities::cpus_mem(500, 64 << 20)),
            quota,
            consumed: Quantities::cpus_mem(3_500, 2 << 30),
            consumed_revocable: Quantities::cpus_mem(500, 0),
            lot_quotas: Vec::new(),
        }
    }

    fn lines(roles: &[RoleState]) -> Vec<String> {
        table(roles).lines(Palette::PLAIN, usize::MAX)
    }

    #[test]
    fn quotas_have_columns_where_there_are_any() {
        let plain = role("ops", Quota::default());
        assert_eq!(
            lines(std::slice::from_ref(&plain)),
            [
                "ROLE  WEIGHT  FRAMEWORKS  CPUS     MEM  OFFERED CPUS",
                "ops        1           0   0.5  64 MiB             0"
            ]
        );
        let guaranteed = role(
            "eng",
            Quota {
                guarantee: Quantities::cpus_mem(4_000, 8 << 30),
                limits: Limits::NONE.with(ResourceKind::Cpus, Some(8_000)),
                ..Quota::default()
            },
        );
        let disk = Limits::NONE.with(ResourceKind::Disk, Some(0));
        let quota = Quota {
            guarantee: Quantities::ZERO,
            limits: disk,
            ..Quota::default()
        };
        assert_eq!(
            lines(&[guaranteed, role("none", quota), plain]),
            [
                "ROLE  WEIGHT  FRAMEWORKS  CPUS     MEM  OFFERED CPUS  CONSUMED         GUARANTEE      LIMIT",
                "eng        1           0   0.5  64 MiB             0  3.5 cpus, 2 GiB  4 cpus, 8 GiB  8 cpus",
                "none       1           0   0.5  64 MiB             0  0 B disk         -              0 B disk",
                "ops        1           0   0.5  64 MiB             0  -                -              -"
            ]
        );
    }

    #[test]
    fn a_limit_is_passed_above_it_and_not_at_it() {
        let held = Quantities::cpus_mem(2_000, 1);
        for (limit, passed) in [
            (None, false),
            (Some(2_000), false),
            (Some(1_999), true),
            (Some(0), true),
        ] {
            let limits = Limits::NONE.with(ResourceKind::Cpus, limit);
            assert_eq!(is_passed(&limits, &held), passed, "{limit:?}");
        }
    }
}
