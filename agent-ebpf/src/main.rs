//! The probes: one object with a program for each tracepoint, and one that the agent runs when it reads.
//!
//! **Problem.** Say what each container uses and what it waits for, in all its tasks and in the cgroups that it makes
//! itself, at a price that nobody notices, without missing the tasks that live for a millisecond and those that never
//! leave the CPU.
//!
//! **Way.** The scheduler keeps exact accounts of every task: `se.sum_exec_runtime`, `sched_info`, `nvcsw`, faults. When
//! a task leaves a CPU, [`cpu`] charges its container with what the accounts have grown by since the task was last
//! charged, and notes with the task how far it has charged ([`storage`], freed with the task). It measures nothing
//! itself and reads no clock, so it agrees with the CPU controller by construction, also where the hypervisor steals
//! time, and needs no probe on wake-up: a task that died is charged at its last switch. A switch that the kernel does
//! not show to tracepoints (it happens) is made up for at the task's next one.
//!
//! - *Which slot?* It is looked up when a task comes, from the task's v2 cgroup ([`slot`]), and kept with the CPU until
//!   it goes. Each CPU remembers the cgroups that it saw last. Containers are known by the cgroup at their own depth,
//!   so cgroups made below are charged to them.
//! - *Who pushed it out?* The task that comes is known with its slot, and so is its class.
//! - *Whose fault is a wait?* The kernel accounts for each group and CPU how long a quota has held it back. What of a
//!   task's wait falls into such a hold is its container's own doing; see `own_part` in [`cpu`].
//! - *A task that does not leave?* `flush` charges it up to now. It runs on the task's CPU with interrupts or
//!   preemption off, so it never meets `sched_switch` half way, and nothing is counted twice. The scheduler's account
//!   of a running task is as old as the last tick. Where no tick has come since the reading before, the clock stands in
//!   for it, and what turns out to have been too much when the task leaves is kept with the slot (`ahead_ns`), whose
//!   later time pays for it.
//! - *A wait that was moved between CPUs?* The account of waits grows when a waiting task is moved, before it comes;
//!   since the state stands with the task, that is counted.
//! - *What belongs to no container* is charged from arrival to departure alone, without a note at the task: it is much,
//!   and nobody is billed for it.
//!
//! [`process`], [`memory`], [`block`] and [`network`] count what happens seldom, each at its own tracepoint; only
//! killed tasks send an event. [`plain`] is what is left of [`cpu`] on a kernel without BTF.
//!
//! - *Who cannot wait for the next reading?* An owner whose demand jumps; see [`surge`].
//! - *Who may not have all that it asks for?* A container whose traffic has a limit: [`pacing`] has its TCP sockets keep to
//!   it, and [`traffic`] drops what is beyond nonetheless. They are the only parts that do more than look.
//!
//! Rust's bpf target has no field relocations: the offsets of the kernel's fields come from the running kernel's BTF
//! as read-only globals, and the verifier checks each access against the same BTF.
//!
//! **Price.** A switch costs one local-storage look-up and some thirty loads and stores; `cargo xtask bench probe-cost`
//! tells the time.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod block;
mod cpu;
mod kernel;
mod memory;
mod network;
mod pacing;
mod plain;
mod process;
mod slot;
mod storage;
mod surge;
mod traffic;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
