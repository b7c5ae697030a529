//! The Kubernetes API: following it, and writing the status of Ingresses.

mod status;

use std::sync::Arc;
use std::time::Duration;

use flotilla_kube_client::{Client, ListParams, Reflector};
use flotilla_server::Shutdown;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use crate::Config;
use crate::engine::snapshot::Snapshot;
use crate::engine::world::{World, WorldChange};

/// Changes closer together than this make one snapshot.
const SETTLE: Duration = Duration::from_millis(3);

/// Follows the API and publishes a snapshot whenever it would be another one.
pub async fn follow(
    client: Client,
    config: Config,
    publish: Arc<watch::Sender<Option<Arc<Snapshot>>>>,
    shutdown: Shutdown,
) {
    let (sender, mut changes) = mpsc::channel(1024);
    reflect(&client, "/api/v1/services", WorldChange::Service, &sender);
    reflect(&client, "/apis/discovery.k8s.io/v1/endpointslices", WorldChange::Slice, &sender);
    reflect(&client, "/apis/networking.k8s.io/v1/ingresses", WorldChange::Ingress, &sender);
    drop(sender);
    let mut world = World::default();
    let mut statuses = status::Writer::new(client, config.clone());
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            () = shutdown.triggered() => return,
        };
        let Some(change) = change else { return };
        world.apply(change);
        tokio::time::sleep(SETTLE).await;
        while let Ok(change) = changes.try_recv() {
            world.apply(change);
        }
        if !world.is_complete() {
            continue;
        }
        let snapshot = Snapshot::build(&world, &config);
        publish.send_if_modified(|current| {
            let changed = current.as_deref() != Some(&snapshot);
            if changed {
                *current = Some(Arc::new(snapshot));
            }
            changed
        });
        statuses.write(&world);
    }
}

fn reflect<T: DeserializeOwned + Send + 'static>(
    client: &Client,
    path: &'static str,
    wrap: fn(flotilla_kube_client::Change<T>) -> WorldChange,
    sender: &mpsc::Sender<WorldChange>,
) {
    let mut reflector: Reflector<T> = Reflector::new(client.clone(), path, ListParams::default());
    let sender = sender.clone();
    tokio::spawn(async move {
        loop {
            let change = tokio::select! {
                change = reflector.next() => change,
                () = sender.closed() => return,
            };
            if sender.send(wrap(change)).await.is_err() {
                return;
            }
        }
    });
}
