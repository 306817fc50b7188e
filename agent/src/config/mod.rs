//! The agent's settings: flags over a TOML file over defaults.
//!
//! Every quantity carries its unit (`"4GiB"`, `"100MiB/s"`, `"7d"`), and a wrong one is answered with
//! the key, the value and what is allowed. Unknown keys are refused: a setting that was misspelt must
//! not be a setting that silently does nothing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ebb_types::limits::MAX_GRACE_MS;
use ebb_types::{
    Attribute, FaultDomain, InvalidDomain, InvalidLot, Lots, ResourceKind, WrittenResources,
};
use serde::Deserialize;

use crate::core::lending;
use crate::core::qos::MAX_BUDGET;
use crate::devices::{Devices, MAX_NAME_BYTES, is_name};

mod units;

pub use units::{BadValue, attributes, bandwidth, bytes, cpus, duration_ms, percent_ppm};

/// The agent's own port.
pub const DEFAULT_PORT: u16 = 5051;
/// Where the master listens.
pub const DEFAULT_MASTER: &str = "127.0.0.1:5050";
/// Where state, sandboxes and the executors' socket are kept.
pub const DEFAULT_WORK_DIR: &str = "/var/lib/ebb/agent";
/// How long sandboxes of ended tasks are kept, in milliseconds: a week, as in Mesos.
pub const DEFAULT_SANDBOX_KEEP_MS: u64 = 7 * 24 * 3600 * 1000;
/// The cgroup below which all containers stand.
pub const DEFAULT_CGROUP_BASE: &str = "ebb";
/// Largest configuration file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
    /// The file is no TOML, or has an unknown key or a value of the wrong type.
    #[error("the configuration {} is not understood: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What and where.
        message: String,
    },
    /// A value is wrong.
    #[error("{key} = {value:?} is not allowed: {rule}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value, cut.
        value: String,
        /// What is allowed.
        rule: String,
    },
}

/// What the agent has, where that is not to be found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfiguredResources {
    /// CPU, in thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// Memory, in bytes.
    pub mem_bytes: Option<u64>,
    /// Disk space, in bytes.
    pub disk_bytes: Option<u64>,
    /// Disk bandwidth, in bytes a second.
    pub disk_bandwidth_bytes_per_s: Option<u64>,
    /// Network bandwidth, in bytes a second each way.
    pub network_bandwidth_bytes_per_s: Option<u64>,
}

/// How tasks are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// Time between two readings of what the QoS controller needs, in milliseconds; while nothing is lent out that it
    /// could take back they are rarer.
    pub quick_ms: u64,
    /// Time between two readings of everything, in milliseconds.
    pub full_ms: u64,
    /// Whether the probes stay attached while the agent is restarted, so that nothing is missed.
    pub pin: bool,
}

impl Default for Measure {
    fn default() -> Self {
        Self {
            quick_ms: 100,
            full_ms: 1_000,
            pin: true,
        }
    }
}

/// Every setting of an agent.
#[derive(Clone, Debug)]
pub struct Config {
    /// The master, as `host:port`.
    pub master: String,
    /// Where state, sandboxes and the executors' socket are kept.
    pub work_dir: PathBuf,
    /// Where the agent's own API listens; port 0 takes any that is free.
    pub listen: SocketAddr,
    /// The name under which others reach this machine; found out if unset.
    pub hostname: Option<String>,
    /// What the agent has.
    pub resources: ConfiguredResources,
    /// Its lots.
    pub lots: Lots,
    /// The devices behind its BLOCK and RAW disks, by the disks' ids.
    pub devices: Devices,
    /// What frameworks may choose by.
    pub attributes: Vec<Attribute>,
    /// The region and zone that it stands in.
    pub domain: Option<FaultDomain>,
    /// The cgroup below which all containers stand.
    pub cgroup_base: String,
    /// Whether tasks end with the agent; else they run on and are taken over by the next.
    pub kill_tasks_on_shutdown: bool,
    /// How long sandboxes of ended tasks are kept, in milliseconds.
    pub sandbox_keep_ms: u64,
    /// How much slack is lent, and when it is taken back.
    pub lending: lending::Config,
    /// How tasks are measured.
    pub measure: Measure,
    /// The binary whose `executor` subcommand runs tasks; the running one if unset.
    pub executor_exe: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            master: DEFAULT_MASTER.to_owned(),
            work_dir: DEFAULT_WORK_DIR.into(),
            listen: SocketAddr::from(([0, 0, 0, 0], DEFAULT_PORT)),
            hostname: None,
            resources: ConfiguredResources::default(),
            lots: Lots::NONE,
            devices: Devices::new(),
            attributes: Vec::new(),
            domain: None,
            cgroup_base: DEFAULT_CGROUP_BASE.to_owned(),
            kill_tasks_on_shutdown: false,
            sandbox_keep_ms: DEFAULT_SANDBOX_KEEP_MS,
            lending: lending::Config::default(),
            measure: Measure::default(),
            executor_exe: None,
        }
    }
}

/// The flags of `ebb-agent`; each wins over the file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Settings in TOML; the keys are the flags' names with _ for -
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The master
    #[arg(long, value_name = "HOST:PORT")]
    pub master: Option<String>,
    /// Where state, sandboxes and the executors' socket are kept
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// Where the agent's own API listens
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// The name under which others reach this machine
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// CPUs to offer, like 3.5; all by default
    #[arg(long, value_name = "CPUS")]
    pub cpus: Option<String>,
    /// Memory to offer, like 4GiB; all but 1 GiB or half by default
    #[arg(long, value_name = "SIZE")]
    pub mem: Option<String>,
    /// Disk space to offer, like 100GiB; all but 5 GiB or half by default
    #[arg(long, value_name = "SIZE")]
    pub disk: Option<String>,
    /// Disk bandwidth to offer, like 200MiB/s; measured once by default
    #[arg(long, value_name = "RATE")]
    pub disk_bandwidth: Option<String>,
    /// Network bandwidth to offer, each way, like 1Gbit/s; the speed of the default route's device by default
    #[arg(long, value_name = "RATE")]
    pub network_bandwidth: Option<String>,
    /// What else to offer and what to reserve, like 'ports:[31000-32000];gpus:2;zones:{a,b};cpus(role):2;disk[mount:/mnt/d]:1TiB'
    #[arg(long, value_name = "NAME:VALUE;…")]
    pub resources: Option<String>,
    /// The block device that a disk of --resources is, like fast=/dev/sdb for 'disk[block:fast]:1TiB'; once for each
    #[arg(long, value_name = "NAME=PATH")]
    pub device: Vec<String>,
    /// What frameworks may choose by, like 'rack:a;zone:b;ssds:2'
    #[arg(long, value_name = "NAME:VALUE;…")]
    pub attributes: Option<String>,
    /// The region and zone that the machine stands in, like eu-west/eu-west-1a
    #[arg(long, value_name = "REGION/ZONE")]
    pub domain: Option<String>,
    /// The cgroup below which all containers stand
    #[arg(long, value_name = "NAME")]
    pub cgroup_base: Option<String>,
    /// End all tasks with the agent instead of leaving them to the next
    #[arg(long)]
    pub kill_tasks_on_shutdown: bool,
    /// How long sandboxes of ended tasks are kept, like 7d
    #[arg(long, value_name = "TIME")]
    pub sandbox_keep: Option<String>,
    /// Lend nothing: never offer the slack of tasks as revocable resources
    #[arg(long)]
    pub no_lending: bool,
}

/// The file as it is written. Quantities may be numbers or texts.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSettings {
    master: Option<String>,
    work_dir: Option<PathBuf>,
    listen: Option<String>,
    hostname: Option<String>,
    cpus: Option<Quantity>,
    mem: Option<Quantity>,
    disk: Option<Quantity>,
    disk_bandwidth: Option<Quantity>,
    network_bandwidth: Option<Quantity>,
    resources: Option<String>,
    attributes: Option<String>,
    domain: Option<String>,
    cgroup_base: Option<String>,
    kill_tasks_on_shutdown: Option<bool>,
    sandbox_keep: Option<Quantity>,
    no_lending: Option<bool>,
    #[serde(default)]
    devices: Devices,
    #[serde(default)]
    lending: LendingSettings,
    #[serde(default)]
    measure: MeasureSettings,
}

/// How tasks are measured; what is not named keeps its default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MeasureSettings {
    /// Time between two readings of what the QoS controller needs.
    quick: Option<String>,
    /// Time between two readings of everything.
    full: Option<String>,
    /// Whether the probes stay attached while the agent is restarted.
    pin: Option<bool>,
}

impl MeasureSettings {
    /// Applies them; samples are late by as many of these times as by those of the defaults.
    fn apply(self, lending: &mut lending::Config) -> Result<Measure, ConfigError> {
        let mut measure = Measure::default();
        let limited = |key, text: Option<String>, least, most, rule| match text {
            None => Ok(None),
            Some(text) => {
                let ms = duration_ms(&text).map_err(|bad| bad_value(key, &text, bad))?;
                if (least..=most).contains(&ms) {
                    Ok(Some(ms))
                } else {
                    Err(bad_value(key, &text, BadValue::new(rule)))
                }
            }
        };
        let quick = limited("measure.quick", self.quick, 10, 1_000, "give 10ms to 1s")?;
        measure.quick_ms = quick.unwrap_or(measure.quick_ms);
        let least = measure.quick_ms;
        let rule = "give at least the time of measure.quick and at most 60s";
        let full = limited("measure.full", self.full, least, 60_000, rule)?;
        measure.full_ms = full.unwrap_or(measure.full_ms.max(least));
        measure.pin = self.pin.unwrap_or(measure.pin);
        lending.usage.max_gap_ms = lending.usage.max_gap_ms.max(10 * measure.quick_ms);
        lending.usage.full_max_gap_ms = lending.usage.full_max_gap_ms.max(3 * measure.full_ms);
        Ok(measure)
    }
}

/// How slack is lent; what is not named keeps its default, which the estimator and the QoS controller
/// give reasons for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LendingSettings {
    /// How long a task must have been watched before its CPU and bandwidth are lent.
    warm_up: Option<String>,
    /// For how long something must have been lendable before it is lent.
    hold: Option<String>,
    /// How long nothing grows after something was held back.
    cool_down: Option<String>,
    /// Fastest growth of what is lent, in thousandths of the machine a second.
    growth_permille_per_s: Option<u64>,
    /// How long a container stays frozen before it is ended.
    evict_after: Option<String>,
    /// The longest time that a container has between the warning of its eviction and its end.
    evict_grace: Option<String>,
    /// Most tasks of one framework that are ended in a window.
    disruption_budget: Option<u32>,
    /// The window.
    disruption_window: Option<String>,
    /// How much of the time owners may use more than was kept for them.
    violation_budget: Option<String>,
}

impl LendingSettings {
    fn apply(mut self, lending: &mut lending::Config) -> Result<(), ConfigError> {
        let time = |key, text| read_value(key, text, duration_ms);
        if let Some(ms) = time("lending.warm_up", self.warm_up.take())? {
            for kind in [
                &mut lending.estimator.cpus,
                &mut lending.estimator.disk_bandwidth,
                &mut lending.estimator.network_bandwidth,
            ] {
                kind.warm_blocks = ms.div_ceil(kind.block_ms).clamp(1, kind.blocks);
            }
        }
        if let Some(ms) = time("lending.hold", self.hold.take())? {
            lending.estimator.hold_ms = ms;
        }
        if let Some(ms) = time("lending.cool_down", self.cool_down.take())? {
            lending.estimator.cool_down_ms = ms;
        }
        if let Some(permille) = self.growth_permille_per_s {
            if !(1..=1_000_000).contains(&permille) {
                let rule = BadValue::new("give 1 to 1000000 thousandths of the machine a second");
                return Err(bad_value(
                    "lending.growth_permille_per_s",
                    &permille.to_string(),
                    rule,
                ));
            }
            lending.estimator.growth_permille_per_s = permille;
        }
        if let Some(ms) = time("lending.evict_after", self.evict_after.take())? {
            lending.qos.evict_after_ms = ms;
        }
        self.apply_gentleness(lending)
    }

    fn apply_gentleness(self, lending: &mut lending::Config) -> Result<(), ConfigError> {
        let time = |key, text| read_value(key, text, duration_ms);
        if let Some(ms) = time("lending.evict_grace", self.evict_grace)? {
            if ms > MAX_GRACE_MS {
                let rule = BadValue::new(format!("give at most {MAX_GRACE_MS}ms"));
                return Err(bad_value("lending.evict_grace", &format!("{ms}ms"), rule));
            }
            lending.qos.evict_grace_ms = ms;
        }
        if let Some(budget) = self.disruption_budget {
            if budget > MAX_BUDGET {
                let rule = BadValue::new(format!("give 0 to {MAX_BUDGET} tasks"));
                return Err(bad_value(
                    "lending.disruption_budget",
                    &budget.to_string(),
                    rule,
                ));
            }
            lending.qos.budget_evictions = budget;
        }
        if let Some(ms) = time("lending.disruption_window", self.disruption_window)? {
            lending.qos.budget_window_ms = ms;
        }
        let budget = read_value(
            "lending.violation_budget",
            self.violation_budget,
            percent_ppm,
        )?;
        lending.promise.budget_ppm = budget.unwrap_or(lending.promise.budget_ppm);
        Ok(())
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Quantity {
    Text(String),
    Whole(i64),
    Real(f64),
}

impl Quantity {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Whole(number) => number.to_string(),
            Self::Real(number) => number.to_string(),
        }
    }
}

impl Config {
    /// Settings from flags, from the file that they name, and defaults.
    ///
    /// # Errors
    /// [`ConfigError`] names the key, the value and what is allowed.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let file = match &flags.config {
            Some(path) => read(path)?,
            None => FileSettings::default(),
        };
        Self::merge(flags.clone(), file)
    }

    fn merge(flags: Flags, file: FileSettings) -> Result<Self, ConfigError> {
        let default = Self::default();
        let text = |flag: Option<String>, file: Option<Quantity>| {
            flag.or_else(|| file.map(Quantity::into_text))
        };
        let mut lending = default.lending;
        file.lending.apply(&mut lending)?;
        let measure = file.measure.apply(&mut lending)?;
        if flags.no_lending || file.no_lending.unwrap_or(false) {
            lending.estimator.cpus.lend = false;
            lending.estimator.mem.lend = false;
            lending.estimator.disk_bandwidth.lend = false;
            lending.estimator.network_bandwidth.lend = false;
        }
        let attribute_text = flags.attributes.or(file.attributes).unwrap_or_default();
        let sandbox_keep = text(flags.sandbox_keep, file.sandbox_keep);
        Ok(Self {
            master: master(flags.master.or(file.master))?,
            work_dir: flags.work_dir.or(file.work_dir).unwrap_or(default.work_dir),
            listen: match flags.listen.or(file.listen) {
                Some(text) => listen(&text)?,
                None => default.listen,
            },
            hostname: hostname(flags.hostname.or(file.hostname))?,
            resources: ConfiguredResources {
                cpu_milli: read_value("cpus", text(flags.cpus, file.cpus), cpus)?,
                mem_bytes: read_value("mem", text(flags.mem, file.mem), bytes)?,
                disk_bytes: read_value("disk", text(flags.disk, file.disk), bytes)?,
                disk_bandwidth_bytes_per_s: read_value(
                    "disk_bandwidth",
                    text(flags.disk_bandwidth, file.disk_bandwidth),
                    bandwidth,
                )?,
                network_bandwidth_bytes_per_s: read_value(
                    "network_bandwidth",
                    text(flags.network_bandwidth, file.network_bandwidth),
                    bandwidth,
                )?,
            },
            lots: lots(&flags.resources.or(file.resources).unwrap_or_default())?,
            devices: devices(file.devices, &flags.device)?,
            attributes: attributes(&attribute_text)
                .map_err(|bad| bad_value("attributes", &attribute_text, bad))?,
            domain: domain(flags.domain.or(file.domain))?,
            cgroup_base: cgroup_base(flags.cgroup_base.or(file.cgroup_base))?,
            kill_tasks_on_shutdown: flags.kill_tasks_on_shutdown
                || file.kill_tasks_on_shutdown.unwrap_or(false),
            sandbox_keep_ms: read_value("sandbox_keep", sandbox_keep, duration_ms)?
                .unwrap_or(default.sandbox_keep_ms),
            lending,
            measure,
            executor_exe: None,
        })
    }
}

/// The lots of a text; plain amounts have settings of their own.
fn lots(text: &str) -> Result<Lots, ConfigError> {
    let bad = |rule: String| bad_value("resources", text, BadValue::new(rule));
    let written: WrittenResources = text.parse().map_err(|error: InvalidLot| bad(error.0))?;
    if !written.plain.is_zero() {
        let kinds = ResourceKind::listed();
        return Err(bad(format!(
            "give what is not reserved of {kinds} by settings of their own"
        )));
    }
    Ok(written.lots)
}

/// The devices of the file, and those of flags, which win.
fn devices(mut devices: Devices, flags: &[String]) -> Result<Devices, ConfigError> {
    for text in flags {
        let Some((name, path)) = text.split_once('=').filter(|(_, path)| !path.is_empty()) else {
            let rule = BadValue::new("give a name and a device, like fast=/dev/sdb");
            return Err(bad_value("device", text, rule));
        };
        devices.insert(name.to_owned(), path.into());
    }
    match devices.keys().find(|name| !is_name(name)) {
        Some(name) => {
            let rule = format!(
                "a device's name has 1 to {MAX_NAME_BYTES} letters, digits, dots, dashes and underscores"
            );
            Err(bad_value("devices", name, BadValue::new(rule)))
        }
        None => Ok(devices),
    }
}

fn read(path: &Path) -> Result<FileSettings, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE_BYTES {
        return Err(ConfigError::Parse {
            path: path.to_owned(),
            message: format!("it has {size} bytes; at most {MAX_FILE_BYTES} are read"),
        });
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    toml::from_str(&text).map_err(|error| ConfigError::Parse {
        path: path.to_owned(),
        message: error.to_string().trim_end().to_owned(),
    })
}

fn bad_value(key: &'static str, value: &str, bad: BadValue) -> ConfigError {
    ConfigError::Value {
        key,
        value: value.chars().take(100).collect(),
        rule: bad.rule,
    }
}

fn read_value(
    key: &'static str,
    text: Option<String>,
    read: impl Fn(&str) -> Result<u64, BadValue>,
) -> Result<Option<u64>, ConfigError> {
    text.map(|text| read(&text).map_err(|bad| bad_value(key, &text, bad)))
        .transpose()
}

fn master(text: Option<String>) -> Result<String, ConfigError> {
    let Some(text) = text else {
        return Ok(DEFAULT_MASTER.to_owned());
    };
    let bare = text.strip_prefix("http://").unwrap_or(&text);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    let good = bare.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(|c: char| c == '/' || c.is_whitespace())
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if good {
        return Ok(bare.to_owned());
    }
    Err(bad_value(
        "master",
        &text,
        BadValue::new("give the master's host and port, like 10.0.0.1:5050"),
    ))
}

fn listen(text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| {
        let rule = BadValue::new("give an address and a port, like 0.0.0.0:5051 or [::]:5051");
        bad_value("listen", text, rule)
    })
}

fn domain(text: Option<String>) -> Result<Option<FaultDomain>, ConfigError> {
    let parse = |text: String| {
        text.parse().map_err(|bad: InvalidDomain| {
            bad_value("domain", &text, BadValue::new(bad.to_string()))
        })
    };
    text.map(parse).transpose()
}

fn hostname(text: Option<String>) -> Result<Option<String>, ConfigError> {
    match text {
        Some(name)
            if name.is_empty()
                || name.len() > 253
                || name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control()) =>
        {
            let rule = BadValue::new("give a host name or an address of at most 253 bytes");
            Err(bad_value("hostname", &name, rule))
        }
        name => Ok(name),
    }
}

fn cgroup_base(text: Option<String>) -> Result<String, ConfigError> {
    let name = text.unwrap_or_else(|| DEFAULT_CGROUP_BASE.to_owned());
    let good = !name.is_empty()
        && name.len() <= 64
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if good {
        return Ok(name);
    }
    let rule = BadValue::new("give 1 to 64 letters, digits, '-' or '_'");
    Err(bad_value("cgroup_base", &name, rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("agent.toml");
        std::fs::write(&path, text).expect("written");
        Config::load(&Flags {
            config: Some(path),
            ..Flags::default()
        })
    }

    #[test]
    fn a_file_sets_what_it_names_and_flags_win() {
        let text = "master = 'm:1'\ncpus = 1.5\nmem = '4GiB'\ndisk_bandwidth = '100MiB/s'\nnetwork_bandwidth = '125MB/s'\n\
                    attributes = 'rack:a;ssds:2'\ndomain = 'eu/a'\nsandbox_keep = '2h'\nno_lending = true\n";
        let config = parse(text).expect("a good file");
        assert_eq!(config.master, "m:1");
        assert_eq!(config.resources.cpu_milli, Some(1500));
        let domain = config.domain.map(|domain| domain.to_string());
        assert_eq!(domain.as_deref(), Some("eu/a"));
        assert_eq!(config.resources.mem_bytes, Some(4 << 30));
        assert_eq!(config.resources.disk_bandwidth_bytes_per_s, Some(100 << 20));
        let network = config.resources.network_bandwidth_bytes_per_s;
        assert_eq!(network, Some(125_000_000));
        assert_eq!(config.attributes.len(), 2);
        assert_eq!(config.sandbox_keep_ms, 7_200_000);
        assert!(!config.lending.estimator.cpus.lend);
        let config = parse("[lending]\nwarm_up = '2500ms'\nhold = '1s'\n").expect("a good file");
        assert_eq!(config.lending.estimator.cpus.warm_blocks, 3);
        assert_eq!(config.lending.estimator.hold_ms, 1_000);
        let gentle = "[lending]\nevict_grace = '2s'\ndisruption_budget = 7\ndisruption_window = '1h'\n\
                      violation_budget = '0.25%'\n";
        let config = parse(gentle).expect("a good file");
        let qos = config.lending.qos;
        assert_eq!((qos.evict_grace_ms, qos.budget_evictions), (2_000, 7));
        assert_eq!(qos.budget_window_ms, 3_600_000);
        assert_eq!(config.lending.promise.budget_ppm, 2_500);
        let config =
            parse("[measure]\nquick = '50ms'\nfull = '5s'\npin = false\n").expect("a good file");
        assert_eq!(
            (config.measure.quick_ms, config.measure.full_ms),
            (50, 5_000)
        );
        assert_eq!(config.lending.usage.full_max_gap_ms, 15_000);
        assert!(!config.measure.pin);
        let flags = Flags {
            cpus: Some("2".to_owned()),
            ..Flags::default()
        };
        let file = FileSettings {
            cpus: Some(Quantity::Whole(1)),
            ..FileSettings::default()
        };
        let config = Config::merge(flags, file).expect("good settings");
        assert_eq!(config.resources.cpu_milli, Some(2000));
    }

    #[test]
    fn devices_of_flags_win_over_those_of_the_file() {
        let text = "[devices]\nfast = '/dev/a'\nslow = '/dev/b'\n";
        let config = parse(text).expect("a good file");
        let of_flags = devices(config.devices, &["fast=/dev/c".to_owned()]);
        let pairs = [("fast", "/dev/c"), ("slow", "/dev/b")];
        let pairs = pairs.map(|(name, path)| (name.to_owned(), PathBuf::from(path)));
        assert_eq!(of_flags.expect("good flags"), pairs.into());
        for bad in ["fast", "=/dev/c", "fast=", "a/b=/dev/c"] {
            let refused = devices(Devices::new(), &[bad.to_owned()]);
            assert!(refused.is_err(), "{bad} is taken");
        }
    }

    #[test]
    fn unknown_keys_wrong_units_and_wrong_values_are_named() {
        for (text, words) in [
            ("memory = '1GiB'", &["memory", "unknown field"][..]),
            ("mem = '4 apples'", &["mem", "4 apples", "GiB"]),
            ("mem = 4", &["mem", "\"4\"", "GiB"]),
            ("mem = '-1GiB'", &["mem", "-1GiB"]),
            ("mem = '99999999999TiB'", &["mem", "99999999999TiB"]),
            ("cpus = '2GiB'", &["cpus", "2GiB", "1.5"]),
            ("cpus = -1", &["cpus", "-1"]),
            ("cpus = nan", &["cpus"]),
            (
                "disk_bandwidth = '5GiB'",
                &["disk_bandwidth", "5GiB", "MiB/s"],
            ),
            (
                "listen = 'everywhere'",
                &["listen", "everywhere", "0.0.0.0:5051"],
            ),
            (
                "master = 'https://x'",
                &["master", "https://x", "10.0.0.1:5050"],
            ),
            ("attributes = 'rack'", &["attributes", "rack", "name:value"]),
            ("cgroup_base = '../x'", &["cgroup_base", "../x", "letters"]),
            (
                "sandbox_keep = '5 years'",
                &["sandbox_keep", "5 years", "7d"],
            ),
            ("cpus = [", &["agent.toml"]),
            ("[lending]\nhold = '5'", &["lending.hold", "\"5\"", "7d"]),
            (
                "[lending]\nviolation_budget = '101%'",
                &["lending.violation_budget", "0.1%"],
            ),
            (
                "[lending]\ndisruption_budget = 1001",
                &["lending.disruption_budget", "1000"],
            ),
            (
                "[lending]\nevict_grace = '400d'",
                &["lending.evict_grace", "at most"],
            ),
            ("[lending]\nspeed = 1", &["speed", "unknown field"]),
            ("[measure]\nquick = '1ms'", &["measure.quick", "10ms"]),
            ("[measure]\nfull = '50ms'", &["measure.full", "60s"]),
            ("[measure]\npin = 'no'", &["pin", "boolean"]),
        ] {
            let error = parse(text).expect_err(text).to_string();
            for word in words {
                assert!(error.contains(word), "{text}: {error}");
            }
        }
    }
}
