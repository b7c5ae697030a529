//! Events about objects, recorded in the background.
//!
//! Recording never blocks and never fails the caller: a full queue drops the event. Repeated events raise
//! the count of the first one instead of making new objects.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::leader::now_rfc3339;
use crate::{Client, Error, ObjectMeta, Patch};

const QUEUE: usize = 4096;
const REMEMBERED: usize = 4096;

/// What an event is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Regarding {
    /// `apps/v1`
    pub api_version: String,
    /// `Deployment`
    pub kind: String,
    /// Empty for cluster-scoped objects; their events go to `default`.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Uid of the object.
    pub uid: String,
}

impl Regarding {
    /// The object with this metadata.
    pub fn new(api_version: &str, kind: &str, meta: &ObjectMeta) -> Self {
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash, Clone)]
struct Record {
    regarding: Regarding,
    kind: &'static str,
    reason: String,
    message: String,
}

/// Records events in the name of one component. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Record>,
}

impl EventRecorder {
    /// A recorder whose events name `component` as their source. Must be made inside a tokio runtime.
    pub fn new(client: Client, component: &str) -> Self {
        let (queue, mut records) = mpsc::channel(QUEUE);
        let component = component.to_owned();
        tokio::spawn(async move {
            let mut known: HashMap<Record, (String, u64)> = HashMap::new();
            while let Some(record) = records.recv().await {
                if let Err(error) = write(&client, &component, &mut known, &record).await {
                    // Events of a namespace that is going away are refused; nobody misses them.
                    tracing::debug!(reason = record.reason, %error, "an event is lost");
                }
            }
        });
        Self { queue }
    }

    /// Records that something went as it should.
    pub fn normal(&self, regarding: Regarding, reason: &str, message: impl Into<String>) {
        self.record(regarding, "Normal", reason, message.into());
    }

    /// Records that something went wrong.
    pub fn warning(&self, regarding: Regarding, reason: &str, message: impl Into<String>) {
        self.record(regarding, "Warning", reason, message.into());
    }

    fn record(&self, regarding: Regarding, kind: &'static str, reason: &str, message: String) {
        let mut message = message;
        if message.len() > 1024 {
            let end = (0..=1021).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
            message.truncate(end);
            message.push_str("...");
        }
        let _ = self.queue.try_send(Record { regarding, kind, reason: reason.to_owned(), message });
    }
}

async fn write(
    client: &Client,
    component: &str,
    known: &mut HashMap<Record, (String, u64)>,
    record: &Record,
) -> Result<(), Error> {
    let about = &record.regarding;
    let namespace = if about.namespace.is_empty() { "default" } else { &about.namespace };
    let collection = format!("/api/v1/namespaces/{namespace}/events");
    let now = now_rfc3339();
    if let Some((name, count)) = known.get_mut(record) {
        let patch = json!({"count": *count + 1, "lastTimestamp": now});
        match client.patch::<Value>(&format!("{collection}/{name}"), Patch::Merge(&patch)).await {
            Ok(_) => {
                *count += 1;
                return Ok(());
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let nanos = Timestamp::now().as_nanosecond();
    let name = format!("{}.{nanos:x}", about.name);
    let event = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {"apiVersion": about.api_version, "kind": about.kind, "name": about.name,
            "namespace": about.namespace, "uid": about.uid},
        "reason": record.reason, "message": record.message, "type": record.kind, "count": 1,
        "source": {"component": component}, "reportingComponent": component, "reportingInstance": "",
        "firstTimestamp": now, "lastTimestamp": now,
    });
    client.create::<Value>(&collection, &event).await?;
    if known.len() >= REMEMBERED {
        known.clear();
    }
    known.insert(record.clone(), (name, 1));
    Ok(())
}
