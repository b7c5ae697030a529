//! Time series storage in Prometheus' data directory format.
//!
//! `wal/` holds segments of 32 KiB pages; every commit is written there before it becomes visible, so samples
//! survive the death of the process. The head keeps about two hours in memory as XOR chunks; older ranges lie in
//! immutable blocks (index v2, chunk segments, `meta.json`, `tombstones`). Prometheus 2.42 and later open the
//! directory, and this crate opens theirs. Series of native histograms are carried through compaction but cannot
//! be queried yet.
//!
//! Invariants: a series reference is never reused while the log may name it; a block folder appears complete by
//! rename; one process at a time holds the `lock` file.

mod append;
mod binary;
mod block;
mod block_writer;
mod chunk_files;
mod compact;
mod db;
mod error;
mod head;
mod index_reader;
mod index_writer;
mod lock;
mod maintain;
mod mapped;
mod meta;
mod plan;
mod postings;
mod record;
mod replay;
mod select;
mod tombstones;
mod ulid;
mod wal_reader;
mod wal_writer;
mod xor;

pub use append::Appender;
pub use db::{Db, DbStats, Options};
pub use error::{AppendError, Error};
pub use head::HeadStats;
pub use meta::BlockMeta;
pub use select::SeriesData;
pub use xor::{XorAppender, XorIter};
