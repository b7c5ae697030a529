//! Follows the Kubernetes API into the store of the `kubernetes` plugin.

use std::sync::Arc;

use flotilla_kube_client::{Client, ListParams, Reflector};
use serde::de::DeserializeOwned;

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

/// Starts following; ends with the runtime. Failures are waited out by the reflectors.
pub fn follow(client: &Client, options: &WatchOptions, store: &Arc<Store>) {
    let params = |labels: &Option<String>| ListParams {
        label_selector: labels.clone(),
        ..ListParams::default()
    };
    let services = params(&options.labels);
    spawn(
        client,
        "/api/v1/namespaces",
        params(&options.namespace_labels),
        store,
        Store::namespaces,
    );
    spawn(client, "/api/v1/services", services, store, Store::services);
    if options.endpoints {
        // Slices carry labels of their own; the Service's selector does not apply to them.
        spawn(
            client,
            "/apis/discovery.k8s.io/v1/endpointslices",
            ListParams::default(),
            store,
            Store::slices,
        );
    }
    if options.pods {
        spawn(client, "/api/v1/pods", ListParams::default(), store, Store::pods);
    }
}

fn spawn<T: DeserializeOwned + Send + 'static>(
    client: &Client,
    path: &'static str,
    params: ListParams,
    store: &Arc<Store>,
    apply: impl Fn(&Store, flotilla_kube_client::Change<T>) + Send + 'static,
) {
    let (client, store) = (client.clone(), store.clone());
    tokio::spawn(async move {
        let mut reflector = Reflector::<T>::new(client, path, params);
        loop {
            let change = reflector.next().await;
            apply(&store, change);
        }
    });
}
