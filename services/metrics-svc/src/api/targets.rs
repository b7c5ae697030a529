//! `/api/v1/targets`, `metadata` and their like.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use metrics_model::Labels;
use serde_json::{Map, Value, json};

use super::envelope;
use super::params::Params;
use super::status::rfc3339;
use crate::app::App;
use crate::error::ApiError;
use crate::remote::Metadata;

pub(super) fn labels_json(labels: &Labels) -> Value {
    Value::Object(labels.iter().map(|(n, v)| (n.to_owned(), v.into())).collect::<Map<_, _>>())
}

fn seconds(millis: i64) -> String {
    metrics_model::format_millis(millis)
}

pub(super) async fn targets(State(app): State<Arc<App>>, query: RawQuery) -> Response {
    let params = Params::from_query(&query);
    let (state, pool) = (params.get("state"), params.get("scrapePool"));
    let mut active = Vec::new();
    if matches!(state, "" | "any" | "active") {
        for (name, target) in
            app.targets.active().into_iter().filter(|(n, _)| pool.is_empty() || n == pool)
        {
            let status = target.status.lock().clone();
            active.push(json!({
                "discoveredLabels": labels_json(&target.discovered),
                "labels": labels_json(&target.labels),
                "scrapePool": name,
                "scrapeUrl": target.url,
                "globalUrl": target.url,
                "lastError": status.last_error,
                "lastScrape": rfc3339(status.last_scrape),
                "lastScrapeDuration": status.last_duration,
                "health": status.health.word(),
                "scrapeInterval": seconds(target.interval),
                "scrapeTimeout": seconds(target.timeout),
            }));
        }
    }
    let mut dropped = Vec::new();
    let mut counts: BTreeMap<String, usize> =
        app.targets.pools().into_iter().map(|p| (p, 0)).collect();
    for one in app.targets.dropped() {
        *counts.entry(one.pool.clone()).or_default() += 1;
        if matches!(state, "" | "any" | "dropped") && (pool.is_empty() || one.pool == pool) {
            dropped.push(
                json!({"discoveredLabels": labels_json(&one.discovered), "scrapePool": one.pool}),
            );
        }
    }
    envelope::success(
        &json!({"activeTargets": active, "droppedTargets": dropped, "droppedTargetCounts": counts}),
    )
}

pub(super) async fn scrape_pools(State(app): State<Arc<App>>) -> Response {
    envelope::success(&json!({"scrapePools": app.targets.pools()}))
}

fn metadata_json(metadata: &Metadata) -> Value {
    json!({"type": kind(metadata), "help": metadata.help, "unit": metadata.unit})
}

fn kind(metadata: &Metadata) -> &str {
    if metadata.kind.is_empty() { "unknown" } else { &metadata.kind }
}

pub(super) async fn metadata(
    State(app): State<Arc<App>>,
    query: RawQuery,
) -> Result<Response, ApiError> {
    let params = Params::from_query(&query);
    let (limit, metric) = (params.limit()?, params.get("metric"));
    let per_metric = params.get("limit_per_metric").parse().unwrap_or(0);
    let mut found: BTreeMap<String, BTreeSet<Metadata>> = BTreeMap::new();
    for (_, target) in app.targets.active() {
        for (name, metadata) in &target.status.lock().metadata {
            if metric.is_empty() || name == metric {
                found.entry(name.clone()).or_default().insert(metadata.clone());
            }
        }
    }
    let cut = |limit: usize| if limit == 0 { usize::MAX } else { limit };
    let shown: Map<String, Value> = found
        .into_iter()
        .take(cut(limit))
        .map(|(name, set)| (name, set.iter().take(cut(per_metric)).map(metadata_json).collect()))
        .collect();
    Ok(envelope::success(&shown))
}

pub(super) async fn target_metadata(
    State(app): State<Arc<App>>,
    query: RawQuery,
) -> Result<Response, ApiError> {
    let params = Params::from_query(&query);
    let (limit, metric) = (params.limit()?, params.get("metric"));
    let selector = match params.get("match_target") {
        "" => Vec::new(),
        text => metrics_promql::parse_selector(text)
            .map_err(|e| ApiError::parameter("match_target", e))?,
    };
    let mut out = Vec::new();
    for (_, target) in app.targets.active() {
        if !selector.iter().all(|m| m.matches(target.labels.get(m.name()))) {
            continue;
        }
        let status = target.status.lock();
        let mut names: Vec<_> =
            status.metadata.iter().filter(|(n, _)| metric.is_empty() || *n == metric).collect();
        names.sort_by_key(|(name, _)| *name);
        for (name, metadata) in names {
            let mut entry = json!({
                "target": labels_json(&target.labels),
                "type": kind(metadata),
                "help": metadata.help,
                "unit": metadata.unit,
            });
            if metric.is_empty() {
                entry["metric"] = name.as_str().into();
            }
            out.push(entry);
        }
    }
    if limit > 0 {
        out.truncate(limit);
    }
    Ok(envelope::success(&out))
}
