//! Waiting for a descriptor on the event loop, in the one place that needs a word on safety.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor for readability.
///
/// # Errors
/// The system's answer if it cannot be awaited.
#[expect(
    deprecated,
    reason = "the constructors that replace it are `unsafe` only for types that may change their descriptor; \
              an `OwnedFd` keeps the one that it has until it is dropped, which unregisters it"
)]
pub fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}
