//! What a query gets: series with their chunks, decoded one series at a time.

use std::collections::HashMap;
use std::sync::Arc;

use metrics_model::Labels;

use crate::Error;
use crate::block::Block;
use crate::tombstones::{Interval, contains};
use crate::xor::{self, XorIter};

/// A chunk and where its bytes are.
#[derive(Debug, Clone)]
pub(crate) struct ChunkSource {
    pub(crate) min: i64,
    pub(crate) max: i64,
    pub(crate) data: ChunkBytes,
    pub(crate) deleted: Arc<[Interval]>,
}

#[derive(Debug, Clone)]
pub(crate) enum ChunkBytes {
    Memory(Arc<[u8]>),
    Mapped(Arc<Block>, u64),
}

impl ChunkBytes {
    pub(crate) fn get(&self) -> Result<(u8, &[u8]), Error> {
        match self {
            Self::Memory(bytes) => Ok((xor::ENCODING, bytes)),
            Self::Mapped(block, reference) => block.chunks.chunk(*reference),
        }
    }
}

/// One series of a query result.
#[derive(Debug, Clone)]
pub struct SeriesData {
    /// Its labels.
    pub labels: Labels,
    pub(crate) chunks: Vec<ChunkSource>,
}

impl SeriesData {
    /// Appends the samples between `min` and `max` (both included), in order of time, without duplicates.
    ///
    /// # Errors
    /// When a chunk is corrupt or of native histograms.
    pub fn samples(
        &self,
        min: i64,
        max: i64,
        times: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) -> Result<(), Error> {
        let start = times.len();
        let mut sorted = true;
        for chunk in &self.chunks {
            if chunk.min > max || chunk.max < min {
                continue;
            }
            let (encoding, bytes) = chunk.data.get()?;
            if encoding != xor::ENCODING {
                return Err(Error::Histogram);
            }
            for (time, value) in XorIter::new(bytes) {
                if time > max {
                    break;
                }
                if time < min || (!chunk.deleted.is_empty() && contains(&chunk.deleted, time)) {
                    continue;
                }
                sorted &= times.len() == start || times.last().is_some_and(|last| *last < time);
                times.push(time);
                values.push(value);
            }
        }
        if !sorted {
            put_in_order(start, times, values);
        }
        Ok(())
    }
}

/// Sorts what overlapping chunks yielded; of equal times the first wins.
fn put_in_order(start: usize, times: &mut Vec<i64>, values: &mut Vec<f64>) {
    let mut pairs: Vec<(i64, f64)> = times.drain(start..).zip(values.drain(start..)).collect();
    pairs.sort_by_key(|(time, _)| *time);
    pairs.dedup_by_key(|(time, _)| *time);
    times.extend(pairs.iter().map(|(time, _)| *time));
    values.extend(pairs.iter().map(|(_, value)| *value));
}

/// Joins the series of several sources by labels, sorted by labels.
pub(crate) fn merge(parts: Vec<Vec<SeriesData>>) -> Vec<SeriesData> {
    let mut merged: Vec<SeriesData> = Vec::new();
    let single = parts.iter().filter(|p| !p.is_empty()).count() <= 1;
    if single {
        merged = parts.into_iter().flatten().collect();
    } else {
        let mut index: HashMap<Labels, usize> = HashMap::new();
        for series in parts.into_iter().flatten() {
            match index.get(&series.labels) {
                Some(at) => merged[*at].chunks.extend(series.chunks),
                None => {
                    index.insert(series.labels.clone(), merged.len());
                    merged.push(series);
                }
            }
        }
        for series in &mut merged {
            series.chunks.sort_by_key(|c| (c.min, c.max));
        }
    }
    merged.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
    merged
}
