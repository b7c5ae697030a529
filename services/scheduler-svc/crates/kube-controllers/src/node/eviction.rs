//! Pods leave nodes whose NoExecute taints they do not tolerate, or not for ever.

use std::time::Duration;

use flotilla_kube_client::now_rfc3339;
use jiff::Timestamp;
use sched_core::taints::{Effect, Taint, Toleration};
use serde_json::json;

use crate::Error;
use crate::cache::kind::{NODE, POD};
use crate::cache::{Event, Key, Kind, Object, parse_time};
use crate::cluster::{Cluster, Propagation};
use crate::runner::{Again, Controller};

/// The controller.
#[derive(Debug)]
pub struct TaintEviction(pub Cluster);

impl Controller for TaintEviction {
    const NAME: &'static str = "taint-eviction-controller";

    fn kinds(&self) -> Vec<Kind> {
        vec![POD, NODE]
    }

    fn keys(&self, event: &Event) -> Vec<Key> {
        if event.kind == POD {
            let new = event.new.as_ref().filter(|pod| !pod.text("/spec/nodeName").is_empty());
            return new.map(|pod| pod.key()).into_iter().collect();
        }
        let taints = |o: &Option<std::sync::Arc<Object>>| {
            o.as_ref().map(|node| node.list("/spec/taints").to_vec()).unwrap_or_default()
        };
        let Some(node) = event.new.as_ref().filter(|_| taints(&event.old) != taints(&event.new))
        else {
            return Vec::new();
        };
        let on_node =
            |pod: &std::sync::Arc<Object>| pod.text("/spec/nodeName") == node.metadata.name;
        self.0.store(POD).all().into_iter().filter(on_node).map(|pod| pod.key()).collect()
    }

    async fn sync(&self, key: &Key) -> Result<Again, Error> {
        let Some(pod) = self.0.cached(POD, key).filter(|pod| !pod.deleting()) else {
            return Ok(None);
        };
        let node = pod.text("/spec/nodeName");
        let Some(node) = self.0.cached(NODE, &Key::new("", node)) else { return Ok(None) };
        match deadline(&pod, &node) {
            None => Ok(None),
            Some(end) => {
                let left = end.saturating_sub(Timestamp::now().as_millisecond());
                if left > 0 {
                    return Ok(Some(Duration::from_millis(left.unsigned_abs())));
                }
                self.evict(&pod).await?;
                Ok(None)
            }
        }
    }
}

/// When the pod must leave the node, in milliseconds since 1970; `None` when it may stay.
fn deadline(pod: &Object, node: &Object) -> Option<i64> {
    let list = pod.at("/spec/tolerations").cloned().unwrap_or_else(|| json!([]));
    let tolerations: Vec<Toleration> = serde_json::from_value(list).unwrap_or_default();
    let mut earliest: Option<i64> = None;
    for value in node.list("/spec/taints") {
        let Ok(taint) = serde_json::from_value::<Taint>(value.clone()) else { continue };
        if taint.effect != Effect::NoExecute {
            continue;
        }
        let added = value["timeAdded"].as_str().and_then(parse_time);
        let start = added.unwrap_or_else(Timestamp::now).as_millisecond();
        let mut tolerating = tolerations.iter().filter(|t| t.tolerates(&taint)).peekable();
        if tolerating.peek().is_none() {
            return Some(i64::MIN);
        }
        // The shortest time of all tolerations that match counts; those without one say "for ever".
        if let Some(seconds) = tolerating.filter_map(|t| t.toleration_seconds).min() {
            let end = start.saturating_add(seconds.max(0).saturating_mul(1000));
            earliest = Some(earliest.map_or(end, |e| e.min(end)));
        }
    }
    earliest
}

impl TaintEviction {
    async fn evict(&self, pod: &Object) -> Result<(), Error> {
        let condition = json!({"type": "DisruptionTarget", "status": "True",
            "reason": "DeletionByTaintManager", "lastTransitionTime": now_rfc3339(),
            "message": "Taint manager: deleting due to NoExecute taint"});
        match self.0.patch_conditions(POD, pod, &[condition]).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
        let message = format!("Marking for deletion Pod {}", pod.key());
        self.0.events.normal(pod.regarding(POD), "TaintManagerEviction", message);
        self.0.delete(POD, pod, Propagation::Background, None).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(tolerations: serde_json::Value) -> Object {
        serde_json::from_value(json!({"spec": {"tolerations": tolerations}})).unwrap()
    }

    #[test]
    fn toleration_seconds_count_from_the_taint() {
        let node: Object = serde_json::from_value(json!({"spec": {"taints": [
            {"key": "a", "effect": "NoExecute", "timeAdded": "1970-01-01T00:01:40Z"},
            {"key": "b", "effect": "NoSchedule"}]}}))
        .unwrap();
        assert_eq!(deadline(&pod(json!([])), &node), Some(i64::MIN));
        let ever = json!([{"key": "a", "operator": "Exists"}]);
        assert_eq!(deadline(&pod(ever), &node), None);
        let some = json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 300}]);
        assert_eq!(deadline(&pod(some), &node), Some(400_000));
    }
}
