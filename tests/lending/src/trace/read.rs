//! Reads traces from a directory; what is there is recognised by the files' names.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use flate2::read::MultiGzDecoder;

use super::{Era, Kind, Task};

/// A trace that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub path: PathBuf,
}

/// Every trace in a directory, in the order of the kinds and then of the names.
///
/// # Errors
/// When the directory cannot be read.
pub fn find(directory: &Path) -> Result<Vec<Found>> {
    let mut names = Vec::new();
    let entries = std::fs::read_dir(directory)
        .with_context(|| format!("cannot read the directory {}", directory.display()))?;
    for entry in entries {
        names.push(entry?.path());
    }
    names.sort();
    let found = Kind::ALL.into_iter().flat_map(|kind| {
        let of_kind = names.iter().filter(move |path| is_of(kind, path));
        of_kind.map(move |path| Found {
            kind,
            path: path.clone(),
        })
    });
    Ok(found.collect())
}

fn is_of(kind: Kind, path: &Path) -> bool {
    let (begin, within) = kind.pattern();
    let name = path.file_name().map(|name| name.to_string_lossy());
    name.is_some_and(|name| {
        let rest = name.strip_prefix(begin);
        let ends = name.ends_with(".csv.gz") || name.ends_with(".csv");
        ends && rest.is_some_and(|rest| rest.contains(within))
    })
}

/// Reads a trace: its eras by name, tasks in the order of the file, with limits as in the trace and use that is not
/// yet cut to them.
///
/// # Errors
/// When the file cannot be read, lacks a column, or a field is no number.
pub fn read(found: &Found) -> Result<Vec<Era>> {
    let path = &found.path;
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let packed = path.extension().is_some_and(|end| end == "gz");
    let plain: Box<dyn BufRead> = match packed {
        true => Box::new(BufReader::new(MultiGzDecoder::new(file))),
        false => Box::new(BufReader::new(file)),
    };
    read_from(found.kind, plain).with_context(|| format!("cannot read {}", path.display()))
}

/// The same, from any source.
pub(crate) fn read_from(kind: Kind, source: impl BufRead) -> Result<Vec<Era>> {
    let mut lines = source.lines();
    let header = lines.next().context("the file is empty")??;
    let columns: Vec<String> = header.split(',').map(str::to_owned).collect();
    let mut eras = BTreeMap::<String, Vec<Task>>::new();
    for (number, line) in lines.enumerate() {
        let line = line?;
        let row = Row::new(&columns, &line);
        let (era, task) = task(kind, &row).with_context(|| format!("in line {}", number + 2))?;
        eras.entry(era).or_default().push(task);
    }
    ensure!(!eras.is_empty(), "the file has no task");
    Ok(eras
        .into_iter()
        .map(|(name, tasks)| Era {
            name,
            bins: tasks.iter().map(Task::end).max().unwrap_or(0),
            tasks,
        })
        .collect())
}

/// One line and the names of its fields.
struct Row<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Row<'a> {
    fn new(columns: &'a [String], line: &'a str) -> Self {
        let names = columns.iter().map(String::as_str);
        Self(names.zip(line.split(',')).collect())
    }

    fn text(&self, column: &str) -> Result<&'a str> {
        self.0
            .get(column)
            .copied()
            .with_context(|| format!("there is no column {column}"))
    }

    fn number(&self, column: &str) -> Result<f64> {
        let text = self.text(column)?;
        text.parse()
            .with_context(|| format!("{column} is {text:?}, which is no number"))
    }

    fn bin(&self, column: &str) -> Result<usize> {
        let text = self.text(column)?;
        text.parse()
            .with_context(|| format!("{column} is {text:?}, which is no bin"))
    }

    /// The values, each times `factor`.
    fn values(&self, factor: f64) -> Result<Vec<f64>> {
        self.text("values")?
            .split_ascii_whitespace()
            .map(|text| {
                let value: f64 = text
                    .parse()
                    .with_context(|| format!("{text:?} among the values is no number"))?;
                ensure!(value.is_finite() && value >= 0.0, "a value is {text}");
                Ok(value * factor)
            })
            .collect()
    }
}

fn task(kind: Kind, row: &Row<'_>) -> Result<(String, Task)> {
    let (era, key, start, limit, scale) = match kind {
        Kind::BitbrainsCpu | Kind::BitbrainsMem => (
            row.text("month")?.to_owned(),
            format!("{}.{}", row.text("vm")?, row.text("seg")?),
            row.bin("start_bin")?,
            match kind {
                Kind::BitbrainsMem => row.number("mem_limit_kb")? * 1024.0,
                _ => row.number("cpu_limit_mhz")?,
            },
            10_000.0,
        ),
        Kind::PlanetLab => (
            row.text("day")?.to_owned(),
            row.text("host")?.to_owned(),
            0,
            100.0,
            100.0,
        ),
        Kind::Surf => (
            "week".to_owned(),
            row.text("task")?.to_owned(),
            row.bin("submit_s")? / 30,
            row.number("cpu_limit_mhz")?,
            10_000.0,
        ),
        Kind::GenAi => (
            "day".to_owned(),
            format!("{}.{}", row.text("container")?, row.text("seg")?),
            row.bin("start_bin")?,
            1.0,
            10_000.0,
        ),
    };
    let task = Task {
        key,
        start,
        limit,
        used: row.values(limit / scale)?,
    };
    Ok((era, task))
}
