//! The bpf system call, as far as the probes need it beyond loading: the same for programs and maps that were just
//! loaded and for those that were found pinned.
//!
//! Keys and values are the shared records, which are plain bytes ([`Record`]).

use std::ffi::{CStr, CString};
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ebb_agent_ebpf_common::{
    Current, IoCounters, IoKey, Levels, OomKill, OwnerKey, Registration, SlotCounters, Surge,
    Traffic, Trouble,
};

const MAP_LOOKUP: libc::c_int = 1;
const MAP_UPDATE: libc::c_int = 2;
const MAP_DELETE: libc::c_int = 3;
const PROGRAM_LOAD: libc::c_int = 5;
const OBJECT_PIN: libc::c_int = 6;
const OBJECT_GET: libc::c_int = 7;
const PROGRAM_ATTACH: libc::c_int = 8;
const PROGRAM_RUN: libc::c_int = 10;
const TRACEPOINT_OPEN: libc::c_int = 17;
const MAP_LOOKUP_BATCH: libc::c_int = 24;
const LINK_CREATE: libc::c_int = 28;

/// Run the program on the CPU that is named.
const RUN_ON_CPU: u32 = 1;
/// Entries of a hash that are read with one call.
const BATCH: u32 = 512;

/// A program that filters devices, and the place in a cgroup where such stand.
const DEVICE_FILTER: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
/// Attached beside those that stand there, and above and below.
const BESIDE_OTHERS: u32 = 2;

/// Packets that a cgroup's sockets receive.
pub const CGROUP_INGRESS: u32 = 0;
/// Packets that a cgroup's sockets send.
pub const CGROUP_EGRESS: u32 = 1;
/// What happens to the TCP sockets of a cgroup.
pub const CGROUP_SOCKETS: u32 = 3;

/// A value that the kernel and the probes may write and read as bytes.
///
/// # Safety
/// The type is `repr(C)` or a plain integer, without padding, and any bytes are a value.
pub unsafe trait Record: Copy {}

// SAFETY: `repr(C)` without padding (asserted beside their definition), of integers alone.
unsafe impl Record for SlotCounters {}
// SAFETY: as above.
unsafe impl Record for Current {}
// SAFETY: as above.
unsafe impl Record for Registration {}
// SAFETY: as above.
unsafe impl Record for OwnerKey {}
// SAFETY: as above.
unsafe impl Record for Levels {}
// SAFETY: as above.
unsafe impl Record for IoKey {}
// SAFETY: as above.
unsafe impl Record for IoCounters {}
// SAFETY: as above.
unsafe impl Record for Trouble {}
// SAFETY: as above.
unsafe impl Record for Surge {}
// SAFETY: as above.
unsafe impl Record for Traffic {}
// SAFETY: as above.
unsafe impl Record for OomKill {}
// SAFETY: an integer.
unsafe impl Record for u32 {}
// SAFETY: an integer.
unsafe impl Record for u64 {}

/// Arguments of commands on an element of a map.
#[repr(C)]
#[derive(Default)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Arguments of reading many elements of a map.
#[repr(C)]
#[derive(Default)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Arguments of commands on a pinned object.
#[repr(C)]
#[derive(Default)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Arguments of running a program.
#[repr(C)]
#[derive(Default)]
struct Run {
    program: u32,
    result: u32,
    sizes_in_out: [u32; 2],
    data_in_out: [u64; 2],
    repeat: u32,
    duration: u32,
    context_sizes: [u32; 2],
    context_in_out: [u64; 2],
    flags: u32,
    cpu: u32,
    batch: u32,
    pad: u32,
}

/// Arguments of attaching to a tracepoint.
#[repr(C)]
#[derive(Default)]
struct Tracepoint {
    name: u64,
    program: u32,
    pad: u32,
}

/// Arguments of attaching to a cgroup.
#[repr(C)]
#[derive(Default)]
struct Link {
    program: u32,
    target: u32,
    kind: u32,
    flags: u32,
}

/// Arguments of loading a program, as far as filters need them.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
}

/// Arguments of attaching to a cgroup for as long as that stands.
#[repr(C)]
#[derive(Default)]
struct Stay {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// One instruction of a program, as the kernel has it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    code: u8,
    /// The register that is changed in the lower half, the one that is read in the upper.
    registers: u8,
    offset: i16,
    number: i32,
}

impl Instruction {
    /// Puts one together.
    pub const fn new(code: u8, to: u8, from: u8, offset: i16, number: i32) -> Self {
        Self {
            code,
            registers: to | from << 4,
            offset,
            number,
        }
    }

    /// Its code, the register that it changes or compares, its offset and its number.
    #[cfg(test)]
    pub const fn parts(self) -> (u8, u8, i16, i32) {
        (self.code, self.registers & 0xf, self.offset, self.number)
    }
}

fn call<T>(command: libc::c_int, arguments: &mut T) -> io::Result<RawFd> {
    // SAFETY: the arguments are laid out as the kernel has them for this command, and what they point to outlives the
    // call; the kernel takes their size.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(arguments),
            size_of::<T>(),
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(answer).map_err(io::Error::other)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made it for this process, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn address<T>(of: &T) -> u64 {
    std::ptr::from_ref(of) as u64
}

/// Reads an element; `None` if there is none.
pub fn look_up<K: Record, V: Record>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = MaybeUninit::<V>::zeroed();
    let mut element = Element {
        map: number(map),
        key: address(key),
        value: value.as_mut_ptr() as u64,
        ..Element::default()
    };
    match call(MAP_LOOKUP, &mut element) {
        // SAFETY: zeroed, and the kernel has written the value; any bytes are one.
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes an element.
pub fn update<K: Record, V: Record>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let mut element = Element {
        map: number(map),
        key: address(key),
        value: address(value),
        ..Element::default()
    };
    call(MAP_UPDATE, &mut element).map(drop)
}

/// Removes an element; one that is gone already is well.
pub fn delete<K: Record>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let mut element = Element {
        map: number(map),
        key: address(key),
        ..Element::default()
    };
    match call(MAP_DELETE, &mut element) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

/// Reads all elements of a hash, many with one call.
pub fn all<K: Record, V: Record>(map: BorrowedFd<'_>) -> io::Result<Vec<(K, V)>> {
    let mut keys: Vec<MaybeUninit<K>> = vec![MaybeUninit::zeroed(); BATCH as usize];
    let mut values: Vec<MaybeUninit<V>> = vec![MaybeUninit::zeroed(); BATCH as usize];
    let mut found = Vec::new();
    let (mut from, mut to) = (0u64, 0u64);
    let mut first = true;
    loop {
        let mut batch = Batch {
            from: if first { 0 } else { address(&from) },
            to: std::ptr::from_mut(&mut to) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: BATCH,
            map: number(map),
            ..Batch::default()
        };
        let answer = call(MAP_LOOKUP_BATCH, &mut batch);
        let ended = match &answer {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(_) => return answer.map(|_| found),
        };
        let count = (batch.count.min(BATCH)) as usize;
        for (key, value) in keys.iter().zip(&values).take(count) {
            // SAFETY: zeroed, and the kernel has written so many; any bytes are a value.
            found.push(unsafe { (key.assume_init(), value.assume_init()) });
        }
        if ended {
            return Ok(found);
        }
        from = to;
        first = false;
    }
}

/// Runs a program on a CPU, with nothing as its context.
pub fn run_on(program: BorrowedFd<'_>, cpu: u32) -> io::Result<()> {
    let mut run = Run {
        program: number(program),
        flags: RUN_ON_CPU,
        cpu,
        ..Run::default()
    };
    call(PROGRAM_RUN, &mut run).map(drop)
}

/// Attaches a program to the raw tracepoint of this name, or to the BTF tracepoint that it was loaded for.
pub fn attach(program: BorrowedFd<'_>, tracepoint: Option<&CStr>) -> io::Result<OwnedFd> {
    let mut open = Tracepoint {
        name: tracepoint.map_or(0, |name| name.as_ptr() as u64),
        program: number(program),
        ..Tracepoint::default()
    };
    call(TRACEPOINT_OPEN, &mut open).map(owned)
}

/// Attaches a program to the packets or sockets of a cgroup and of those below, beside other programs.
pub fn attach_to_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    to: u32,
) -> io::Result<OwnedFd> {
    let mut link = Link {
        program: number(program),
        target: number(cgroup),
        kind: to,
        ..Link::default()
    };
    call(LINK_CREATE, &mut link).map(owned)
}

/// Loads a filter of devices.
pub fn load_device_filter(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let licence = c"Apache-2.0";
    let mut load = Load {
        kind: DEVICE_FILTER,
        count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr() as u64,
        licence: licence.as_ptr() as u64,
        ..Load::default()
    };
    call(PROGRAM_LOAD, &mut load).map(owned)
}

/// Attaches a filter of devices to a cgroup until that is removed.
pub fn attach_device_filter(filter: BorrowedFd<'_>, cgroup: BorrowedFd<'_>) -> io::Result<()> {
    let mut stay = Stay {
        target: number(cgroup),
        program: number(filter),
        kind: CGROUP_DEVICE,
        flags: BESIDE_OTHERS,
    };
    call(PROGRAM_ATTACH, &mut stay).map(drop)
}

fn path_of(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Keeps a program, map or link under a name on a bpf file system.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = path_of(path)?;
    let mut pin = Object {
        path: path.as_ptr() as u64,
        fd: number(object),
        ..Object::default()
    };
    call(OBJECT_PIN, &mut pin).map(drop)
}

/// Opens what was kept under a name.
pub fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = path_of(path)?;
    let mut get = Object {
        path: path.as_ptr() as u64,
        ..Object::default()
    };
    call(OBJECT_GET, &mut get).map(owned)
}
