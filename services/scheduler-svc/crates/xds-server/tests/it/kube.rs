//! As much of a Kubernetes API as reflectors need: list, watch, and the status of Ingresses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// Plural names of the collections.
pub const SERVICES: &str = "services";
pub const SLICES: &str = "endpointslices";
pub const INGRESSES: &str = "ingresses";

#[derive(Clone)]
pub struct Kube {
    pub address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    events: broadcast::Sender<(String, u64, String)>,
}

#[derive(Default)]
struct Inner {
    version: u64,
    objects: BTreeMap<(String, String), Value>,
    /// Bodies of status patches.
    statuses: Vec<(String, Value)>,
}

impl Kube {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kube = Self {
            address: listener.local_addr().unwrap(),
            inner: Arc::default(),
            events: broadcast::channel(1024).0,
        };
        let router = Router::new()
            .route("/api/v1/{plural}", get(collection))
            .route("/apis/{group}/v1/{plural}", get(grouped))
            .route(
                "/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses/{name}/status",
                patch(status),
            )
            .with_state(kube.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        kube
    }

    /// Creates or replaces an object of namespace `default`.
    pub fn put(&self, plural: &str, name: &str, mut object: Value) {
        let mut inner = self.inner.lock().unwrap();
        inner.version += 1;
        let metadata = object.as_object_mut().unwrap().entry("metadata").or_insert(json!({}));
        metadata["name"] = json!(name);
        metadata["namespace"] = json!("default");
        metadata["resourceVersion"] = json!(inner.version.to_string());
        let known =
            inner.objects.insert((plural.to_owned(), name.to_owned()), object.clone()).is_some();
        let kind = if known { "MODIFIED" } else { "ADDED" };
        // Nobody may be watching yet.
        let _ = self.events.send((
            plural.to_owned(),
            inner.version,
            format!("{}\n", json!({"type": kind, "object": object})),
        ));
    }

    pub fn delete(&self, plural: &str, name: &str) {
        let mut inner = self.inner.lock().unwrap();
        inner.version += 1;
        let mut object = inner.objects.remove(&(plural.to_owned(), name.to_owned())).unwrap();
        object["metadata"]["resourceVersion"] = json!(inner.version.to_string());
        let _ = self.events.send((
            plural.to_owned(),
            inner.version,
            format!("{}\n", json!({"type": "DELETED", "object": object})),
        ));
    }

    /// A Service with one port 80 named `http`.
    pub fn service(&self, name: &str) {
        self.put(
            SERVICES,
            name,
            json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}),
        );
    }

    /// The endpoints of a Service: port on loopback, and conditions.
    pub fn slice(&self, service: &str, name: &str, port: u16, conditions: Value) {
        let object = json!({
            "metadata": {"labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": conditions}],
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        });
        self.put(SLICES, name, object);
    }

    /// An Ingress with one host and one path.
    pub fn ingress(&self, name: &str, host: &str, path: &str, service: &str) {
        let backend = json!({"service": {"name": service, "port": {"name": "http"}}});
        let paths = json!([{"path": path, "pathType": "Prefix", "backend": backend}]);
        self.put(INGRESSES, name, json!({"spec": {"ingressClassName": "flotilla", "rules": [{"host": host, "http": {"paths": paths}}]}}));
    }

    pub fn statuses(&self) -> Vec<(String, Value)> {
        self.inner.lock().unwrap().statuses.clone()
    }
}

async fn collection(
    State(kube): State<Kube>,
    Path(plural): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    respond(&kube, &plural, &query)
}

async fn grouped(
    State(kube): State<Kube>,
    Path((_, plural)): Path<(String, String)>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    respond(&kube, &plural, &query)
}

fn respond(kube: &Kube, plural: &str, query: &BTreeMap<String, String>) -> Response {
    let inner = kube.inner.lock().unwrap();
    let events = kube.events.subscribe();
    let objects: Vec<Value> = inner
        .objects
        .iter()
        .filter(|((kind, _), _)| kind == plural)
        .map(|(_, object)| object.clone())
        .collect();
    if !query.contains_key("watch") {
        return Json(
            json!({"metadata": {"resourceVersion": inner.version.to_string()}, "items": objects}),
        )
        .into_response();
    }
    // What changed between the list and the watch comes first.
    let since: u64 = query["resourceVersion"].parse().unwrap();
    let newer = |object: &Value| {
        object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > since
    };
    let missed: Vec<String> = objects
        .into_iter()
        .filter(newer)
        .map(|object| format!("{}\n", json!({"type": "ADDED", "object": object})))
        .collect();
    let plural = plural.to_owned();
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(1024);
    tokio::spawn(async move {
        let mut events = events;
        for line in missed {
            if sender.send(Ok(line)).await.is_err() {
                return;
            }
        }
        while let Ok((kind, _, line)) = events.recv().await {
            if kind == plural && sender.send(Ok(line)).await.is_err() {
                return;
            }
        }
    });
    Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver)).into_response()
}

async fn status(
    State(kube): State<Kube>,
    Path((_, name)): Path<(String, String)>,
    Json(body): Json<Value>,
) -> Json<Value> {
    let mut inner = kube.inner.lock().unwrap();
    inner.statuses.push((name, body.clone()));
    Json(body)
}
