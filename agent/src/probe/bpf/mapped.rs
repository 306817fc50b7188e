//! An array of the probes, mapped into the agent: read without a system call.

use std::io;
use std::marker::PhantomData;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

use super::sys::Record;

/// An array of records that the probes write while it is read. Each of a record's 8-byte counters is read whole; the
/// record as such may be read between two writes of one program.
pub struct Mapped<T: Record> {
    start: NonNull<T>,
    len: usize,
    bytes: usize,
    records: PhantomData<T>,
}

// SAFETY: the memory belongs to the map and to no thread.
unsafe impl<T: Record> Send for Mapped<T> {}

impl<T: Record> Mapped<T> {
    /// Maps an array of so many records.
    pub fn new(map: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let bytes = len * size_of::<T>();
        // SAFETY: a new mapping at a place that the kernel chooses.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self {
            start,
            len,
            bytes,
            records: PhantomData,
        })
    }

    /// The record at this place; `None` beyond the end.
    pub fn get(&self, index: usize) -> Option<T> {
        if index >= self.len {
            return None;
        }
        // SAFETY: within the mapping, aligned by the map. Volatile, since the probes write meanwhile.
        Some(unsafe { ptr::read_volatile(self.start.as_ptr().add(index)) })
    }

    /// Writes a record that no probe writes now; beyond the end nothing.
    pub fn set(&mut self, index: usize, record: T) {
        if index < self.len {
            // SAFETY: within the mapping, aligned by the map.
            unsafe { ptr::write_volatile(self.start.as_ptr().add(index), record) };
        }
    }

    /// Writes one of a record's counters, which probes may read and write meanwhile; beyond the end nothing.
    pub fn set_counter(&mut self, index: usize, counter: usize, value: u64) {
        let counters = size_of::<T>() / size_of::<u64>();
        if index < self.len && counter < counters {
            // SAFETY: within a record within the mapping, aligned since a record is made of 8-byte counters; any bytes
            // are a value of one. Volatile, since the probes read meanwhile.
            unsafe {
                let record = self.start.as_ptr().add(index).cast::<u64>();
                ptr::write_volatile(record.add(counter), value);
            }
        }
    }

    /// All records.
    pub fn iter(&self) -> impl Iterator<Item = T> + '_ {
        (0..self.len).filter_map(|index| self.get(index))
    }
}

impl<T: Record> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` and nothing points into it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
