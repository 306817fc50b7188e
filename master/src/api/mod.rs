//! The master's API: gRPC and plain HTTP on one port. Decodes into the core's vocabulary, encodes
//! out of it, and nothing else.
//!
//! Every stream has two halves: a task that reads, and the answer that the peer reads. When either
//! ends the other does too, and the driver is told.

mod agent_link;
mod http;
mod operator;
mod scheduler;
mod stream;

use std::sync::Arc;

use axum::Router;
use ebb_api::proto::agent_link_server::AgentLinkServer;
use ebb_api::proto::operator_server::OperatorServer;
use ebb_api::proto::scheduler_server::SchedulerServer;
use ebb_types::limits::MAX_FRAME_BYTES;
use tonic::Status;
use tonic::service::Routes;

use crate::driver::{Cut, Handle, Stopped};
use crate::metrics::Metrics;

/// Everything that the master serves.
pub(crate) fn router(handle: &Handle, metrics: Arc<Metrics>) -> Router {
    let scheduler = SchedulerServer::new(scheduler::Service(handle.clone()))
        .max_decoding_message_size(MAX_FRAME_BYTES)
        .max_encoding_message_size(MAX_FRAME_BYTES);
    let link = AgentLinkServer::new(agent_link::Service(handle.clone()))
        .max_decoding_message_size(MAX_FRAME_BYTES)
        .max_encoding_message_size(MAX_FRAME_BYTES);
    let operator = OperatorServer::new(operator::Service(handle.clone()))
        .max_decoding_message_size(MAX_FRAME_BYTES)
        .max_encoding_message_size(operator::MAX_STATE_BYTES);
    Routes::new(scheduler)
        .add_service(link)
        .add_service(operator)
        .into_axum_router()
        .merge(http::routes(handle.clone(), metrics))
        .fallback(http::nothing)
}

fn stopped(stopped: Stopped) -> Status {
    Status::unavailable(stopped.to_string())
}

fn cut_status(cut: Cut) -> Status {
    match cut {
        Cut::Slow(reason) => Status::resource_exhausted(reason),
        Cut::Closed(reason) => Status::aborted(reason),
    }
}
