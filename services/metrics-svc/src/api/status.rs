//! `/api/v1/status/*`.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::envelope;
use super::params::Params;
use crate::app::App;
use crate::error::ApiError;
use crate::flags::COMPATIBLE;

/// Milliseconds as RFC 3339.
pub(super) fn rfc3339(millis: i64) -> String {
    if millis == 0 {
        return "0001-01-01T00:00:00Z".to_owned();
    }
    jiff::Timestamp::from_millisecond(millis)
        .map_or_else(|_| "0001-01-01T00:00:00Z".to_owned(), |t| t.to_string())
}

pub(super) async fn config(State(app): State<Arc<App>>) -> Response {
    envelope::success(&json!({"yaml": app.config.load().text}))
}

pub(super) async fn flags(State(app): State<Arc<App>>) -> Response {
    let shown: Map<String, Value> =
        app.flags.shown().into_iter().map(|(n, v)| (n.to_owned(), v.into())).collect();
    envelope::success(&shown)
}

pub(super) async fn runtime(State(app): State<Arc<App>>) -> Response {
    let stats = app.db.stats();
    let (reloaded, good) = *app.reloaded.lock();
    let retention = match (app.flags.retention_millis(), app.flags.retention_size.0) {
        (0, 0) => String::new(),
        (time, 0) => metrics_model::format_millis(time),
        (0, size) => format!("{size}B"),
        (time, size) => format!("{} or {size}B", metrics_model::format_millis(time)),
    };
    let cwd = std::env::current_dir().map(|d| d.display().to_string()).unwrap_or_default();
    envelope::success(&json!({
        "startTime": rfc3339(app.started),
        "CWD": cwd,
        "hostname": "",
        "serverTime": rfc3339(crate::now_millis()),
        "reloadConfigSuccess": good,
        "lastConfigTime": rfc3339(reloaded),
        "corruptionCount": stats.wal_corruptions,
        "goroutineCount": 0,
        "GOMAXPROCS": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "GOMEMLIMIT": 0,
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": retention,
    }))
}

pub(super) async fn build() -> Response {
    envelope::success(&json!({
        "version": COMPATIBLE,
        "revision": format!("metrics-svc-{}", flotilla_telemetry::VERSION),
        "branch": "flotilla",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    }))
}

pub(super) async fn replay() -> Response {
    envelope::success(&json!({"min": 0, "max": 0, "current": 0, "state": "done"}))
}

pub(super) async fn tsdb(
    State(app): State<Arc<App>>,
    query: RawQuery,
) -> Result<Response, ApiError> {
    let limit = match Params::from_query(&query).limit()? {
        0 => 10,
        limit => limit,
    };
    let stats = app.db.stats();
    let labels = app.db.head_cardinality();
    let mut by_metric = Vec::new();
    let mut pairs = Vec::new();
    let (mut value_counts, mut bytes) = (Vec::new(), Vec::new());
    for (name, values) in &labels {
        value_counts.push((name.clone(), values.len()));
        bytes
            .push((name.clone(), values.iter().map(|(v, series)| v.len() * series).sum::<usize>()));
        pairs.extend(values.iter().map(|(value, series)| (format!("{name}={value}"), *series)));
        if name == metrics_model::METRIC_NAME {
            by_metric.clone_from(values);
        }
    }
    let top = |mut list: Vec<(String, usize)>| {
        list.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        list.truncate(limit);
        list.into_iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect::<Vec<_>>()
    };
    Ok(envelope::success(&json!({
        "headStats": {
            "numSeries": stats.head.series,
            "numLabelPairs": stats.head.label_pairs,
            "chunkCount": stats.head.chunks,
            "minTime": stats.head.min_time,
            "maxTime": stats.head.max_time,
        },
        "seriesCountByMetricName": top(by_metric),
        "labelValueCountByLabelName": top(value_counts),
        "memoryInBytesByLabelName": top(bytes),
        "seriesCountByLabelValuePair": top(pairs),
    })))
}
