//! The registry in one file in the data folder (redb: copy-on-write B-trees, checksums, one fsync a
//! commit). The only file that names the database.
//!
//! A file that is not understood is left as it is: the master says so and ends. Every start adds one
//! to the generation, durably and before anything else, so that no id is ever made twice.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ebb_api::Stored;
use ebb_types::{FrameworkId, Generation, LotLimits, Machine, Quota, Role, Timestamp, Window};
use redb::{
    Database, DatabaseError, ReadableTable, StorageError, Table, TableDefinition, WriteTransaction,
};

use super::codec::{
    read_activity, read_agent, read_framework, read_operation, write_activity, write_agent,
    write_framework, write_operation,
};
use super::{Registry, RegistryError};
use crate::core::record::{RegistryWrite, Restored};

/// The registry's file in the data folder.
pub const FILE_NAME: &str = "registry.redb";
/// The format of the tables below.
const FORMAT: u64 = 1;
/// Memory for the database's cache, in bytes; the registry is small.
const CACHE_BYTES: usize = 4 << 20;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const NAMES: TableDefinition<'_, &str, &str> = TableDefinition::new("names");
const FRAMEWORKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("frameworks");
/// Completed frameworks by id, with the time of their end in milliseconds.
const COMPLETED: TableDefinition<'_, &str, u64> = TableDefinition::new("completed");
const AGENTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("agents");
/// What operators have decided about agents, by id: a number and the longest grace in milliseconds.
/// Agents that are simply offered from have no entry.
const ACTIVITIES: TableDefinition<'_, &str, (u8, Option<u64>)> = TableDefinition::new("activities");
const WEIGHTS: TableDefinition<'_, &str, u64> = TableDefinition::new("weights");

const LOT_LIMITS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("lot_limits");
const QUOTAS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("quotas");
/// Maintenance windows by machine; see [`window_key`].
const WINDOWS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("windows");
/// Operations without an acknowledged answer, by framework and id.
const OPERATIONS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("operations");

const FORMAT_KEY: &str = "format";
const GENERATION_KEY: &str = "generation";
const CLUSTER_KEY: &str = "cluster";

/// A registry in one file.
#[derive(Debug)]
pub struct Embedded {
    path: PathBuf,
    database: Database,
}

/// Why something inside the file could not be done, before the file's path is added.
enum Fault {
    Store(redb::Error),
    Corrupt(String),
    Format(u64),
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Store(error.into())
    }
}

impl Embedded {
    /// Opens the registry in a folder, or makes one there. The folder itself is made if only it is
    /// missing.
    ///
    /// # Errors
    /// [`RegistryError`] says what is wrong and what to do.
    pub fn open(folder: &Path) -> Result<Self, RegistryError> {
        prepare(folder).map_err(|source| RegistryError::Folder {
            path: folder.to_owned(),
            source,
        })?;
        let path = folder.join(FILE_NAME);
        // Opening repairs what a crash has left behind, and so writes, before it sees that the rest is
        // damaged: such a file is put back as it was.
        let before = fs::read(&path).ok();
        // The database panics on some kinds of damage; a thread turns that into an answer.
        let opened = std::thread::scope(|scope| {
            let path = &path;
            scope.spawn(move || open_file(path)).join()
        });
        let error = match opened {
            Ok(Ok(database)) => return Ok(Self { path, database }),
            Ok(Err(error)) => why_not_open(path.clone(), folder, error),
            Err(_panic) => RegistryError::Corrupt {
                path: path.clone(),
                cause: String::from("its pages contradict each other"),
            },
        };
        if let (RegistryError::Corrupt { .. }, Some(before)) = (&error, before) {
            put_back(&path, &before).map_err(|source| RegistryError::Folder { path, source })?;
        }
        Err(error)
    }

    fn explain(&self, operation: &'static str, fault: Fault) -> RegistryError {
        let path = self.path.clone();
        match fault {
            Fault::Format(found) => RegistryError::Version {
                path,
                found,
                known: FORMAT,
            },
            Fault::Corrupt(cause) | Fault::Store(redb::Error::Corrupted(cause)) => {
                RegistryError::Corrupt { path, cause }
            }
            Fault::Store(source) => RegistryError::Storage {
                path,
                operation,
                source: Box::new(source),
            },
        }
    }

    fn begin_term(&self) -> Result<Restored, Fault> {
        let transaction = self.database.begin_write()?;
        let restored = restore(&transaction)?;
        transaction.commit()?;
        Ok(restored)
    }

    fn write(&self, writes: &[RegistryWrite]) -> Result<(), Fault> {
        let transaction = self.database.begin_write()?;
        {
            let mut frameworks = transaction.open_table(FRAMEWORKS)?;
            let mut completed = transaction.open_table(COMPLETED)?;
            let mut agents = transaction.open_table(AGENTS)?;
            let mut activities = transaction.open_table(ACTIVITIES)?;
            let mut weights = transaction.open_table(WEIGHTS)?;
            let mut quotas = transaction.open_table(QUOTAS)?;
            let mut lot_limits = transaction.open_table(LOT_LIMITS)?;
            let mut windows = transaction.open_table(WINDOWS)?;
            let mut operations = transaction.open_table(OPERATIONS)?;
            for write in writes {
                match write {
                    RegistryWrite::PutFramework(record) => {
                        if let Some(id) = &record.info.id {
                            let bytes = write_framework(record);
                            frameworks.insert(id.as_str(), bytes.as_slice())?;
                        }
                    }
                    RegistryWrite::CompleteFramework { id, at } => {
                        frameworks.remove(id.as_str())?;
                        completed.insert(id.as_str(), at.as_ms())?;
                        // The first text after an id is the id with a zero byte.
                        let after = format!("{id}\0");
                        operations
                            .retain_in((id.as_str(), "")..(after.as_str(), ""), |_, _| false)?;
                    }
                    RegistryWrite::ForgetFramework(id) => {
                        frameworks.remove(id.as_str())?;
                        completed.remove(id.as_str())?;
                    }
                    RegistryWrite::PutAgent(record) => {
                        if let Some(id) = &record.info.id {
                            agents.insert(id.as_str(), write_agent(record).as_slice())?;
                            match write_activity(record.activity) {
                                Some(activity) => activities.insert(id.as_str(), activity)?,
                                None => activities.remove(id.as_str())?,
                            };
                        }
                    }
                    RegistryWrite::RemoveAgent(id) => {
                        agents.remove(id.as_str())?;
                        activities.remove(id.as_str())?;
                    }
                    RegistryWrite::PutWeight { role, weight_milli } => {
                        weights.insert(role.as_str(), *weight_milli)?;
                    }
                    RegistryWrite::PutQuota { role, quota } => {
                        match quota.is_none() {
                            true => quotas.remove(role.as_str())?,
                            false => quotas.insert(role.as_str(), quota.to_bytes().as_slice())?,
                        };
                    }
                    RegistryWrite::PutLotLimits { role, limits } => {
                        let bytes = limits.to_bytes();
                        match limits.is_none() {
                            true => lot_limits.remove(role.as_str())?,
                            false => lot_limits.insert(role.as_str(), bytes.as_slice())?,
                        };
                    }
                    RegistryWrite::PutWindow(window) => {
                        let key = window_key(&window.machine);
                        windows.insert(key.as_str(), window.to_bytes().as_slice())?;
                    }
                    RegistryWrite::RemoveWindow(machine) => {
                        windows.remove(window_key(machine).as_str())?;
                    }
                    RegistryWrite::PutOperation(record) => {
                        let key = (record.framework_id.as_str(), record.status.id.as_str());
                        operations.insert(key, write_operation(record).as_slice())?;
                    }
                    RegistryWrite::RemoveOperation { framework_id, id } => {
                        operations.remove((framework_id.as_str(), id.as_str()))?;
                    }
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Registry for Embedded {
    fn load(&mut self) -> Result<Restored, RegistryError> {
        self.begin_term()
            .map_err(|fault| self.explain("read", fault))
    }

    fn commit(&mut self, writes: &[RegistryWrite]) -> Result<(), RegistryError> {
        self.write(writes)
            .map_err(|fault| self.explain("written", fault))
    }
}

fn prepare(folder: &Path) -> std::io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => match folder.is_dir() {
            true => Ok(()),
            false => Err(ErrorKind::NotADirectory.into()),
        },
        made => made,
    }
}

/// Makes a file hold these bytes again, if it does not.
fn put_back(path: &Path, before: &[u8]) -> std::io::Result<()> {
    if fs::read(path)? != before {
        fs::write(path, before)?;
    }
    Ok(())
}

fn open_file(path: &Path) -> Result<Database, DatabaseError> {
    Database::builder().set_cache_size(CACHE_BYTES).create(path)
}

fn why_not_open(path: PathBuf, folder: &Path, error: DatabaseError) -> RegistryError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => RegistryError::InUse { path },
        DatabaseError::Storage(StorageError::Corrupted(cause)) => {
            RegistryError::Corrupt { path, cause }
        }
        DatabaseError::Storage(StorageError::Io(error))
            if matches!(
                error.kind(),
                ErrorKind::InvalidData | ErrorKind::UnexpectedEof
            ) =>
        {
            RegistryError::Corrupt {
                path,
                cause: error.to_string(),
            }
        }
        DatabaseError::Storage(StorageError::Io(source)) => RegistryError::Folder {
            path: folder.to_owned(),
            source,
        },
        error => RegistryError::Corrupt {
            path,
            cause: error.to_string(),
        },
    }
}

/// Reads everything and begins a new term.
fn restore(transaction: &WriteTransaction) -> Result<Restored, Fault> {
    let generation = next_generation(&mut transaction.open_table(META)?)?;
    let cluster = cluster_name(&mut transaction.open_table(NAMES)?)?;
    let mut restored = Restored {
        cluster,
        generation,
        ..Restored::default()
    };
    for entry in transaction.open_table(FRAMEWORKS)?.iter()? {
        let record = read_framework(entry?.1.value()).map_err(Fault::Corrupt)?;
        restored.frameworks.push(record);
    }
    let mut completed = Vec::new();
    for entry in transaction.open_table(COMPLETED)?.iter()? {
        let (id, at_ms) = entry?;
        let id = FrameworkId::new(id.value()).map_err(|error| Fault::Corrupt(error.to_string()))?;
        completed.push((Timestamp::from_ms(at_ms.value()), id));
    }
    completed.sort();
    restored.completed = completed.into_iter().map(|(_, id)| id).collect();
    let activities = transaction.open_table(ACTIVITIES)?;
    for entry in transaction.open_table(AGENTS)?.iter()? {
        let (id, record) = entry?;
        let stored = activities.get(id.value())?.map(|stored| stored.value());
        let activity = read_activity(stored).map_err(Fault::Corrupt)?;
        let record = read_agent(record.value(), activity).map_err(Fault::Corrupt)?;
        restored.agents.push(record);
    }
    for entry in transaction.open_table(WEIGHTS)?.iter()? {
        let (role, weight_milli) = entry?;
        let role = Role::new(role.value()).map_err(|error| Fault::Corrupt(error.to_string()))?;
        restored.weights.push((role, weight_milli.value()));
    }
    for entry in transaction.open_table(QUOTAS)?.iter()? {
        let (role, quota) = entry?;
        let corrupt = |error: &dyn std::fmt::Display| Fault::Corrupt(error.to_string());
        let role = Role::new(role.value()).map_err(|error| corrupt(&error))?;
        let quota = Quota::from_bytes(quota.value()).map_err(|error| corrupt(&error))?;
        restored.quotas.push((role, quota));
    }
    for entry in transaction.open_table(LOT_LIMITS)?.iter()? {
        let (role, limits) = entry?;
        let corrupt = |error: &dyn std::fmt::Display| Fault::Corrupt(error.to_string());
        let role = Role::new(role.value()).map_err(|error| corrupt(&error))?;
        let limits = LotLimits::from_bytes(limits.value()).map_err(|error| corrupt(&error))?;
        restored.lot_limits.push((role, limits));
    }
    for entry in transaction.open_table(WINDOWS)?.iter()? {
        let window = Window::from_bytes(entry?.1.value());
        let window = window.map_err(|error| Fault::Corrupt(error.to_string()))?;
        restored.windows.push(window);
    }
    for entry in transaction.open_table(OPERATIONS)?.iter()? {
        let (key, record) = entry?;
        let record = read_operation(key.value().0, record.value()).map_err(Fault::Corrupt)?;
        restored.operations.push(record);
    }
    Ok(restored)
}

/// The key of a machine's window: neither an id nor a host name holds a slash.
fn window_key(machine: &Machine) -> String {
    match machine {
        Machine::Agent(id) => format!("agent/{id}"),
        Machine::Host(name) => format!("host/{name}"),
    }
}

fn next_generation(meta: &mut Table<'_, &'static str, u64>) -> Result<Generation, Fault> {
    let number = |meta: &Table<'_, &'static str, u64>, key| -> Result<Option<u64>, Fault> {
        Ok(meta.get(key)?.map(|value| value.value()))
    };
    match number(meta, FORMAT_KEY)? {
        None => {
            meta.insert(FORMAT_KEY, FORMAT)?;
        }
        Some(FORMAT) => {}
        Some(other) => return Err(Fault::Format(other)),
    }
    let generation = number(meta, GENERATION_KEY)?.unwrap_or(0).saturating_add(1);
    meta.insert(GENERATION_KEY, generation)?;
    Ok(Generation(generation))
}

fn cluster_name(names: &mut Table<'_, &'static str, &'static str>) -> Result<String, Fault> {
    if let Some(name) = names.get(CLUSTER_KEY)? {
        return Ok(name.value().to_owned());
    }
    // The standard library seeds its hashers from the system's source of randomness.
    let name = format!("{:012x}", RandomState::new().hash_one(FORMAT) >> 16);
    names.insert(CLUSTER_KEY, name.as_str())?;
    Ok(name)
}

#[cfg(test)]
mod tests;
