//! A small Kubernetes API server in memory: create, get, list, watch, patch, replace, delete of anything.
//! It knows what a kubelet relies on: resource versions, graceful deletion of pods, uid preconditions, merge
//! keys of conditions and addresses, tokens.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

#[derive(Default)]
struct Store {
    objects: BTreeMap<(String, String), Value>,
    log: Vec<(u64, String, &'static str, Value)>,
    version: u64,
    writes: BTreeMap<String, usize>,
}

/// The server. Dropping it stops it.
pub struct FakeApi {
    store: Arc<Mutex<Store>>,
    news: watch::Sender<u64>,
    down: Arc<AtomicBool>,
    pub address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    store: Arc<Mutex<Store>>,
    news: watch::Sender<u64>,
    down: Arc<AtomicBool>,
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeApi {
    pub async fn start() -> Self {
        let store = Arc::<Mutex<Store>>::default();
        let news = watch::channel(0).0;
        let down = Arc::new(AtomicBool::new(false));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Shared { store: store.clone(), news: news.clone(), down: down.clone() };
        let router = Router::new().fallback(handle).with_state(shared);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { store, news, down, address, task }
    }

    /// While down, every request fails and watches end.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
        self.news.send_modify(|n| *n += 1);
    }

    /// Stores an object below a collection path such as `/api/v1/namespaces/default/pods`.
    pub fn put(&self, collection: &str, object: Value) -> Value {
        put(&self.store, &self.news, collection, object)
    }

    pub fn get(&self, collection: &str, name: &str) -> Option<Value> {
        self.store.lock().objects.get(&(collection.to_owned(), name.to_owned())).cloned()
    }

    pub fn all(&self, collection: &str) -> Vec<Value> {
        let store = self.store.lock();
        store.objects.iter().filter(|((c, _), _)| c == collection).map(|(_, o)| o.clone()).collect()
    }

    /// How often a path was written.
    pub fn writes(&self, path: &str) -> usize {
        self.store.lock().writes.get(path).copied().unwrap_or(0)
    }

    /// Deletes as a user does: gracefully for pods.
    pub fn delete(&self, collection: &str, name: &str, grace: Option<i64>) {
        delete(&self.store, &self.news, collection, name, grace);
    }
}

fn record(
    store: &mut Store,
    news: &watch::Sender<u64>,
    kind: &'static str,
    collection: &str,
    mut object: Value,
) -> Value {
    store.version += 1;
    object["metadata"]["resourceVersion"] = store.version.to_string().into();
    store.log.push((store.version, collection.to_owned(), kind, object.clone()));
    news.send_modify(|n| *n += 1);
    object
}

fn put(
    store: &Mutex<Store>,
    news: &watch::Sender<u64>,
    collection: &str,
    mut object: Value,
) -> Value {
    let mut store = store.lock();
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    if let Some(namespace) =
        collection.split("/namespaces/").nth(1).and_then(|rest| rest.split('/').next())
    {
        object["metadata"]["namespace"] = namespace.into();
    }
    let known = store.objects.get(&(collection.to_owned(), name.clone())).cloned();
    if object["metadata"]["uid"].is_null() {
        object["metadata"]["uid"] = match &known {
            Some(known) => known["metadata"]["uid"].clone(),
            None => format!(
                "{:08x}-0000-4000-8000-{:012x}",
                rand::random::<u32>(),
                rand::random::<u32>()
            )
            .into(),
        };
    }
    let kind = if known.is_some() { "MODIFIED" } else { "ADDED" };
    let object = record(&mut store, news, kind, collection, object);
    store.objects.insert((collection.to_owned(), name), object.clone());
    object
}

fn delete(
    store: &Mutex<Store>,
    news: &watch::Sender<u64>,
    collection: &str,
    name: &str,
    grace: Option<i64>,
) -> Option<Value> {
    let mut store = store.lock();
    let key = (collection.to_owned(), name.to_owned());
    let mut object = store.objects.get(&key)?.clone();
    let is_pod = collection.ends_with("/pods");
    let grace = grace.or(object["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30);
    if is_pod && grace > 0 {
        object["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z".into();
        object["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        let object = record(&mut store, news, "MODIFIED", collection, object);
        store.objects.insert(key, object.clone());
        return Some(object);
    }
    store.objects.remove(&key);
    Some(record(&mut store, news, "DELETED", collection, object))
}

fn status(code: u16, reason: &str, message: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message});
    (StatusCode::from_u16(code).unwrap(), axum::Json(body)).into_response()
}

/// `/api/v1/[namespaces/NS/]RESOURCE[/NAME[/SUB]]` as collection, name, subresource.
fn split(path: &str) -> Option<(String, Option<String>, Option<String>)> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let prefix = if parts.first()? == &"api" { 2 } else { 3 };
    let start = if parts.get(prefix) == Some(&"namespaces") && parts.len() > prefix + 2 {
        prefix + 2
    } else {
        prefix
    };
    parts.get(start)?;
    let collection = format!("/{}", parts[..=start].join("/"));
    Some((
        collection,
        parts.get(start + 1).map(|s| (*s).to_owned()),
        parts.get(start + 2).map(|s| (*s).to_owned()),
    ))
}

async fn handle(State(shared): State<Shared>, request: Request) -> Response {
    if shared.down.load(Ordering::SeqCst) {
        return status(503, "ServiceUnavailable", "down");
    }
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 16 << 20).await.unwrap();
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let Some((collection, name, sub)) = split(&path) else {
        return status(404, "NotFound", "no such path");
    };
    if parts.method != Method::GET {
        *shared.store.lock().writes.entry(path.clone()).or_default() += 1;
    }
    match (parts.method, name) {
        (Method::GET, None) if query.contains("watch=true") => watch_collection(shared, collection, &query),
        (Method::GET, None) => {
            let store = shared.store.lock();
            let items: Vec<&Value> = store.objects.iter().filter(|((c, _), o)| matches(&collection, c, &query, o)).map(|(_, o)| o).collect();
            axum::Json(json!({"metadata": {"resourceVersion": store.version.to_string()}, "items": items})).into_response()
        }
        (Method::GET, Some(name)) => match shared.store.lock().objects.get(&(collection, name)) {
            Some(object) => axum::Json(object.clone()).into_response(),
            None => status(404, "NotFound", "not found"),
        },
        (Method::POST, Some(_)) if sub.as_deref() == Some("token") => {
            axum::Json(json!({"status": {"token": "the-token", "expirationTimestamp": "2035-01-01T00:00:00Z"}})).into_response()
        }
        (Method::POST, _) => {
            let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            if shared.store.lock().objects.contains_key(&(collection.clone(), name)) {
                return status(409, "AlreadyExists", "already exists");
            }
            (StatusCode::CREATED, axum::Json(put(&shared.store, &shared.news, &collection, value))).into_response()
        }
        (Method::PUT, Some(_)) => axum::Json(put(&shared.store, &shared.news, &collection, value)).into_response(),
        (Method::PATCH, Some(name)) => {
            let known = shared.store.lock().objects.get(&(collection.clone(), name)).cloned();
            let Some(mut known) = known else { return status(404, "NotFound", "not found") };
            let uid = &value["metadata"]["uid"];
            if !uid.is_null() && *uid != known["metadata"]["uid"] {
                return status(409, "Conflict", "uid differs");
            }
            merge(&mut known, &value);
            axum::Json(put(&shared.store, &shared.news, &collection, known)).into_response()
        }
        (Method::DELETE, Some(name)) => {
            let known = shared.store.lock().objects.get(&(collection.clone(), name.clone())).cloned();
            let Some(known) = known else { return status(404, "NotFound", "not found") };
            let wanted = &value["preconditions"]["uid"];
            if !wanted.is_null() && *wanted != known["metadata"]["uid"] {
                return status(409, "Conflict", "uid differs");
            }
            let gone = delete(&shared.store, &shared.news, &collection, &name, value["gracePeriodSeconds"].as_i64());
            axum::Json(gone.unwrap_or_default()).into_response()
        }
        _ => status(405, "MethodNotAllowed", "not allowed"),
    }
}

fn matches(wanted: &str, collection: &str, query: &str, object: &Value) -> bool {
    let resource = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let across = !wanted.contains("/namespaces/") && resource(wanted) == resource(collection);
    if wanted != collection && !across {
        return false;
    }
    match query
        .split("spec.nodeName%3D")
        .nth(1)
        .map(|rest| rest.split('&').next().unwrap_or_default())
    {
        Some(node) => object["spec"]["nodeName"] == node,
        None => true,
    }
}

fn watch_collection(shared: Shared, collection: String, query: &str) -> Response {
    let query = query.to_owned();
    let from = query
        .split("resourceVersion=")
        .nth(1)
        .and_then(|rest| rest.split('&').next())
        .and_then(|v| v.parse().ok())
        .unwrap_or(0);
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(64);
    tokio::spawn(async move {
        let mut sent: u64 = from;
        let mut news = shared.news.subscribe();
        loop {
            if shared.down.load(Ordering::SeqCst) {
                return;
            }
            let fresh: Vec<_> = {
                let store = shared.store.lock();
                store.log.iter().filter(|(version, ..)| *version > sent).cloned().collect()
            };
            for (version, place, kind, object) in fresh {
                sent = version;
                if !matches(&collection, &place, &query, &object) {
                    continue;
                }
                let mut line =
                    serde_json::to_vec(&json!({"type": kind, "object": object})).unwrap();
                line.push(b'\n');
                if sender.send(Ok(line.into())).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                _ = news.changed() => {}
                () = sender.closed() => return,
            }
        }
    });
    Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver)).into_response()
}

/// A strategic merge, as far as statuses need it.
fn merge(target: &mut Value, patch: &Value) {
    let (Some(fields), Some(changes)) = (target.as_object_mut(), patch.as_object()) else {
        *target = patch.clone();
        return;
    };
    for (name, change) in changes {
        match (change, fields.get_mut(name)) {
            (Value::Null, _) => drop(fields.remove(name)),
            (Value::Object(_), Some(known)) if known.is_object() => merge(known, change),
            (Value::Array(items), Some(Value::Array(known)))
                if matches!(name.as_str(), "conditions" | "addresses") =>
            {
                for item in items {
                    match known.iter_mut().find(|old| old["type"] == item["type"]) {
                        Some(old) => merge(old, item),
                        None => known.push(without_nulls(item)),
                    }
                }
            }
            _ => drop(fields.insert(name.clone(), without_nulls(change))),
        }
    }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| (k.clone(), without_nulls(v)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}
