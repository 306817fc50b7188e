//! The master's settings: flags over a TOML file over defaults.
//!
//! Every duration carries its unit (`"15s"`), and a wrong one is answered with the key, the value and
//! what is allowed. Unknown keys are refused: a setting that was misspelt must not be a setting that
//! silently does nothing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ebb_types::{FaultDomain, InvalidDomain};
use serde::Deserialize;

use crate::allocator::MAX_WORKERS;
use crate::core::CoreConfig;

/// The master's port.
pub const DEFAULT_PORT: u16 = 5050;
/// Where the registry is kept.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/ebb/master";
/// Most messages that wait to be read by one connection: more than one reconciliation can bring.
pub const DEFAULT_OUTBOX_LIMIT: usize = 131_072;
/// Largest limit of messages that wait for one reader.
const MAX_OUTBOX_LIMIT: usize = 1 << 24;
/// Longest setting of time, in milliseconds: ten years.
const MAX_SETTING_MS: u64 = 10 * 365 * 24 * 3600 * 1000;
/// Largest configuration file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration {} cannot be read; name another with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is too large to be a configuration.
    #[error("the configuration {} is larger than {MAX_FILE_BYTES} bytes; name another with --config", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
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

/// The flags of the master; each wins over the file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct MasterArgs {
    /// Settings in TOML; the keys are the flags' names with _ for -
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the API listens; port 0 takes any that is free
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// Where the registry is kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The name under which others reach this machine
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// How often connections are told that the master lives, like 15s
    #[arg(long, value_name = "TIME")]
    pub heartbeat_interval: Option<String>,
    /// How long an agent may be silent before it is unreachable, like 75s
    #[arg(long, value_name = "TIME")]
    pub agent_timeout: Option<String>,
    /// How long agents have to come back after a start of the master, like 10m
    #[arg(long, value_name = "TIME")]
    pub agent_reregister_timeout: Option<String>,
    /// How long frameworks have at least to come back after a start of the master, like 1m
    #[arg(long, value_name = "TIME")]
    pub framework_recovery_timeout: Option<String>,
    /// How long a framework may hold an offer, like 5m; 0s means for ever
    #[arg(long, value_name = "TIME")]
    pub offer_timeout: Option<String>,
    /// The region and zone that the master stands in, like eu-west/eu-west-1a; agents in other regions are offered only to
    /// frameworks that take such
    #[arg(long, value_name = "REGION/ZONE")]
    pub domain: Option<String>,
    /// Threads of the allocator
    #[arg(long, value_name = "N")]
    pub allocator_threads: Option<u32>,
    /// Most messages that wait for one reader before it is cut off
    #[arg(long, value_name = "N")]
    pub outbox_limit: Option<usize>,
}

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSettings {
    listen: Option<String>,
    data_dir: Option<PathBuf>,
    hostname: Option<String>,
    heartbeat_interval: Option<String>,
    agent_timeout: Option<String>,
    agent_reregister_timeout: Option<String>,
    framework_recovery_timeout: Option<String>,
    offer_timeout: Option<String>,
    domain: Option<String>,
    allocator_threads: Option<u32>,
    outbox_limit: Option<usize>,
}

/// Every setting of a master.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the API listens; port 0 takes any that is free.
    pub listen: SocketAddr,
    /// Where the registry is kept.
    pub data_dir: PathBuf,
    /// The name under which others reach this machine.
    pub hostname: String,
    /// What the core is told; its host name and port are replaced by those in use.
    pub core: CoreConfig,
    /// Threads of the allocator.
    pub allocator_threads: u32,
    /// Most messages that wait for one reader before it is cut off.
    pub outbox_limit: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], DEFAULT_PORT)),
            data_dir: PathBuf::from(DEFAULT_DATA_DIR),
            hostname: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            core: CoreConfig::default(),
            allocator_threads: default_threads(),
            outbox_limit: DEFAULT_OUTBOX_LIMIT,
        }
    }
}

/// One thread plans exactly; more plan faster on large clusters.
fn default_threads() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(cores / 2).unwrap_or(MAX_WORKERS).clamp(1, 4)
}

impl Config {
    /// Settings from flags, from the file that they name, and defaults.
    ///
    /// # Errors
    /// [`ConfigError`] names the key, the value and what is allowed.
    pub fn load(args: &MasterArgs) -> Result<Self, ConfigError> {
        let file = match &args.config {
            Some(path) => read(path)?,
            None => FileSettings::default(),
        };
        Self::merge(args.clone(), file)
    }

    fn merge(args: MasterArgs, file: FileSettings) -> Result<Self, ConfigError> {
        let default = Self::default();
        let settings = file.under(args);
        let allocator_threads = bounded(
            "allocator_threads",
            settings
                .allocator_threads
                .unwrap_or(default.allocator_threads),
            MAX_WORKERS,
        )?;
        let outbox_limit = bounded(
            "outbox_limit",
            settings.outbox_limit.unwrap_or(default.outbox_limit),
            MAX_OUTBOX_LIMIT,
        )?;
        let listen = match &settings.listen {
            Some(text) => text.parse().map_err(|_| {
                let rule = "write an address and a port, like 0.0.0.0:5050";
                wrong("listen", text.clone(), rule.to_owned())
            })?,
            None => default.listen,
        };
        Ok(Self {
            listen,
            core: settings.core(default.core)?,
            data_dir: settings.data_dir.unwrap_or(default.data_dir),
            hostname: settings.hostname.unwrap_or(default.hostname),
            allocator_threads,
            outbox_limit,
        })
    }
}

impl FileSettings {
    /// These settings under flags, which win.
    fn under(self, args: MasterArgs) -> Self {
        Self {
            listen: args.listen.or(self.listen),
            data_dir: args.data_dir.or(self.data_dir),
            hostname: args.hostname.or(self.hostname),
            heartbeat_interval: args.heartbeat_interval.or(self.heartbeat_interval),
            agent_timeout: args.agent_timeout.or(self.agent_timeout),
            agent_reregister_timeout: args
                .agent_reregister_timeout
                .or(self.agent_reregister_timeout),
            framework_recovery_timeout: args
                .framework_recovery_timeout
                .or(self.framework_recovery_timeout),
            offer_timeout: args.offer_timeout.or(self.offer_timeout),
            domain: args.domain.or(self.domain),
            allocator_threads: args.allocator_threads.or(self.allocator_threads),
            outbox_limit: args.outbox_limit.or(self.outbox_limit),
        }
    }

    /// What the core is told.
    fn core(&self, default: CoreConfig) -> Result<CoreConfig, ConfigError> {
        let time = |key, text: &Option<String>, least_ms, default_ms| match text {
            Some(text) => duration_ms(key, text, least_ms),
            None => Ok(default_ms),
        };
        let heartbeat_interval_ms = time(
            "heartbeat_interval",
            &self.heartbeat_interval,
            1,
            default.heartbeat_interval_ms,
        )?;
        let unreachable_after_ms = time(
            "agent_timeout",
            &self.agent_timeout,
            1,
            default.unreachable_after_ms,
        )?;
        if heartbeat_interval_ms >= unreachable_after_ms {
            return Err(wrong(
                "heartbeat_interval",
                format!("{heartbeat_interval_ms}ms"),
                format!("it must be below agent_timeout, which is {unreachable_after_ms}ms"),
            ));
        }
        let agent_reregister_timeout_ms = time(
            "agent_reregister_timeout",
            &self.agent_reregister_timeout,
            0,
            default.agent_reregister_timeout_ms,
        )?;
        let framework_recovery_ms = time(
            "framework_recovery_timeout",
            &self.framework_recovery_timeout,
            0,
            default.framework_recovery_ms,
        )?;
        let offer_ms = time(
            "offer_timeout",
            &self.offer_timeout,
            0,
            default.offer_timeout_ms.unwrap_or(0),
        )?;
        let domain = self.domain.as_ref().map(|text| {
            let parsed: Result<FaultDomain, InvalidDomain> = text.parse();
            parsed.map_err(|error| wrong("domain", text.clone(), error.to_string()))
        });
        Ok(CoreConfig {
            domain: domain.transpose()?,
            heartbeat_interval_ms,
            unreachable_after_ms,
            agent_reregister_timeout_ms,
            framework_recovery_ms,
            offer_timeout_ms: (offer_ms > 0).then_some(offer_ms),
            ..default
        })
    }
}

fn bounded<N: PartialOrd + From<u8> + std::fmt::Display>(
    key: &'static str,
    value: N,
    most: N,
) -> Result<N, ConfigError> {
    if value < N::from(1) || value > most {
        let rule = format!("choose 1 to {most}");
        return Err(wrong(key, value.to_string(), rule));
    }
    Ok(value)
}

fn wrong(key: &'static str, value: String, rule: String) -> ConfigError {
    let value = value.chars().take(100).collect();
    ConfigError::Value { key, value, rule }
}

fn read(path: &Path) -> Result<FileSettings, ConfigError> {
    let unreadable = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
        });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    toml::from_str(&text).map_err(|error| ConfigError::Parse {
        path: path.to_owned(),
        message: error.to_string(),
    })
}

/// Reads a duration such as `15s`, in milliseconds.
fn duration_ms(key: &'static str, text: &str, least_ms: u64) -> Result<u64, ConfigError> {
    let rule = || {
        let least = if least_ms > 0 { "more than 0, " } else { "" };
        format!(
            "write {least}a whole number and a unit of ms, s, m, h or d, like 15s; at most 3650d"
        )
    };
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit_ms: Option<u64> = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let value: Option<u64> = number.parse().ok();
    value
        .zip(unit_ms)
        .and_then(|(value, unit_ms)| value.checked_mul(unit_ms))
        .filter(|ms| (least_ms..=MAX_SETTING_MS).contains(ms))
        .ok_or_else(|| wrong(key, text.to_owned(), rule()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&MasterArgs {
            config: Some(path),
            ..MasterArgs::default()
        })
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let args = MasterArgs {
            agent_timeout: Some(String::from("90s")),
            ..MasterArgs::default()
        };
        let file = toml::from_str(
            "agent_timeout = \"2m\"\nheartbeat_interval = \"500ms\"\noffer_timeout = \"0s\"\n",
        )
        .unwrap();
        let config = Config::merge(args, file).unwrap();
        assert_eq!(config.core.unreachable_after_ms, 90_000);
        assert_eq!(config.core.heartbeat_interval_ms, 500);
        assert_eq!(config.core.offer_timeout_ms, None);
        assert_eq!(config.core.domain, None);
        assert_eq!(config.core.agent_reregister_timeout_ms, 600_000);
    }

    #[test]
    fn wrong_settings_are_named_with_what_is_allowed() {
        for (text, said) in [
            ("agent_timeout = \"75\"", "like 15s"),
            ("agent_timeout = \"75 sec\"", "like 15s"),
            ("agent_timeout = \"0s\"", "more than 0"),
            ("agent_timeout = \"-1s\"", "like 15s"),
            ("offer_timeout = \"99999999999999999999d\"", "3650d"),
            ("agent_timeuot = \"75s\"", "agent_timeuot"),
            ("listen = \"here\"", "0.0.0.0:5050"),
            ("allocator_threads = 0", "1 to"),
            ("outbox_limit = 0", "1 to"),
            ("heartbeat_interval = \"80s\"", "below agent_timeout"),
            ("agent_timeout = 75", "agent_timeout"),
            ("= 1", "not understood"),
            ("domain = \"eu\"", "like eu-west/eu-west-1a"),
            ("domain = \"/a\"", "like eu-west/eu-west-1a"),
        ] {
            let error = parsed(text).expect_err(text).to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let args = MasterArgs {
            config: Some(PathBuf::from("/no/such/file.toml")),
            ..MasterArgs::default()
        };
        let error = Config::load(&args).unwrap_err().to_string();
        assert!(error.contains("/no/such/file.toml"), "{error}");
    }
}
