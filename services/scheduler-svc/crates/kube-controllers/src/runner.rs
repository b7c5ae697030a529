//! Runs controllers: events to keys, keys to workers, failures back to the queue.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Error;
use crate::cache::{Event, Key, Kind};
use crate::cluster::Cluster;
use crate::metrics;
use crate::queue::Queue;

/// When a key is to be worked on again without any event: after this long, or not at all.
pub type Again = Option<Duration>;

/// Brings one kind of object to its desired state.
pub trait Controller: Send + Sync + 'static {
    /// Name in logs, metrics and `--controllers`.
    const NAME: &'static str;

    /// The kinds it reads.
    fn kinds(&self) -> Vec<Kind>;

    /// The keys that a change makes worth a look.
    fn keys(&self, event: &Event) -> Vec<Key>;

    /// Keys to work on at the start besides those of the first lists.
    fn first(&self) -> Vec<Key> {
        Vec::new()
    }

    /// Brings the object with this key closer to its desired state.
    fn sync(&self, key: &Key) -> impl Future<Output = Result<Again, Error>> + Send;
}

/// Adds a controller to `tasks` with so many workers. It starts when all stores are filled.
pub fn start<C: Controller>(
    tasks: &mut JoinSet<()>,
    cluster: &Cluster,
    controller: C,
    workers: usize,
) {
    let controller = Arc::new(controller);
    let queue: Arc<Queue<Key>> = Arc::default();
    let kinds = controller.kinds();
    {
        let (controller, queue, kinds) = (controller.clone(), queue.clone(), kinds.clone());
        cluster.informers.subscribe(move |event| {
            if kinds.contains(&event.kind) {
                for key in controller.keys(event) {
                    queue.add(key);
                }
            }
        });
    }
    for kind in kinds {
        cluster.store(kind);
    }
    for key in controller.first() {
        queue.add(key);
    }
    metrics::watch_queue(C::NAME, &queue);
    for _ in 0..workers.max(1) {
        let (controller, queue) = (controller.clone(), queue.clone());
        let informers = cluster.informers.clone();
        tasks.spawn(async move {
            informers.synced().await;
            loop {
                let key = queue.next().await;
                let start = Instant::now();
                let result = controller.sync(&key).await;
                metrics::worked(C::NAME, start.elapsed());
                settle(C::NAME, &queue, &key, result);
                queue.done(&key);
            }
        });
    }
}

fn settle(name: &'static str, queue: &Queue<Key>, key: &Key, result: Result<Again, Error>) {
    match result {
        Ok(again) => {
            queue.forget(key);
            if let Some(pause) = again {
                queue.add_after(key.clone(), pause);
            }
        }
        Err(error) if error.is_ending_namespace() => queue.forget(key),
        Err(error) if error.is_race() => {
            tracing::debug!(controller = name, %key, %error, "changed meanwhile");
            queue.retry(key.clone());
        }
        Err(Error::Object(reason)) => {
            queue.forget(key);
            tracing::warn!(controller = name, %key, reason, "object is left as it is");
        }
        Err(error) => {
            tracing::warn!(controller = name, %key, %error, "will try again");
            queue.retry(key.clone());
        }
    }
}
