//! A framework that keeps a number of instances of one command running.

mod spec;

pub use spec::{InstanceStatus, ServiceConfig, ServiceError, ServiceReport, ServiceSpec, ServiceStatus};

use tokio::sync::watch;

/// Changes and observes a running service. Dropping the last handle does not stop it.
#[derive(Clone, Debug)]
pub struct ServiceHandle {
    status: watch::Receiver<ServiceStatus>,
}

impl ServiceHandle {
    /// What is to run from now on: another number of instances scales, another command or demand
    /// rolls over.
    ///
    /// # Errors
    /// When the specification is not valid; then nothing changes.
    pub fn set(&self, _spec: ServiceSpec) -> Result<(), ServiceError> {
        unimplemented!()
    }

    /// Ends every instance, then the framework.
    pub fn stop(&self) {
        unimplemented!()
    }

    /// Leaves the instances running and ends only this process' part: whoever comes back with the
    /// same state file within the failover timeout takes them over.
    pub fn detach(&self) {
        unimplemented!()
    }

    /// What runs; changes are seen as they happen.
    pub fn status(&self) -> watch::Receiver<ServiceStatus> {
        self.status.clone()
    }
}

/// Starts a service. The future runs it and ends after [`ServiceHandle::stop`] or `detach`.
///
/// # Errors
/// When the specification is not valid or the state file cannot be used.
pub fn start(
    _config: ServiceConfig,
    _spec: ServiceSpec,
) -> Result<
    (
        ServiceHandle,
        impl Future<Output = Result<ServiceReport, ServiceError>> + Send + 'static,
    ),
    ServiceError,
> {
    if true {
        unimplemented!()
    }
    #[allow(unreachable_code)]
    Ok((unimplemented!(), async { unimplemented!() }))
}
