//! What daemons keep on disk in the format of the wire, so that a later version reads it with the
//! compatibility that the wire has.

use ebb_types::{
    AgentInfo, ExecutorInfo, FrameworkInfo, LotLimits, Lots, OperationStatus, Quota, TaskInfo,
    TaskStatus, Window,
};
use prost::Message;

use crate::check::Invalid;
use crate::proto;

/// A part of the vocabulary that can be kept as bytes.
pub trait Stored: Sized {
    /// As bytes.
    fn to_bytes(&self) -> Vec<u8>;

    /// From bytes.
    ///
    /// # Errors
    /// [`Invalid`] if the bytes are no such thing or break a rule.
    fn from_bytes(bytes: &[u8]) -> Result<Self, Invalid>;
}

macro_rules! stored {
    ($($name:ident as $field:literal),* $(,)?) => {$(
        impl Stored for $name {
            fn to_bytes(&self) -> Vec<u8> {
                proto::$name::from(self.clone()).encode_to_vec()
            }

            fn from_bytes(bytes: &[u8]) -> Result<Self, Invalid> {
                proto::$name::decode(bytes)
                    .map_err(|error| Invalid::new($field, error.to_string()))?
                    .try_into()
            }
        }
    )*};
}

stored!(
    TaskInfo as "stored task",
    TaskStatus as "stored status",
    ExecutorInfo as "stored executor",
    FrameworkInfo as "stored framework",
    AgentInfo as "stored agent",
    Quota as "stored quota",
    LotLimits as "stored lot limits",
    Window as "stored window",
    Lots as "stored lots",
    OperationStatus as "stored operation",
);
