//! Leader election by a `coordination.k8s.io/v1` Lease, as client-go does it.
//!
//! Only the holder acts. A candidate trusts its own clock alone: it takes a lease over when the record has
//! not changed for the lease duration since this process last saw it change.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{Client, Error};

/// One candidate for one lease.
#[derive(Debug)]
pub struct LeaderElection {
    client: Client,
    namespace: String,
    name: String,
    identity: String,
    lease_duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
    seen: Option<(Value, Instant)>,
}

/// Current time as Kubernetes writes a `Time`: RFC 3339 with seconds.
pub fn now_rfc3339() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Current time as Kubernetes writes a `MicroTime`: RFC 3339 with microseconds.
pub fn now_micros() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

impl LeaderElection {
    /// A candidate named `identity` with the usual times: 15 s lease, 10 s renewal, 2 s between attempts.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            seen: None,
        }
    }

    /// Other times than the usual ones.
    #[must_use]
    pub fn with_times(mut self, lease: Duration, renew: Duration, retry: Duration) -> Self {
        (self.lease_duration, self.renew_deadline, self.retry_period) = (lease, renew, retry);
        self
    }

    /// Waits until this candidate holds the lease.
    pub async fn acquire(&mut self) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::debug!(lease = self.name, %error, "cannot take the lease"),
            }
            tokio::time::sleep(self.retry_period).await;
        }
    }

    /// Renews the lease; returns when it is lost.
    pub async fn hold(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.retry_period).await;
            let left = self.renew_deadline.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.attempt()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => {
                    tracing::warn!(lease = self.name, %error, "cannot renew the lease");
                }
                Err(_) => return,
            }
            if renewed.elapsed() >= self.renew_deadline {
                return;
            }
        }
    }

    /// Gives the lease up, so that another candidate need not wait for it to expire.
    pub async fn release(&mut self) {
        let Ok(mut lease) = self.client.get::<Value>(&self.path()).await else { return };
        if lease["spec"]["holderIdentity"] != self.identity.as_str() {
            return;
        }
        lease["spec"]["holderIdentity"] = json!("");
        lease["spec"]["leaseDurationSeconds"] = json!(1);
        lease["spec"]["renewTime"] = json!(now_micros());
        if let Err(error) = self.client.replace::<Value>(&self.path(), &lease).await {
            tracing::debug!(lease = self.name, %error, "cannot give the lease up");
        }
    }

    fn collection(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.name)
    }

    async fn attempt(&mut self) -> Result<bool, Error> {
        let now = now_micros();
        let mut lease = match self.client.get::<Value>(&self.path()).await {
            Ok(lease) => lease,
            Err(error) if error.is_not_found() => {
                let lease = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": self.name, "namespace": self.namespace},
                    "spec": {"holderIdentity": self.identity, "acquireTime": now, "renewTime": now,
                        "leaseDurationSeconds": self.lease_duration.as_secs().max(1), "leaseTransitions": 0},
                });
                return match self.client.create::<Value>(&self.collection(), &lease).await {
                    Ok(_) => Ok(true),
                    Err(error) if error.is_conflict() => Ok(false),
                    Err(error) => Err(error),
                };
            }
            Err(error) => return Err(error),
        };
        let spec = lease["spec"].clone();
        let holder = spec["holderIdentity"].as_str().unwrap_or_default().to_owned();
        if self.seen.as_ref().is_none_or(|(last, _)| *last != spec) {
            self.seen = Some((spec.clone(), Instant::now()));
        }
        if !holder.is_empty() && holder != self.identity && !self.expired(&spec) {
            return Ok(false);
        }
        if holder != self.identity {
            lease["spec"]["acquireTime"] = json!(now);
            let transitions = spec["leaseTransitions"].as_i64().unwrap_or_default();
            lease["spec"]["leaseTransitions"] = json!(transitions + 1);
        }
        lease["spec"]["holderIdentity"] = json!(self.identity);
        lease["spec"]["renewTime"] = json!(now);
        lease["spec"]["leaseDurationSeconds"] = json!(self.lease_duration.as_secs().max(1));
        match self.client.replace::<Value>(&self.path(), &lease).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn expired(&self, spec: &Value) -> bool {
        let seconds = spec["leaseDurationSeconds"].as_u64().unwrap_or(15);
        self.seen.as_ref().is_some_and(|(_, at)| at.elapsed() >= Duration::from_secs(seconds))
    }
}
