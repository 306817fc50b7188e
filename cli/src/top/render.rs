//! Draws a view as lines of text. Pure; no line is wider and no picture higher than asked for.
//!
//! A bar shows one agent's CPU: `█` used by its owners, `▒` used by those it is lent to, `-`
//! allocated and idle, `·` free. The tide is low where `-` is long and `▒` is short.

use super::view::{AgentRow, Amount, TaskRow, View};
use crate::commands::text;
use crate::output::quantity::{bytes, duration_ns, milli};
use crate::output::table::{Cell, Palette, Style, Table, clean};

/// How long a bar is, in characters.
const BAR_CHARS: usize = 30;
/// How many lines corrections take at most, with their heading.
const MAX_CORRECTION_LINES: usize = 6;

/// How much room there is, in characters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

impl Room {
    /// No bound.
    pub(crate) const ENDLESS: Self = Self {
        columns: usize::MAX,
        rows: usize::MAX,
    };
}

/// The view as lines.
pub(crate) fn lines(view: &View, palette: Palette, room: Room) -> Vec<String> {
    let mut lines = vec![cut(&heading(view), room.columns)];
    if let Some(trouble) = &view.trouble {
        lines.push(palette.paint(Style::Bad, &cut(&clean(trouble), room.columns)));
    }
    lines.push(String::new());
    lines.extend(agents(view).lines(palette, room.columns));
    if view.agents.is_empty() {
        lines.push(cut("no agent has joined", room.columns));
    }
    lines.push(String::new());
    let notes = corrections(view, room);
    let left = room.rows.saturating_sub(lines.len() + notes.len());
    let mut tasks = if view.tasks.is_empty() {
        vec![cut("no task is live", room.columns)]
    } else {
        tasks(view).lines(palette, room.columns)
    };
    if tasks.len() > left {
        let hidden = tasks.len() - left.saturating_sub(1);
        tasks.truncate(left.saturating_sub(1));
        tasks.push(cut(&format!("… and {hidden} more tasks"), room.columns));
    }
    lines.extend(tasks);
    lines.extend(notes.iter().map(|note| palette.paint(Style::Dim, note)));
    lines.truncate(room.rows);
    lines
}

fn cut(line: &str, columns: usize) -> String {
    line.chars().take(columns).collect()
}

fn heading(view: &View) -> String {
    let sum = |figure: fn(&AgentRow) -> Option<u64>| {
        view.agents
            .iter()
            .filter_map(figure)
            .fold(None, |sum: Option<u64>, one| Some(sum.unwrap_or(0) + one))
    };
    let write = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), milli);
    let total = write(sum(|agent| Some(agent.cpu_milli.total)));
    let allocated = write(sum(|agent| Some(agent.cpu_milli.allocated)));
    let used = write(sum(|agent| agent.cpu_milli.used));
    let lent = write(sum(|agent| Some(agent.cpu_milli.lent)));
    let lent_used = write(sum(|agent| agent.cpu_milli.lent_used));
    let back = write(sum(|agent| agent.taken_back_cpu_milli));
    format!(
        "ebb {}: {} agents, {} tasks; cpus {total}: allocated {allocated}, used {used}; \
         lent {lent}, used of it {lent_used}, taken back {back}",
        clean(&view.master_id),
        view.agents.len(),
        view.tasks.len(),
    )
}

fn agents(view: &View) -> Table {
    let mut table = Table::new(&[
        "AGENT", "HOST", "STATUS", "CPU", "CPUS", "ALLOC", "USED", "LENT", "IN USE", "BACK", "MEM",
        "ALLOC", "USED", "TASKS",
    ]);
    for agent in &view.agents {
        let (cpu, mem) = (&agent.cpu_milli, &agent.mem_bytes);
        table.row(vec![
            agent.short_id.as_str().into(),
            agent.hostname.as_str().into(),
            text::agent_status(agent.status_kind),
            bar(cpu, BAR_CHARS).into(),
            Cell::right(milli(cpu.total)),
            Cell::right(milli(cpu.allocated)),
            Cell::figure(cpu.used.map(milli)),
            Cell::right(milli(cpu.lent)).styled(Style::Lent),
            Cell::figure(cpu.lent_used.map(milli)).styled(Style::Lent),
            Cell::figure(agent.taken_back_cpu_milli.map(milli)).styled(Style::Warn),
            Cell::right(bytes(mem.total)),
            Cell::right(bytes(mem.allocated)),
            Cell::figure(mem.used.map(bytes)),
            Cell::right(agent.tasks.to_string()),
        ]);
    }
    table
}

/// A bar of one resource; `?` where nothing was measured.
fn bar(amount: &Amount, chars: usize) -> String {
    if amount.total == 0 {
        return String::new();
    }
    let scaled = |value: u64| {
        let scaled = u128::from(value.min(amount.total)) * chars as u128 / u128::from(amount.total);
        usize::try_from(scaled).unwrap_or(chars)
    };
    if amount.used.is_none() && amount.lent_used.is_none() && amount.machine_used.is_none() {
        return "?".repeat(chars);
    }
    let used = amount.used.unwrap_or(0);
    let lent = amount.lent_used.unwrap_or(0);
    let own_end = scaled(used);
    let lent_end = scaled(used.saturating_add(lent)).max(own_end);
    let allocated_end = scaled(amount.allocated).max(lent_end);
    let mut bar = "█".repeat(own_end);
    bar.push_str(&"▒".repeat(lent_end - own_end));
    bar.push_str(&"-".repeat(allocated_end - lent_end));
    bar.push_str(&"·".repeat(chars.saturating_sub(allocated_end)));
    bar
}

fn tasks(view: &View) -> Table {
    let mut table = Table::new(&[
        "TASK",
        "FRAMEWORK",
        "AGENT",
        "STATE",
        "KIND",
        "CPUS",
        "USED",
        "MEM",
        "USED",
        "DISK",
        "WAIT P99",
        "BY",
    ]);
    for task in &view.tasks {
        let per_s = |value: u64| format!("{}/s", bytes(value));
        table.row(vec![
            task.task_id.as_str().into(),
            task.framework.as_str().into(),
            task.short_agent_id.as_str().into(),
            state(task),
            kind(task),
            Cell::right(milli(task.allocated_cpu_milli)),
            Cell::figure(task.used_cpu_milli.map(milli)),
            Cell::right(bytes(task.allocated_mem_bytes)),
            Cell::figure(task.used_mem_bytes.map(bytes)),
            Cell::figure(task.used_disk_bytes_per_s.map(per_s)),
            Cell::figure(task.run_queue_p99_ns.map(duration_ns)),
            task.cpu_source.unwrap_or("-").into(),
        ]);
    }
    table
}

fn state(task: &TaskRow) -> Cell {
    match (task.frozen, task.throttled_to_milli) {
        (true, _) => Cell::new("frozen").styled(Style::Bad),
        (false, Some(cap)) => Cell::new(format!("throttled to {}", milli(cap))).styled(Style::Warn),
        (false, None) => text::state(task.state_kind),
    }
}

fn kind(task: &TaskRow) -> Cell {
    if task.revocable {
        Cell::new("revocable").styled(Style::Lent)
    } else {
        Cell::new("regular")
    }
}

/// The latest corrections, newest first.
fn corrections(view: &View, room: Room) -> Vec<String> {
    if view.notes.is_empty() {
        return Vec::new();
    }
    let title = format!("{} corrections, the latest:", view.corrections_total);
    let newest = view.notes.iter().rev().take(MAX_CORRECTION_LINES - 2);
    std::iter::once(String::new())
        .chain(std::iter::once(title))
        .chain(newest.map(|note| format!("  {}", clean(note))))
        .map(|line| cut(&line, room.columns))
        .collect()
}
