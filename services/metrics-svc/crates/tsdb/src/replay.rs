//! Opening a directory: blocks, then the log.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::block::Block;
use crate::head::{Head, MemSeries};
use crate::lock::DirLock;
use crate::meta::BlockMeta;
use crate::record::{self, Record};
use crate::wal_reader::{last_checkpoint, read_segment, repair, segments};
use crate::wal_writer::{WalWriter, segment_path};
use crate::{Db, Error, Options, ulid};

/// What opening yields.
pub(crate) struct Opened {
    pub(crate) head: Head,
    pub(crate) blocks: Vec<Arc<Block>>,
    pub(crate) writer: WalWriter,
    pub(crate) aliases: HashSet<u64>,
    pub(crate) repairs: u64,
}

impl Db {
    /// Opens or creates a directory. A torn end of the log is cut off and kept as `.corrupt`; blocks that cannot
    /// be read are left where they are and not served.
    ///
    /// # Errors
    /// When another process holds the directory or it cannot be read or written.
    pub fn open(dir: &Path, options: Options) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        let lock = DirLock::acquire(dir)?;
        remove_leftovers(dir)?;
        let blocks = open_blocks(dir)?;
        let min_valid = blocks.iter().map(|b| b.meta.max_time).max().unwrap_or(i64::MIN);
        let wal = dir.join("wal");
        fs::create_dir_all(&wal).map_err(Error::io("create", &wal))?;
        let mut replay = Replay::new(Head::new(options.block_range, min_valid));
        let repairs = replay.run(&wal)?;
        forget_head_caches(dir)?;
        let next = segments(&wal)?.last().map_or(0, |last| last + 1);
        let next = last_checkpoint(&wal).map_or(next, |(number, _)| next.max(number + 1));
        let writer =
            WalWriter::create(&wal, next, options.wal_segment_bytes, options.wal_compression)?;
        let aliases = replay.aliases.keys().copied().collect();
        let opened = Opened { head: replay.head, blocks, writer, aliases, repairs };
        Ok(Self::assemble(dir, options, lock, opened))
    }
}

/// Half-written and half-deleted blocks.
fn remove_leftovers(dir: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".tmp-for-creation")
            || name.ends_with(".tmp-for-deletion")
            || name.ends_with(".tmp")
        {
            tracing::info!(path = name, "removing what an interrupted compaction left");
            let path = entry.path();
            fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

/// Opens every readable block, oldest first; blocks that a newer one replaces are removed.
pub(crate) fn open_blocks(dir: &Path) -> Result<Vec<Arc<Block>>, Error> {
    let mut blocks = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))?.flatten() {
        if !entry.file_name().to_str().is_some_and(ulid::is_ulid) {
            continue;
        }
        match Block::open(&entry.path()) {
            Ok(block) => blocks.push(Arc::new(block)),
            Err(error) => tracing::error!(%error, "block is not served"),
        }
    }
    let parents: HashSet<String> = blocks
        .iter()
        .flat_map(|b: &Arc<Block>| b.meta.compaction.parents.iter().map(|p| p.ulid.clone()))
        .collect();
    let (replaced, mut kept): (Vec<_>, Vec<_>) =
        blocks.into_iter().partition(|b| parents.contains(&b.meta.ulid));
    for block in replaced {
        remove_block(dir, &block.meta)?;
    }
    kept.sort_by_key(|b| (b.meta.min_time, b.meta.max_time));
    Ok(kept)
}

/// Removes a block's folder; it vanishes by one rename.
pub(crate) fn remove_block(dir: &Path, meta: &BlockMeta) -> Result<(), Error> {
    let path = dir.join(&meta.ulid);
    let doomed = dir.join(format!("{}.tmp-for-deletion", meta.ulid));
    fs::rename(&path, &doomed).map_err(Error::io("rename", &path))?;
    fs::remove_dir_all(&doomed).map_err(Error::io("remove", &doomed))
}

/// Prometheus keeps copies of head chunks on disk; the log has all of their samples, and after we append they
/// would be out of date.
fn forget_head_caches(dir: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "chunks_head" || name.starts_with("chunk_snapshot.") {
            let path = entry.path();
            fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
        }
        if name == "wbl" && fs::read_dir(entry.path()).is_ok_and(|mut files| files.next().is_some())
        {
            tracing::warn!(
                "out-of-order samples in wbl/ are not read: out-of-order ingestion is not supported yet"
            );
        }
    }
    Ok(())
}

struct Replay {
    head: Head,
    known: HashMap<u64, Arc<MemSeries>>,
    aliases: HashMap<u64, u64>,
    unknown: u64,
    skipped: u64,
}

impl Replay {
    fn new(head: Head) -> Self {
        Self { head, known: HashMap::new(), aliases: HashMap::new(), unknown: 0, skipped: 0 }
    }

    /// Reads the checkpoint and the segments after it; answers how often it had to repair.
    fn run(&mut self, wal: &Path) -> Result<u64, Error> {
        let mut repairs = 0;
        let mut first = 0;
        if let Some((number, path)) = last_checkpoint(wal) {
            first = number + 1;
            repairs += self.folder(&path, 0)?;
        }
        repairs += self.folder(wal, first)?;
        if self.unknown > 0 {
            tracing::warn!(
                samples = self.unknown,
                "samples of unknown series in the write-ahead log were dropped"
            );
        }
        if self.skipped > 0 {
            tracing::warn!(
                records = self.skipped,
                "records the head does not keep (exemplars, histograms) were skipped"
            );
        }
        Ok(repairs)
    }

    fn folder(&mut self, dir: &Path, first: u32) -> Result<u64, Error> {
        let numbers: Vec<u32> = segments(dir)?.into_iter().filter(|n| *n >= first).collect();
        for number in numbers {
            let path = segment_path(dir, number);
            let read = read_segment(&path, |bytes| {
                let record =
                    record::decode(bytes).map_err(|_| "record does not decode".to_owned())?;
                self.record(record);
                Ok(())
            });
            match read {
                Ok(()) => {}
                Err(error @ Error::Corrupt { .. }) => {
                    tracing::warn!(%error, "cutting the write-ahead log here");
                    if let Error::Corrupt { offset, .. } = error {
                        repair(dir, number, offset)?;
                    }
                    return Ok(1);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(0)
    }

    fn record(&mut self, record: Record) {
        match record {
            Record::Series(list) => {
                for (id, labels) in list {
                    let known = self.head.restore(id, &labels);
                    if known != id {
                        self.aliases.insert(id, known);
                    }
                    if let Some(series) = self.head.get(known) {
                        self.known.insert(id, series);
                    }
                }
            }
            Record::Samples(list) => {
                let min_valid = self.head.min_valid();
                for sample in list {
                    match self.known.get(&sample.series) {
                        Some(series) if sample.time >= min_valid => {
                            self.head.push(series, sample.time, sample.value)
                        }
                        Some(_) => {}
                        None => self.unknown += 1,
                    }
                }
            }
            Record::Tombstones(list) => {
                for gone in list {
                    if let Some(series) = self.known.get(&gone.series) {
                        series.delete(gone.min, gone.max);
                    }
                }
            }
            Record::Other(_) => self.skipped += 1,
        }
    }
}
