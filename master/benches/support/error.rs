//! What a benchmark fails with.

pub type Error = Box<dyn std::error::Error>;
