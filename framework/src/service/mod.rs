//! A framework that keeps a number of instances of one command running: it restarts what ends with
//! growing waits, spreads instances over agents, scales and rolls over at run time, and moves them from agents that
//! will be out of use.

mod core;
mod leaving;
mod roll;
mod spec;
mod store;
#[cfg(test)]
mod tests;

pub use spec::{
    InstanceStatus, ServiceConfig, ServiceError, ServiceReport, ServiceSpec, ServiceStatus,
};

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use self::core::{Orders, Service};
use self::spec::{FAILOVER_MS, FAILOVER_WITHOUT_STATE_MS};
use self::store::{FileStore, NoStore, Saved, Store};
use crate::scheduler::{Driver, DriverError, Handle, SchedulerConfig};

/// Changes and observes a running service. Dropping the last handle does not stop it.
#[derive(Clone, Debug)]
pub struct ServiceHandle {
    orders: Arc<Mutex<Orders>>,
    driver: Arc<Mutex<Handle>>,
    status: watch::Receiver<ServiceStatus>,
}

impl ServiceHandle {
    /// What is to run from now on: another number of instances scales, another command or demand
    /// rolls over.
    ///
    /// # Errors
    /// When the specification is not valid; then nothing changes.
    pub fn set(&self, spec: ServiceSpec) -> Result<(), ServiceError> {
        spec.check()?;
        self.order(|orders| orders.spec = Some(spec));
        Ok(())
    }

    /// Ends every instance, then the framework.
    pub fn stop(&self) {
        self.order(|orders| orders.stop = true);
    }

    /// Leaves the instances running and ends only this process' part: whoever comes back with the
    /// same state file within the failover timeout takes them over.
    pub fn detach(&self) {
        self.order(|orders| orders.detach = true);
    }

    /// What runs; changes are seen as they happen.
    pub fn status(&self) -> watch::Receiver<ServiceStatus> {
        self.status.clone()
    }

    fn order(&self, order: impl FnOnce(&mut Orders)) {
        order(&mut self.orders.lock().unwrap_or_else(PoisonError::into_inner));
        let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        driver.wake();
    }
}

/// Starts a service. The future runs it and ends after [`ServiceHandle::stop`] or `detach`.
///
/// # Errors
/// When the specification is not valid or the state file cannot be used.
pub fn start(
    config: ServiceConfig,
    spec: ServiceSpec,
) -> Result<
    (
        ServiceHandle,
        impl Future<Output = Result<ServiceReport, ServiceError>> + Send + 'static,
    ),
    ServiceError,
> {
    spec.check()?;
    let (store, saved): (Box<dyn Store>, Saved) = match &config.state {
        Some(path) => {
            let (store, saved) = FileStore::open(path)?;
            (Box::new(store), saved)
        }
        None => (Box::new(NoStore), Saved::default()),
    };
    let orders = Arc::new(Mutex::new(Orders::default()));
    let (sender, status) = watch::channel(ServiceStatus {
        wanted: spec.instances,
        ..ServiceStatus::default()
    });
    let service = Service::new(
        &config.name,
        spec,
        Arc::clone(&orders),
        store,
        saved,
        sender,
    )
    .map_err(|source| ServiceError::SavedId {
        path: config.state.clone().unwrap_or_default(),
        source,
    })?;
    let driver = drive(service, &config);
    let handle = ServiceHandle {
        orders,
        driver: Arc::new(Mutex::new(driver.handle())),
        status,
    };
    let current = Arc::clone(&handle.driver);
    Ok((handle, run(driver, config, current)))
}

fn drive(service: Service, config: &ServiceConfig) -> Driver<Service> {
    let mut scheduler = SchedulerConfig::new(config.masters.clone(), &config.name);
    scheduler.info.roles = vec![config.role.clone()];
    scheduler.info.user.clone_from(&config.user);
    scheduler.info.failover_timeout_ms = if config.state.is_some() {
        FAILOVER_MS
    } else {
        FAILOVER_WITHOUT_STATE_MS
    };
    scheduler.timing.give_up_after_ms = config.give_up_after_ms;
    let scheduler = scheduler.resuming(service.framework_id().cloned());
    Driver::new(service, scheduler)
}

async fn run(
    mut driver: Driver<Service>,
    config: ServiceConfig,
    current: Arc<Mutex<Handle>>,
) -> Result<ServiceReport, ServiceError> {
    loop {
        let (mut service, result) = driver.run_to_end().await;
        match result {
            Ok(()) => return Ok(service.report()),
            Err(DriverError::Refused { message }) if service.is_left_behind() => {
                tracing::warn!(%message, "the service's earlier framework is gone with its instances; it starts anew");
                service.forget_framework();
                driver = drive(service, &config);
                let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
                *current = driver.handle();
                // An order may have come between the two drivers.
                current.wake();
            }
            Err(error) => return Err(error.into()),
        }
    }
}
