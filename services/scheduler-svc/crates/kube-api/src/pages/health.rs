//! Health pages, version, and the labels requests are counted by.

use axum::body::Body;
use http::{Method, Response};
use serde_json::{Value, json};

use crate::output;
use crate::request::{Query, Route};

/// What a request is counted as.
#[derive(Debug, Clone, Default)]
pub struct RequestLabels {
    /// Upper-case verb.
    pub verb: String,
    /// Group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Resource.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
    /// `cluster`, `namespace`, `resource` or empty.
    pub scope: String,
    /// `All` or empty.
    pub dry_run: &'static str,
}

impl RequestLabels {
    /// Labels of a request.
    pub fn of(method: &Method, route: &Route, query: &Query) -> Self {
        let mut labels = Self { verb: method.as_str().to_owned(), ..Self::default() };
        if query.has("dryRun") {
            labels.dry_run = "All";
        }
        if let Route::Resource(target) = route {
            if let Some(verb) = crate::request::verb(method, target, query) {
                labels.verb = match verb {
                    "create" => "POST".to_owned(),
                    "update" => "PUT".to_owned(),
                    other => other.to_ascii_uppercase(),
                };
            }
            labels.group = target.resource.group.to_owned();
            labels.version = target.resource.version.to_owned();
            labels.resource = target.resource.plural.to_owned();
            labels.subresource = target.sub().to_owned();
            labels.scope = match (target.name.is_empty(), target.namespace.is_empty()) {
                (false, _) => "resource",
                (true, false) => "namespace",
                (true, true) => "cluster",
            }
            .to_owned();
        }
        labels
    }
}

/// `/version`
pub fn version() -> Value {
    json!({
        "major": "1", "minor": "35", "gitVersion": crate::GIT_VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2025-12-17T00:00:00Z", "goVersion": "rust", "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    })
}

/// `/healthz`, `/livez`, `/readyz` and their checks; `None` for other pages.
pub fn health(path: &str, query: &Query, ready: bool) -> Option<Response<Body>> {
    let (page, check) = match path.trim_start_matches('/').split_once('/') {
        Some((page, check)) => (page, check),
        None => (path.trim_start_matches('/'), ""),
    };
    let checks: &[&str] = match page {
        "healthz" | "readyz" => &["ping", "etcd", "informer-sync"],
        "livez" => &["ping"],
        _ => return None,
    };
    let passes =
        |name: &str| name == "ping" || ready || query.all("exclude").iter().any(|e| e == name);
    if !check.is_empty() {
        if !checks.contains(&check) {
            return None;
        }
        return Some(if passes(check) {
            output::text(200, "ok")
        } else {
            output::text(500, "internal server error: not ready\n")
        });
    }
    let healthy = checks.iter().all(|c| passes(c));
    if healthy && !query.has("verbose") {
        return Some(output::text(200, "ok"));
    }
    let mut lines = String::new();
    for name in checks {
        let line = if passes(name) {
            format!("[+]{name} ok\n")
        } else {
            format!("[-]{name} failed: reason withheld\n")
        };
        lines.push_str(&line);
    }
    let verdict = if healthy { "passed" } else { "failed" };
    lines.push_str(&format!("{page} check {verdict}\n"));
    Some(output::text(if healthy { 200 } else { 500 }, lines))
}
