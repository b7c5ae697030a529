//! The newest data, in memory.
//!
//! A series has closed chunks, at most one open chunk and the log reference under which it is known. Chunks never
//! cross a block range, so that a range can be cut off whole. The log is written by the caller before
//! [`Head::apply`] makes samples visible.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use metrics_model::{Labels, Matcher};
use parking_lot::{Mutex, RwLock};

use crate::error::{AppendError, Error};
use crate::postings::{self, MemPostings};
use crate::record::RefSample;
use crate::select::{ChunkBytes, ChunkSource, SeriesData};
use crate::tombstones::{self, Interval};
use crate::xor::XorAppender;

const SAMPLES_PER_CHUNK: u16 = 120;

/// A finished chunk.
#[derive(Debug)]
struct Closed {
    min: i64,
    max: i64,
    bytes: Arc<[u8]>,
}

#[derive(Debug, Default)]
struct State {
    closed: Vec<Closed>,
    open: Option<(i64, XorAppender)>,
    last: Option<(i64, f64)>,
    deleted: Vec<Interval>,
}

/// One series of the head.
#[derive(Debug)]
pub(crate) struct MemSeries {
    pub(crate) id: u64,
    pub(crate) labels: Labels,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct Index {
    by_id: HashMap<u64, Arc<MemSeries>>,
    by_labels: HashMap<Labels, Arc<MemSeries>>,
    postings: MemPostings,
    last_id: u64,
}

/// The head of a database.
#[derive(Debug)]
pub(crate) struct Head {
    range: i64,
    index: RwLock<Index>,
    /// Readers take it shared while they collect chunks, commits take it alone while they apply.
    visible: RwLock<()>,
    min_time: AtomicI64,
    max_time: AtomicI64,
    /// Samples before this lie in blocks already.
    min_valid: AtomicI64,
    chunks: AtomicI64,
    created: AtomicU64,
    removed: AtomicU64,
    appended: AtomicU64,
}

/// Sizes of the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadStats {
    /// Series in memory.
    pub series: u64,
    /// Chunks in memory.
    pub chunks: u64,
    /// Oldest sample, in milliseconds; `i64::MAX` when there is none.
    pub min_time: i64,
    /// Newest sample, in milliseconds; `i64::MIN` when there is none.
    pub max_time: i64,
    /// Series created since the start.
    pub created: u64,
    /// Series removed since the start.
    pub removed: u64,
    /// Samples appended since the start.
    pub appended: u64,
    /// Distinct label pairs.
    pub label_pairs: u64,
}

impl Head {
    pub(crate) fn new(range: i64, min_valid: i64) -> Self {
        Self {
            range,
            index: RwLock::default(),
            visible: RwLock::default(),
            min_time: AtomicI64::new(i64::MAX),
            max_time: AtomicI64::new(i64::MIN),
            min_valid: AtomicI64::new(min_valid),
            chunks: AtomicI64::new(0),
            created: AtomicU64::new(0),
            removed: AtomicU64::new(0),
            appended: AtomicU64::new(0),
        }
    }

    pub(crate) fn min_time(&self) -> i64 {
        self.min_time.load(Ordering::Acquire)
    }

    pub(crate) fn max_time(&self) -> i64 {
        self.max_time.load(Ordering::Acquire)
    }

    pub(crate) fn min_valid(&self) -> i64 {
        self.min_valid.load(Ordering::Acquire)
    }

    /// The oldest time an append may have.
    fn oldest_allowed(&self) -> i64 {
        self.min_valid().max(self.max_time().saturating_sub(self.range / 2))
    }

    /// The series with these labels; `true` when it is new.
    pub(crate) fn get_or_create(
        &self,
        labels: &Labels,
        on_create: impl FnOnce(u64),
    ) -> (Arc<MemSeries>, bool) {
        if let Some(series) = self.index.read().by_labels.get(labels) {
            return (series.clone(), false);
        }
        let mut index = self.index.write();
        if let Some(series) = index.by_labels.get(labels) {
            return (series.clone(), false);
        }
        let id = index.last_id + 1;
        on_create(id);
        (self.insert(&mut index, id, labels), true)
    }

    fn insert(&self, index: &mut Index, id: u64, labels: &Labels) -> Arc<MemSeries> {
        let series = Arc::new(MemSeries { id, labels: labels.clone(), state: Mutex::default() });
        index.last_id = index.last_id.max(id);
        index.by_id.insert(id, series.clone());
        index.by_labels.insert(labels.clone(), series.clone());
        index.postings.add(id, labels);
        self.created.fetch_add(1, Ordering::Relaxed);
        series
    }

    /// Takes a series from the log; answers the reference its labels had before, if another.
    pub(crate) fn restore(&self, id: u64, labels: &Labels) -> u64 {
        let mut index = self.index.write();
        index.last_id = index.last_id.max(id);
        match index.by_labels.get(labels) {
            Some(known) => known.id,
            None => self.insert(&mut index, id, labels).id,
        }
    }

    pub(crate) fn get(&self, id: u64) -> Option<Arc<MemSeries>> {
        self.index.read().by_id.get(&id).cloned()
    }

    /// Whether a sample may be appended; `Ok(false)` when it is there already.
    pub(crate) fn check(
        &self,
        series: &MemSeries,
        time: i64,
        value: f64,
    ) -> Result<bool, AppendError> {
        match series.state.lock().last {
            Some((last, before)) if time == last => {
                return if before.to_bits() == value.to_bits() {
                    Ok(false)
                } else {
                    Err(AppendError::Duplicate)
                };
            }
            Some((last, _)) if time < last => {
                return Err(if time < self.oldest_allowed() {
                    AppendError::OutOfBounds
                } else {
                    AppendError::OutOfOrder
                });
            }
            _ => {}
        }
        if time < self.oldest_allowed() { Err(AppendError::OutOfBounds) } else { Ok(true) }
    }

    /// Makes logged samples visible, all at once.
    pub(crate) fn apply(&self, samples: &[(Arc<MemSeries>, RefSample)]) {
        let _alone = self.visible.write();
        for (series, sample) in samples {
            self.push(series, sample.time, sample.value);
        }
    }

    /// Adds a sample; one that is not newer than the series' last is dropped.
    pub(crate) fn push(&self, series: &MemSeries, time: i64, value: f64) {
        let mut state = series.state.lock();
        if state.last.is_some_and(|(last, _)| time <= last) {
            return;
        }
        let range = self.range;
        let full = match (&state.open, state.last) {
            (Some((_, open)), Some((last, _))) => {
                open.count() >= SAMPLES_PER_CHUNK
                    || last.div_euclid(range) != time.div_euclid(range)
            }
            _ => false,
        };
        if full {
            state.close();
        }
        let chunks = &self.chunks;
        let (_, open) = state.open.get_or_insert_with(|| {
            chunks.fetch_add(1, Ordering::Relaxed);
            (time, XorAppender::default())
        });
        open.append(time, value);
        state.last = Some((time, value));
        drop(state);
        self.min_time.fetch_min(time, Ordering::AcqRel);
        self.max_time.fetch_max(time, Ordering::AcqRel);
        self.appended.fetch_add(1, Ordering::Relaxed);
    }

    /// Series that match and have samples in the range, both ends included.
    pub(crate) fn select(
        &self,
        min: i64,
        max: i64,
        matchers: &[Matcher],
    ) -> Result<Vec<SeriesData>, Error> {
        let found = self.matching(matchers)?;
        let _together = self.visible.read();
        Ok(found.iter().filter_map(|series| series.data(min, max)).collect())
    }

    fn matching(&self, matchers: &[Matcher]) -> Result<Vec<Arc<MemSeries>>, Error> {
        let index = self.index.read();
        let ids = postings::select(&index.postings, matchers)?;
        Ok(ids.iter().filter_map(|id| index.by_id.get(id).cloned()).collect())
    }

    /// Labels of the matching series with samples in the range.
    pub(crate) fn labels(
        &self,
        min: i64,
        max: i64,
        matchers: &[Matcher],
    ) -> Result<Vec<Labels>, Error> {
        let found = self.matching(matchers)?;
        Ok(found.iter().filter(|s| s.overlaps(min, max)).map(|s| s.labels.clone()).collect())
    }

    pub(crate) fn label_names(&self) -> Vec<String> {
        self.index.read().postings.names().map(str::to_owned).collect()
    }

    /// Values of a label with the number of series that have each.
    pub(crate) fn label_values(&self, name: &str) -> Vec<(String, usize)> {
        self.index.read().postings.label_values(name).map(|(v, n)| (v.to_owned(), n)).collect()
    }

    /// Marks a range of the matching series as deleted; answers what to log.
    pub(crate) fn delete(
        &self,
        min: i64,
        max: i64,
        matchers: &[Matcher],
    ) -> Result<Vec<crate::record::RefInterval>, Error> {
        let mut out = Vec::new();
        for series in self.matching(matchers)? {
            if series.overlaps(min, max) {
                series.delete(min, max);
                out.push(crate::record::RefInterval { series: series.id, min, max });
            }
        }
        Ok(out)
    }

    /// Drops chunks that end before `before`, and series without chunks; answers the removed references.
    pub(crate) fn truncate(&self, before: i64) -> Vec<u64> {
        self.min_valid.fetch_max(before, Ordering::AcqRel);
        let mut index = self.index.write();
        let _alone = self.visible.write();
        let (mut gone, mut min) = (Vec::new(), i64::MAX);
        for series in index.by_id.values() {
            let mut state = series.state.lock();
            let count = state.closed.len();
            state.closed.retain(|chunk| chunk.max >= before);
            let mut dropped = count - state.closed.len();
            if state.last.is_some_and(|(last, _)| last < before) && state.open.take().is_some() {
                dropped += 1;
            }
            self.chunks.fetch_sub(dropped as i64, Ordering::Relaxed);
            state.deleted.retain(|(_, end)| *end >= before);
            match state.first_time() {
                Some(first) => min = min.min(first),
                // Somebody else holds the series (an appender): it stays until the next time.
                None if Arc::strong_count(series) <= 2 => gone.push(series.clone()),
                None => {}
            }
        }
        let mut ids: Vec<u64> = gone.iter().map(|s| s.id).collect();
        ids.sort_unstable();
        for series in &gone {
            index.by_id.remove(&series.id);
            index.by_labels.remove(&series.labels);
        }
        index.postings.remove(&ids, gone.iter().map(|s| &s.labels));
        self.removed.fetch_add(ids.len() as u64, Ordering::Relaxed);
        self.min_time.store(min, Ordering::Release);
        ids
    }

    pub(crate) fn stats(&self) -> HeadStats {
        let index = self.index.read();
        HeadStats {
            series: index.by_id.len() as u64,
            chunks: self.chunks.load(Ordering::Relaxed).max(0).cast_unsigned(),
            min_time: self.min_time(),
            max_time: self.max_time(),
            created: self.created.load(Ordering::Relaxed),
            removed: self.removed.load(Ordering::Relaxed),
            appended: self.appended.load(Ordering::Relaxed),
            label_pairs: index.postings.pairs() as u64,
        }
    }
}

impl State {
    fn close(&mut self) {
        if let (Some((min, chunk)), Some((max, _))) = (self.open.take(), self.last) {
            self.closed.push(Closed { min, max, bytes: chunk.into_bytes().into() });
        }
    }

    fn first_time(&self) -> Option<i64> {
        self.closed.first().map(|c| c.min).or(self.open.as_ref().map(|(min, _)| *min))
    }
}

impl MemSeries {
    fn overlaps(&self, min: i64, max: i64) -> bool {
        let state = self.state.lock();
        let first = state.first_time();
        first.is_some_and(|first| first <= max) && state.last.is_some_and(|(last, _)| last >= min)
    }

    pub(crate) fn delete(&self, min: i64, max: i64) {
        tombstones::add(&mut self.state.lock().deleted, (min, max));
    }

    fn data(&self, min: i64, max: i64) -> Option<SeriesData> {
        let state = self.state.lock();
        let deleted: Arc<[Interval]> = state.deleted.clone().into();
        let mut chunks: Vec<ChunkSource> = state
            .closed
            .iter()
            .filter(|c| c.min <= max && c.max >= min)
            .map(|c| ChunkSource {
                min: c.min,
                max: c.max,
                data: ChunkBytes::Memory(c.bytes.clone()),
                deleted: deleted.clone(),
            })
            .collect();
        if let (Some((first, open)), Some((last, _))) = (&state.open, state.last)
            && *first <= max
            && last >= min
        {
            let data = ChunkBytes::Memory(open.bytes().into());
            chunks.push(ChunkSource { min: *first, max: last, data, deleted });
        }
        (!chunks.is_empty()).then(|| SeriesData { labels: self.labels.clone(), chunks })
    }
}
