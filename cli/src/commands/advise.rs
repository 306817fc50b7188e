//! `ebb advise`: what classes of tasks ask for, what they use, and what they should ask for. First those that would spare
//! most, then those that lack most; how much that is goes by the larger share of what all tasks shown ask for.

use ebb_types::limits::MAX_CLASS_BYTES;
use ebb_types::{
    Advice, AdviceFilter, ClassAdvice, ClusterState, ENOUGH_MS, Fit, FrameworkId, KindAdvice,
    THROTTLED_PERMILLE,
};

use crate::args::AdviseArgs;
use crate::client::Master;
use crate::error::{CliError, EXIT_OK};
use crate::find::{cluster_of, framework};
use crate::output::Out;
use crate::output::json::advice::AdviceJson;
use crate::output::quantity::{bytes, duration_ms, milli};
use crate::output::table::{Cell, Style, Table};
use crate::resolve::ResolveError;

const NOTHING_SEEN: &str =
    "no task was measured yet; run some, and ask again in a minute: that is how often agents tell";
const NONE_MEANT: &str = "no such class was seen; `ebb advise` alone lists all";

pub(crate) async fn perform(args: &AdviseArgs, out: &mut Out) -> Result<u8, CliError> {
    let mut master = Master::connect(&args.client.master).await?;
    let state = master.frameworks_and_roles().await?;
    let (framework_id, unknown) = match &args.framework {
        Some(text) => named(&state, text)?,
        None => (None, None),
    };
    let filter = AdviceFilter {
        framework_id,
        class: args.class.clone(),
    };
    let is_filtered = filter != AdviceFilter::default();
    let mut advice = master.advise(filter).await?;
    if let Some(unknown) = unknown.filter(|_| advice.classes.is_empty()) {
        return Err(unknown.into());
    }
    sort(&mut advice);
    if out.json {
        out.json(&AdviceJson::from(&advice))?;
        return Ok(EXIT_OK);
    }
    let empty = if is_filtered {
        NONE_MEANT
    } else {
        NOTHING_SEEN
    };
    out.table(&table(&state, &advice), empty)?;
    for line in remarks(&advice) {
        out.line(&line)?;
    }
    Ok(EXIT_OK)
}

/// The framework that a text names. One that has ended is no longer listed, but its classes are: it may be named by its
/// whole id, and if nothing is known of it either, the text names none.
fn named(
    state: &ClusterState,
    text: &str,
) -> Result<(Option<FrameworkId>, Option<ResolveError>), CliError> {
    match framework(state, text) {
        Ok(framework) => Ok((Some(framework.id.clone()), None)),
        Err(unknown @ ResolveError::NoMatch { .. }) => match FrameworkId::new(text) {
            Ok(id) => Ok((Some(id), Some(unknown))),
            Err(_) => Err(unknown.into()),
        },
        Err(other) => Err(other.into()),
    }
}

/// Reads the name of a class.
pub(crate) fn class(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err(String::from("it is empty; `ebb advise` lists the classes")),
        1..=MAX_CLASS_BYTES => Ok(text.to_owned()),
        length => Err(format!(
            "it is {length} bytes long; no class is longer than {MAX_CLASS_BYTES}"
        )),
    }
}

fn sort(advice: &mut Advice) {
    let sum = |asked: fn(&ClassAdvice) -> u64| {
        let all = advice.classes.iter();
        let all = all.map(|class| i128::from(asked(class)) * i128::from(class.running));
        all.fold(1, i128::saturating_add)
    };
    let (cpu, mem) = (sum(|class| class.cpu.asked), sum(|class| class.mem.asked));
    let share = |spared: i128, of: i128| spared.saturating_mul(1_000_000) / of;
    advice.classes.sort_by_cached_key(|class| {
        let cpu = share(class.cpu.spared(class.running), cpu);
        let mem = share(class.mem.spared(class.running), mem);
        let fit = match class.fit() {
            Fit::NotEnoughSeen => 2,
            Fit::Right => 1,
            Fit::OverAsked | Fit::UnderAsked => 0,
        };
        let (spared, lacking) = (cpu.max(mem), cpu.min(mem));
        (fit, -spared.max(0), lacking, class.key.clone())
    });
}

fn table(state: &ClusterState, advice: &Advice) -> Table {
    let cluster = cluster_of(state);
    let mut table = Table::new(&[
        "FRAMEWORK",
        "CLASS",
        "TASKS",
        "LONGEST",
        "FIT",
        "OOMS",
        "CPUS",
        "ADVICE",
        "P50",
        "P95",
        "PEAK",
        "MEM",
        "ADVICE",
        "P50",
        "P95",
        "PEAK",
    ]);
    for class in &advice.classes {
        let id = &class.key.framework_id;
        let known = state.frameworks.iter().find(|one| one.id == *id);
        let short = cluster.short(id.as_str());
        let framework = match known {
            Some(one) => format!("{short} ({})", one.info.name),
            None => short.to_owned(),
        };
        let ooms = Cell::right(class.ooms.to_string());
        let mut cells = vec![
            framework.into(),
            class.key.class.as_str().into(),
            Cell::right(class.running.to_string()),
            Cell::figure(class.life_ms.map(duration_ms)),
            fit(class),
            ooms.styled(if class.ooms > 0 {
                Style::Bad
            } else {
                Style::Plain
            }),
        ];
        cells.extend(kind(&class.cpu, milli));
        cells.extend(kind(&class.mem, bytes));
        table.row(cells);
    }
    table
}

fn kind(kind: &KindAdvice, text: fn(u64) -> String) -> [Cell; 5] {
    [
        Cell::right(text(kind.asked)),
        Cell::figure(kind.advice.map(text)).styled(style(kind.fit)),
        Cell::figure(kind.p50.map(text)),
        Cell::figure(kind.p95.map(text)),
        Cell::figure(kind.peak.map(text)),
    ]
}

const fn style(fit: Fit) -> Style {
    match fit {
        Fit::OverAsked => Style::Warn,
        Fit::UnderAsked => Style::Bad,
        Fit::Right => Style::Good,
        Fit::NotEnoughSeen => Style::Dim,
    }
}

/// How it stands, of both kinds at once where they stand alike.
fn fit(class: &ClassAdvice) -> Cell {
    let both = match (class.cpu.fit, class.mem.fit) {
        (Fit::NotEnoughSeen, Fit::NotEnoughSeen) => {
            format!("{} seen", duration_ms(class.seen_ms))
        }
        (cpu, mem) if cpu == mem => cpu.name().to_owned(),
        (Fit::NotEnoughSeen, mem) => format!("mem {}", mem.name()),
        (cpu, Fit::NotEnoughSeen) => format!("cpu {}", cpu.name()),
        (cpu, mem) => format!("cpu {}, mem {}", cpu.name(), mem.name()),
    };
    let text = match class.throttled_permille {
        permille if permille > THROTTLED_PERMILLE => {
            format!("{both}, throttled {} %", permille / 10)
        }
        _ => both,
    };
    Cell::new(text).styled(style(class.fit()))
}

/// What following the advice would change in all, and what is missing.
fn remarks(advice: &Advice) -> Vec<String> {
    let mut lines = Vec::new();
    let classes = &advice.classes;
    let [spared, lacking] = changes(classes);
    let both = |[cpu, mem]: [u64; 2]| format!("{} cpus and {}", milli(cpu), bytes(mem));
    if spared != [0, 0] {
        lines.push(format!(
            "running tasks ask for {} more than is advised",
            both(spared)
        ));
    }
    if lacking != [0, 0] {
        lines.push(format!(
            "running tasks lack {} of what is advised",
            both(lacking)
        ));
    }
    if classes
        .iter()
        .any(|class| class.fit() == Fit::NotEnoughSeen)
    {
        let enough = ENOUGH_MS / 3_600_000;
        lines.push(format!(
            "advice comes when tasks of a class have been measured for {enough} h in all; lent CPU does not count"
        ));
    }
    if advice.left_out > 0 {
        lines.push(format!(
            "{} classes more are left out; name a framework (--framework)",
            advice.left_out
        ));
    }
    lines
}

/// CPU and memory that running tasks would ask for less, and that they would ask for more.
pub(crate) fn changes(classes: &[ClassAdvice]) -> [[u64; 2]; 2] {
    let sum = |part: fn(&KindAdvice, u64) -> i128, kind: fn(&ClassAdvice) -> &KindAdvice| {
        let parts = classes.iter().map(|class| part(kind(class), class.running));
        u64::try_from(parts.fold(0, i128::saturating_add)).unwrap_or(u64::MAX)
    };
    let less = |kind: &KindAdvice, running| kind.spared(running).max(0);
    let more = |kind: &KindAdvice, running| kind.spared(running).min(0).saturating_neg();
    [
        [sum(less, |class| &class.cpu), sum(less, |class| &class.mem)],
        [sum(more, |class| &class.cpu), sum(more, |class| &class.mem)],
    ]
}
