//! What every cluster has: the system's namespaces, roles, priorities, and the Service `kubernetes`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube_spec::{Resource, find};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::identity::bootstrap_roles;
use crate::object;
use crate::policy::Phase;
use crate::rest::Change;
use crate::server::Api;

const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];
const EVERY: Duration = Duration::from_secs(10);
const COMPACT_EVERY: Duration = Duration::from_secs(300);

/// Keeps the basics in place until the process ends.
pub(crate) async fn keep(api: Arc<Api>, address: SocketAddr) {
    let mut said = false;
    while !api.readiness.is_ready() {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
            () = api.shutdown.triggered() => return,
        }
    }
    loop {
        match api.establish(address).await {
            Ok(()) => said = false,
            Err(error) if !said => {
                tracing::warn!(
                    message = error.message,
                    "the cluster's basics are not in place yet"
                );
                said = true;
            }
            Err(_) => {}
        }
        let pause = if said { Duration::from_millis(500) } else { EVERY };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = api.shutdown.triggered() => return,
        }
    }
}

/// Gives up the store's history that is older than five minutes.
pub(crate) async fn compact(api: Arc<Api>) {
    let mut before = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(COMPACT_EVERY) => {}
            () = api.shutdown.triggered() => return,
        }
        if before > 0
            && let Err(error) = api.etcd.compact(before).await
        {
            // Another server may have compacted further already.
            tracing::debug!(%error, "no compaction this time");
        }
        before = api.cache.revision();
    }
}

fn resource(group: &str, plural: &str) -> Result<&'static Resource, ApiError> {
    find(group, "v1", plural).ok_or_else(ApiError::no_such_path)
}

impl Api {
    async fn establish(&self, address: SocketAddr) -> Result<(), ApiError> {
        if self.cache.revision() == 0 {
            return Err(ApiError::unavailable("the store is not loaded yet"));
        }
        let namespaces = resource("", "namespaces")?;
        for name in NAMESPACES {
            self.ensure(namespaces, json!({"metadata": {"name": name}})).await?;
        }
        let all = self.cache.of(namespaces).map(|c| c.list("")).unwrap_or_default();
        for entry in all {
            if !object::is_set(&entry.object, "/metadata/deletionTimestamp") {
                self.default_account(object::name(&entry.object)).await?;
            }
        }
        for (plural, role) in bootstrap_roles() {
            self.ensure(resource("rbac.authorization.k8s.io", plural)?, role).await?;
        }
        for (name, value) in
            [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)]
        {
            let class = json!({"metadata": {"name": name}, "value": value});
            self.ensure(resource("scheduling.k8s.io", "priorityclasses")?, class).await?;
        }
        self.kubernetes_service(address).await
    }

    /// Creates an object unless it is there.
    async fn ensure(&self, resource: &'static Resource, object: Value) -> Result<(), ApiError> {
        let key = crate::rest::key(resource, object::namespace(&object), object::name(&object));
        if self.cache.of(resource).is_some_and(|c| c.get(&key).is_some()) {
            return Ok(());
        }
        match self.create_object(resource, object, false).await {
            Err(error) if error.reason == "AlreadyExists" => Ok(()),
            result => result.map(drop),
        }
    }

    async fn default_account(&self, namespace: &str) -> Result<(), ApiError> {
        let account = json!({"metadata": {"name": "default", "namespace": namespace}});
        self.ensure(resource("", "serviceaccounts")?, account).await
    }

    /// What follows a creation: a namespace gets its service account.
    pub(crate) async fn after_create(&self, resource: &Resource, object: &Value) {
        if resource.plural == "namespaces" {
            let created = Box::pin(self.default_account(object::name(object))).await;
            if let Err(error) = created {
                tracing::warn!(message = error.message, "the default service account comes later");
            }
        }
    }

    async fn kubernetes_service(&self, address: SocketAddr) -> Result<(), ApiError> {
        let labels = json!({"component": "apiserver", "provider": "kubernetes"});
        let service = json!({
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
            "spec": {"clusterIP": self.addresses.first().to_string(), "type": "ClusterIP",
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": address.port()}]},
        });
        self.ensure(resource("", "services")?, service).await?;
        let slice = json!({
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address.ip().to_string()], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "protocol": "TCP", "port": address.port()}],
        });
        self.replace(
            resource("discovery.k8s.io", "endpointslices")?,
            slice,
            &["endpoints", "ports"],
        )
        .await?;
        let endpoints = json!({
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": [{"ip": address.ip().to_string()}],
                "ports": [{"name": "https", "protocol": "TCP", "port": address.port()}]}],
        });
        self.replace(resource("", "endpoints")?, endpoints, &["subsets"]).await
    }

    /// Creates an object or brings the named parts of it up to date.
    async fn replace(
        &self,
        resource: &'static Resource,
        object: Value,
        parts: &[&str],
    ) -> Result<(), ApiError> {
        self.ensure(resource, object.clone()).await?;
        let (namespace, name) = (object::namespace(&object), object::name(&object));
        let change = Change { resource, namespace, name, phase: Phase::Server, dry_run: false };
        let update = |current: &Value| {
            let mut next = current.clone();
            object::remove_meta(&mut next, "resourceVersion");
            for part in parts {
                object::copy(&mut next, &object, part);
            }
            Ok(next)
        };
        self.change(change, update).await.map(drop)
    }
}
