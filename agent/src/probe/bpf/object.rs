//! Loading the probes' object into the kernel, and the ring buffer's reader. The only file that names aya.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::maps::{Map, MapData, RingBuf};
use aya::programs::{BtfTracePoint, CgroupSkb, ProgramError, RawTracePoint, SockOps};
use aya::sys::{Stats, enable_stats};
use aya::{Btf, Ebpf, EbpfLoader};
use ebb_agent_ebpf_common::{OomKill, PLACES, name};

use super::super::error::{ProbeError, access, chain};
use super::super::plan::{Attach, Hook, Part, Plan, Program};

/// So many of the verifier's last lines go into a message.
const VERIFIER_LINES: usize = 4;
/// Pairs of a container and a device, for each slot.
const DEVICES: u32 = 4;
/// Trees other than the v2 one in which a container stands.
const OWNERS: u32 = 2;

/// The probes, if they were built before this program.
pub fn built_in_object() -> Option<&'static [u8]> {
    #[cfg(ebb_probes)]
    return Some(aya::include_bytes_aligned!(env!("EBB_PROBES_BUILT")));
    #[cfg(not(ebb_probes))]
    return None;
}

/// What is in the kernel now, attached to nothing.
pub struct Loaded {
    /// By name.
    pub maps: BTreeMap<&'static str, OwnedFd>,
    /// By name.
    pub programs: BTreeMap<&'static str, OwnedFd>,
}

/// Possible CPUs.
pub fn possible_cpus() -> Result<usize, ProbeError> {
    aya::util::nr_cpus().map_err(|(path, error)| ProbeError::Load {
        cause: format!("{path}: {error}"),
    })
}

/// CPUs that are online.
pub fn online_cpus() -> Result<Vec<u32>, ProbeError> {
    aya::util::online_cpus().map_err(|(path, error)| ProbeError::Access {
        what: name::FLUSH,
        operation: "run on every CPU",
        cause: format!("{path}: {error}"),
    })
}

/// Makes the kernel keep account of the programs' run time while the answer is held; `None` where it does not.
pub fn account_run_time() -> Option<OwnedFd> {
    enable_stats(Stats::RunTime).ok()
}

/// Loads the maps and what the plan wants of the programs. A part that the kernel refuses is taken from the plan; if
/// that is the part without which there are no probes, it is the error.
pub fn load(
    object: &[u8],
    plan: &mut Plan,
    globals: &[(&'static str, u64)],
    slots: u32,
    cpus: u32,
) -> Result<Loaded, ProbeError> {
    let btf = match plan.attach {
        Attach::Btf(_) => Some(Btf::from_sys_fs().map_err(|error| load_error(&error))?),
        _ => None,
    };
    let mut ebpf = load_object(object, globals, slots, cpus, btf.as_ref())?;
    let mut programs = BTreeMap::new();
    let wanted: Vec<_> = plan
        .parts
        .iter()
        .filter(|part| part.off.is_none())
        .map(|part| (part.part, part.programs))
        .collect();
    for (part, of_part) in wanted {
        let mut loaded = BTreeMap::new();
        for program in of_part {
            match load_program(&mut ebpf, program, btf.as_ref()) {
                Ok(fd) => {
                    loaded.insert(program.name, fd);
                }
                Err(error) if part == Part::Cpu => return Err(error),
                Err(error) => {
                    plan.refuse(part, &error.to_string());
                    loaded.clear();
                    break;
                }
            }
        }
        programs.append(&mut loaded);
    }
    let mut maps = BTreeMap::new();
    for what in name::MAPS {
        let map = ebpf.map(what).ok_or(ProbeError::Missing { what })?;
        let data = data(map).ok_or(ProbeError::Missing { what })?;
        let fd = data.fd().as_fd().try_clone_to_owned();
        maps.insert(what, fd.map_err(|error| access(what, "kept", &error))?);
    }
    Ok(Loaded { maps, programs })
}

fn load_object(
    object: &[u8],
    globals: &[(&'static str, u64)],
    slots: u32,
    cpus: u32,
    btf: Option<&Btf>,
) -> Result<Ebpf, ProbeError> {
    let mut loader = EbpfLoader::new();
    loader.btf(btf).allow_unsupported_maps();
    let sizes = [
        (name::COUNTERS, slots * cpus),
        (name::QUOTA_WATCH, slots * cpus),
        (name::CURRENT, cpus),
        (name::PLACE_CACHE, cpus * PLACES),
        (name::REGISTRY, slots),
        (name::OWNERS, slots * OWNERS),
        (name::IO, slots * DEVICES),
        (name::SURGES, slots),
        (name::TRAFFIC, slots),
    ];
    for (map, size) in sizes {
        loader.map_max_entries(map, size);
    }
    for (name, value) in globals {
        loader.override_global(name, value, true);
    }
    loader.load(object).map_err(|error| load_error(&error))
}

fn load_program(
    ebpf: &mut Ebpf,
    program: &Program,
    btf: Option<&Btf>,
) -> Result<OwnedFd, ProbeError> {
    let what = program.name;
    let missing = || ProbeError::Missing { what };
    let found = ebpf.program_mut(what).ok_or_else(missing)?;
    let loaded = match program.hook {
        Hook::Tracepoint(tracepoint) => {
            let btf = btf.ok_or_else(missing)?;
            let one: &mut BtfTracePoint = found.try_into().map_err(|_| missing())?;
            one.load(tracepoint, btf)
        }
        Hook::Raw(_) | Hook::Run => {
            let one: &mut RawTracePoint = found.try_into().map_err(|_| missing())?;
            one.load()
        }
        Hook::PacketsIn | Hook::PacketsOut => {
            let one: &mut CgroupSkb = found.try_into().map_err(|_| missing())?;
            one.load()
        }
        Hook::Sockets => {
            let one: &mut SockOps = found.try_into().map_err(|_| missing())?;
            one.load()
        }
    };
    loaded.map_err(|error| refused(what, &error))?;
    let program = ebpf.program(what).ok_or_else(missing)?;
    let fd = program.fd().map_err(|error| refused(what, &error))?;
    let fd = fd.as_fd().try_clone_to_owned();
    fd.map_err(|error| access(what, "kept", &error))
}

fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::RingBuf(data)
        | Map::SkStorage(data)
        | Map::Unsupported(data) => Some(data),
        _ => None,
    }
}

/// What wakes the agent before the next reading is due.
pub struct Alerts {
    ring: RingBuf<MapData>,
    fd: OwnedFd,
}

impl Alerts {
    /// Reads from this ring buffer.
    pub fn new(map: OwnedFd) -> Result<Self, ProbeError> {
        let what = name::ALERTS;
        let fd = map
            .try_clone()
            .map_err(|error| access(what, "kept", &error))?;
        let data = MapData::from_fd(map).map_err(|error| access(what, "read", &error))?;
        let ring = RingBuf::try_from(Map::RingBuf(data));
        let ring = ring.map_err(|error| access(what, "read", &error))?;
        Ok(Self { ring, fd })
    }

    /// Readable while there is an alert.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// How many there are since the last call.
    pub fn take(&mut self) -> u64 {
        let mut count = 0;
        while self.ring.next().is_some() {
            count += 1;
        }
        count
    }
}

/// Reads the events.
pub struct Events(RingBuf<MapData>);

impl Events {
    /// Reads from this ring buffer.
    pub fn new(map: OwnedFd) -> Result<Self, ProbeError> {
        let what = name::EVENTS;
        let data = MapData::from_fd(map).map_err(|error| access(what, "read", &error))?;
        let ring = RingBuf::try_from(Map::RingBuf(data));
        Ok(Self(ring.map_err(|error| access(what, "read", &error))?))
    }

    /// The next event, if there is one that is whole.
    pub fn next(&mut self) -> Option<OomKill> {
        let item = self.0.next()?;
        let word = |at: usize| {
            let bytes = item.get(at..at + 8)?;
            Some(u64::from_ne_bytes(bytes.try_into().ok()?))
        };
        let half = |at: usize| {
            let bytes = item.get(at..at + 4)?;
            Some(u32::from_ne_bytes(bytes.try_into().ok()?))
        };
        Some(OomKill {
            stamp: word(0)?,
            at_ns: word(8)?,
            pid: half(16)?,
            asked_by: half(20)?,
        })
    }
}

fn load_error(error: &dyn std::error::Error) -> ProbeError {
    ProbeError::Load {
        cause: chain(error),
    }
}

fn refused(program: &'static str, error: &ProgramError) -> ProbeError {
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    else {
        return ProbeError::Refused {
            program,
            cause: chain(error),
            verifier: "none".to_owned(),
        };
    };
    ProbeError::Refused {
        program,
        cause: io_error.to_string(),
        verifier: last_lines(&verifier_log.to_string()),
    }
}

/// The end of the verifier's log in one line; its closing statistics say nothing of the cause.
fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log
        .lines()
        .map(str::trim)
        .filter(|line| {
            !line.is_empty()
                && !line.starts_with("processed ")
                && !line.contains("stack depth")
                && !line.starts_with("verification time")
        })
        .collect();
    lines[lines.len().saturating_sub(VERIFIER_LINES)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_last_words_are_the_cause_and_not_its_statistics() {
        let log = "0: (79) r6 = *(u64 *)(r1 +0)\n1: x\n2: y\n3: z\nR2 invalid mem access 'scalar'\n\
                   processed 5 insns (limit 1000000) max_states_per_insn 0\nverification time 9 usec\nstack depth 0\n\n";
        assert_eq!(
            last_lines(log),
            "1: x | 2: y | 3: z | R2 invalid mem access 'scalar'"
        );
        assert_eq!(last_lines(""), "");
    }

    #[test]
    fn an_object_of_nonsense_is_refused_in_a_sentence() {
        let Err(error) = load_object(b"not an object", &[], 2, 1, None) else {
            panic!("nonsense was loaded");
        };
        assert!(matches!(error, ProbeError::Load { .. }), "{error}");
        assert!(error.to_string().contains("build-ebpf"), "{error}");
    }
}
