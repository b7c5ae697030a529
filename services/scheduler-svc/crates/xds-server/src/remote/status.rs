//! Tells the owners of Ingresses where they are served, and what of them is not.

use std::collections::BTreeSet;
use std::net::IpAddr;

use flotilla_kube_client::{Client, Patch};
use serde_json::{Value, json};

use crate::Config;
use crate::engine::ingress::is_ours;
use crate::engine::kube::{Ingress, Key, key};
use crate::engine::world::World;

/// Writes `status.loadBalancer` once per change.
pub struct Writer {
    client: Client,
    config: Config,
    reported: BTreeSet<Key>,
}

impl Writer {
    /// A writer that has written nothing.
    pub fn new(client: Client, config: Config) -> Self {
        Self { client, config, reported: BTreeSet::new() }
    }

    /// Brings the status of all our Ingresses up to date, in the background.
    pub fn write(&mut self, world: &World) {
        self.reported.retain(|key| world.ingresses.contains_key(key));
        for ingress in world.ingresses.values() {
            if !is_ours(ingress, &self.config) {
                continue;
            }
            self.report_tls(ingress);
            if let Some(wanted) = self.wanted(ingress) {
                self.patch(ingress, wanted);
            }
        }
    }

    fn report_tls(&mut self, ingress: &Ingress) {
        let asks = ingress.spec.tls.as_ref().is_some_and(|tls| !tls.is_empty());
        if asks && self.reported.insert(key(&ingress.metadata)) {
            tracing::warn!(
                namespace = ingress.metadata.namespace,
                ingress = ingress.metadata.name,
                "spec.tls is not supported yet: the hosts are served without TLS"
            );
        }
    }

    /// The status it should have, when it has another.
    fn wanted(&self, ingress: &Ingress) -> Option<Value> {
        if self.config.publish_address.is_empty() {
            return None;
        }
        let entry = |address: &String| match address.parse::<IpAddr>() {
            Ok(_) => json!({ "ip": address }),
            Err(_) => json!({ "hostname": address }),
        };
        let wanted = Value::Array(self.config.publish_address.iter().map(entry).collect());
        (ingress.status["loadBalancer"]["ingress"] != wanted).then_some(wanted)
    }

    fn patch(&self, ingress: &Ingress, wanted: Value) {
        let (namespace, name) = key(&ingress.metadata);
        let client = self.client.clone();
        tokio::spawn(async move {
            let path = format!(
                "/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses/{name}/status"
            );
            let body = json!({ "status": { "loadBalancer": { "ingress": wanted } } });
            // The next change of the Ingress, or a relist, tries again.
            if let Err(error) = client.patch::<Value>(&path, Patch::Merge(&body)).await {
                tracing::warn!(namespace, ingress = name, %error, "cannot write the status");
            }
        });
    }
}
