//! Scraping one target: fetch, parse, append, and mark what vanished as stale.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics_model::{
    Entry, Format, Labels, METRIC_NAME, Parser, RelabelRule, parse_metric, stale_nan,
};
use metrics_tsdb::{AppendError, Appender, Db};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::fetch::{FetchError, Fetcher, Page};
use super::target::{Health, Metadata, Target};
use crate::config::ScrapeConfig;
use crate::metrics::Metrics;
use crate::now_millis;

/// How far a sample's own time may lie in the future.
const FUTURE: i64 = 10 * 60_000;

/// How a loop ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The target is gone: its series end now.
    MarkStale,
    /// Somebody else goes on scraping it.
    Quietly,
}

/// A series the target exposed before.
#[derive(Debug)]
struct Known {
    /// `None` when relabelling drops it.
    series: Option<(u64, Labels)>,
    /// Number of the scrape that saw it last.
    seen: u64,
    /// Whether its end is to be marked; not for samples with own timestamps.
    tracked: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    scraped: usize,
    kept: usize,
    added: usize,
}

/// The loop of one target.
#[derive(Debug)]
pub(super) struct ScrapeLoop {
    target: Arc<Target>,
    config: Arc<ScrapeConfig>,
    fetcher: Fetcher,
    db: Arc<Db>,
    metrics: Arc<Metrics>,
    known: HashMap<Box<str>, Known>,
    reports: HashMap<&'static str, u64>,
    scrape: u64,
}

impl ScrapeLoop {
    pub(super) fn new(
        target: Arc<Target>,
        config: Arc<ScrapeConfig>,
        fetcher: Fetcher,
        db: Arc<Db>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            target,
            config,
            fetcher,
            db,
            metrics,
            known: HashMap::new(),
            reports: HashMap::new(),
            scrape: 0,
        }
    }

    /// Scrapes until told to end; with `refusal` every scrape fails with that text.
    pub(super) async fn run(mut self, mut ends: mpsc::Receiver<End>, refusal: Option<String>) {
        let interval = self.target.interval;
        let seed = u64::from(std::process::id());
        let now = now_millis();
        let wait = (self.target.offset(seed) - now.rem_euclid(interval)).rem_euclid(interval);
        let mut next = Instant::now() + Duration::from_millis(wait.cast_unsigned());
        let mut planned = now + wait;
        let end = loop {
            tokio::select! {
                biased;
                end = ends.recv() => break end.unwrap_or(End::Quietly),
                () = tokio::time::sleep_until(next) => {}
            }
            // Times a little off the plan are written as planned: even distances compress best.
            let started = now_millis();
            let time = if (started - planned).abs() <= 2 { planned } else { started };
            self.once(time, refusal.as_deref()).await;
            while next <= Instant::now() {
                next += Duration::from_millis(interval.cast_unsigned());
                planned += interval;
            }
        };
        if end == End::MarkStale {
            self.end_series(now_millis());
        }
    }

    async fn once(&mut self, time: i64, refusal: Option<&str>) {
        let begun = Instant::now();
        let timeout = Duration::from_millis(self.target.timeout.cast_unsigned());
        let page = match refusal {
            Some(text) => Err(FetchError::Malformed(text.to_owned())),
            None => self.fetcher.fetch(&self.target.url, timeout).await,
        };
        let duration = begun.elapsed().as_secs_f64();
        let (this, metadata) = (self, &mut HashMap::new());
        // Appending a large page takes long enough to be in the way of other tasks.
        let result = tokio::task::block_in_place(|| this.store(page, time, duration, metadata));
        let mut status = this.target.status.lock();
        status.last_scrape = time;
        status.last_duration = duration;
        if result.is_ok() {
            status.metadata = std::mem::take(metadata);
        }
        status.health = if result.is_ok() { Health::Good } else { Health::Bad };
        status.last_error = result.err().unwrap_or_default();
    }

    fn store(
        &mut self,
        page: Result<Page, FetchError>,
        time: i64,
        duration: f64,
        metadata: &mut HashMap<String, Metadata>,
    ) -> Result<(), String> {
        self.scrape += 1;
        self.metrics.scrapes.inc();
        let db = self.db.clone();
        let mut appender = db.appender();
        let mut result = match page {
            Ok(page) => {
                self.metrics.scrape_bytes.inc_by(page.size as u64);
                self.append_page(&mut appender, &page.text, page.format, time, metadata)
            }
            Err(FetchError::TooLarge) => {
                self.metrics.body_limit_hits.inc();
                Err(FetchError::TooLarge.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        let counts = *result.as_ref().unwrap_or(&Counts::default());
        if result.is_err() {
            // Nothing of a bad page is kept; every known series ends.
            appender = db.appender();
            self.scrape += 1;
        }
        self.mark_missing(&mut appender, time);
        let up = if result.is_ok() { 1.0 } else { 0.0 };
        self.report(&mut appender, time, up, duration, counts);
        if let Err(error) = appender.commit() {
            tracing::error!(%error, "scrape could not be written");
            result = Err(error.to_string());
        }
        result.map(drop)
    }

    fn append_page(
        &mut self,
        appender: &mut Appender<'_>,
        text: &str,
        format: Format,
        time: i64,
        metadata: &mut HashMap<String, Metadata>,
    ) -> Result<Counts, String> {
        let mut counts = Counts::default();
        let limit = self.config.sample_limit.unwrap_or_default() as usize;
        for entry in Parser::new(text, format) {
            let (metric, value, own_time) = match entry.map_err(|e| e.to_string())? {
                Entry::Sample { metric, value, timestamp } => (metric, value, timestamp),
                Entry::Type(name, kind) => {
                    metadata.entry(name.to_owned()).or_default().kind =
                        if kind == "untyped" { "unknown" } else { kind }.to_owned();
                    continue;
                }
                Entry::Help(name, help) => {
                    metadata.entry(name.to_owned()).or_default().help = help;
                    continue;
                }
                Entry::Unit(name, unit) => {
                    metadata.entry(name.to_owned()).or_default().unit = unit.to_owned();
                    continue;
                }
            };
            counts.scraped += 1;
            let own_time = own_time.filter(|_| self.config.honor_timestamps);
            let Some(series) = self.series(appender, metric, own_time.is_none(), &mut counts)?
            else {
                continue;
            };
            counts.kept += 1;
            if limit > 0 && counts.kept > limit {
                self.metrics.sample_limit_hits.inc();
                return Err("sample limit exceeded".to_owned());
            }
            self.append(appender, metric, series, own_time.unwrap_or(time), value, time);
        }
        Ok(counts)
    }

    fn append(
        &mut self,
        appender: &mut Appender<'_>,
        metric: &str,
        series: u64,
        at: i64,
        value: f64,
        now: i64,
    ) {
        if at > now + FUTURE {
            self.metrics.out_of_bounds.inc();
            return;
        }
        let mut result = appender.append(series, at, value);
        if result == Err(AppendError::UnknownSeries) {
            // The head forgot the series meanwhile; it gets a new reference.
            if let Some(Known { series: Some((reference, labels)), .. }) =
                self.known.get_mut(metric)
            {
                *reference = appender.series(labels);
                result = appender.append(*reference, at, value);
            }
        }
        match result {
            Ok(()) => {}
            Err(AppendError::OutOfOrder) => drop(self.metrics.out_of_order.inc()),
            Err(AppendError::Duplicate) => drop(self.metrics.duplicate.inc()),
            Err(_) => drop(self.metrics.out_of_bounds.inc()),
        }
    }

    /// Reference of a series text; `None` when relabelling drops it.
    fn series(
        &mut self,
        appender: &mut Appender<'_>,
        metric: &str,
        no_time: bool,
        counts: &mut Counts,
    ) -> Result<Option<u64>, String> {
        let tracked = no_time || self.config.track_timestamps_staleness;
        if let Some(known) = self.known.get_mut(metric) {
            known.seen = self.scrape;
            known.tracked = tracked;
            return Ok(known.series.as_ref().map(|(reference, _)| *reference));
        }
        let exposed = parse_metric(metric)?;
        let labels = self.labels(&exposed);
        if let Some(labels) = &labels {
            self.check_labels(labels)?;
        }
        let series = labels.map(|labels| (appender.series(&labels), labels));
        let reference = series.as_ref().map(|(reference, _)| *reference);
        counts.added += usize::from(reference.is_some());
        self.known.insert(metric.into(), Known { series, seen: self.scrape, tracked });
        Ok(reference)
    }

    fn labels(&self, exposed: &Labels) -> Option<Labels> {
        let mut labels = exposed.to_builder();
        for (name, value) in self.target.labels.iter() {
            if self.config.honor_labels {
                if !exposed.has(name) {
                    labels.set(name, value);
                }
                continue;
            }
            let theirs = exposed.get(name).to_owned();
            if !theirs.is_empty() {
                let mut moved = format!("exported_{name}");
                while exposed.has(&moved) {
                    moved = format!("exported_{moved}");
                }
                labels.set(&moved, &theirs);
            }
            labels.set(name, value);
        }
        if !RelabelRule::apply_all(&self.config.metric_relabel_configs, &mut labels) {
            return None;
        }
        let labels = labels.build();
        labels.has(METRIC_NAME).then_some(labels)
    }

    fn check_labels(&self, labels: &Labels) -> Result<(), String> {
        let over =
            |limit: Option<u64>, size: usize| limit.is_some_and(|l| l > 0 && size as u64 > l);
        if over(self.config.label_limit, labels.len()) {
            return Err(format!(
                "label_limit exceeded (metric: {:.50}, number of labels: {})",
                labels.name(),
                labels.len()
            ));
        }
        for (name, value) in labels.iter() {
            if over(self.config.label_name_length_limit, name.len()) {
                return Err(format!(
                    "label_name_length_limit exceeded (metric: {:.50}, label name: {name:.50})",
                    labels.name()
                ));
            }
            if over(self.config.label_value_length_limit, value.len()) {
                return Err(format!(
                    "label_value_length_limit exceeded (metric: {:.50}, label name: {name:.50})",
                    labels.name()
                ));
            }
        }
        Ok(())
    }

    /// Ends the series this scrape did not see.
    fn mark_missing(&mut self, appender: &mut Appender<'_>, time: i64) {
        let current = self.scrape;
        self.known.retain(|_, known| {
            if known.seen == current {
                return true;
            }
            if let (Some((reference, _)), true) = (&known.series, known.tracked) {
                // A series without a newer sample takes the marker; anything else has ended by itself.
                let _ = appender.append(*reference, time, stale_nan());
            }
            false
        });
    }

    fn report(
        &mut self,
        appender: &mut Appender<'_>,
        time: i64,
        up: f64,
        duration: f64,
        counts: Counts,
    ) {
        let values = [
            ("up", up),
            ("scrape_duration_seconds", duration),
            ("scrape_samples_scraped", counts.scraped as f64),
            ("scrape_samples_post_metric_relabeling", counts.kept as f64),
            ("scrape_series_added", counts.added as f64),
        ];
        for (name, value) in values {
            let target = &self.target;
            let make = |appender: &mut Appender<'_>| {
                let mut labels = target.labels.to_builder();
                labels.set(METRIC_NAME, name);
                appender.series(&labels.build())
            };
            let reference = *self.reports.entry(name).or_insert_with(|| make(appender));
            if appender.append(reference, time, value) == Err(AppendError::UnknownSeries) {
                let reference = make(appender);
                self.reports.insert(name, reference);
                // Fails only when the clock went back.
                let _ = appender.append(reference, time, value);
            }
        }
    }

    fn end_series(mut self, time: i64) {
        let db = self.db.clone();
        let mut appender = db.appender();
        self.scrape += 1;
        self.mark_missing(&mut appender, time);
        for reference in self.reports.values() {
            let _ = appender.append(*reference, time, stale_nan());
        }
        if let Err(error) = appender.commit() {
            tracing::error!(%error, "staleness markers could not be written");
        }
    }
}
