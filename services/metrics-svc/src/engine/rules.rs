//! Rule groups: evaluated at their interval, rules in order, results appended with the evaluation's time.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use metrics_model::{Labels, METRIC_NAME, stale_nan};
use metrics_promql::{Expr, QueryResult};
use metrics_tsdb::Db;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::alerts::{AlertView, Alerts};
use super::query::{Asked, QueryEngine};
use crate::config::{Config, Rule, RuleGroup};
use crate::metrics::Metrics;
use crate::now_millis;

/// A rule as the API shows it.
#[derive(Debug, Clone)]
pub struct RuleView {
    /// The rule.
    pub rule: Rule,
    /// Labels the rule and its group set.
    pub labels: BTreeMap<String, String>,
    /// `ok`, `err` or `unknown`.
    pub health: &'static str,
    /// Why it failed.
    pub last_error: String,
    /// When it ran, milliseconds.
    pub last_evaluation: i64,
    /// Seconds it took.
    pub evaluation_time: f64,
    /// Alerts, for an alerting rule.
    pub alerts: Vec<AlertView>,
}

/// A group as the API shows it.
#[derive(Debug, Clone)]
pub struct GroupView {
    /// Name.
    pub name: String,
    /// File.
    pub file: String,
    /// Seconds between evaluations.
    pub interval: f64,
    /// Most series a rule may yield; 0 for no limit.
    pub limit: usize,
    /// Rules.
    pub rules: Vec<RuleView>,
    /// When it ran, milliseconds.
    pub last_evaluation: i64,
    /// Seconds it took.
    pub evaluation_time: f64,
}

struct Running {
    key: String,
    view: Arc<Mutex<GroupView>>,
    stop: CancellationToken,
}

/// All groups.
pub struct Rules {
    db: Arc<Db>,
    queries: Arc<QueryEngine>,
    metrics: Arc<Metrics>,
    groups: Mutex<Vec<Running>>,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("groups", &self.groups.lock().len()).finish_non_exhaustive()
    }
}

impl Rules {
    /// No groups yet.
    pub fn new(db: Arc<Db>, queries: Arc<QueryEngine>, metrics: Arc<Metrics>) -> Self {
        Self { db, queries, metrics, groups: Mutex::default() }
    }

    /// Checks groups without running them.
    ///
    /// # Errors
    /// Names the rule whose templates cannot be used.
    pub fn check(groups: &[RuleGroup]) -> Result<(), String> {
        for group in groups {
            for rule in group.rules.iter().filter(|r| !r.alert.is_empty()) {
                Alerts::new(rule, &group.labels)?;
            }
        }
        Ok(())
    }

    /// Runs these groups from now on; groups that did not change keep their state.
    ///
    /// # Errors
    /// As [`Rules::check`].
    pub fn apply(&self, config: &Config, groups: Vec<RuleGroup>) -> Result<(), String> {
        Self::check(&groups)?;
        let mut running = self.groups.lock();
        let mut old = std::mem::take(&mut *running);
        for group in groups {
            let key = format!(
                "{group:?}{:?}{:?}",
                config.global.evaluation_interval, config.external_labels
            );
            if let Some(at) = old.iter().position(|r| r.key == key) {
                running.push(old.swap_remove(at));
                continue;
            }
            let interval = group.interval.unwrap_or(config.global.evaluation_interval).0.max(1);
            let offset = group.query_offset.unwrap_or(config.global.rule_query_offset).0;
            let view = Arc::new(Mutex::new(view(&group, interval)));
            let stop = CancellationToken::new();
            let work =
                GroupLoop {
                    db: self.db.clone(),
                    queries: self.queries.clone(),
                    metrics: self.metrics.clone(),
                    alerts: group
                        .rules
                        .iter()
                        .map(|r| {
                            if r.alert.is_empty() {
                                None
                            } else {
                                Alerts::new(r, &group.labels).ok()
                            }
                        })
                        .collect(),
                    written: vec![HashSet::new(); group.rules.len()],
                    group,
                    interval,
                    offset,
                    view: view.clone(),
                };
            tokio::spawn(work.run(stop.clone()));
            running.push(Running { key, view, stop });
        }
        for gone in old {
            gone.stop.cancel();
        }
        Ok(())
    }

    /// Ends all evaluation.
    pub fn stop(&self) {
        for group in self.groups.lock().drain(..) {
            group.stop.cancel();
        }
    }

    /// Groups with their state, by file and name.
    pub fn views(&self) -> Vec<GroupView> {
        let mut views: Vec<GroupView> =
            self.groups.lock().iter().map(|g| g.view.lock().clone()).collect();
        views.sort_by(|a, b| (&a.file, &a.name).cmp(&(&b.file, &b.name)));
        views
    }
}

fn view(group: &RuleGroup, interval: i64) -> GroupView {
    let rules = group.rules.iter().map(|rule| {
        let mut labels = group.labels.clone();
        labels.extend(rule.labels.clone());
        RuleView {
            rule: rule.clone(),
            labels,
            health: "unknown",
            last_error: String::new(),
            last_evaluation: 0,
            evaluation_time: 0.0,
            alerts: Vec::new(),
        }
    });
    GroupView {
        name: group.name.clone(),
        file: group.file.display().to_string(),
        interval: interval as f64 / 1000.0,
        limit: group.limit,
        rules: rules.collect(),
        last_evaluation: 0,
        evaluation_time: 0.0,
    }
}

struct GroupLoop {
    db: Arc<Db>,
    queries: Arc<QueryEngine>,
    metrics: Arc<Metrics>,
    group: RuleGroup,
    alerts: Vec<Option<Alerts>>,
    /// Series each rule wrote last time.
    written: Vec<HashSet<Labels>>,
    interval: i64,
    offset: i64,
    view: Arc<Mutex<GroupView>>,
}

impl GroupLoop {
    async fn run(mut self, stop: CancellationToken) {
        let interval = Duration::from_millis(self.interval.cast_unsigned());
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(next) => {}
            }
            self.metrics.rule_iterations.inc();
            let (begun, now) = (Instant::now(), now_millis());
            for at in 0..self.group.rules.len() {
                self.rule(at, now).await;
            }
            {
                let mut view = self.view.lock();
                view.last_evaluation = now;
                view.evaluation_time = begun.elapsed().as_secs_f64();
            }
            next += interval;
            while next <= Instant::now() {
                self.metrics.rule_iterations_missed.inc();
                next += interval;
            }
        }
    }

    async fn rule(&mut self, at: usize, now: i64) {
        let begun = Instant::now();
        self.metrics.rule_evaluations.inc();
        let result = self.evaluate(at, now).await;
        if let Err(error) = &result {
            self.metrics.rule_failures.inc();
            tracing::warn!(group = self.group.name, rule = at, error, "rule evaluation failed");
        }
        let mut view = self.view.lock();
        let shown = &mut view.rules[at];
        shown.health = if result.is_ok() { "ok" } else { "err" };
        shown.last_error = result.err().unwrap_or_default();
        shown.last_evaluation = now;
        shown.evaluation_time = begun.elapsed().as_secs_f64();
        shown.alerts = self.alerts[at].as_ref().map(Alerts::views).unwrap_or_default();
    }

    async fn evaluate(&mut self, at: usize, now: i64) -> Result<(), String> {
        let time = now - self.offset;
        let expr: Expr = self.group.rules[at].parsed.clone();
        let result =
            self.queries.instant(expr, time, Asked::default()).await.map_err(|e| e.to_string())?;
        let vector: Vec<(Labels, f64)> = match result {
            QueryResult::Vector(list) => {
                list.into_iter().map(|(labels, sample)| (labels, sample.value)).collect()
            }
            QueryResult::Scalar(sample) => vec![(Labels::default(), sample.value)],
            _ => return Err("rule result is not a vector or scalar".to_owned()),
        };
        if self.group.limit > 0 && vector.len() > self.group.limit {
            return Err(format!(
                "exceeded limit of {} with {} series",
                self.group.limit,
                vector.len()
            ));
        }
        let samples = match &mut self.alerts[at] {
            Some(alerts) => alerts.update(&vector, time)?,
            None => record(&self.group, &self.group.rules[at], vector)?,
        };
        self.write(at, &samples, time)
    }

    fn write(&mut self, at: usize, samples: &[(Labels, f64)], time: i64) -> Result<(), String> {
        let mut appender = self.db.appender();
        let mut written = HashSet::with_capacity(samples.len());
        for (labels, value) in samples {
            let series = appender.series(labels);
            if let Err(error) = appender.append(series, time, *value) {
                tracing::warn!(rule = self.group.name, %error, "rule evaluation result discarded");
            }
            written.insert(labels.clone());
        }
        for gone in self.written[at].difference(&written) {
            let series = appender.series(gone);
            // Somebody else may have written a newer sample: then nothing is to be marked.
            let _ = appender.append(series, time, stale_nan());
        }
        appender.commit().map_err(|e| e.to_string())?;
        self.written[at] = written;
        Ok(())
    }
}

/// Results of a recording rule under their new name.
fn record(
    group: &RuleGroup,
    rule: &Rule,
    vector: Vec<(Labels, f64)>,
) -> Result<Vec<(Labels, f64)>, String> {
    let mut seen = HashSet::new();
    let mut out = Vec::with_capacity(vector.len());
    for (labels, value) in vector {
        let mut labels = labels.to_builder();
        labels.set(METRIC_NAME, &rule.record);
        for (name, value) in group.labels.iter().chain(&rule.labels) {
            labels.set(name, value);
        }
        let labels = labels.build();
        if !seen.insert(labels.clone()) {
            return Err(
                "vector contains metrics with the same labelset after applying rule labels"
                    .to_owned(),
            );
        }
        out.push((labels, value));
    }
    Ok(out)
}
