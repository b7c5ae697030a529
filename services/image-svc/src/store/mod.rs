//! Everything durable: blob files, and RocksDB for all else.
//!
//! * Content of more than [`INLINE_LIMIT`] bytes is a file `blobs/<alg>/<hex>` that is never rewritten; smaller
//!   content lies in RocksDB. A blob exists when its row in [`Cf::Blob`] exists, whatever files there are.
//! * All changes go through one writer thread that puts many transactions in one synced batch ([`Db::write`]).
//!   What was acknowledged survives `kill -9` and loss of power.
//! * Layout: `meta/` (RocksDB), `blobs/`, `ingest/` (unfinished), `snapshots/<id>/{fs,work}`.

mod blobs;
mod contents;
mod db;
mod gc;
mod images;
mod ingest;
mod locks;
mod repos;
mod rows;
mod snapshots;
mod txn;
mod uploads;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

pub use blobs::BlobBody;
pub use blobs::NewContent;
pub use db::{Cf, Db};
pub use gc::Pin;
pub use images::ImageRecord;
pub use ingest::{IngestFile, Mark};
pub use locks::KeyedLocks;
pub use repos::{ManifestPut, PutError};
pub use rows::{ContentRow, IngestRow, ManifestRow, SnapshotKind, SnapshotRow};
pub use snapshots::{IMAGE_LAYER, SnapshotError, Usage};
pub use txn::Txn;
pub use uploads::{AppendError, Claim, Session, Uploads};

/// Content up to this size lies in RocksDB instead of a file of its own.
pub const INLINE_LIMIT: u64 = 64 << 10;

/// Why the store could not do something.
#[derive(Debug, Error, Clone)]
pub enum StoreError {
    /// The metadata store failed.
    #[error("metadata store: {0}")]
    Meta(String),
    /// A file operation failed.
    #[error("{path}: {reason}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// The system's error.
        reason: String,
    },
    /// A row cannot be read.
    #[error("metadata row {0} is damaged")]
    Damaged(String),
    /// The process is ending, or an earlier sync failed and nothing more is accepted.
    #[error("the store accepts no writes: {0}")]
    Closed(String),
}

impl StoreError {
    pub(crate) fn io(path: &Path, error: impl std::fmt::Display) -> Self {
        Self::Io { path: path.to_owned(), reason: error.to_string() }
    }
}

impl From<rocksdb::Error> for StoreError {
    fn from(error: rocksdb::Error) -> Self {
        Self::Meta(error.into_string())
    }
}

/// The store of one process. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    db: Db,
    locks: locks::KeyedLocks,
    uploads: Uploads,
    gc: gc::Clock,
    /// Held shared by whoever is about to name unpacked layers, alone by who removes unnamed ones.
    layers: Arc<tokio::sync::RwLock<()>>,
}

impl Store {
    /// Opens the store below `root`, making it when absent. Leftovers of unfinished work are cleared away.
    ///
    /// # Errors
    /// When a folder cannot be made, RocksDB does not open, or the layout is of a newer version.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        for dir in ["blobs/sha256", "blobs/sha512", "ingest", "snapshots", "meta"] {
            let path = root.join(dir);
            std::fs::create_dir_all(&path).map_err(|error| StoreError::io(&path, error))?;
        }
        let db = Db::open(&root.join("meta"))?;
        let inner = Inner {
            root: root.to_owned(),
            db,
            locks: locks::KeyedLocks::default(),
            uploads: Uploads::default(),
            gc: gc::Clock::default(),
            layers: Arc::default(),
        };
        let store = Self { inner: Arc::new(inner) };
        store.recover_ingest()?;
        store.recover_snapshots()?;
        Ok(store)
    }

    /// The folder of the store.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The metadata.
    pub fn db(&self) -> &Db {
        &self.inner.db
    }

    /// The unfinished uploads of the registry.
    pub fn uploads(&self) -> &Uploads {
        &self.inner.uploads
    }

    fn locks(&self) -> &locks::KeyedLocks {
        &self.inner.locks
    }
}

/// Seconds since 1970.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
