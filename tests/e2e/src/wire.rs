//! What tests say to the daemons themselves, past `ebb`: plain HTTP, and gRPC by hand.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use ebb_api::proto::StateRequest;
use ebb_api::proto::operator_client::OperatorClient;
use ebb_types::ClusterState;
use tonic::transport::Channel;

use crate::PATIENCE;

/// The largest state that a test reads, in bytes.
const MAX_STATE_BYTES: usize = 64 << 20;

/// Runs a future to its end on a runtime of its own. What the future has spawned goes on while it blocks.
///
/// # Panics
/// When the runtime cannot be made.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// The body that a daemon answers to a plain GET.
///
/// # Errors
/// When it cannot be reached, or answers with anything but 200.
pub fn try_get(address: SocketAddr, path: &str) -> Result<String, String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|e| e.to_string())?;
    let timeout = Some(PATIENCE);
    stream
        .set_read_timeout(timeout)
        .map_err(|e| e.to_string())?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .map_err(|e| e.to_string())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(|e| e.to_string())?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(answer),
    }
}

/// The same where it must succeed.
///
/// # Panics
/// When it does not.
pub fn get(address: SocketAddr, path: &str) -> String {
    try_get(address, path).unwrap_or_else(|error| panic!("GET {path} of {address}: {error}"))
}

/// The sum of a metric's series whose labels hold all of the given texts; none if there is no such series.
pub fn metric(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let series = text.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '{']))
            && labels.iter().all(|label| line.contains(label))
    });
    let values: Vec<f64> = series
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// A channel to a daemon.
///
/// # Errors
/// When it cannot be reached.
pub async fn channel(address: SocketAddr) -> Result<Channel, tonic::transport::Error> {
    Channel::from_shared(format!("http://{address}"))
        .expect("an address is a valid URI")
        .connect()
        .await
}

/// The operator service of a master.
///
/// # Errors
/// When it cannot be reached.
pub async fn operator(
    address: SocketAddr,
) -> Result<OperatorClient<Channel>, tonic::transport::Error> {
    let client = OperatorClient::new(channel(address).await?);
    Ok(client.max_decoding_message_size(MAX_STATE_BYTES))
}

/// All that a master knows.
///
/// # Errors
/// When it does not answer.
///
/// # Panics
/// When the answer is not valid.
pub async fn state(client: &mut OperatorClient<Channel>) -> Result<ClusterState, tonic::Status> {
    let state = client
        .get_state(StateRequest::default())
        .await?
        .into_inner();
    Ok(ClusterState::try_from(state).expect("a valid state"))
}
