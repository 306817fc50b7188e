//! What the probe and the agent say to each other.
//!
//! The probe runs in the kernel and adds; the agent reads. They share nothing but the records of this crate, which
//! both compile: one for the bpf target, one for the machine. Every record is `#[repr(C)]`, has no padding (asserted
//! beside it) and is written by one side only, as its comment says.
//!
//! Units: nanoseconds and counts, absolute since the slot was handed out. But for [`Surge`]
//! and the moments of [`Traffic`], nothing here is ever reset while in use.
#![no_std]

#[cfg(test)]
extern crate std;

mod counters;
mod disks;
mod events;
pub mod name;
pub mod pacing;
mod registrations;
mod tasks;
mod traffic;

pub use counters::*;
pub use disks::*;
pub use events::*;
pub use registrations::*;
pub use tasks::*;
pub use traffic::*;
