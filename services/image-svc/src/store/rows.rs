//! Rows of the metadata store, as JSON, and their keys.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::engine::Digest;

/// Joins key parts with zero bytes. No part may hold one; names, tags and digests cannot.
pub fn key(parts: &[&str]) -> Vec<u8> {
    let mut key = Vec::with_capacity(parts.iter().map(|p| p.len() + 1).sum());
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            key.push(0);
        }
        key.extend_from_slice(part.as_bytes());
    }
    key
}

/// Key parts followed by a zero byte: the prefix of all longer keys.
pub(super) fn prefix(parts: &[&str]) -> Vec<u8> {
    let mut key = key(parts);
    key.push(0);
    key
}

/// The parts of a key.
pub fn split_key(key: &[u8]) -> Vec<&str> {
    key.split(|b| *b == 0).map(|part| std::str::from_utf8(part).unwrap_or_default()).collect()
}

pub(super) fn encode(row: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(row).expect("rows hold only strings, numbers and string maps")
}

pub(super) fn decode<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| {
        StoreError::Damaged(format!("{:?} ({error})", String::from_utf8_lossy(key)))
    })
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct BlobRow {
    pub(super) size: u64,
    #[serde(default)]
    pub(super) inline: bool,
    #[serde(default)]
    pub(super) created: i64,
}

/// A manifest of a repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ManifestRow {
    /// Media type it was pushed with.
    pub media_type: String,
    /// Bytes.
    pub size: u64,
    /// Manifest it refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
    /// Blobs and manifests it points at.
    #[serde(default)]
    pub children: Vec<Digest>,
    /// When it was pushed, seconds since 1970.
    #[serde(default)]
    pub pushed: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct UploadRow {
    pub(super) repo: String,
    pub(super) offset: u64,
    pub(super) algorithm: String,
    pub(super) started: i64,
}

/// Labels of content in a containerd namespace.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ContentRow {
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Nanoseconds since 1970.
    pub created: i64,
    /// Nanoseconds since 1970.
    pub updated: i64,
}

/// An unfinished content write.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IngestRow {
    /// Name of the file below `ingest/`.
    pub file: String,
    /// Expected size, 0 when unknown.
    pub total: u64,
    /// Expected digest.
    pub expected: Option<Digest>,
    /// Nanoseconds since 1970.
    pub started: i64,
    /// Nanoseconds since 1970.
    pub updated: i64,
}

/// What a snapshot is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotKind {
    /// Read only, not a parent.
    View,
    /// Writable.
    Active,
    /// Finished; may be a parent.
    Committed,
}

/// A snapshot of a namespace.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SnapshotRow {
    /// Folder below `snapshots/`.
    pub id: u64,
    /// What it is for.
    pub kind: SnapshotKind,
    /// Key of the parent; empty for none.
    #[serde(default)]
    pub parent: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Nanoseconds since 1970.
    pub created: i64,
    /// Nanoseconds since 1970.
    pub updated: i64,
    /// Bytes on disk, known once committed.
    #[serde(default)]
    pub size: i64,
    /// Inodes, known once committed.
    #[serde(default)]
    pub inodes: i64,
}
