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

/// A frame of a protobuf watch: its length (four bytes, big endian), then a `WatchEvent` with an enveloped object.
pub fn watch_frame(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(object.len() + 8);
    wire::put_bytes(&mut raw, 1, object);
    let mut event = Vec::with_capacity(raw.len() + 24);
    wire::put_bytes(&mut event, 1, kind.as_bytes());
    wire::put_bytes(&mut event, 2, &raw);
    let mut frame = Vec::with_capacity(event.len() + 4);
    frame.extend_from_slice(&u32::try_from(event.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&event);
    frame
}
