//! The aggregated discovery service: one task per stream.

use std::pin::Pin;

use flotilla_proto::envoy::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryService;
use flotilla_proto::envoy::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use flotilla_proto::envoy::google::rpc;
use flotilla_server::Shutdown;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Snapshots, delta, sotw};
use crate::engine::snapshot::Kind;

/// Responses that may wait for a slow proxy.
const QUEUE: usize = 8;

/// The service.
#[derive(Debug)]
pub struct Ads {
    snapshots: Snapshots,
    shutdown: Shutdown,
}

impl Ads {
    /// Serves what `snapshots` holds.
    pub fn new(snapshots: Snapshots, shutdown: Shutdown) -> Self {
        Self { snapshots, shutdown }
    }
}

/// What a protocol does with a stream's events.
pub(super) trait Protocol: Send + 'static {
    /// A client's message.
    type Request: Send + 'static;
    /// A server's message.
    type Response: Send + 'static;

    /// Takes a request over and returns what is to be sent for it.
    fn request(
        &mut self,
        request: Self::Request,
        snapshot: Option<&crate::engine::snapshot::Snapshot>,
    ) -> Vec<Self::Response>;

    /// Returns what is to be sent because the snapshot changed.
    fn changed(&mut self, snapshot: &crate::engine::snapshot::Snapshot) -> Vec<Self::Response>;
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn start<P: Protocol>(
    ads: &Ads,
    mut protocol: P,
    mut requests: Streaming<P::Request>,
) -> Answers<P::Response> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let (mut snapshots, shutdown) = (ads.snapshots.clone(), ads.shutdown.clone());
    tokio::spawn(async move {
        loop {
            let responses = tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => {
                        let snapshot = snapshots.borrow().clone();
                        protocol.request(request, snapshot.as_deref())
                    }
                    Ok(None) => return,
                    Err(error) => {
                        tracing::debug!(%error, "a proxy left");
                        return;
                    }
                },
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let snapshot = snapshots.borrow_and_update().clone();
                    snapshot.map(|snapshot| protocol.changed(&snapshot)).unwrap_or_default()
                }
                () = shutdown.triggered() => return,
            };
            for response in responses {
                if sender.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

/// Logs a NACK.
pub(super) fn refused(node: &str, kind: Kind, error: &rpc::Status) {
    tracing::warn!(
        node,
        kind = kind.type_url(),
        message = error.message,
        "a proxy refused an update"
    );
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Ok(Response::new(start(self, sotw::Sotw::default(), request.into_inner())))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Ok(Response::new(start(self, delta::Delta::default(), request.into_inner())))
    }
}
