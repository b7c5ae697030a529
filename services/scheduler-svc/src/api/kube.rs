//! `flotilla.kube.v1 KubeApi`: objects over gRPC, on behalf of the caller's token.
//!
//! The service has no rights of its own: every call goes to the Kubernetes API with the bearer token the caller
//! sent, and that API decides.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use flotilla_kube_client::{Client, Error, KubeConfig, List, ListParams, WatchEvent};
use flotilla_proto::kube::flotilla::kube::v1 as pb;
use parking_lot::Mutex;
use pb::kube_api_server::KubeApi;
use serde_json::{Value, json};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Clients kept for callers that come again.
const CLIENTS: usize = 64;
const QUEUE: usize = 64;

/// The service.
#[derive(Debug, Clone)]
pub struct KubeService {
    server: KubeConfig,
    clients: Arc<Mutex<HashMap<String, Client>>>,
}

impl KubeService {
    /// A service that talks to the API of `server`; the credentials in it are not used.
    pub fn new(server: KubeConfig) -> Self {
        Self {
            server: KubeConfig { token: None, client_cert: None, ..server },
            clients: Arc::default(),
        }
    }

    fn client<T>(&self, request: &Request<T>) -> Result<Client, Status> {
        let header = request
            .metadata()
            .get("authorization")
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let token = header
            .strip_prefix("Bearer ")
            .or_else(|| header.strip_prefix("bearer "))
            .unwrap_or_default()
            .trim();
        if token.is_empty() {
            return Err(Status::unauthenticated(
                "send the Kubernetes API's bearer token as metadata authorization: Bearer TOKEN",
            ));
        }
        if let Some(client) = self.clients.lock().get(token) {
            return Ok(client.clone());
        }
        let config = KubeConfig { token: Some(token.to_owned()), ..self.server.clone() };
        let client = Client::new(config, "flotilla-kube-grpc").map_err(status)?;
        let mut clients = self.clients.lock();
        if clients.len() >= CLIENTS {
            clients.clear();
        }
        clients.insert(token.to_owned(), client.clone());
        Ok(client)
    }
}

#[tonic::async_trait]
impl KubeApi for KubeService {
    async fn get(&self, request: Request<pb::GetRequest>) -> Result<Response<pb::Object>, Status> {
        let client = self.client(&request)?;
        let request = request.into_inner();
        let object: Value =
            client.get(&path(request.collection.as_ref(), &request.name)?).await.map_err(status)?;
        Ok(Response::new(shown(&object)))
    }

    async fn list(
        &self,
        request: Request<pb::ListRequest>,
    ) -> Result<Response<pb::ListResponse>, Status> {
        let client = self.client(&request)?;
        let request = request.into_inner();
        let params = ListParams {
            label_selector: some(request.label_selector),
            field_selector: some(request.field_selector),
            limit: (request.limit > 0).then_some(request.limit),
            continue_token: some(request.r#continue),
            ..ListParams::default()
        };
        let list: List<Value> =
            client.list(&path(request.collection.as_ref(), "")?, &params).await.map_err(status)?;
        Ok(Response::new(pb::ListResponse {
            items: list.items.iter().map(shown).collect(),
            resource_version: list.metadata.resource_version,
            r#continue: list.metadata.continue_token,
        }))
    }

    async fn create(
        &self,
        request: Request<pb::CreateRequest>,
    ) -> Result<Response<pb::Object>, Status> {
        let client = self.client(&request)?;
        let request = request.into_inner();
        let json = request.object.unwrap_or_default().json;
        let object: Value = serde_json::from_slice(&json)
            .map_err(|e| Status::invalid_argument(format!("object.json: {e}")))?;
        let created: Value = client
            .create(&path(request.collection.as_ref(), "")?, &object)
            .await
            .map_err(status)?;
        Ok(Response::new(shown(&created)))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteRequest>,
    ) -> Result<Response<pb::DeleteResponse>, Status> {
        let client = self.client(&request)?;
        let request = request.into_inner();
        if request.name.is_empty() {
            return Err(Status::invalid_argument("name is empty"));
        }
        let options = match request.grace_period_seconds {
            Some(seconds) => json!({"gracePeriodSeconds": seconds}),
            None => json!({}),
        };
        client
            .delete(&path(request.collection.as_ref(), &request.name)?, &options)
            .await
            .map_err(status)?;
        Ok(Response::new(pb::DeleteResponse {}))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchEvent, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let client = self.client(&request)?;
        let request = request.into_inner();
        let params = ListParams {
            label_selector: some(request.label_selector),
            field_selector: some(request.field_selector),
            resource_version: some(request.resource_version),
            ..ListParams::default()
        };
        let path = path(request.collection.as_ref(), "")?;
        let mut events = client.watch::<Value>(&path, &params).await.map_err(status)?;
        let (sender, receiver) = tokio::sync::mpsc::channel(QUEUE);
        tokio::spawn(async move {
            loop {
                let next = tokio::select! {
                    next = events.next() => next,
                    () = sender.closed() => return,
                };
                let item = match next {
                    Ok(Some(event)) => Ok(event_of(event)),
                    Ok(None) => return,
                    Err(error) => Err(status(error)),
                };
                let over = item.is_err();
                if sender.send(item).await.is_err() || over {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

fn event_of(event: WatchEvent<Value>) -> pb::WatchEvent {
    use pb::watch_event::Type;
    let (kind, object, version) = match event {
        WatchEvent::Added(object) => (Type::Added, Some(shown(&object)), String::new()),
        WatchEvent::Modified(object) => (Type::Modified, Some(shown(&object)), String::new()),
        WatchEvent::Deleted(object) => (Type::Deleted, Some(shown(&object)), String::new()),
        WatchEvent::Bookmark(version) => (Type::Bookmark, None, version),
    };
    pb::WatchEvent { r#type: kind.into(), object, resource_version: version }
}

fn shown(object: &Value) -> pb::Object {
    pb::Object { json: object.to_string().into() }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// The REST path of a collection or object.
fn path(collection: Option<&pb::Collection>, name: &str) -> Result<String, Status> {
    let collection = collection.ok_or_else(|| Status::invalid_argument("collection is missing"))?;
    for part in
        [&collection.group, &collection.version, &collection.resource, &collection.namespace, name]
    {
        let plain = part.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c));
        if !plain || part == ".." || part == "." {
            return Err(Status::invalid_argument(format!("{part:?} cannot be part of a path")));
        }
    }
    if collection.resource.is_empty() {
        return Err(Status::invalid_argument("collection.resource is empty"));
    }
    let version = if collection.version.is_empty() { "v1" } else { &collection.version };
    let mut path = if collection.group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{}/{version}", collection.group)
    };
    if !collection.namespace.is_empty() {
        path.push_str(&format!("/namespaces/{}", collection.namespace));
    }
    path.push_str(&format!("/{}", collection.resource));
    if !name.is_empty() {
        path.push_str(&format!("/{name}"));
    }
    Ok(path)
}

fn status(error: Error) -> Status {
    let Error::Api(failure) = &error else { return Status::unavailable(error.to_string()) };
    let code = match failure.code {
        400 | 422 => tonic::Code::InvalidArgument,
        401 => tonic::Code::Unauthenticated,
        403 => tonic::Code::PermissionDenied,
        404 => tonic::Code::NotFound,
        409 if failure.reason == "AlreadyExists" => tonic::Code::AlreadyExists,
        409 => tonic::Code::Aborted,
        410 => tonic::Code::OutOfRange,
        413 | 429 => tonic::Code::ResourceExhausted,
        503 | 504 => tonic::Code::Unavailable,
        _ => tonic::Code::Internal,
    };
    Status::new(code, failure.message.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_cannot_leave_their_collection() {
        let collection = |resource: &str, namespace: &str| pb::Collection {
            group: "apps".to_owned(),
            version: String::new(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
        };
        let good = path(Some(&collection("deployments", "d")), "x").unwrap();
        assert_eq!(good, "/apis/apps/v1/namespaces/d/deployments/x");
        for (resource, namespace, name) in
            [("", "d", "x"), ("pods", "../x", "y"), ("pods", "d", "a/b"), ("pods", "d", "?x")]
        {
            assert!(path(Some(&collection(resource, namespace)), name).is_err());
        }
    }
}
