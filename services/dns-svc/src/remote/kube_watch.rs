//! Follows the Kubernetes API into the store of the `kubernetes` plugin.

use std::sync::Arc;

use flotilla_kube_client::{Client, ListParams, Reflector};
use serde::de::DeserializeOwned;
use tokio::task::AbortHandle;

use crate::engine::kubernetes::Store;

/// What to follow.
#[derive(Debug, Clone, Default)]
pub struct WatchOptions {
    /// Label selector on Services and slices.
    pub labels: Option<String>,
    /// Label selector on namespaces.
    pub namespace_labels: Option<String>,
    /// Whether endpoints are followed.
    pub endpoints: bool,
    /// Whether pods are followed.
    pub pods: bool,
}

/// Running followers; they end when this is dropped.
#[derive(Debug, Default)]
pub struct Tasks(Vec<AbortHandle>);

impl Tasks {
    /// These followers.
    pub fn new(handles: Vec<AbortHandle>) -> Self {
        Self(handles)
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// Starts following. Failures are waited out by the reflectors.
pub fn follow(client: &Client, options: &WatchOptions, store: &Arc<Store>) -> Tasks {
    let params = |labels: &Option<String>| ListParams {
        label_selector: labels.clone(),
        ..ListParams::default()
    };
    let (namespaces, services) = (params(&options.namespace_labels), params(&options.labels));
    let mut tasks = vec![
        spawn(client, "/api/v1/namespaces", namespaces, store, Store::namespaces),
        spawn(client, "/api/v1/services", services, store, Store::services),
    ];
    // Slices carry labels of their own; the Service's selector does not apply to them.
    let all = ListParams::default();
    if options.endpoints {
        let path = "/apis/discovery.k8s.io/v1/endpointslices";
        tasks.push(spawn(client, path, all.clone(), store, Store::slices));
    }
    if options.pods {
        tasks.push(spawn(client, "/api/v1/pods", all, store, Store::pods));
    }
    Tasks(tasks)
}

fn spawn<T: DeserializeOwned + Send + 'static>(
    client: &Client,
    path: &'static str,
    params: ListParams,
    store: &Arc<Store>,
    apply: impl Fn(&Store, flotilla_kube_client::Change<T>) + Send + 'static,
) -> AbortHandle {
    let (client, store) = (client.clone(), store.clone());
    let task = tokio::spawn(async move {
        let mut reflector = Reflector::<T>::new(client, path, params);
        loop {
            let change = reflector.next().await;
            apply(&store, change);
        }
    });
    task.abort_handle()
}
