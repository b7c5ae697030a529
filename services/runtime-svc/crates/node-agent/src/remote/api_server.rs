//! What an agent asks and tells the API server.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flotilla_kube_client::{Client, Error, Patch};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::engine::kube::{Pod, PodStatus};
use crate::engine::status::OWN_CONDITIONS;

/// The API server, or none for an agent that runs static pods only.
#[derive(Debug, Clone)]
pub struct ApiServer {
    client: Option<Client>,
}

/// A token and when it ends.
#[derive(Debug, Clone)]
pub struct Token {
    /// The JWT.
    pub token: String,
    /// Nanoseconds since the epoch.
    pub expires: i64,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct DataObject {
    data: Option<BTreeMap<String, String>>,
    binary_data: Option<BTreeMap<String, String>>,
}

/// Keys and bytes of a ConfigMap or Secret.
pub type Data = BTreeMap<String, Vec<u8>>;

fn none<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Err(error) if error.is_not_found() => Ok(None),
        other => other.map(Some),
    }
}

impl ApiServer {
    /// Talks through `client`.
    pub fn new(client: Option<Client>) -> Self {
        Self { client }
    }

    /// The client, when there is an API server.
    pub fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    fn need(&self) -> Result<&Client, Error> {
        self.client.as_ref().ok_or_else(|| Error::Settings("there is no API server".to_owned()))
    }

    /// A ConfigMap's keys; `None` when there is no such object.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Data>, Error> {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
        let Some(object) = none(self.need()?.get::<DataObject>(&path).await)? else {
            return Ok(None);
        };
        let mut data: Data =
            object.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.into_bytes())).collect();
        data.extend(decoded(object.binary_data.unwrap_or_default()));
        Ok(Some(data))
    }

    /// A Secret's keys, decoded; `None` when there is no such object.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Data>, Error> {
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
        let object = none(self.need()?.get::<DataObject>(&path).await)?;
        Ok(object.map(|object| decoded(object.data.unwrap_or_default())))
    }

    /// A token of the pod's service account, bound to the pod.
    pub async fn token(&self, pod: &Pod, audience: &str, seconds: i64) -> Result<Token, Error> {
        let (namespace, account) = (&pod.metadata.namespace, &pod.spec.service_account_name);
        let account = if account.is_empty() { "default" } else { account };
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let audiences = if audience.is_empty() { json!([]) } else { json!([audience]) };
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audiences,
                "expirationSeconds": seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.uid()}
            }
        });
        let answer: Value = self.need()?.create(&path, &request).await?;
        let text = |name: &str| answer["status"][name].as_str().unwrap_or_default();
        let expires = crate::engine::time::parse(text("expirationTimestamp"));
        let expires = expires.unwrap_or_else(|| {
            crate::engine::time::now().saturating_add(seconds.saturating_mul(1_000_000_000))
        });
        Ok(Token { token: text("token").to_owned(), expires })
    }

    /// Reports a pod's status. `uid` guards against a pod of the same name.
    pub async fn patch_status(
        &self,
        pod: &Pod,
        uid: &str,
        status: &PodStatus,
    ) -> Result<(), Error> {
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}/status",
            pod.metadata.namespace, pod.metadata.name
        );
        let body = status_patch(uid, status);
        self.need()?.patch::<Value>(&path, Patch::Strategic(&body)).await.map(drop)
    }

    /// Lets a pod go whose containers have ended.
    pub async fn delete_pod(&self, pod: &Pod, uid: &str) -> Result<(), Error> {
        let path =
            format!("/api/v1/namespaces/{}/pods/{}", pod.metadata.namespace, pod.metadata.name);
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
        match self.need()?.delete(&path, &options).await {
            // Gone, or another pod of that name: ours is gone either way.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            other => other,
        }
    }

    /// Registers the node; `false` when it is registered already.
    pub async fn create_node(&self, node: &Value) -> Result<bool, Error> {
        match self.need()?.create::<Value>("/api/v1/nodes", node).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The Node object.
    pub async fn node(&self, name: &str) -> Result<Value, Error> {
        self.need()?.get(&format!("/api/v1/nodes/{name}")).await
    }

    /// Patches the Node object, or its status.
    pub async fn patch_node(&self, name: &str, status: bool, patch: &Value) -> Result<(), Error> {
        let suffix = if status { "/status" } else { "" };
        self.need()?
            .patch::<Value>(&format!("/api/v1/nodes/{name}{suffix}"), Patch::Strategic(patch))
            .await
            .map(drop)
    }

    /// Writes the node's lease.
    pub async fn renew_lease(
        &self,
        node: &str,
        node_uid: &str,
        seconds: i64,
        now: i64,
    ) -> Result<(), Error> {
        let collection = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        let path = format!("{collection}/{node}");
        let spec = json!({"holderIdentity": node, "leaseDurationSeconds": seconds, "renewTime": crate::engine::time::micro_time(now)});
        let client = self.need()?;
        if let Some(mut lease) = none(client.get::<Value>(&path).await)? {
            lease["spec"] = spec;
            return client.replace::<Value>(&path, &lease).await.map(drop);
        }
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid});
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": node, "namespace": "kube-node-lease", "ownerReferences": [owner]},
            "spec": spec
        });
        client.create::<Value>(collection, &lease).await.map(drop)
    }

    /// Posts an event, or patches the count of an earlier one.
    pub async fn post_event(
        &self,
        namespace: &str,
        event: &Value,
        known: Option<&str>,
    ) -> Result<(), Error> {
        let collection = format!("/api/v1/namespaces/{namespace}/events");
        let client = self.need()?;
        if let Some(name) = known {
            let patch = json!({"count": event["count"], "lastTimestamp": event["lastTimestamp"], "message": event["message"]});
            match client.patch::<Value>(&format!("{collection}/{name}"), Patch::Merge(&patch)).await
            {
                Err(error) if error.is_not_found() => {}
                other => return other.map(drop),
            }
        }
        client.create::<Value>(&collection, event).await.map(drop)
    }

    /// Creates a pod (the mirror of a static one); its uid.
    pub async fn create_pod(&self, pod: &Value) -> Result<String, Error> {
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or("default");
        let created: Value =
            self.need()?.create(&format!("/api/v1/namespaces/{namespace}/pods"), pod).await?;
        Ok(created["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
    }
}

fn decoded(data: BTreeMap<String, String>) -> Data {
    data.into_iter().filter_map(|(key, value)| Some((key, STANDARD.decode(value).ok()?))).collect()
}

/// The patch of a status: what the node owns and nothing else. Fields that became empty are set to null.
fn status_patch(uid: &str, status: &PodStatus) -> Value {
    let mut body = serde_json::to_value(status).unwrap_or_default();
    if let Some(fields) = body.as_object_mut() {
        for name in [
            "reason",
            "message",
            "podIP",
            "podIPs",
            "initContainerStatuses",
            "containerStatuses",
            "ephemeralContainerStatuses",
        ] {
            fields.entry(name).or_insert(Value::Null);
        }
        let own: Vec<Value> = status
            .conditions
            .iter()
            .filter(|condition| OWN_CONDITIONS.contains(&condition.kind.as_str()))
            .map(|condition| {
                let mut condition = serde_json::to_value(condition).unwrap_or_default();
                for name in ["reason", "message"] {
                    if condition[name].is_null() {
                        condition[name] = Value::Null;
                    }
                }
                condition
            })
            .collect();
        fields.insert("conditions".to_owned(), Value::Array(own));
    }
    json!({"metadata": {"uid": uid}, "status": body})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::kube::PodCondition;

    #[test]
    fn patch_holds_only_own_conditions() {
        let foreign =
            PodCondition { kind: "lb".into(), status: "True".into(), ..PodCondition::default() };
        let own =
            PodCondition { kind: "Ready".into(), status: "True".into(), ..PodCondition::default() };
        let status = PodStatus {
            phase: "Running".into(),
            conditions: vec![foreign, own],
            ..PodStatus::default()
        };
        let got = status_patch("u", &status);
        assert_eq!(got["metadata"]["uid"], "u");
        assert_eq!(got["status"]["conditions"].as_array().unwrap().len(), 1);
        assert!(
            got["status"]["podIP"].is_null()
                && got["status"].as_object().unwrap().contains_key("podIP")
        );
    }
}
