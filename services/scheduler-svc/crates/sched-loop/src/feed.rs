//! What the scheduler hears of the cluster, as one stream.

use flotilla_kube_client::{Change, Client, ListParams, Reflector};
use sched_core::spec::{Meta, Node, Pod};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// A namespace; its labels matter.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Namespace {
    #[serde(default)]
    pub(crate) metadata: Meta,
}

/// One change.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one value at a time lives in the channel")]
pub(crate) enum News {
    Nodes(Change<Node>),
    Pods(Change<Pod>),
    Namespaces(Change<Namespace>),
}

/// Changes that may wait; more than that and the watches are read later.
const QUEUE: usize = 4096;

/// Follows nodes, pods and namespaces. The tasks end with `tasks`.
pub(crate) fn follow(client: &Client, tasks: &mut JoinSet<()>) -> mpsc::Receiver<News> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let pods = ListParams {
        field_selector: Some("status.phase!=Succeeded,status.phase!=Failed".to_owned()),
        ..ListParams::default()
    };
    spawn(tasks, client, "/api/v1/nodes", ListParams::default(), sender.clone(), News::Nodes);
    let all = ListParams::default();
    spawn(tasks, client, "/api/v1/namespaces", all, sender.clone(), News::Namespaces);
    spawn(tasks, client, "/api/v1/pods", pods, sender, News::Pods);
    receiver
}

fn spawn<T: DeserializeOwned + Send + 'static>(
    tasks: &mut JoinSet<()>,
    client: &Client,
    path: &str,
    params: ListParams,
    sender: mpsc::Sender<News>,
    wrap: fn(Change<T>) -> News,
) {
    let mut reflector = Reflector::<T>::new(client.clone(), path, params);
    tasks.spawn(async move { while sender.send(wrap(reflector.next().await)).await.is_ok() {} });
}
