//! Plain HTTP: metrics and health, for machines that do not speak gRPC.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tonic::Status;

use crate::driver::Handle;
use crate::metrics::Metrics;
use crate::mirror::View;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `/metrics` and `/health`.
pub(super) fn routes(handle: Handle, metrics: Arc<Metrics>) -> Router {
    let for_health = handle.clone();
    Router::new()
        .route(
            "/metrics",
            get(move || show(handle.clone(), Arc::clone(&metrics))),
        )
        .route("/health", get(move || health(for_health.clone())))
}

async fn show(handle: Handle, metrics: Arc<Metrics>) -> Response {
    let gauges = handle.reads().make(View::gauges).await;
    let figures = handle.figures().await;
    match (figures, gauges) {
        (Ok(figures), Ok(gauges)) => {
            let text = metrics.render(&figures, &gauges);
            ([(header::CONTENT_TYPE, TEXT)], text).into_response()
        }
        (Err(stopped), _) | (_, Err(stopped)) => unavailable(stopped.to_string()),
    }
}

/// Healthy is a master whose driver answers.
async fn health(handle: Handle) -> Response {
    match handle.figures().await {
        Ok(_) => "ok\n".into_response(),
        Err(stopped) => unavailable(stopped.to_string()),
    }
}

/// What is not there, in the words of whoever asks.
pub(super) async fn nothing(headers: HeaderMap) -> Response {
    let content_type = headers.get(header::CONTENT_TYPE);
    if content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return Status::unimplemented("the master has no such service or method").into_http();
    }
    let message = "there is nothing here; the master serves gRPC, /metrics and /health\n";
    (StatusCode::NOT_FOUND, message).into_response()
}

fn unavailable(message: String) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, message + "\n").into_response()
}
