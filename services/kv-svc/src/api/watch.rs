//! etcdserverpb.Watch.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_stream::try_stream;
use flotilla_proto::etcd::etcdserverpb::watch_request::RequestUnion;
use flotilla_proto::etcd::etcdserverpb::watch_server::Watch;
use flotilla_proto::etcd::etcdserverpb::{WatchRequest, WatchResponse};
use futures::{Stream, StreamExt};
use rand::Rng;
use tonic::{Request, Response, Status, Streaming};

use crate::api::caller::caller;
use crate::api::status::{OVERHEAD, status};
use crate::engine::auth::Caller;
use crate::engine::server::Server;
use crate::engine::watch::session::Session;
use crate::error::KvError;

/// The service.
#[derive(Debug, Clone)]
pub struct WatchApi {
    /// The member.
    pub server: Arc<Server>,
    /// Between two bookmarks of an idle watcher that wants them.
    pub progress_every: Duration,
}

type Responses = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Watch for WatchApi {
    type WatchStream = Responses;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let caller = caller(&self.server, &request)?;
        Ok(Response::new(self.responses(caller, request.into_inner())))
    }
}

impl WatchApi {
    /// What a stream of requests is answered with.
    pub fn responses<S>(&self, caller: Caller, mut requests: S) -> Responses
    where
        S: Stream<Item = Result<WatchRequest, Status>> + Send + Unpin + 'static,
    {
        let server = self.server.clone();
        // Streams opened together must not all speak at once.
        let jitter = self.progress_every.mul_f64(rand::rng().random_range(0.0..0.1));
        let progress_every = self.progress_every + jitter;
        let max_response = server.limits().request_bytes + OVERHEAD;
        let mut session = Session::new(server.keyspace().clone(), progress_every, max_response);
        Box::pin(try_stream! {
            loop {
                let said = tokio::select! {
                    biased;
                    request = requests.next() => match request {
                        None => break,
                        Some(request) => request.map(|request| Vec::from_iter(answer(&server, &caller, &mut session, request))),
                    },
                    said = session.next() => said.map_err(|error| {
                        tracing::error!(%error, "a watch stream ends");
                        status(KvError::StoreFailed)
                    }),
                };
                for mut response in said? {
                    server.stamp(&mut response.header);
                    yield response;
                }
            }
        })
    }
}

fn answer(
    server: &Server,
    caller: &Caller,
    session: &mut Session,
    request: WatchRequest,
) -> Option<WatchResponse> {
    match request.request_union? {
        RequestUnion::CreateRequest(create) => {
            // As the rules are now: a stream may outlive the permission it started with.
            let now = Caller {
                user: caller.user.clone(),
                revision: server.keyspace().state().auth.revision,
            };
            let now = if caller.user.is_empty() { caller.clone() } else { now };
            match server.may_read(&now, &create.key, &create.range_end) {
                Ok(()) => Some(session.create(&create)),
                Err(error) => Some(session.refuse(error.text())),
            }
        }
        RequestUnion::CancelRequest(cancel) => session.cancel(cancel.watch_id),
        RequestUnion::ProgressRequest(_) => {
            session.ask_progress();
            None
        }
    }
}
