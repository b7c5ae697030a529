//! `/federate`: newest samples of selected series as text.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use metrics_model::{Labels, METRIC_NAME, format_exposition, is_stale};

use super::params::Params;
use crate::app::App;
use crate::error::ApiError;
use crate::now_millis;

pub(super) async fn federate(
    State(app): State<Arc<App>>,
    query: RawQuery,
) -> Result<Response, ApiError> {
    let selectors = Params::from_query(&query).matchers()?;
    let now = now_millis();
    let lookback = app.queries.lookback();
    let worker = app.clone();
    let found = tokio::task::spawn_blocking(move || {
        let mut newest: BTreeMap<Labels, (i64, f64)> = BTreeMap::new();
        for matchers in &selectors {
            for series in
                worker.db.select(now - lookback, now, matchers).map_err(ApiError::internal)?
            {
                let (mut times, mut values) = (Vec::new(), Vec::new());
                series
                    .samples(now - lookback, now, &mut times, &mut values)
                    .map_err(ApiError::internal)?;
                match (times.last(), values.last()) {
                    (Some(time), Some(value)) if !is_stale(*value) => {
                        newest.insert(series.labels, (*time, *value));
                    }
                    _ => {}
                }
            }
        }
        Ok::<_, ApiError>(newest)
    });
    let found = found.await.map_err(ApiError::internal)??;
    let external = app.config.load().external_labels.clone();
    let mut out = String::new();
    let mut last = String::new();
    for (labels, (time, value)) in &found {
        let name = labels.name();
        if name != last {
            out.push_str(&format!("# TYPE {name} untyped\n"));
            name.clone_into(&mut last);
        }
        out.push_str(&format!(
            "{}{} {} {time}\n",
            name,
            pairs(labels, &external),
            format_exposition(*value)
        ));
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], out).into_response())
}

fn pairs(labels: &Labels, external: &Labels) -> String {
    let mut all: Vec<(&str, &str)> =
        labels.iter().filter(|(name, _)| *name != METRIC_NAME).collect();
    if !labels.has("instance") {
        // Without it the scraping side would put the federating server there.
        all.push(("instance", ""));
    }
    all.extend(external.iter().filter(|(name, _)| !labels.has(name)));
    all.sort_unstable();
    let escape = |v: &str| v.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let list: Vec<String> =
        all.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
    format!("{{{}}}", list.join(","))
}
