//! Appending: collect, write to the log, make visible.

use std::collections::HashMap;
use std::sync::Arc;

use metrics_model::Labels;

use crate::Db;
use crate::error::{AppendError, Error};
use crate::head::MemSeries;
use crate::record::{self, RefSample};

/// Samples of one transaction; dropping it without [`Appender::commit`] forgets them.
#[derive(Debug)]
pub struct Appender<'a> {
    db: &'a Db,
    samples: Vec<(Arc<MemSeries>, RefSample)>,
    /// Newest sample of each series within this transaction.
    newest: HashMap<u64, (i64, u64)>,
}

impl Db {
    /// A new transaction.
    pub fn appender(&self) -> Appender<'_> {
        Appender { db: self, samples: Vec::new(), newest: HashMap::new() }
    }

    fn write_log(&self, samples: &[RefSample]) -> Result<(), Error> {
        let mut log = self.log.lock();
        // Taken under the log's lock: a series is always named before its samples, whoever created it.
        let series = std::mem::take(&mut *self.unlogged.lock());
        let mut records = Vec::with_capacity(2);
        if !series.is_empty() {
            records.push(record::encode_series(&series));
        }
        if !samples.is_empty() {
            records.push(record::encode_samples(samples));
        }
        let written = log.writer.log(&records);
        if written.is_err() {
            self.unlogged.lock().extend(series);
        }
        written
    }
}

impl Appender<'_> {
    /// Reference of the series with these labels, made when it is new.
    pub fn series(&mut self, labels: &Labels) -> u64 {
        let unlogged = &self.db.unlogged;
        let (series, _) =
            self.db.head.get_or_create(labels, |id| unlogged.lock().push((id, labels.clone())));
        series.id
    }

    /// Adds a sample; `time` in milliseconds.
    ///
    /// # Errors
    /// When the sample cannot follow what the series has.
    pub fn append(&mut self, series: u64, time: i64, value: f64) -> Result<(), AppendError> {
        let series_ref = series;
        let series = self.db.head.get(series).ok_or(AppendError::UnknownSeries)?;
        if let Some((last, bits)) = self.newest.get(&series_ref) {
            if time == *last {
                return if *bits == value.to_bits() { Ok(()) } else { Err(AppendError::Duplicate) };
            }
            if time < *last {
                return Err(AppendError::OutOfOrder);
            }
        }
        if self.db.head.check(&series, time, value)? {
            self.newest.insert(series_ref, (time, value.to_bits()));
            self.samples.push((series, RefSample { series: series_ref, time, value }));
        }
        Ok(())
    }

    /// Samples collected so far.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Writes the log, then makes all samples visible at once. They survive the death of the process.
    ///
    /// # Errors
    /// When the log cannot be written; nothing is visible then.
    pub fn commit(self) -> Result<(), Error> {
        let records: Vec<RefSample> = self.samples.iter().map(|(_, sample)| *sample).collect();
        self.db.write_log(&records)?;
        self.db.head.apply(&self.samples);
        Ok(())
    }
}
