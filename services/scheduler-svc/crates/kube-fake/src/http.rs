//! The REST routes.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State as Injected};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::{Value, json};

use crate::Shared;
use crate::kinds::{KINDS, Target};
use crate::patch::merge;
use crate::state::Failure;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(answer).with_state(shared)
}

type Parameters = HashMap<String, String>;

async fn answer(
    Injected(shared): Injected<Arc<Shared>>,
    method: Method,
    uri: Uri,
    Query(query): Query<Parameters>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    if let Some(page) = discovery(&path) {
        return axum::Json(page).into_response();
    }
    let Some(target) = Target::parse(&path) else {
        return failure(&Failure(404, "NotFound", format!("no such path {path}")));
    };
    if method == Method::GET && target.name.is_none() && query.contains_key("watch") {
        return watch(shared, target, &query);
    }
    let kind = headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    match call(&shared, &method, &path, &target, &query, kind, body) {
        Ok(value) => axum::Json(value).into_response(),
        Err(error) => failure(&error),
    }
}

fn call(
    shared: &Shared,
    method: &Method,
    path: &str,
    target: &Target,
    query: &Parameters,
    kind: &str,
    body: Value,
) -> Result<Value, Failure> {
    let sub = target.subresource.as_deref().unwrap_or_default();
    let own = path.strip_suffix(&format!("/{sub}")).filter(|_| !sub.is_empty()).unwrap_or(path);
    match (method.as_str(), &target.name, sub) {
        ("GET", None, _) => {
            let state = shared.state.lock();
            let mut items = state.list(path)?;
            items.retain(|object| selected(object, query));
            let version = state.version().to_string();
            Ok(json!({"kind": format!("{}List", target.kind.kind),
                "metadata": {"resourceVersion": version}, "items": items}))
        }
        ("GET", Some(_), _) => shared.state.lock().get(own),
        ("POST", None, _) => shared.write(|s| s.create(path, body)),
        ("POST", Some(_), "binding") => {
            let node = body.pointer("/target/name").and_then(Value::as_str).unwrap_or_default();
            shared.write(|s| s.bind(own, node))?;
            Ok(json!({"kind": "Status", "status": "Success"}))
        }
        ("PUT", Some(_), "finalize") => shared.write(|s| s.finalize(own, &body)),
        ("PUT", Some(_), _) => shared.write(|s| s.update(own, body, sub == "status")),
        ("PATCH", Some(_), _) => shared.write(|s| {
            let mut object = s.get(own)?;
            merge(&mut object, &body, kind.contains("strategic"));
            s.update(own, object, sub == "status")
        }),
        ("DELETE", Some(_), _) => shared.write(|s| s.delete(own, &body)),
        ("DELETE", None, _) => shared.write(|s| {
            for object in s.list(path)?.into_iter().filter(|o| selected(o, query)) {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                s.delete(&format!("{path}/{name}"), &body)?;
            }
            Ok(json!({"kind": "Status", "status": "Success"}))
        }),
        _ => Err(Failure(405, "MethodNotAllowed", format!("{method} {path}"))),
    }
}

fn selected(object: &Value, query: &Parameters) -> bool {
    let labels = query.get("labelSelector").map(String::as_str).unwrap_or_default();
    let fields = query.get("fieldSelector").map(String::as_str).unwrap_or_default();
    let all = |text: &str, get: &dyn Fn(&str) -> String| {
        text.split(',').filter(|t| !t.is_empty()).all(|term| match term.split_once("!=") {
            Some((name, value)) => get(name) != value,
            None => match term.split_once('=') {
                Some((name, value)) => get(name) == value.trim_start_matches('='),
                None => !get(term).is_empty(),
            },
        })
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    all(labels, &|name| text(&object["metadata"]["labels"][name]))
        && all(fields, &|name| {
            object.pointer(&format!("/{}", name.replace('.', "/"))).map(text).unwrap_or_default()
        })
}

fn watch(shared: Arc<Shared>, target: Target, query: &Parameters) -> Response {
    let from: u64 = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
    if from < shared.state.lock().compacted() {
        return failure(&Failure(410, "Expired", format!("too old resource version: {from}")));
    }
    let query = query.clone();
    let changed = shared.version.subscribe();
    let lines = futures::stream::unfold(
        (from, changed, shared, target, query),
        |(from, mut changed, shared, target, query)| async move {
            loop {
                let events = shared.state.lock().history(from);
                let mut text = String::new();
                let mut last = from;
                for event in events {
                    last = event.version;
                    let space = event.object["metadata"]["namespace"].as_str().unwrap_or_default();
                    if event.collection == target.collection()
                        && target.namespace.as_deref().is_none_or(|want| want == space)
                        && let Some(action) = visible(&event, &query)
                    {
                        text += &json!({"type": action, "object": event.object}).to_string();
                        text.push('\n');
                    }
                }
                if !text.is_empty() {
                    let item = Ok::<_, Infallible>(Bytes::from(text));
                    return Some((item, (last, changed, shared, target, query)));
                }
                if changed.changed().await.is_err() {
                    return None;
                }
            }
        },
    );
    Body::from_stream(lines).into_response()
}

fn visible(event: &crate::Happening, query: &Parameters) -> Option<&'static str> {
    let (was, is) = (selected(&event.before, query), selected(&event.object, query));
    match (event.action, was && !event.before.is_null(), is) {
        ("ADDED", _, true) | ("MODIFIED", false, true) => Some("ADDED"),
        ("MODIFIED", true, true) => Some("MODIFIED"),
        ("DELETED" | "MODIFIED", true, _) => Some("DELETED"),
        _ => None,
    }
}

fn failure(Failure(code, reason, message): &Failure) -> Response {
    let page = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": message});
    let code = StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (code, axum::Json(page)).into_response()
}

fn discovery(path: &str) -> Option<Value> {
    if path == "/apis" {
        let versions: BTreeSet<&str> =
            KINDS.iter().filter_map(|k| k.prefix.strip_prefix("/apis/")).collect();
        let groups: Vec<Value> = versions
            .into_iter()
            .map(|gv| {
                let name = gv.split('/').next().unwrap_or_default();
                let version = json!({"groupVersion": gv, "version": "v1"});
                json!({"name": name, "versions": [version], "preferredVersion": version})
            })
            .collect();
        return Some(json!({"kind": "APIGroupList", "groups": groups}));
    }
    let resources: Vec<Value> = KINDS
        .iter()
        .filter(|k| k.prefix == path)
        .map(|k| {
            json!({"name": k.plural, "kind": k.kind, "namespaced": k.namespaced,
                "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]})
        })
        .collect();
    let version = path.trim_start_matches("/apis/").trim_start_matches("/api/");
    (!resources.is_empty()).then(
        || json!({"kind": "APIResourceList", "groupVersion": version, "resources": resources}),
    )
}
