//! Protobuf messages to and from canonical JSON trees.
//!
//! Encoding follows the original's generator byte for byte: fields in the order of their numbers, scalars that
//! are no pointers always written, map keys sorted.

mod decode;
mod encode;
pub(crate) mod wire;

pub use decode::decode;
pub use encode::{EncodeError, encode};
pub use wire::WireError;
