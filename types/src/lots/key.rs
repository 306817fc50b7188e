//! What a lot is: its name, for whom it is reserved, and which disk it is.

use std::cmp::Ordering;
use std::fmt;

use crate::ids::Role;
use crate::limits::{
    MAX_LOT_PATH_BYTES, MAX_LOT_TEXT_BYTES, MAX_RESERVATION_LABELS, MAX_RESERVATIONS,
};
use crate::quantities::ResourceKind;

/// The name of GPUs, which are offered whole.
pub const GPUS: &str = "gpus";

/// Who has bound a lot to a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReservationKind {
    /// The agent's settings.
    Static,
    /// A framework or an operator.
    Dynamic,
}

/// That a lot is bound to a role.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reservation {
    /// Who may be offered it: frameworks in this role or one below it.
    pub role: Role,
    /// How it came about.
    pub kind: ReservationKind,
    /// Who made it; empty if that is not said.
    pub principal: String,
    /// Free tags.
    pub labels: Vec<(String, String)>,
}

/// Where a disk comes from, when it is not the disk of the agent's work folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DiskSource {
    /// A folder of a disk that is shared with others.
    Path {
        /// The folder.
        root: String,
    },
    /// A disk of its own, which is offered whole.
    Mount {
        /// Where it is mounted.
        root: String,
    },
    /// A device.
    Block {
        /// Names it.
        id: String,
        /// What kind of device it is.
        profile: String,
    },
    /// Storage that is no disk yet.
    Raw {
        /// Names it.
        id: String,
        /// What kind of storage it is.
        profile: String,
    },
}

/// Whether a volume may be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VolumeMode {
    /// It may.
    #[default]
    ReadWrite,
    /// It may be read only.
    ReadOnly,
}

/// Disk space that keeps what is written to it.
///
/// Two are the same if their ids and makers are: path and mode say how one user sees it.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Names it among the volumes of its role on the agent.
    pub id: String,
    /// Who made it; empty if that is not said.
    pub principal: String,
    /// Where a task finds it, from its sandbox on.
    pub container_path: String,
    /// Whether a task may write it.
    pub mode: VolumeMode,
}

impl Volume {
    fn identity(&self) -> (&str, &str) {
        (&self.id, &self.principal)
    }
}

impl PartialEq for Volume {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Volume {}

impl PartialOrd for Volume {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Volume {
    fn cmp(&self, other: &Self) -> Ordering {
        self.identity().cmp(&other.identity())
    }
}

/// Which disk a lot of disk space is of, and which volume on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disk {
    /// Unset for the disk of the agent's work folder.
    pub source: Option<DiskSource>,
    /// Unset for space without a volume.
    pub volume: Option<Volume>,
}

/// What a lot is. Lots of the same key add up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LotKey {
    /// The kind of resource: a name of [`ResourceKind`] or any other.
    pub name: String,
    /// Whom it is reserved for, from the top of the tree of roles down; the last one counts.
    pub reservations: Vec<Reservation>,
    /// Set for disk space that is more than an amount.
    pub disk: Option<Box<Disk>>,
    /// Whether it may be offered to, and used by, several at once. Volumes only.
    pub shared: bool,
}

/// Why something is no lot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidLot(pub String);

impl InvalidLot {
    pub(crate) fn new(rule: impl Into<String>) -> Self {
        Self(rule.into())
    }
}

impl LotKey {
    /// An unreserved lot of that name.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            reservations: Vec::new(),
            disk: None,
            shared: false,
        }
    }

    /// The kind of quantity that it is an amount of, if it is one.
    pub fn kind(&self) -> Option<ResourceKind> {
        ResourceKind::from_name(&self.name).ok()
    }

    /// Whether it is nothing but an amount of a [`ResourceKind`], so that it belongs into
    /// [`Quantities`](crate::Quantities).
    pub fn is_plain(&self) -> bool {
        self.reservations.is_empty() && self.disk.is_none() && self.kind().is_some()
    }

    /// The role that it is reserved for.
    pub fn role(&self) -> Option<&Role> {
        self.reservations.last().map(|last| &last.role)
    }

    /// Where its disk comes from.
    pub fn source(&self) -> Option<&DiskSource> {
        self.disk.as_ref()?.source.as_ref()
    }

    /// The volume that it is.
    pub fn volume(&self) -> Option<&Volume> {
        self.disk.as_ref()?.volume.as_ref()
    }

    /// Whether it may be offered and used as a whole only.
    pub fn is_whole(&self) -> bool {
        self.volume().is_some() || !matches!(self.source(), None | Some(DiskSource::Path { .. }))
    }

    /// Whether it is something that frameworks or operators have made out of what the agent has.
    pub fn is_dynamic(&self) -> bool {
        let is_dynamic = |one: &Reservation| one.kind == ReservationKind::Dynamic;
        self.volume().is_some() || self.reservations.iter().any(is_dynamic)
    }

    /// What it was made out of: without volume and dynamic reservations.
    #[must_use]
    pub fn base(&self) -> Self {
        let mut base = self.without_volume();
        base.reservations
            .retain(|one| one.kind == ReservationKind::Static);
        base
    }

    /// The same space without its volume.
    #[must_use]
    pub fn without_volume(&self) -> Self {
        let source = self.source().cloned();
        Self {
            name: self.name.clone(),
            reservations: self.reservations.clone(),
            disk: source.map(|source| {
                Box::new(Disk {
                    source: Some(source),
                    volume: None,
                })
            }),
            shared: false,
        }
    }

    /// Holds the key against the rules for all of them.
    ///
    /// # Errors
    /// [`InvalidLot`] says which rule it breaks.
    pub fn check(&self) -> Result<(), InvalidLot> {
        let name = &self.name;
        let forbidden = |c: char| c.is_control() || c.is_whitespace() || ":;,()[]{}".contains(c);
        if name.is_empty() || name.len() > MAX_LOT_TEXT_BYTES || name.contains(forbidden) {
            return Err(InvalidLot::new(format!(
                "a resource has 1 to {MAX_LOT_TEXT_BYTES} bytes of a name without white space and :;,()[]{{}}; rename it"
            )));
        }
        if self.disk.is_some() && self.kind() != Some(ResourceKind::Disk) {
            return Err(InvalidLot::new(format!(
                "{name} says which disk it is of, but only disk can; leave that out"
            )));
        }
        if self
            .disk
            .as_deref()
            .is_some_and(|disk| *disk == Disk::default())
        {
            return Err(InvalidLot::new(
                "a disk has neither a source nor a volume; leave it out",
            ));
        }
        if self.shared && self.volume().is_none() {
            return Err(InvalidLot::new(format!(
                "{name} is to be shared, but only volumes can be; leave that out"
            )));
        }
        self.check_reservations()?;
        self.source().map_or(Ok(()), check_source)?;
        match self.volume() {
            Some(_) if self.reservations.is_empty() => Err(InvalidLot::new(
                "a volume is on disk space that nobody has reserved; reserve it first",
            )),
            Some(volume) => check_volume(volume),
            None => Ok(()),
        }
    }

    fn check_reservations(&self) -> Result<(), InvalidLot> {
        let stack = &self.reservations;
        if stack.len() > MAX_RESERVATIONS {
            return Err(InvalidLot::new(format!(
                "{} has {} reservations on top of each other; at most {MAX_RESERVATIONS} are allowed",
                self.name,
                stack.len()
            )));
        }
        for (at, one) in stack.iter().enumerate() {
            if one.role.as_str() == "*" {
                return Err(InvalidLot::new(
                    "nothing can be reserved for the role *; name another one",
                ));
            }
            let labels = one.labels.iter().flat_map(|(key, value)| [key, value]);
            let mut texts = labels.chain([&one.principal]);
            let is_bad = |text: &String| text.len() > MAX_LOT_TEXT_BYTES || text.contains('\0');
            if one.labels.len() > MAX_RESERVATION_LABELS || texts.any(is_bad) {
                return Err(InvalidLot::new(format!(
                    "a reservation has at most {MAX_RESERVATION_LABELS} labels, and these and its principal at most {MAX_LOT_TEXT_BYTES} bytes"
                )));
            }
            let Some(above) = at.checked_sub(1).map(|above| &stack[above]) else {
                continue;
            };
            if one.role == above.role || !one.role.is_within(&above.role) {
                return Err(InvalidLot::new(format!(
                    "a reservation for {} stands on one for {}; reserve it for a role below that",
                    one.role, above.role
                )));
            }
            if one.kind == ReservationKind::Static {
                return Err(InvalidLot::new(
                    "a static reservation stands on another one; only the first can be static",
                ));
            }
        }
        Ok(())
    }
}

fn check_path(what: &str, path: &str) -> Result<(), InvalidLot> {
    let is_bad = path.is_empty()
        || path.len() > MAX_LOT_PATH_BYTES
        || path.contains(|c: char| c.is_control() || ":;,()[]{}".contains(c))
        || path.split('/').any(|part| part == "..");
    if is_bad {
        return Err(InvalidLot::new(format!(
            "{what} has 1 to {MAX_LOT_PATH_BYTES} bytes of a path without '..', control characters and :;,()[]{{}}"
        )));
    }
    Ok(())
}

fn check_source(source: &DiskSource) -> Result<(), InvalidLot> {
    match source {
        DiskSource::Path { root } | DiskSource::Mount { root } => {
            check_path("the root of a disk", root)?;
            if !root.starts_with('/') {
                return Err(InvalidLot::new("the root of a disk must begin with '/'"));
            }
            Ok(())
        }
        DiskSource::Block { id, profile } | DiskSource::Raw { id, profile } => {
            let is_bad = |text: &String| {
                text.len() > MAX_LOT_TEXT_BYTES
                    || text.contains(|c: char| c.is_control() || ":;,()[]{}".contains(c))
            };
            if is_bad(id) || is_bad(profile) {
                return Err(InvalidLot::new(format!(
                    "id and profile of a disk have at most {MAX_LOT_TEXT_BYTES} bytes without control characters and :;,()[]{{}}"
                )));
            }
            Ok(())
        }
    }
}

fn check_volume(volume: &Volume) -> Result<(), InvalidLot> {
    let id = &volume.id;
    let forbidden = |c: char| c.is_control() || c.is_whitespace() || "/\\:;,()[]{}".contains(c);
    if id.is_empty()
        || id.len() > MAX_LOT_TEXT_BYTES
        || matches!(id.as_str(), "." | "..")
        || id.contains(forbidden)
    {
        return Err(InvalidLot::new(format!(
            "a volume's id has 1 to {MAX_LOT_TEXT_BYTES} bytes without white space, '/', '\\' and :;,()[]{{}}, and is not '.' or '..'"
        )));
    }
    if volume.principal.len() > MAX_LOT_TEXT_BYTES || volume.principal.contains('\0') {
        return Err(InvalidLot::new(format!(
            "the principal of volume {id} has more than {MAX_LOT_TEXT_BYTES} bytes or a NUL byte"
        )));
    }
    check_path(
        &format!("the container path of volume {id}"),
        &volume.container_path,
    )?;
    let is_bad = |part: &str| part.is_empty() || part == ".";
    if volume.container_path.split('/').any(is_bad) {
        return Err(InvalidLot::new(format!(
            "the container path of volume {id} must lead from the sandbox on, like data or a/b; neither absolute nor with empty parts"
        )));
    }
    Ok(())
}

impl fmt::Display for DiskSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path { root } => write!(f, "path:{root}"),
            Self::Mount { root } => write!(f, "mount:{root}"),
            Self::Block { id, profile } => write!(f, "block:{id}:{profile}"),
            Self::Raw { id, profile } => write!(f, "raw:{id}:{profile}"),
        }
    }
}

/// `name(role,role)[source][volume:path:ro]<shared>`, as far as there is any of it.
impl fmt::Display for LotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (at, one) in self.reservations.iter().enumerate() {
            let before = if at == 0 { "(" } else { "," };
            write!(f, "{before}{}", one.role)?;
        }
        if !self.reservations.is_empty() {
            f.write_str(")")?;
        }
        if let Some(source) = self.source() {
            write!(f, "[{source}]")?;
        }
        if let Some(volume) = self.volume() {
            let mode = match volume.mode {
                VolumeMode::ReadWrite => "",
                VolumeMode::ReadOnly => ":ro",
            };
            write!(f, "[{}:{}{mode}]", volume.id, volume.container_path)?;
        }
        f.write_str(if self.shared { "<shared>" } else { "" })
    }
}
