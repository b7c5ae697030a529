//! An immutable block on disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use metrics_model::{Labels, Matcher};
use parking_lot::RwLock;

use crate::Error;
use crate::chunk_files::ChunkReader;
use crate::index_reader::IndexReader;
use crate::meta::BlockMeta;
use crate::select::{ChunkBytes, ChunkSource, SeriesData};
use crate::tombstones::{self, Interval, Tombstones};

/// An open block.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) dir: PathBuf,
    pub(crate) meta: BlockMeta,
    pub(crate) index: IndexReader,
    pub(crate) chunks: ChunkReader,
    tombstones: RwLock<Tombstones>,
}

impl Block {
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        Ok(Self {
            dir: dir.to_owned(),
            meta: BlockMeta::read(dir)?,
            index: IndexReader::open(&dir.join("index"))?,
            chunks: ChunkReader::open(&dir.join("chunks"))?,
            tombstones: RwLock::new(tombstones::read(dir)?),
        })
    }

    /// Bytes on disk.
    pub(crate) fn size(&self) -> u64 {
        self.index.size() + self.chunks.size()
    }

    pub(crate) fn overlaps(&self, min: i64, max: i64) -> bool {
        self.meta.min_time <= max && min < self.meta.max_time
    }

    pub(crate) fn has_tombstones(&self) -> bool {
        !self.tombstones.read().is_empty()
    }

    /// Series that match and have chunks in the range, both ends included.
    pub(crate) fn select(
        self: &Arc<Self>,
        min: i64,
        max: i64,
        matchers: &[Matcher],
    ) -> Result<Vec<SeriesData>, Error> {
        self.series(self.index.select(matchers)?, min, max)
    }

    /// Every series of the block, in order of labels.
    pub(crate) fn all(self: &Arc<Self>) -> Result<Vec<SeriesData>, Error> {
        self.series(self.index.select(&[])?, i64::MIN, i64::MAX)
    }

    fn series(
        self: &Arc<Self>,
        references: Vec<u64>,
        min: i64,
        max: i64,
    ) -> Result<Vec<SeriesData>, Error> {
        let stones = self.tombstones.read();
        let mut out = Vec::with_capacity(references.len());
        for reference in references {
            let (labels, entries) = self.index.series(reference)?;
            let deleted: Arc<[Interval]> =
                stones.get(&reference).cloned().unwrap_or_default().into();
            let chunks: Vec<ChunkSource> = entries
                .into_iter()
                .filter(|c| c.min <= max && c.max >= min)
                .map(|c| ChunkSource {
                    min: c.min,
                    max: c.max,
                    data: ChunkBytes::Mapped(self.clone(), c.reference),
                    deleted: deleted.clone(),
                })
                .collect();
            if !chunks.is_empty() {
                out.push(SeriesData { labels, chunks });
            }
        }
        Ok(out)
    }

    /// Labels of the series that match.
    pub(crate) fn labels(&self, matchers: &[Matcher]) -> Result<Vec<Labels>, Error> {
        self.index
            .select(matchers)?
            .into_iter()
            .map(|r| self.index.series(r).map(|(labels, _)| labels))
            .collect()
    }

    /// Marks a range of the matching series as deleted.
    pub(crate) fn delete(&self, min: i64, max: i64, matchers: &[Matcher]) -> Result<(), Error> {
        let mut stones = self.tombstones.write();
        let mut changed = stones.clone();
        for reference in self.index.select(matchers)? {
            let (_, chunks) = self.index.series(reference)?;
            let (Some(first), Some(last)) = (chunks.first(), chunks.iter().map(|c| c.max).max())
            else {
                continue;
            };
            let (from, to) = (min.max(first.min), max.min(last));
            if from <= to {
                tombstones::add(changed.entry(reference).or_default(), (from, to));
            }
        }
        tombstones::write(&self.dir, &changed)?;
        *stones = changed;
        Ok(())
    }
}
