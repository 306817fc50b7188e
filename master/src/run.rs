//! The whole master, from its configuration to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::api;
use crate::config::Config;
use crate::core::CoreConfig;
use crate::driver::{Driver, DriverConfig, DriverError};
use crate::metrics::Metrics;
use crate::store::{Embedded, RegistryError};

/// How long connections may take to end at a shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a master cannot start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// Its port cannot be had.
    #[error(
        "the master cannot listen on {address}; end whatever uses that port (`ss -ltnp`), or choose another with --listen"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Its registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Its driver.
    #[error(transparent)]
    Driver(DriverError),
    /// Its metrics.
    #[error("the metrics cannot be set up; this is a fault in Ebb")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// Its server failed.
    #[error("the server failed; start the master again")]
    Serve(#[source] std::io::Error),
}

impl From<DriverError> for MasterError {
    fn from(error: DriverError) -> Self {
        match error {
            DriverError::Registry(error) => Self::Registry(error),
            error => Self::Driver(error),
        }
    }
}

/// Runs a master until `shutdown` resolves. `ready` is told the address once it can be connected to.
///
/// # Errors
/// [`MasterError`]: the port, the data folder or the registry cannot be used, or failed later.
pub async fn run(
    config: Config,
    ready: impl FnOnce(SocketAddr) + Send,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), MasterError> {
    let refused = |source: std::io::Error| MasterError::Listen {
        address: config.listen,
        source,
    };
    let listener = TcpListener::bind(config.listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let registry = Embedded::open(&config.data_dir)?;
    let core = CoreConfig {
        hostname: config.hostname.clone(),
        port: address.port(),
        ..config.core.clone()
    };
    let driver_config = DriverConfig {
        core,
        allocator_threads: config.allocator_threads,
        outbox_limit: config.outbox_limit,
    };
    let (driver, handle) = Driver::start(driver_config, Box::new(registry))?;
    let metrics = Arc::new(Metrics::new()?);
    let router = api::router(&handle, metrics);
    drop(handle);
    let (stop, stopped) = watch::channel(());
    let server = tokio::spawn(
        axum::serve(
            listener.tap_io(|stream| {
                // Without it small messages wait for each other; a peer that is gone already shows
                // itself when it is read.
                let _unset = stream.set_nodelay(true).is_err();
            }),
            router,
        )
        .with_graceful_shutdown(until_dropped(stopped))
        .into_future(),
    );
    tracing::info!(%address, "the master listens");
    ready(address);
    let ended = driver.run(shutdown).await;
    // The driver's end has ended every stream, so the server drains at once; a peer that does not
    // even read that is not waited for.
    drop(stop);
    let abort = server.abort_handle();
    match tokio::time::timeout(DRAIN_TIMEOUT, server).await {
        Ok(Ok(served)) => served.map_err(MasterError::Serve)?,
        Ok(Err(join)) => return Err(MasterError::Serve(std::io::Error::other(join))),
        Err(_elapsed) => {
            tracing::warn!("connections that do not end are dropped");
            abort.abort();
        }
    }
    Ok(ended?)
}

async fn until_dropped(mut stopped: watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
}
