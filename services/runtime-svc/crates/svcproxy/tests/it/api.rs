//! Lists and watches of Services and EndpointSlices, as scripted by the test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

#[derive(Default)]
struct Store {
    objects: BTreeMap<(String, String), Value>,
    log: Vec<(u64, String, &'static str, Value)>,
}

/// The server; it lives as long as the runtime.
#[derive(Clone)]
pub struct Api {
    store: Arc<Mutex<Store>>,
    news: watch::Sender<()>,
    pub address: Option<SocketAddr>,
}

pub const SERVICES: &str = "/api/v1/services";
pub const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

impl Api {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut api = Self {
            store: Arc::default(),
            news: watch::channel(()).0,
            address: listener.local_addr().ok(),
        };
        let router = Router::new().fallback(handle).with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        api.address = api.address.take();
        api
    }

    pub fn put(&self, collection: &str, mut object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        object["metadata"]["namespace"] = "ns".into();
        let mut store = self.store.lock().unwrap();
        let version = store.log.len() as u64 + 1;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        store.log.push((version, collection.to_owned(), "MODIFIED", object.clone()));
        store.objects.insert((collection.to_owned(), name), object);
        self.news.send_replace(());
    }

    pub fn delete(&self, collection: &str, name: &str) {
        let mut store = self.store.lock().unwrap();
        let object = store.objects.remove(&(collection.to_owned(), name.to_owned())).unwrap();
        let version = store.log.len() as u64 + 1;
        store.log.push((version, collection.to_owned(), "DELETED", object));
        self.news.send_replace(());
    }
}

async fn handle(State(api): State<Api>, request: Request) -> Response {
    let (path, query) =
        (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    if !query.contains("watch=true") {
        let store = api.store.lock().unwrap();
        let items: Vec<&Value> = store
            .objects
            .iter()
            .filter(|((collection, _), _)| *collection == path)
            .map(|(_, o)| o)
            .collect();
        return axum::Json(
            json!({"metadata": {"resourceVersion": store.log.len().to_string()}, "items": items}),
        )
        .into_response();
    }
    let mut sent: u64 = query
        .split("resourceVersion=")
        .nth(1)
        .and_then(|r| r.split('&').next())
        .and_then(|v| v.parse().ok())
        .unwrap_or(0);
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(16);
    tokio::spawn(async move {
        let mut news = api.news.subscribe();
        loop {
            let fresh: Vec<_> = api
                .store
                .lock()
                .unwrap()
                .log
                .iter()
                .filter(|(v, p, ..)| *v > sent && *p == path)
                .cloned()
                .collect();
            for (version, _, kind, object) in fresh {
                sent = version;
                let line = format!("{}\n", json!({"type": kind, "object": object}));
                if sender.send(Ok(line.into())).await.is_err() {
                    return;
                }
            }
            if news.changed().await.is_err() {
                return;
            }
        }
    });
    Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver)).into_response()
}
