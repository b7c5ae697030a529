//! The wire in: HTTP API v1, federation, lifecycle, own pages and gRPC, all on one port.

mod admin;
mod envelope;
mod federate;
mod grpc;
mod lifecycle;
mod pages;
mod params;
mod query;
mod remote_write;
mod rules;
mod series;
mod status;
mod targets;
mod write_request;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post, put};
use flotilla_server::HealthHandle;

use crate::app::App;
use crate::metrics::RequestLabels;

/// Bytes a form may have.
const MAX_FORM: usize = 10 << 20;

/// All routes, and the handle of the gRPC health service.
pub(crate) async fn router(app: Arc<App>) -> (Router, HealthHandle) {
    let v1 = Router::new()
        .route("/query", get(query::instant).post(query::instant))
        .route("/query_range", get(query::range).post(query::range))
        .route("/query_exemplars", get(query::exemplars).post(query::exemplars))
        .route("/format_query", get(query::format).post(query::format))
        .route("/series", get(series::series).post(series::series))
        .route("/labels", get(series::labels).post(series::labels))
        .route("/label/{name}/values", get(series::label_values))
        .route(
            "/write",
            post(remote_write::write).layer(DefaultBodyLimit::max(write_request::MAX_BYTES)),
        )
        .route("/metadata", get(targets::metadata))
        .route("/targets", get(targets::targets))
        .route("/targets/metadata", get(targets::target_metadata))
        .route("/scrape_pools", get(targets::scrape_pools))
        .route("/rules", get(rules::rules))
        .route("/alerts", get(rules::alerts))
        .route("/alertmanagers", get(rules::alertmanagers))
        .route("/status/config", get(status::config))
        .route("/status/flags", get(status::flags))
        .route("/status/runtimeinfo", get(status::runtime))
        .route("/status/buildinfo", get(status::build))
        .route("/status/tsdb", get(status::tsdb))
        .route("/status/walreplay", get(status::replay))
        .route("/admin/tsdb/delete_series", post(admin::delete_series).put(admin::delete_series))
        .route(
            "/admin/tsdb/clean_tombstones",
            post(admin::clean_tombstones).put(admin::clean_tombstones),
        )
        .route("/admin/tsdb/snapshot", post(admin::snapshot).put(admin::snapshot));
    let http = Router::new()
        .nest("/api/v1", v1)
        .route("/federate", get(federate::federate))
        .route("/metrics", get(pages::metrics))
        .route("/version", get(pages::version))
        .route("/", get(pages::root))
        .route("/graph", get(pages::graph))
        .route("/query", get(pages::status_page))
        .route("/-/healthy", get(lifecycle::healthy).head(lifecycle::healthy))
        .route("/-/ready", get(lifecycle::ready).head(lifecycle::ready))
        .route("/-/reload", post(lifecycle::reload).put(lifecycle::reload))
        .route("/-/quit", put(lifecycle::quit).post(lifecycle::quit))
        .with_state(app.clone())
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .layer(from_fn_with_state(app.clone(), count));
    let (grpc, health) = grpc::router(app).await;
    // The fallback of the gRPC routes answers UNIMPLEMENTED, which plain HTTP clients must not see.
    (http.merge(grpc.reset_fallback()), health)
}

async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<axum::extract::MatchedPath>();
    let handler = matched.map_or("/other".to_owned(), |m| m.as_str().to_owned());
    let mut response = next.run(request).await;
    let code = response.status().as_u16().to_string();
    app.metrics.requests.get_or_create(&RequestLabels { handler, code }).inc();
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
