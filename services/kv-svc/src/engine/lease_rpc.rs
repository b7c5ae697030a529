//! Lease requests that need the leader's clock, and revoking what has ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_proto::etcd::etcdserverpb::{
    InternalRaftRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use futures::StreamExt;

use crate::engine::server::Server;

/// How often ended leases are looked for.
const EVERY: Duration = Duration::from_millis(500);
/// Leases revoked per look.
const PER_ROUND: usize = 500;
/// Revocations in flight.
const IN_FLIGHT: usize = 16;

impl Server {
    /// Starts the time of a lease anew. 0: there is no such lease.
    pub fn lease_renew(&self, id: i64) -> i64 {
        self.keyspace().with_leases(|leases| leases.renew(id, Instant::now())).unwrap_or(0)
    }

    /// Times of a lease, and its keys when asked for. An unknown lease has -1 left.
    pub fn lease_times(&self, request: &LeaseTimeToLiveRequest) -> LeaseTimeToLiveResponse {
        let state = self.keyspace().state();
        let mut response = LeaseTimeToLiveResponse {
            id: request.id,
            ttl: -1,
            ..LeaseTimeToLiveResponse::default()
        };
        if let Some(lease) = state.leases.get(request.id) {
            response.ttl = state.leases.remaining(request.id, Instant::now()).unwrap_or(-1);
            response.granted_ttl = lease.ttl;
            if request.keys {
                response.keys = lease.keys.iter().cloned().collect();
            }
        }
        drop(state);
        self.stamp(&mut response.header);
        response
    }

    /// Revokes leases that have ended, for as long as this member runs.
    pub async fn revoke_ended(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            ticks.tick().await;
            let ended = self.keyspace().state().leases.ended(Instant::now(), PER_ROUND);
            let revocations = ended.into_iter().map(|id| {
                let server = self.clone();
                async move {
                    let lease_revoke = Some(LeaseRevokeRequest { id });
                    let request = InternalRaftRequest { lease_revoke, ..InternalRaftRequest::default() };
                    if let Err(error) = server.consensus().propose(request).await {
                        tracing::warn!(%error, lease = id, "could not revoke an ended lease; trying again");
                    }
                }
            });
            futures::stream::iter(revocations)
                .buffer_unordered(IN_FLIGHT)
                .collect::<Vec<()>>()
                .await;
        }
    }
}
