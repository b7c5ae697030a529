//! The envelope of protobuf objects: `k8s\0` and a `runtime.Unknown`.

use thiserror::Error;

use crate::proto::wire::{Reader, put_bytes, put_tag, put_varint};

/// First bytes of every protobuf object, on the wire and in the store.
pub const MAGIC: &[u8] = b"k8s\0";

/// What an envelope says and holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// The message of that kind.
    pub raw: &'a [u8],
}

/// Why bytes are no envelope.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EnvelopeError {
    /// The first bytes are others.
    #[error("provided data does not appear to be a protobuf message, expected prefix {:?}", [0x6b, 0x38, 0x73, 0x00])]
    Magic,
    /// The message is cut or broken.
    #[error("{0}")]
    Wire(#[from] crate::proto::WireError),
}

/// Puts a message into an envelope.
pub fn wrap_unknown(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut meta = Vec::with_capacity(api_version.len() + kind.len() + 8);
    put_bytes(&mut meta, 1, api_version.as_bytes());
    put_bytes(&mut meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(raw.len() + meta.len() + 24);
    out.extend_from_slice(MAGIC);
    put_bytes(&mut out, 1, &meta);
    put_tag(&mut out, 2, 2);
    put_varint(&mut out, raw.len() as u64);
    out.extend_from_slice(raw);
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    out
}

/// Opens an envelope.
///
/// # Errors
/// When the magic is missing or the message is broken.
pub fn unwrap_unknown(data: &[u8]) -> Result<Envelope<'_>, EnvelopeError> {
    let body = data.strip_prefix(MAGIC).ok_or(EnvelopeError::Magic)?;
    let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
    let mut reader = Reader::new(body);
    while let Some((number, wire)) = reader.tag()? {
        match (number, wire) {
            (1, 2) => {
                let mut meta = Reader::new(reader.bytes()?);
                while let Some((number, wire)) = meta.tag()? {
                    match (number, wire) {
                        (1, 2) => envelope.api_version = meta.text()?,
                        (2, 2) => envelope.kind = meta.text()?,
                        (_, wire) => meta.skip(wire)?,
                    }
                }
            }
            (2, 2) => envelope.raw = reader.bytes()?,
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(envelope)
}
