//! Traffic with block devices, charged to who caused it.
//!
//! A request is known by its first piece of data. *Whose is it?* First by the cgroup that the kernel has put on it: that
//! of who asked, and with v2 also that of who dirtied a page which a kernel thread writes back. With v1 the kernel puts
//! no cgroup on what it writes back; then the page's owner counts, which the memory controller keeps with the page.
//!
//! Bytes and requests count when the device gets them, once for each request however often it goes back to the queue.
//! Not when it is done with them: there are kernels that show no tracepoint of an interrupt that has woken an idle CPU,
//! and one request in fifty was missed. Such a request lacks in the latencies alone. Devices that only pass requests on (loop,
//! device mapper) have requests of their own, so figures are kept apart by device.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap},
    macros::{btf_map, btf_tracepoint},
    programs::BtfTracePointContext,
};
use ebb_agent_ebpf_common::{DEFAULT_SLOTS, IoCounters, IoKey, Issued, UNMANAGED_SLOT, io_bucket};

use crate::{
    kernel::{self, Cgroup, RawCgroup, flag, global, load, now_ns, probe},
    slot::{add, place_of, place_of_raw, trouble},
};

/// Requests that devices have at a time.
const ISSUED_MAX: usize = 16_384;
/// Pairs of a container and a device, for each slot.
const DEVICES: usize = 4;
const LAZY: usize = BPF_F_NO_PREALLOC as usize;

/// Operations of a request; the others move no data between memory and the device.
const OP_MASK: u32 = 0xff;
const OP_READ: u32 = 0;
const OP_WRITE: u32 = 1;
/// What the kernel writes on a page beside the address of its owner.
const OWNER_FLAGS: u64 = 7;
/// Set if the page is the kernel's own, so that its owner is recorded otherwise.
const OWNER_INDIRECT: u64 = 3;

#[btf_map]
static IO: HashMap<IoKey, IoCounters, { DEFAULT_SLOTS as usize * DEVICES }, LAZY> = HashMap::new();

/// Counters of nothing, never written: too large for the stack.
#[btf_map]
static IO_FRESH: Array<IoCounters, 1> = Array::new();

#[btf_map]
static ISSUED: HashMap<u64, Issued, ISSUED_MAX, LAZY> = HashMap::new();

/// The device gets a request.
#[btf_tracepoint(function = "block_rq_issue")]
fn block_issue(ctx: BtfTracePointContext) -> i32 {
    let request = ctx.arg::<*mut u8>(0);
    if operation(request) > OP_WRITE {
        return 0;
    }
    let key = IoKey {
        stamp: owner(request),
        device: device(request),
    };
    let issued = Issued {
        at_ns: now_ns(),
        began_ns: load::<u64>(request, global(&kernel::REQUEST_START)),
        key,
    };
    let id = request as u64;
    // SAFETY: an entry is replaced only by the next request at this address, and freed only after this program.
    let again = match unsafe { ISSUED.get(&id) } {
        Some(before) => before.began_ns == issued.began_ns && issued.began_ns != 0,
        None => false,
    };
    if ISSUED.insert(id, issued, 0).is_err() {
        trouble(|trouble| &mut trouble.io_untracked);
    }
    // Made here and not at the end, so that what ends after its container is gone leaves nothing behind.
    // SAFETY: entries are removed only by the agent, and freed only after this program.
    if unsafe { IO.get(&key) }.is_none() {
        let Some(fresh) = IO_FRESH.get(0) else {
            return 0;
        };
        const ABSENT: u64 = 1;
        // Fails if another CPU has just made it, which is as well, or if there is no room.
        let _ = IO.insert(key, fresh, ABSENT);
        // SAFETY: as above.
        if unsafe { IO.get(&key) }.is_none() {
            trouble(|trouble| &mut trouble.io_untracked);
        }
    }
    if !again {
        count(&key, request);
    }
    0
}

/// Counts a request that the device has not had before.
#[inline(always)]
fn count(key: &IoKey, request: *mut u8) {
    let Some(counters) = IO.get_ptr_mut(key) else {
        return;
    };
    let bytes = u64::from(load::<u32>(request, global(&kernel::REQUEST_BYTES)));
    // SAFETY: a value of the map; its fields are only added to atomically.
    let counters = unsafe { &mut *counters };
    if operation(request) == OP_READ {
        add(&mut counters.read_bytes, bytes);
        add(&mut counters.read_count, 1);
    } else {
        add(&mut counters.write_bytes, bytes);
        add(&mut counters.write_count, 1);
    }
}

/// The device is done with a request, or with a part of it.
#[btf_tracepoint(function = "block_rq_complete")]
fn block_complete(ctx: BtfTracePointContext) -> i32 {
    let request = ctx.arg::<*mut u8>(0);
    let error = ctx.arg::<u64>(1) as u8;
    let bytes = u64::from(ctx.arg::<u64>(2) as u32);
    if operation(request) > OP_WRITE {
        return 0;
    }
    let id = request as u64;
    // SAFETY: entries are made before the request ends and removed only here.
    let Some(issued) = (unsafe { ISSUED.get(&id) }).copied() else {
        return 0;
    };
    let last = bytes >= u64::from(load::<u32>(request, global(&kernel::REQUEST_BYTES)));
    if last {
        // It can only fail if it is gone already.
        let _ = ISSUED.remove(&id);
    }
    let Some(counters) = IO.get_ptr_mut(&issued.key) else {
        return 0;
    };
    // SAFETY: a value of the map; its fields are only added to atomically.
    let counters = unsafe { &mut *counters };
    if error != 0 {
        add(&mut counters.errors, 1);
        return 0;
    }
    if last {
        latencies(counters, &issued);
    }
    0
}

#[inline(always)]
fn latencies(counters: &mut IoCounters, issued: &Issued) {
    let device_ns = now_ns().saturating_sub(issued.at_ns);
    add(&mut counters.device_ns, device_ns);
    if let Some(count) = counters.device_hist.get_mut(io_bucket(device_ns)) {
        add(count, 1);
    }
    if issued.began_ns == 0 {
        // The kernel keeps no accounts of this device.
        return;
    }
    let queue_ns = issued.at_ns.saturating_sub(issued.began_ns);
    add(&mut counters.queue_ns, queue_ns);
    if let Some(count) = counters.queue_hist.get_mut(io_bucket(queue_ns)) {
        add(count, 1);
    }
}

#[inline(always)]
fn operation(request: *mut u8) -> u32 {
    load::<u32>(request, global(&kernel::REQUEST_FLAGS)) & OP_MASK
}

/// The whole disk, as the kernel's `dev_t`.
#[inline(always)]
fn device(request: *mut u8) -> u64 {
    let queue = load::<*mut u8>(request, global(&kernel::REQUEST_QUEUE));
    let disk = load::<*mut u8>(queue, global(&kernel::QUEUE_DISK));
    let major = load::<u32>(disk, global(&kernel::DISK_MAJOR));
    let minor = load::<u32>(disk, global(&kernel::DISK_MINOR));
    (u64::from(major) << 20) | u64::from(minor)
}

/// The stamp of the container that has caused a request; 0 if none has. A pointer that is null reads as null.
#[inline(always)]
fn owner(request: *mut u8) -> u64 {
    let bio = load::<*mut u8>(request, global(&kernel::REQUEST_BIO));
    if flag(&kernel::HAS_BLKCG) {
        let group = load::<*mut u8>(bio, global(&kernel::BIO_GROUP));
        let blkcg = load::<*mut u8>(group, global(&kernel::GROUP_BLKCG));
        let cgroup = load::<*mut u8>(blkcg, global(&kernel::BLKCG_CGROUP));
        if let Some(cgroup) = Cgroup::from_pointer(cgroup) {
            let found = place_of(&cgroup, global(&kernel::IO_TREE));
            if found.slot != UNMANAGED_SLOT {
                return found.stamp;
            }
        }
    }
    if flag(&kernel::HAS_MEMCG) {
        let cgroup = page_owner(bio);
        if cgroup != 0 {
            let found = place_of_raw(RawCgroup(cgroup), global(&kernel::MEMORY_TREE));
            if found.slot != UNMANAGED_SLOT {
                return found.stamp;
            }
        }
    }
    0
}

/// The address of the cgroup that the first page of a request belongs to; 0 if the memory controller does not say.
#[inline(always)]
fn page_owner(bio: *mut u8) -> u64 {
    let pieces = load::<*mut u8>(bio, global(&kernel::BIO_PAGES));
    // The page is the first field of a piece.
    let page = load::<*mut u8>(pieces, 0) as u64;
    if page == 0 {
        return 0;
    }
    // A page of a larger unit points to the first one, which has the owner.
    let head = probe(page + global(&kernel::PAGE_HEAD));
    let page = if head & 1 == 1 { head - 1 } else { page };
    let owner = probe(page + global(&kernel::PAGE_MEMCG));
    if owner & OWNER_INDIRECT != 0 || owner == 0 {
        return 0;
    }
    probe((owner & !OWNER_FLAGS) + global(&kernel::MEMCG_CGROUP))
}
