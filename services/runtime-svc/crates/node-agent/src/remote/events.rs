//! Events for people: counted when they repeat, limited per object, dropped rather than queued without end.

use std::collections::HashMap;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::api_server::ApiServer;
use crate::engine::kube::Pod;
use crate::engine::time;

const QUEUE: usize = 1000;
const REMEMBERED: usize = 4096;
/// Tokens an object starts with and regains one each [`REFILL`] (client-go's spam filter).
const BURST: f64 = 25.0;
const REFILL: f64 = 300.0;

/// Takes events. Clones share the queue.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Event>,
}

#[derive(Debug)]
struct Event {
    object: Value,
    namespace: String,
    warning: bool,
    reason: &'static str,
    message: String,
    at: i64,
}

impl Recorder {
    /// A recorder and the task that posts what it takes.
    pub fn new(api: ApiServer, node: String) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, events) = mpsc::channel(QUEUE);
        (Self { queue }, post(api, node, events))
    }

    /// Something happened to a pod, or to `container` in it.
    pub fn pod(
        &self,
        pod: &Pod,
        container: Option<&str>,
        warning: bool,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let meta = &pod.metadata;
        let mut object = json!({
            "apiVersion": "v1", "kind": "Pod", "namespace": meta.namespace, "name": meta.name, "uid": meta.uid,
            "resourceVersion": meta.resource_version
        });
        if let Some(name) = container {
            let init = pod.spec.init_containers.iter().any(|c| c.name == name);
            let list = if init { "initContainers" } else { "containers" };
            object["fieldPath"] = format!("spec.{list}{{{name}}}").into();
        }
        self.send(object, &meta.namespace, warning, reason, message.into());
    }

    /// Something happened to the node.
    pub fn node(
        &self,
        name: &str,
        warning: bool,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let object = json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": name});
        self.send(object, "default", warning, reason, message.into());
    }

    fn send(
        &self,
        object: Value,
        namespace: &str,
        warning: bool,
        reason: &'static str,
        message: String,
    ) {
        tracing::debug!(object = %object["name"], reason, message, "event");
        let event = Event {
            object,
            namespace: namespace.to_owned(),
            warning,
            reason,
            message,
            at: time::now(),
        };
        // A full queue means that the API server is gone; events are the first thing to do without.
        let _ = self.queue.try_send(event);
    }
}

#[derive(Default)]
struct Memory {
    posted: HashMap<String, Posted>,
    buckets: HashMap<String, (f64, i64)>,
}

struct Posted {
    name: String,
    count: u64,
    first: i64,
}

impl Memory {
    /// Whether the object may have one more event.
    fn admit(&mut self, object: &str, now: i64) -> bool {
        if self.buckets.len() > REMEMBERED {
            self.buckets.clear();
        }
        let (tokens, at) = self.buckets.entry(object.to_owned()).or_insert((BURST, now));
        *tokens = (*tokens + now.saturating_sub(*at) as f64 / 1e9 / REFILL).min(BURST);
        *at = now;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }
}

async fn post(api: ApiServer, node: String, mut events: mpsc::Receiver<Event>) {
    let mut memory = Memory::default();
    while let Some(event) = events.recv().await {
        if api.client().is_none() || !memory.admit(&event.object.to_string(), event.at) {
            continue;
        }
        if memory.posted.len() > REMEMBERED {
            memory.posted.clear();
        }
        let key = format!("{}|{}|{}", event.object, event.reason, event.message);
        let known = memory.posted.get(&key).map(|posted| posted.name.clone());
        let posted = memory.posted.entry(key.clone()).or_insert_with(|| Posted {
            name: format!("{}.{:x}", event.object["name"].as_str().unwrap_or_default(), event.at),
            count: 0,
            first: event.at,
        });
        posted.count += 1;
        let body = body(&event, posted, &node);
        if let Err(error) = api.post_event(&event.namespace, &body, known.as_deref()).await {
            tracing::debug!(%error, reason = event.reason, "the event was not taken");
            if known.is_none() {
                memory.posted.remove(&key);
            }
        }
    }
}

fn body(event: &Event, posted: &Posted, node: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": posted.name, "namespace": event.namespace},
        "involvedObject": event.object,
        "reason": event.reason,
        "message": event.message.chars().take(1024).collect::<String>(),
        "source": {"component": "kubelet", "host": node},
        "reportingComponent": "kubelet",
        "reportingInstance": node,
        "firstTimestamp": time::rfc3339(posted.first),
        "lastTimestamp": time::rfc3339(event.at),
        "count": posted.count,
        "type": if event.warning { "Warning" } else { "Normal" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_have_a_budget() {
        let mut memory = Memory::default();
        let granted = (0..100).filter(|_| memory.admit("a", 1)).count();
        assert_eq!(granted, 25);
        assert!(memory.admit("b", 1));
        assert!(memory.admit("a", 301_000_000_000) && !memory.admit("a", 301_000_000_000));
    }
}
