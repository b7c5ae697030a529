//! The database: head, log and blocks of one directory.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics_model::{Labels, Matcher};
use parking_lot::{Mutex, RwLock};

use crate::block::Block;
use crate::head::{Head, HeadStats};
use crate::lock::DirLock;
use crate::meta::BlockMeta;
use crate::select::{SeriesData, merge};
use crate::wal_writer::WalWriter;
use crate::{Error, record};

/// How a database behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Milliseconds to keep; 0 keeps for ever.
    pub retention_millis: i64,
    /// Bytes of blocks and log to keep; 0 sets no limit.
    pub retention_bytes: u64,
    /// Range of blocks cut from the head, in milliseconds.
    pub block_range: i64,
    /// Largest range blocks are merged to, in milliseconds.
    pub max_block_range: i64,
    /// Bytes of a log segment.
    pub wal_segment_bytes: u64,
    /// Whether log records are compressed with snappy.
    pub wal_compression: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            retention_millis: 15 * 86_400_000,
            retention_bytes: 0,
            block_range: 2 * 3_600_000,
            max_block_range: 36 * 3_600_000,
            wal_segment_bytes: 128 << 20,
            wal_compression: true,
        }
    }
}

/// The log and what is known about removed references.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) writer: WalWriter,
    /// Removed series, and the segment that was written when they went.
    pub(crate) removed: HashMap<u64, u32>,
    /// References that stand for a series known under another one.
    pub(crate) aliases: HashSet<u64>,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) compactions: AtomicU64,
    pub(crate) compactions_failed: AtomicU64,
    pub(crate) wal_corruptions: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) blocks_deleted: AtomicU64,
}

/// Sizes and counts of a database.
#[derive(Debug, Clone, Copy)]
pub struct DbStats {
    /// The head.
    pub head: HeadStats,
    /// Blocks that are open.
    pub blocks: u64,
    /// Bytes of the blocks.
    pub block_bytes: u64,
    /// Segment the log writes.
    pub wal_segment: u32,
    /// Blocks written from the head or by merging.
    pub compactions: u64,
    /// Attempts that failed.
    pub compactions_failed: u64,
    /// Repairs of the log at the start.
    pub wal_corruptions: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Blocks removed by retention.
    pub blocks_deleted: u64,
    /// Start of the oldest data in milliseconds, 0 when there is none.
    pub lowest_timestamp: i64,
}

/// A database, shared by scrapes, rules and queries.
#[derive(Debug)]
pub struct Db {
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) head: Head,
    pub(crate) blocks: RwLock<Vec<Arc<Block>>>,
    pub(crate) log: Mutex<Log>,
    /// New series that no record names yet; the next commit writes them first.
    pub(crate) unlogged: Mutex<Vec<(u64, Labels)>>,
    pub(crate) maintenance: Mutex<()>,
    pub(crate) counters: Counters,
    _lock: DirLock,
}

impl Db {
    pub(crate) fn assemble(
        dir: &Path,
        options: Options,
        lock: DirLock,
        parts: crate::replay::Opened,
    ) -> Self {
        let counters = Counters::default();
        counters.wal_corruptions.store(parts.repairs, Ordering::Relaxed);
        Self {
            dir: dir.to_owned(),
            options,
            head: parts.head,
            blocks: RwLock::new(parts.blocks),
            log: Mutex::new(Log {
                writer: parts.writer,
                removed: HashMap::new(),
                aliases: parts.aliases,
            }),
            unlogged: Mutex::default(),
            maintenance: Mutex::default(),
            counters,
            _lock: lock,
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn overlapping(&self, min: i64, max: i64) -> Vec<Arc<Block>> {
        self.blocks.read().iter().filter(|b| b.overlaps(min, max)).cloned().collect()
    }

    /// Series that match all `matchers` and may have samples between `min` and `max` (milliseconds, both
    /// included), sorted by labels.
    ///
    /// # Errors
    /// When a block is corrupt.
    pub fn select(
        &self,
        min: i64,
        max: i64,
        matchers: &[Matcher],
    ) -> Result<Vec<SeriesData>, Error> {
        // The head first: a range that moves to a block meanwhile is then seen twice, never missed.
        let mut parts = vec![self.head.select(min, max, matchers)?];
        let mut older = Vec::new();
        for block in self.overlapping(min, max) {
            older.push(block.select(min, max, matchers)?);
        }
        older.append(&mut parts);
        Ok(merge(older))
    }

    /// Labels of the series [`Db::select`] would return.
    ///
    /// # Errors
    /// As [`Db::select`].
    pub fn series_labels(
        &self,
        min: i64,
        max: i64,
        matchers: &[Matcher],
    ) -> Result<BTreeSet<Labels>, Error> {
        let mut out: BTreeSet<Labels> = self.head.labels(min, max, matchers)?.into_iter().collect();
        for block in self.overlapping(min, max) {
            out.extend(block.labels(matchers)?);
        }
        Ok(out)
    }

    /// Names of all labels in the range.
    pub fn label_names(&self, min: i64, max: i64) -> BTreeSet<String> {
        let mut out = BTreeSet::new();
        if self.head_overlaps(min, max) {
            out.extend(self.head.label_names());
        }
        for block in self.overlapping(min, max) {
            out.extend(block.index.label_names().map(str::to_owned));
        }
        out
    }

    /// Values of a label in the range.
    pub fn label_values(&self, name: &str, min: i64, max: i64) -> BTreeSet<String> {
        let mut out = BTreeSet::new();
        if self.head_overlaps(min, max) {
            out.extend(self.head.label_values(name).into_iter().map(|(value, _)| value));
        }
        for block in self.overlapping(min, max) {
            out.extend(block.index.label_values(name).map(str::to_owned));
        }
        out
    }

    fn head_overlaps(&self, min: i64, max: i64) -> bool {
        self.head.min_time() <= max && min <= self.head.max_time()
    }

    /// Label names of the head with their values and how many series have each.
    pub fn head_cardinality(&self) -> Vec<(String, Vec<(String, usize)>)> {
        let names = self.head.label_names();
        names.into_iter().map(|name| (name.clone(), self.head.label_values(&name))).collect()
    }

    /// Marks samples as deleted.
    ///
    /// # Errors
    /// When a block or the log cannot be written.
    pub fn delete(&self, min: i64, max: i64, matchers: &[Matcher]) -> Result<(), Error> {
        let _alone = self.maintenance.lock();
        for block in self.overlapping(min, max) {
            block.delete(min, max, matchers)?;
        }
        let gone = self.head.delete(min, max, matchers)?;
        if gone.is_empty() {
            return Ok(());
        }
        self.log.lock().writer.log(&[record::encode_tombstones(&gone)])
    }

    /// `meta.json` of every open block, oldest first.
    pub fn blocks(&self) -> Vec<BlockMeta> {
        self.blocks.read().iter().map(|b| b.meta.clone()).collect()
    }

    /// Sizes and counts.
    pub fn stats(&self) -> DbStats {
        let head = self.head.stats();
        let blocks = self.blocks.read();
        let lowest = blocks.first().map_or(head.min_time, |b| b.meta.min_time);
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DbStats {
            head,
            blocks: blocks.len() as u64,
            block_bytes: blocks.iter().map(|b| b.size()).sum(),
            wal_segment: self.log.lock().writer.segment(),
            compactions: load(&self.counters.compactions),
            compactions_failed: load(&self.counters.compactions_failed),
            wal_corruptions: load(&self.counters.wal_corruptions),
            checkpoints: load(&self.counters.checkpoints),
            blocks_deleted: load(&self.counters.blocks_deleted),
            lowest_timestamp: if lowest == i64::MAX { 0 } else { lowest },
        }
    }

    /// Syncs the log; nothing may be appended afterwards.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn close(&self) -> Result<(), Error> {
        self.log.lock().writer.finish()
    }
}
