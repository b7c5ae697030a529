//! A Kubernetes API server that serves fixed lists, and watches into which a test writes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::Uri;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// The running server; it ends with the test's runtime.
pub struct FakeApi {
    pub address: SocketAddr,
    events: broadcast::Sender<(String, String)>,
}

#[derive(Clone)]
struct Shared {
    lists: Arc<HashMap<String, Vec<Value>>>,
    events: broadcast::Sender<(String, String)>,
}

impl FakeApi {
    /// Serves these objects by collection path.
    pub async fn start(lists: HashMap<String, Vec<Value>>) -> Self {
        let (events, _) = broadcast::channel(64);
        let shared = Shared { lists: Arc::new(lists), events: events.clone() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, events }
    }

    /// Sends a watch event to everyone who watches the collection.
    pub fn emit(&self, path: &str, kind: &str, object: &Value) {
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        self.events.send((path.to_owned(), line)).unwrap();
    }
}

async fn answer(
    State(shared): State<Shared>,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let path = uri.path().to_owned();
    if !query.contains_key("watch") {
        let items = shared.lists.get(&path).cloned().unwrap_or_default();
        let kind = match path.rsplit('/').next().unwrap_or_default() {
            "services" => "ServiceList",
            "namespaces" => "NamespaceList",
            "endpointslices" => "EndpointSliceList",
            _ => "PodList",
        };
        let version = if kind == "EndpointSliceList" { "discovery.k8s.io/v1" } else { "v1" };
        let list = json!({"kind": kind, "apiVersion": version, "metadata": {"resourceVersion": "10"}, "items": items});
        return Response::builder()
            .header("content-type", "application/json")
            .body(list.to_string().into())
            .unwrap();
    }
    let mut events = shared.events.subscribe();
    let mut initial = Vec::new();
    if query.contains_key("sendInitialEvents") {
        let items = shared.lists.get(&path).cloned().unwrap_or_default();
        initial.extend(items.into_iter().map(|object| json!({"type": "ADDED", "object": object})));
        let end = json!({"metadata": {"resourceVersion": "10", "annotations": {"k8s.io/initial-events-end": "true"}}});
        let mut end = json!({"type": "BOOKMARK", "object": end});
        let (kind, version) = match path.rsplit('/').next().unwrap_or_default() {
            "services" => ("Service", "v1"),
            "namespaces" => ("Namespace", "v1"),
            "endpointslices" => ("EndpointSlice", "discovery.k8s.io/v1"),
            _ => ("Pod", "v1"),
        };
        end["object"]["kind"] = kind.into();
        end["object"]["apiVersion"] = version.into();
        initial.push(end);
    }
    let stream = async_stream::stream! {
        for event in initial {
            yield Ok::<_, std::convert::Infallible>(format!("{event}\n"));
        }
        while let Ok((to, line)) = events.recv().await {
            if to == path {
                yield Ok(line);
            }
        }
    };
    Response::builder()
        .header("content-type", "application/json")
        .body(Body::from_stream(stream))
        .unwrap()
}
