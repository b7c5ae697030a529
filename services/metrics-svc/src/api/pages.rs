//! Own metrics and a plain status page.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde_json::json;

use crate::app::App;
use crate::flags::COMPATIBLE;

pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    app.metrics.active_targets.set(app.targets.active().len() as i64);
    let text = flotilla_telemetry::encode_text(&app.registry);
    ([(header::CONTENT_TYPE, flotilla_telemetry::TEXT_FORMAT)], text).into_response()
}

pub(super) async fn version() -> Response {
    let body = json!({"version": COMPATIBLE, "revision": format!("metrics-svc-{}", flotilla_telemetry::VERSION)});
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

pub(super) async fn root() -> Redirect {
    Redirect::to("/query")
}

pub(super) async fn graph(query: RawQuery) -> Redirect {
    Redirect::to(&query.0.map_or("/query".to_owned(), |q| format!("/query?{q}")))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

pub(super) async fn status_page(
    State(app): State<Arc<App>>,
) -> (StatusCode, [(HeaderName, &'static str); 1], Html<String>) {
    let stats = app.db.stats();
    let rows = app.targets.active().into_iter().map(|(pool, target)| {
        let status = target.status.lock();
        format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            escape(&pool),
            escape(&target.url),
            status.health.word(),
            escape(&status.last_error)
        )
    });
    let rows: String = rows.collect();
    let page = format!(
        "<!doctype html>\n<title>metrics-svc</title>\n<h1>metrics-svc {}</h1>\n\
         <p>Answers the <a href=\"https://prometheus.io/docs/prometheus/latest/querying/api/\">HTTP API of Prometheus {COMPATIBLE}</a> at {}/api/v1.</p>\n\
         <p>{} series and {} chunks in the head, {} blocks.</p>\n\
         <h2>Targets</h2>\n<table>\n<tr><th>Pool</th><th>URL</th><th>Health</th><th>Last error</th></tr>\n{rows}</table>\n",
        flotilla_telemetry::VERSION,
        escape(&app.external_url),
        stats.head.series,
        stats.head.chunks,
        stats.blocks,
    );
    (StatusCode::OK, [(header::CONTENT_SECURITY_POLICY, "default-src 'none'")], Html(page))
}
