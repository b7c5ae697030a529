//! What can go wrong in the store.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// A failure of the store as a whole.
#[derive(Debug, Error)]
pub enum Error {
    /// The system refused a file operation.
    #[error("{action} {path}: {source}")]
    Io {
        /// `open`, `write`, ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file does not hold what it must.
    #[error("{path}: corrupt at byte {offset}: {reason}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// Another process uses the directory.
    #[error(
        "lock DB directory: {path} is in use by another process; give another --storage.tsdb.path or stop it"
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The query asks for native histograms.
    #[error("series holds native histograms, which are not supported yet")]
    Histogram,
}

impl Error {
    pub(crate) fn io(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn corrupt(
        path: impl AsRef<Path>,
        offset: usize,
        reason: impl Into<String>,
    ) -> Self {
        Self::Corrupt {
            path: path.as_ref().to_owned(),
            offset: offset as u64,
            reason: reason.into(),
        }
    }
}

/// Why one sample was not taken.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum AppendError {
    /// Older than the series' newest sample.
    #[error("out of order sample")]
    OutOfOrder,
    /// Same time, other value.
    #[error("duplicate sample for timestamp")]
    Duplicate,
    /// Older than what the head accepts.
    #[error("out of bounds")]
    OutOfBounds,
    /// The reference is not known (any more).
    #[error("unknown series reference")]
    UnknownSeries,
}
