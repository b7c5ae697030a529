//! The kubelet HTTPS API: logs, exec, attach, port-forward, pods and figures.

mod auth;
mod figures;
mod logs;
mod query;
mod streams;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

pub use auth::Access;

use crate::sync::agent::Agent;

/// All routes, behind the access check. Only /healthz answers anybody.
pub fn router(agent: Arc<Agent>, access: Access) -> Router {
    let guarded = Router::new()
        .route("/pods", get(pods))
        .route("/pods/", get(pods))
        .route("/runningpods", get(running_pods))
        .route("/runningpods/", get(running_pods))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::container_logs))
        .route("/exec/{namespace}/{pod}/{container}", any(streams::exec))
        .route("/exec/{namespace}/{pod}/{uid}/{container}", any(streams::exec_with_uid))
        .route("/attach/{namespace}/{pod}/{container}", any(streams::attach))
        .route("/attach/{namespace}/{pod}/{uid}/{container}", any(streams::attach_with_uid))
        .route("/portForward/{namespace}/{pod}", any(streams::port_forward))
        .route("/portForward/{namespace}/{pod}/{uid}", any(streams::port_forward_with_uid))
        .route("/run/{namespace}/{pod}/{container}", post(streams::run))
        .route("/metrics", get(figures::own))
        .route("/metrics/resource", get(figures::resource))
        .route("/metrics/cadvisor", get(figures::cadvisor))
        .route("/metrics/probes", get(figures::own))
        .route("/stats/summary", get(figures::summary))
        .route("/configz", get(configz))
        .layer(axum::middleware::from_fn_with_state(Arc::new(access), auth::check));
    Router::new()
        .route("/healthz", get(|| std::future::ready("ok")))
        .merge(guarded)
        .with_state(agent)
}

/// A failure of the kubelet API: status and text.
#[derive(Debug)]
pub struct Failure(pub StatusCode, pub String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{}\n", self.1))
            .into_response()
    }
}

impl Failure {
    fn of_runtime(status: &tonic::Status) -> Self {
        let code = match status.code() {
            tonic::Code::NotFound => StatusCode::NOT_FOUND,
            tonic::Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(code, status.message().to_owned())
    }
}

async fn pods(State(agent): State<Arc<Agent>>) -> Json<Value> {
    Json(list(&agent, false))
}

async fn running_pods(State(agent): State<Arc<Agent>>) -> Json<Value> {
    Json(list(&agent, true))
}

fn list(agent: &Agent, running: bool) -> Value {
    let pods = agent.pods.read();
    let wanted = pods.values().filter(|pod| !running || pod.status.phase == "Running");
    let items: Vec<Value> = wanted.filter_map(|pod| serde_json::to_value(&**pod).ok()).collect();
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}

async fn configz(State(agent): State<Arc<Agent>>) -> Json<Value> {
    let settings = &agent.settings;
    Json(json!({"kubeletconfig": {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "clusterDNS": settings.cluster_dns,
        "clusterDomain": settings.cluster_domain,
        "maxPods": settings.max_pods,
        "cgroupRoot": settings.cgroup_root,
        "syncFrequency": flotilla_config::format_duration(settings.sync_frequency),
        "containerLogMaxSize": settings.log_max_size.to_string(),
        "containerLogMaxFiles": settings.log_max_files,
        "imageGCHighThresholdPercent": settings.image_gc.0,
        "imageGCLowThresholdPercent": settings.image_gc.1,
        "podLogsDir": agent.paths.logs(),
    }}))
}
