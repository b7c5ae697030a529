//! Layers into overlayfs folders.
//!
//! A layer is a tar stream, plain or compressed, from somebody we do not trust. Everything is done relative to
//! folder descriptors; symlinks are resolved by us, inside the image, and never followed by the kernel. A layer
//! that tries to leave its folder is refused with the name of the entry.

mod apply;
mod decompress;
mod entry;
mod tree;
mod view;

use std::io::Read;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::engine::{Algorithm, Digest, Hasher};

pub use decompress::{Compression, Decompressed};
pub use view::{NodeInfo, NodeKind, Plain, View, join};

/// Why a layer was not unpacked.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// The stream is no layer.
    #[error("layer is no valid archive: {0}")]
    Archive(std::io::Error),
    /// An entry asks for something forbidden or impossible.
    #[error("layer entry {entry:?}: {reason}")]
    Entry {
        /// Path as in the archive.
        entry: String,
        /// What is wrong.
        reason: String,
    },
    /// Larger than a layer of that compressed size can honestly be.
    #[error("layer unpacks to more than {0} bytes")]
    TooLarge(u64),
    /// Not the content the image's config names.
    #[error("layer has diff id {found}, the image's config says {expected}")]
    DiffId {
        /// Of the stream.
        found: Digest,
        /// In the config.
        expected: Digest,
    },
}

/// Where a layer goes.
#[derive(Debug)]
pub struct Target {
    /// Empty folder of the layer.
    pub upper: PathBuf,
    /// Folders of the layers below, nearest first.
    pub lowers: Vec<PathBuf>,
}

/// Unpacks `layer` (of `compressed` bytes, any known compression) and checks its diff id. Blocks.
///
/// # Errors
/// Names the entry or the limit; the folder is then partly filled and must be thrown away.
pub fn unpack(
    layer: impl Read + Send,
    compressed: u64,
    target: &Target,
    diff_id: Option<&Digest>,
) -> Result<Digest, UnpackError> {
    let algorithm = diff_id.map_or(Algorithm::Sha256, Digest::algorithm);
    let plain = Decompressed::new(layer).map_err(UnpackError::Archive)?;
    let limit = compressed.saturating_mul(RATIO).max(FLOOR);
    let mut hashed =
        HashingReader { inner: plain, hasher: Hasher::new(algorithm), count: 0, limit };
    let result = apply::apply(&mut hashed, target);
    // The tar ends before the stream may: padding belongs to the diff id.
    let rest = std::io::copy(&mut hashed, &mut std::io::sink());
    if hashed.count > limit {
        return Err(UnpackError::TooLarge(limit));
    }
    result?;
    rest.map_err(UnpackError::Archive)?;
    let found = hashed.hasher.finish();
    match diff_id {
        Some(expected) if *expected != found => {
            Err(UnpackError::DiffId { found, expected: expected.clone() })
        }
        _ => Ok(found),
    }
}

/// The diff id of a layer without unpacking it. Blocks.
///
/// # Errors
/// When the stream does not decompress or is too large.
pub fn diff_id(layer: impl Read + Send, compressed: u64) -> Result<Digest, UnpackError> {
    let plain = Decompressed::new(layer).map_err(UnpackError::Archive)?;
    let limit = compressed.saturating_mul(RATIO).max(FLOOR);
    let mut hashed =
        HashingReader { inner: plain, hasher: Hasher::new(Algorithm::Sha256), count: 0, limit };
    let copied = std::io::copy(&mut hashed, &mut std::io::sink());
    if hashed.count > limit {
        return Err(UnpackError::TooLarge(limit));
    }
    copied.map_err(UnpackError::Archive)?;
    Ok(hashed.hasher.finish())
}

/// Gzip cannot compress better than this; zstd can, up to [`FLOOR`].
const RATIO: u64 = 1_100;
const FLOOR: u64 = 2 << 30;

struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
    count: u64,
    limit: u64,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..got]);
        self.count += got as u64;
        if self.count > self.limit {
            return Err(std::io::Error::other("too large"));
        }
        Ok(got)
    }
}

/// Chain id of layers with these diff ids (OCI image-spec, config: "Layer ChainID").
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(parent) => Digest::sha256(format!("{parent} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

fn entry_error(entry: &Path, reason: impl std::fmt::Display) -> UnpackError {
    let entry = entry.to_string_lossy().chars().take(300).collect();
    UnpackError::Entry { entry, reason: reason.to_string() }
}
