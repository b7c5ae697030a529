//! Upkeep: cutting blocks from the head, merging blocks, retention, checkpoints.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::block::Block;
use crate::block_writer::BlockWriter;
use crate::compact::merge_blocks;
use crate::meta::{BlockCompaction, BlockMeta, sync_dir};
use crate::record::{self, Record};
use crate::replay::remove_block;
use crate::wal_reader::{last_checkpoint, read_segment, segments};
use crate::wal_writer::{WalWriter, segment_path};
use crate::{Db, Error, plan};

impl Db {
    /// Does what is due; `now` in milliseconds. Call it about once a minute.
    ///
    /// # Errors
    /// When a block cannot be written or removed; what was there before stays served.
    pub fn maintain(&self, now: i64) -> Result<(), Error> {
        let _alone = self.maintenance.lock();
        let result = self.maintain_alone(now);
        if result.is_err() {
            self.counters.compactions_failed.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn maintain_alone(&self, now: i64) -> Result<(), Error> {
        let range = self.options.block_range;
        while self.head.min_time() != i64::MAX
            && self.head.max_time() - self.head.min_time() > range / 2 * 3
        {
            let min = self.head.min_time();
            let end = (min.div_euclid(range) + 1) * range;
            self.cut_head(min, end, now)?;
        }
        let ranges = plan::ranges(range, self.options.max_block_range.max(range));
        loop {
            let chosen: Vec<Arc<Block>> = {
                let blocks = self.blocks.read();
                let metas: Vec<BlockMeta> = blocks.iter().map(|b| b.meta.clone()).collect();
                plan::choose(&metas, &ranges).into_iter().map(|at| blocks[at].clone()).collect()
            };
            if chosen.is_empty() {
                break;
            }
            self.replace(&chosen, now)?;
        }
        self.retain()
    }

    /// Rewrites blocks that have deleted samples.
    ///
    /// # Errors
    /// As [`Db::maintain`].
    pub fn clean_tombstones(&self, now: i64) -> Result<(), Error> {
        let _alone = self.maintenance.lock();
        let marked: Vec<Arc<Block>> =
            self.blocks.read().iter().filter(|b| b.has_tombstones()).cloned().collect();
        for block in marked {
            self.replace(&[block], now)?;
        }
        Ok(())
    }

    fn cut_head(&self, min: i64, end: i64, now: i64) -> Result<(), Error> {
        let mut series = self.head.select(min, end - 1, &[])?;
        series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        let mut writer = BlockWriter::create(&self.dir, now.max(0).cast_unsigned())?;
        for one in &series {
            writer.add(one, min, end)?;
        }
        drop(series);
        let origin = BlockCompaction { level: 1, ..BlockCompaction::default() };
        if let Some(meta) = writer.finish(min, end, origin)? {
            tracing::info!(
                ulid = meta.ulid,
                min,
                end,
                series = meta.stats.num_series,
                "wrote a block from the head"
            );
            self.serve_block(&meta)?;
        }
        let removed = self.head.truncate(end);
        let mut log = self.log.lock();
        let segment = log.writer.segment();
        log.removed.extend(removed.into_iter().map(|id| (id, segment)));
        drop(log);
        self.truncate_log(end)
    }

    fn serve_block(&self, meta: &BlockMeta) -> Result<(), Error> {
        let block = Arc::new(Block::open(&self.dir.join(&meta.ulid))?);
        let mut blocks = self.blocks.write();
        blocks.push(block);
        blocks.sort_by_key(|b| (b.meta.min_time, b.meta.max_time));
        self.counters.compactions.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn replace(&self, old: &[Arc<Block>], now: i64) -> Result<(), Error> {
        let meta = merge_blocks(&self.dir, old, now.max(0).cast_unsigned())?;
        let block =
            meta.map(|meta| Block::open(&self.dir.join(&meta.ulid)).map(Arc::new)).transpose()?;
        let mut blocks = self.blocks.write();
        blocks.retain(|b| !old.iter().any(|o| o.meta.ulid == b.meta.ulid));
        blocks.extend(block);
        blocks.sort_by_key(|b| (b.meta.min_time, b.meta.max_time));
        drop(blocks);
        self.counters.compactions.fetch_add(1, Ordering::Relaxed);
        for block in old {
            remove_block(&self.dir, &block.meta)?;
        }
        tracing::info!(merged = old.len(), "merged blocks");
        Ok(())
    }

    /// Removes blocks beyond the retention time or size, oldest first.
    fn retain(&self) -> Result<(), Error> {
        let mut doomed = Vec::new();
        {
            let mut blocks = self.blocks.write();
            let newest = blocks.iter().map(|b| b.meta.max_time).max().unwrap_or_default();
            let log_bytes = folder_bytes(&self.dir.join("wal"));
            let (mut kept, mut bytes) = (Vec::new(), log_bytes);
            for block in blocks.iter().rev() {
                bytes += block.size();
                let age = newest - block.meta.max_time;
                let old = self.options.retention_millis > 0 && age >= self.options.retention_millis;
                let large =
                    self.options.retention_bytes > 0 && bytes > self.options.retention_bytes;
                if old || large { doomed.push(block.clone()) } else { kept.push(block.clone()) }
            }
            kept.reverse();
            *blocks = kept;
        }
        for block in doomed {
            tracing::info!(ulid = block.meta.ulid, "removing a block beyond retention");
            remove_block(&self.dir, &block.meta)?;
            self.counters.blocks_deleted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Replaces old segments by a checkpoint with what the head still needs.
    fn truncate_log(&self, before: i64) -> Result<(), Error> {
        let wal = self.dir.join("wal");
        self.log.lock().writer.next_segment()?;
        let numbers = segments(&wal)?;
        let (Some(first), Some(last)) =
            (numbers.first().copied(), numbers.iter().rev().nth(1).copied())
        else {
            return Ok(());
        };
        let last = first + (last.saturating_sub(first)) * 2 / 3;
        if last <= first {
            return Ok(());
        }
        self.checkpoint(last, before)?;
        for number in numbers.into_iter().filter(|n| *n <= last) {
            let path = segment_path(&wal, number);
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        self.log.lock().removed.retain(|_, segment| *segment > last);
        self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn checkpoint(&self, last: u32, before: i64) -> Result<(), Error> {
        let wal = self.dir.join("wal");
        let old = last_checkpoint(&wal);
        let partial = wal.join(format!("checkpoint.{last:08}.tmp"));
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(Error::io("remove", &partial))?;
        }
        let mut writer = WalWriter::create(
            &partial,
            0,
            self.options.wal_segment_bytes,
            self.options.wal_compression,
        )?;
        let mut files = Vec::new();
        if let Some((_, path)) = &old {
            files.extend(segments(path)?.into_iter().map(|n| segment_path(path, n)));
        }
        files.extend(
            segments(&wal)?.into_iter().filter(|n| *n <= last).map(|n| segment_path(&wal, n)),
        );
        for file in files {
            read_segment(&file, |bytes| {
                let record =
                    record::decode(bytes).map_err(|_| "record does not decode".to_owned())?;
                let kept = self.still_needed(record, before, last);
                kept.map_or(Ok(()), |bytes| writer.log(&[bytes]).map_err(|e| e.to_string()))
            })?;
        }
        writer.finish()?;
        let path = wal.join(format!("checkpoint.{last:08}"));
        fs::rename(&partial, &path).map_err(Error::io("rename", &partial))?;
        sync_dir(&wal)?;
        if let Some((_, path)) = old {
            fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }

    fn still_needed(&self, record: Record, before: i64, last: u32) -> Option<Vec<u8>> {
        match record {
            Record::Series(mut list) => {
                let log = self.log.lock();
                list.retain(|(id, _)| {
                    self.head.get(*id).is_some()
                        || log.aliases.contains(id)
                        || log.removed.get(id).is_some_and(|segment| *segment > last)
                });
                (!list.is_empty()).then(|| record::encode_series(&list))
            }
            Record::Samples(mut list) => {
                list.retain(|s| s.time >= before);
                (!list.is_empty()).then(|| record::encode_samples(&list))
            }
            Record::Tombstones(mut list) => {
                list.retain(|t| t.max >= before);
                (!list.is_empty()).then(|| record::encode_tombstones(&list))
            }
            Record::Other(_) => None,
        }
    }

    /// Writes everything into a new folder below `snapshots/` and answers its name. Blocks are hard links.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn snapshot(&self, name: &str, with_head: bool, now: i64) -> Result<(), Error> {
        let _alone = self.maintenance.lock();
        let dir = self.dir.join("snapshots").join(name);
        fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        for block in self.blocks.read().iter() {
            link_block(block, &dir.join(&block.meta.ulid))?;
        }
        let (min, max) = (self.head.min_time(), self.head.max_time());
        if with_head && min <= max {
            let mut series = self.head.select(min, max, &[])?;
            series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
            let mut writer = BlockWriter::create(&dir, now.max(0).cast_unsigned())?;
            for one in &series {
                writer.add(one, min, max + 1)?;
            }
            writer.finish(
                min,
                max + 1,
                BlockCompaction { level: 1, ..BlockCompaction::default() },
            )?;
        }
        Ok(())
    }
}

fn link_block(block: &Block, to: &std::path::Path) -> Result<(), Error> {
    let chunks = to.join("chunks");
    fs::create_dir_all(&chunks).map_err(Error::io("create", &chunks))?;
    let link = |name: &std::path::Path| {
        let from = block.dir.join(name);
        fs::hard_link(&from, to.join(name)).map_err(Error::io("link", from))
    };
    for name in ["meta.json", "index", "tombstones"] {
        if block.dir.join(name).exists() {
            link(name.as_ref())?;
        }
    }
    let from = block.dir.join("chunks");
    for entry in fs::read_dir(&from).map_err(Error::io("list", &from))?.flatten() {
        link(&std::path::Path::new("chunks").join(entry.file_name()))?;
    }
    Ok(())
}

fn folder_bytes(dir: &std::path::Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|e| match e.metadata() {
            Ok(meta) if meta.is_dir() => folder_bytes(&e.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use metrics_model::{Labels, MatchOp, Matcher};

    use super::*;
    use crate::Options;

    const MINUTE: i64 = 60_000;

    fn fill(db: &Db, from: i64, to: i64) {
        let labels: Vec<Labels> = (0..5)
            .map(|i| Labels::from_pairs([("__name__", "m"), ("i", i.to_string().as_str())]))
            .collect();
        for time in (from..to).step_by(MINUTE as usize) {
            let mut appender = db.appender();
            for (i, labels) in labels.iter().enumerate() {
                let series = appender.series(labels);
                appender.append(series, time, (time + i as i64) as f64).unwrap();
            }
            appender.commit().unwrap();
        }
    }

    fn dump(db: &Db) -> Vec<(String, Vec<i64>, Vec<f64>)> {
        let matchers = [Matcher::new(MatchOp::Equal, "__name__", "m").unwrap()];
        let all = db.select(i64::MIN, i64::MAX, &matchers).unwrap();
        all.iter()
            .map(|s| {
                let (mut times, mut values) = (Vec::new(), Vec::new());
                s.samples(i64::MIN, i64::MAX, &mut times, &mut values).unwrap();
                (s.labels.to_string(), times, values)
            })
            .collect()
    }

    fn small() -> Options {
        Options {
            block_range: 30 * MINUTE,
            max_block_range: 300 * MINUTE,
            wal_segment_bytes: 64 << 10,
            retention_millis: 0,
            ..Options::default()
        }
    }

    #[test]
    fn everything_survives_cutting_merging_and_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let start = 1_700_000_000_000;
        let db = Db::open(dir.path(), small()).unwrap();
        for step in 0..10 {
            let from = start + step * 30 * MINUTE;
            fill(&db, from, from + 30 * MINUTE);
            db.maintain(start).unwrap();
        }
        let all = dump(&db);
        assert_eq!((all.len(), all[0].1.len()), (5, 300));
        assert!(db.blocks().iter().any(|b| b.compaction.level > 1), "{:?}", db.blocks());
        assert!(db.stats().checkpoints > 0);
        drop(db);
        let db = Db::open(dir.path(), small()).unwrap();
        assert_eq!(dump(&db), all);
        assert!(matches!(Db::open(dir.path(), small()), Err(Error::Locked { .. })));
    }

    #[test]
    fn deleted_samples_are_gone_at_once_and_after_rewriting() {
        let dir = tempfile::tempdir().unwrap();
        let start = 1_700_000_000_000;
        let db = Db::open(dir.path(), small()).unwrap();
        fill(&db, start, start + 100 * MINUTE);
        db.maintain(start).unwrap();
        db.delete(i64::MIN, i64::MAX, &[Matcher::equal("i", "3")]).unwrap();
        db.delete(start, start + 10 * MINUTE, &[Matcher::equal("i", "4")]).unwrap();
        let all = dump(&db);
        let left = |i: &str| all.iter().find(|s| s.0.contains(i)).map_or(0, |s| s.1.len());
        assert_eq!((left("i=\"3\""), left("i=\"4\""), left("i=\"1\"")), (0, 89, 100));
        drop(db);
        let db = Db::open(dir.path(), small()).unwrap();
        db.clean_tombstones(start).unwrap();
        let again = dump(&db);
        assert_eq!(again.iter().map(|s| s.1.len()).sum::<usize>(), 389);
    }

    #[test]
    fn retention_removes_old_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let start = 1_700_000_000_000;
        let db = Db::open(
            dir.path(),
            Options { retention_millis: 60 * MINUTE, max_block_range: 0, ..small() },
        )
        .unwrap();
        fill(&db, start, start + 300 * MINUTE);
        db.maintain(start).unwrap();
        let blocks = db.blocks();
        assert!((1..=3).contains(&blocks.len()), "{blocks:?}");
        assert!(db.stats().blocks_deleted > 0);
    }
}
