//! The Services that environments name.

use std::collections::BTreeMap;
use std::sync::Arc;

use flotilla_kube_client::{Change, ListParams, Reflector};

use super::agent::Agent;
use crate::engine::env::Service;

/// Follows all Services for as long as the agent lives.
pub async fn follow(agent: Arc<Agent>) {
    let Some(client) = agent.api.client().cloned() else {
        agent.services.send_replace(Some(Arc::default()));
        return std::future::pending().await;
    };
    let mut reflector =
        Reflector::<Service>::new(client, "/api/v1/services", ListParams::default());
    let mut all: BTreeMap<(String, String), Service> = BTreeMap::new();
    loop {
        let key =
            |service: &Service| (service.metadata.namespace.clone(), service.metadata.name.clone());
        match reflector.next().await {
            Change::Replaced(list) => {
                all = list.into_iter().map(|service| (key(&service), service)).collect()
            }
            Change::Applied(service) => drop(all.insert(key(&service), service)),
            Change::Deleted(service) => drop(all.remove(&key(&service))),
        }
        agent.services.send_replace(Some(Arc::new(all.values().cloned().collect())));
    }
}
