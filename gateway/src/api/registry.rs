//! `flotilla.gateway.v1.Registry`: instances announce themselves and become cluster `registry/SERVICE`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::gateway::flotilla::gateway::v1 as wire;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use wire::registry_server::{Registry, RegistryServer};

use crate::registry::{Event, Instance, Instances};

const DEFAULT_TTL: Duration = Duration::from_secs(30);
const SHORTEST_TTL: Duration = Duration::from_secs(1);
const LONGEST_TTL: Duration = Duration::from_secs(3600);
/// Changes a slow watcher may lag behind before it is cut.
const WATCH_QUEUE: usize = 256;

/// The service.
#[derive(Debug)]
pub struct RegistryApi(Arc<Instances>);

/// The service for the admin port.
pub fn service(instances: Arc<Instances>) -> RegistryServer<RegistryApi> {
    RegistryServer::new(RegistryApi(instances))
}

fn to_wire(instance: &Instance) -> wire::Instance {
    wire::Instance {
        service: instance.service.clone(),
        id: instance.id.clone(),
        address: instance.address.clone(),
        weight: instance.weight,
        http2: instance.http2,
        labels: instance.labels.clone().into_iter().collect(),
    }
}

#[tonic::async_trait]
impl Registry for RegistryApi {
    async fn register(
        &self,
        request: Request<wire::RegisterRequest>,
    ) -> Result<Response<wire::RegisterResponse>, Status> {
        let request = request.into_inner();
        let instance =
            request.instance.ok_or_else(|| Status::invalid_argument("instance is missing"))?;
        let ttl = match request.ttl {
            None => DEFAULT_TTL,
            Some(ttl) => {
                Duration::try_from(ttl).map_err(|_| Status::invalid_argument("ttl is negative"))?
            }
        };
        if !(SHORTEST_TTL..=LONGEST_TTL).contains(&ttl) {
            return Err(Status::invalid_argument("ttl must be between 1s and 1h"));
        }
        let instance = Instance {
            service: instance.service,
            id: instance.id,
            address: instance.address,
            weight: if instance.weight == 0 { 1 } else { instance.weight },
            http2: instance.http2,
            labels: instance.labels.into_iter().collect(),
        };
        self.0.put(instance, ttl).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let ttl = prost_types::Duration::try_from(ttl)
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(wire::RegisterResponse { ttl: Some(ttl) }))
    }

    async fn deregister(
        &self,
        request: Request<wire::DeregisterRequest>,
    ) -> Result<Response<wire::DeregisterResponse>, Status> {
        let request = request.into_inner();
        let found = self.0.remove(&request.service, &request.id);
        Ok(Response::new(wire::DeregisterResponse { found }))
    }

    async fn list(
        &self,
        request: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListResponse>, Status> {
        let instances = self.0.list(&request.into_inner().service);
        Ok(Response::new(wire::ListResponse { instances: instances.iter().map(to_wire).collect() }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<wire::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        use wire::watch_response::Kind;
        let service = request.into_inner().service;
        let (current, mut events) = self.0.watch(&service);
        let (sender, receiver) = tokio::sync::mpsc::channel(WATCH_QUEUE);
        tokio::spawn(async move {
            let message = |kind: Kind, instance: Option<&Instance>| wire::WatchResponse {
                kind: kind.into(),
                instance: instance.map(to_wire),
            };
            let snapshot = current.iter().map(|instance| message(Kind::Put, Some(instance)));
            for response in snapshot.chain([message(Kind::Synced, None)]) {
                if sender.send(Ok(response)).await.is_err() {
                    return;
                }
            }
            loop {
                let event = tokio::select! {
                    event = events.recv() => event,
                    () = sender.closed() => return,
                };
                let response = match event {
                    Ok(Event::Put(instance))
                        if service.is_empty() || instance.service == service =>
                    {
                        message(Kind::Put, Some(&instance))
                    }
                    Ok(Event::Delete(instance))
                        if service.is_empty() || instance.service == service =>
                    {
                        message(Kind::Delete, Some(&instance))
                    }
                    Ok(_) => continue,
                    Err(_) => {
                        // The client is gone if this fails; it is cut either way.
                        let _ = sender
                            .send(Err(Status::resource_exhausted(
                                "the watcher is too slow; watch again",
                            )))
                            .await;
                        return;
                    }
                };
                if sender.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
