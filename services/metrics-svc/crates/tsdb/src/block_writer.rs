//! Writes a block from series in label order.
//!
//! Everything goes to `ULID.tmp-for-creation`, is synced, and appears by one rename.

use std::path::{Path, PathBuf};

use metrics_model::Labels;

use crate::Error;
use crate::chunk_files::ChunkWriter;
use crate::index_writer::{self, ChunkEntry};
use crate::meta::{BlockCompaction, BlockMeta, BlockStats, sync_dir};
use crate::select::SeriesData;
use crate::tombstones::{self, Tombstones};
use crate::ulid;
use crate::xor::{self, XorAppender, XorIter};

const SAMPLES_PER_CHUNK: u16 = 120;

/// A block being written.
#[derive(Debug)]
pub(crate) struct BlockWriter {
    parent: PathBuf,
    partial: PathBuf,
    ulid: String,
    chunks: ChunkWriter,
    series: Vec<(Labels, Vec<ChunkEntry>)>,
    samples: u64,
}

impl BlockWriter {
    pub(crate) fn create(parent: &Path, now_millis: u64) -> Result<Self, Error> {
        let ulid = ulid::new(now_millis);
        let partial = parent.join(format!("{ulid}.tmp-for-creation"));
        let chunks = ChunkWriter::create(partial.join("chunks"))?;
        Ok(Self {
            parent: parent.to_owned(),
            partial,
            ulid,
            chunks,
            series: Vec::new(),
            samples: 0,
        })
    }

    /// Adds a series' samples in `min..max`; chunks that lie inside, do not overlap and have no deleted ranges
    /// are copied as they are.
    pub(crate) fn add(&mut self, series: &SeriesData, min: i64, max: i64) -> Result<(), Error> {
        let inside =
            |c: &crate::select::ChunkSource| c.min >= min && c.max < max && c.deleted.is_empty();
        let apart = series.chunks.windows(2).all(|pair| pair[0].max < pair[1].min);
        let mut entries = Vec::new();
        if apart && series.chunks.iter().all(inside) {
            for chunk in &series.chunks {
                let (encoding, bytes) = chunk.data.get()?;
                self.samples +=
                    bytes.first_chunk().map_or(0, |n| u64::from(u16::from_be_bytes(*n)));
                let reference = self.chunks.add(encoding, bytes)?;
                entries.push(ChunkEntry { min: chunk.min, max: chunk.max, reference });
            }
        } else {
            self.encode_anew(series, min, max, &mut entries)?;
        }
        if !entries.is_empty() {
            self.series.push((series.labels.clone(), entries));
        }
        Ok(())
    }

    fn encode_anew(
        &mut self,
        series: &SeriesData,
        min: i64,
        max: i64,
        entries: &mut Vec<ChunkEntry>,
    ) -> Result<(), Error> {
        let (mut times, mut values) = (Vec::new(), Vec::new());
        series.samples(min, max - 1, &mut times, &mut values)?;
        self.samples += times.len() as u64;
        for (times, values) in
            times.chunks(SAMPLES_PER_CHUNK.into()).zip(values.chunks(SAMPLES_PER_CHUNK.into()))
        {
            let mut chunk = XorAppender::default();
            for (time, value) in times.iter().zip(values) {
                chunk.append(*time, *value);
            }
            let (Some(first), Some(last)) = (times.first(), times.last()) else { continue };
            let reference = self.chunks.add(xor::ENCODING, chunk.bytes())?;
            debug_assert_eq!(XorIter::new(chunk.bytes()).count(), times.len());
            entries.push(ChunkEntry { min: *first, max: *last, reference });
        }
        Ok(())
    }

    /// Finishes the block; `None` (and nothing on disk) when it holds no samples.
    pub(crate) fn finish(
        mut self,
        min: i64,
        max: i64,
        mut origin: BlockCompaction,
    ) -> Result<Option<BlockMeta>, Error> {
        self.chunks.finish()?;
        if self.series.is_empty() {
            self.abandon();
            return Ok(None);
        }
        index_writer::write(&self.partial.join("index"), &self.series)?;
        tombstones::write(&self.partial, &Tombstones::new())?;
        if origin.sources.is_empty() {
            origin.sources = vec![self.ulid.clone()];
        }
        let stats = BlockStats {
            num_samples: self.samples,
            num_series: self.series.len() as u64,
            num_chunks: self.series.iter().map(|(_, chunks)| chunks.len() as u64).sum(),
            num_tombstones: 0,
        };
        let meta = BlockMeta {
            ulid: self.ulid.clone(),
            min_time: min,
            max_time: max,
            stats,
            compaction: origin,
            version: 1,
        };
        meta.write(&self.partial)?;
        sync_dir(&self.partial.join("chunks"))?;
        sync_dir(&self.partial)?;
        let path = self.parent.join(&self.ulid);
        std::fs::rename(&self.partial, &path).map_err(Error::io("rename", &self.partial))?;
        sync_dir(&self.parent)?;
        Ok(Some(meta))
    }

    fn abandon(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.partial) {
            tracing::warn!(path = %self.partial.display(), %error, "cannot remove an unfinished block");
        }
    }
}
