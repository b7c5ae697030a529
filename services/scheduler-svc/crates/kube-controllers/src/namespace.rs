//! Namespaces that are being deleted: their content goes, then they do.

use std::time::Duration;

use flotilla_kube_client::ListParams;
use serde_json::{Value, json};

use crate::Error;
use crate::cache::kind::NAMESPACE;
use crate::cache::{Event, Key, Kind, Object};
use crate::cluster::Cluster;
use crate::gc::{Resource, discover};
use crate::runner::{Again, Controller};

const FINALIZER: &str = "kubernetes";
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The controller.
#[derive(Debug)]
pub struct Namespaces(pub Cluster);

impl Controller for Namespaces {
    const NAME: &'static str = "namespace-controller";

    fn kinds(&self) -> Vec<Kind> {
        vec![NAMESPACE]
    }

    fn keys(&self, event: &Event) -> Vec<Key> {
        let deleting = event.new.as_ref().filter(|namespace| namespace.deleting());
        deleting.map(|namespace| namespace.key()).into_iter().collect()
    }

    async fn sync(&self, key: &Key) -> Result<Again, Error> {
        let Some(namespace) = self.0.cached(NAMESPACE, key) else { return Ok(None) };
        let held = namespace.list("/spec/finalizers").iter().any(|f| f == FINALIZER);
        if !namespace.deleting() || !held {
            return Ok(None);
        }
        let mut left = 0;
        for resource in discover(&self.0.client).await? {
            left += self.empty(&resource, &key.name).await?;
        }
        if left > 0 {
            tracing::debug!(namespace = key.name, left, "content is still going");
            return Ok(Some(LOOK_AGAIN));
        }
        self.finalize(&namespace).await?;
        Ok(None)
    }
}

impl Namespaces {
    /// Deletes all objects of a kind; returns how many are still there.
    async fn empty(&self, resource: &Resource, namespace: &str) -> Result<usize, Error> {
        let can = |verb: &str| resource.verbs.iter().any(|v| v == verb);
        if !resource.namespaced || !can("list") || !can("delete") {
            return Ok(0);
        }
        let path = resource.collection(namespace);
        let objects = self.0.client.list::<Object>(&path, &ListParams::default()).await?.items;
        if objects.is_empty() {
            return Ok(0);
        }
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1",
            "propagationPolicy": "Background"});
        if can("deletecollection") {
            self.0.client.delete(&path, &options).await?;
        } else {
            for object in objects.iter().filter(|o| !o.deleting()) {
                let path = format!("{path}/{}", object.metadata.name);
                match self.0.client.delete(&path, &options).await {
                    Err(error) if !error.is_not_found() => return Err(error.into()),
                    _ => {}
                }
            }
        }
        let left = self.0.client.list::<Object>(&path, &ListParams::default()).await?;
        Ok(left.items.len())
    }

    async fn finalize(&self, namespace: &Object) -> Result<(), Error> {
        let mut changed = namespace.clone();
        let left: Vec<&Value> =
            namespace.list("/spec/finalizers").iter().filter(|f| *f != FINALIZER).collect();
        let left = json!(left);
        changed.set("spec", "finalizers", left);
        changed.kind = NAMESPACE.kind.to_owned();
        changed.api_version = NAMESPACE.api_version.to_owned();
        let path = format!("{}/finalize", NAMESPACE.path(&namespace.key()));
        match self.0.client.replace::<Value>(&path, &changed).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }
}
