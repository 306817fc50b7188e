//! What the agent serves: sandboxes, metrics and health over TCP; frameworks' own executors over a Unix
//! socket in the work folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use ebb_api::proto::executor_server::ExecutorServer;
use ebb_api::proto::sandbox_server::SandboxServer;
use ebb_types::limits::MAX_FRAME_BYTES;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tonic::service::Routes;

use crate::metrics::Metrics;

pub mod executor;
pub mod sandbox;

pub use executor::ExecutorService;
pub use sandbox::SandboxService;

/// The longest path of a Unix socket, in bytes.
pub const MAX_SOCKET_PATH_BYTES: usize = 107;

/// The executors' socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path is too long for the system.
    #[error(
        "the executors' socket {} would have a path of {} bytes, at most {MAX_SOCKET_PATH_BYTES} are possible; \
         use a shorter work folder (--work-dir)",
        path.display(), path.as_os_str().len()
    )]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot make the executors' socket {}: {source}", path.display())]
    Make {
        /// The path.
        path: PathBuf,
        /// What it answered.
        source: std::io::Error,
    },
}

/// Where frameworks' own executors find the agent.
pub fn socket_path(work_dir: &Path) -> PathBuf {
    work_dir.join("executors.sock")
}

/// Makes the executors' socket, which every account may connect to: executors run as any.
///
/// # Errors
/// [`SocketError`] says what to do.
pub fn listen_for_executors(path: &Path) -> Result<UnixListener, SocketError> {
    use std::os::unix::fs::PermissionsExt;
    if path.as_os_str().len() > MAX_SOCKET_PATH_BYTES {
        return Err(SocketError::TooLong {
            path: path.to_owned(),
        });
    }
    let failed = |source| SocketError::Make {
        path: path.to_owned(),
        source,
    };
    // The work folder is locked, so what stands there is of an earlier life.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
    Ok(listener)
}

/// Serves sandboxes, metrics and health until told to stop.
///
/// # Errors
/// The system's answer if the port cannot be served any more.
pub async fn serve_public(
    listener: TcpListener,
    sandboxes: SandboxService,
    metrics: Arc<Metrics>,
    stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let service = SandboxServer::new(sandboxes)
        .max_decoding_message_size(MAX_FRAME_BYTES)
        .max_encoding_message_size(MAX_FRAME_BYTES);
    let router = Routes::new(service)
        .into_axum_router()
        .merge(plain(metrics));
    axum::serve(listener, router)
        .with_graceful_shutdown(stopped(stop))
        .await
}

/// Serves frameworks' own executors until told to stop.
///
/// # Errors
/// The system's answer if the socket cannot be served any more.
pub async fn serve_executors(
    listener: UnixListener,
    executors: ExecutorService,
    stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let service = ExecutorServer::new(executors)
        .max_decoding_message_size(MAX_FRAME_BYTES)
        .max_encoding_message_size(MAX_FRAME_BYTES);
    let router = Routes::new(service).into_axum_router();
    axum::serve(listener, router)
        .with_graceful_shutdown(stopped(stop))
        .await
}

fn plain(metrics: Arc<Metrics>) -> Router {
    let text = move || {
        let text = metrics.render();
        async move {
            let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
            (kind, text).into_response()
        }
    };
    Router::new()
        .route("/metrics", get(text))
        .route("/health", get(|| async { (StatusCode::OK, "ok\n") }))
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // If nobody can say stop any more, it is time to stop.
    let _ = stop.wait_for(|stop| *stop).await;
}
