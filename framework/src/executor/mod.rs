//! The executor side of the SDK.
