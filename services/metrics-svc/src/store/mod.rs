//! The database as PromQL's storage.

use std::sync::Arc;

use metrics_model::{Labels, Matcher};
use metrics_promql::{Storage, StoredSeries};
use metrics_tsdb::{Db, Options, SeriesData};

use crate::flags::Flags;

/// Lets the engine read a database.
#[derive(Debug, Clone)]
pub struct Source(pub Arc<Db>);

struct Found(SeriesData);

impl StoredSeries for Found {
    fn labels(&self) -> &Labels {
        &self.0.labels
    }

    fn samples(
        &self,
        min: i64,
        max: i64,
        times: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) -> Result<(), String> {
        self.0.samples(min, max, times, values).map_err(|e| e.to_string())
    }
}

impl Storage for Source {
    fn select(
        &self,
        min: i64,
        max: i64,
        matchers: &[Matcher],
    ) -> Result<Vec<Box<dyn StoredSeries>>, String> {
        let found = self.0.select(min, max, matchers).map_err(|e| e.to_string())?;
        Ok(found
            .into_iter()
            .map(|series| Box::new(Found(series)) as Box<dyn StoredSeries>)
            .collect())
    }
}

/// The database's options as the flags ask for them.
pub fn options(flags: &Flags) -> Options {
    let block_range = flags.min_block.as_millis() as i64;
    let retention_millis = flags.retention_millis();
    const MONTH: i64 = 31 * 86_400_000;
    let default_max = if retention_millis > 0 { (retention_millis / 10).min(MONTH) } else { MONTH };
    Options {
        retention_millis,
        retention_bytes: flags.retention_size.0,
        block_range,
        max_block_range: flags
            .max_block
            .map_or(default_max, |d| d.as_millis() as i64)
            .max(block_range),
        wal_segment_bytes: flags.wal_segment.0.max(64 << 10),
        wal_compression: flags.wal_compression,
    }
}
