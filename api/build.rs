//! Generates the messages and services from `proto/`, with a protobuf compiler in Rust, so that a
//! new machine needs no `protoc`.

use std::error::Error;

const PROTOS: [&str; 5] = [
    "common.proto",
    "scheduler.proto",
    "agent_link.proto",
    "operator.proto",
    "agent.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
