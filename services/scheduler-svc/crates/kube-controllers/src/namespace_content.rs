//! What every namespace has: the service account `default` and the cluster's root certificate.

use serde_json::json;

use crate::Error;
use crate::cache::kind::{CONFIG_MAP, NAMESPACE, SERVICE_ACCOUNT};
use crate::cache::{Event, Key, Kind, Object};
use crate::cluster::Cluster;
use crate::runner::{Again, Controller};

const ROOT_CA: &str = "kube-root-ca.crt";

/// Keeps the service account `default`.
#[derive(Debug)]
pub struct ServiceAccounts(pub Cluster);

/// Keeps the ConfigMap with the root certificate.
#[derive(Debug)]
pub struct RootCa {
    /// The cluster.
    pub cluster: Cluster,
    /// PEM text.
    pub certificate: String,
}

fn namespaces(event: &Event, kind: Kind, name: &str) -> Vec<Key> {
    let object = event.object();
    if event.kind == NAMESPACE {
        return vec![object.key()];
    }
    if event.kind == kind && object.metadata.name == name {
        return vec![Key::new("", &object.metadata.namespace)];
    }
    Vec::new()
}

fn alive(cluster: &Cluster, key: &Key) -> bool {
    cluster.cached(NAMESPACE, key).is_some_and(|namespace| !namespace.deleting())
}

async fn make(cluster: &Cluster, kind: Kind, object: &Object) -> Result<Again, Error> {
    match cluster.create(kind, object).await {
        Err(error) if !error.is_conflict() => Err(error.into()),
        _ => Ok(None),
    }
}

impl Controller for ServiceAccounts {
    const NAME: &'static str = "serviceaccount-controller";

    fn kinds(&self) -> Vec<Kind> {
        vec![NAMESPACE, SERVICE_ACCOUNT]
    }

    fn keys(&self, event: &Event) -> Vec<Key> {
        namespaces(event, SERVICE_ACCOUNT, "default")
    }

    async fn sync(&self, key: &Key) -> Result<Again, Error> {
        let account = Key::new(&key.name, "default");
        if !alive(&self.0, key) || self.0.cached(SERVICE_ACCOUNT, &account).is_some() {
            return Ok(None);
        }
        let object = Object::new(SERVICE_ACCOUNT, &key.name, "default");
        make(&self.0, SERVICE_ACCOUNT, &object).await
    }
}

impl Controller for RootCa {
    const NAME: &'static str = "root-ca-certificate-publisher-controller";

    fn kinds(&self) -> Vec<Kind> {
        vec![NAMESPACE, CONFIG_MAP]
    }

    fn keys(&self, event: &Event) -> Vec<Key> {
        namespaces(event, CONFIG_MAP, ROOT_CA)
    }

    async fn sync(&self, key: &Key) -> Result<Again, Error> {
        if !alive(&self.cluster, key) {
            return Ok(None);
        }
        let data = json!({"ca.crt": self.certificate});
        let Some(found) = self.cluster.cached(CONFIG_MAP, &Key::new(&key.name, ROOT_CA)) else {
            let mut object = Object::new(CONFIG_MAP, &key.name, ROOT_CA);
            let about = "Contains a CA bundle that can be used to verify the kube-apiserver when \
                using internal endpoints such as the internal service IP or kubernetes.default.svc.";
            let name = "kubernetes.io/description".to_owned();
            object.metadata.annotations.insert(name, about.to_owned());
            object.body.insert("data".to_owned(), data);
            return make(&self.cluster, CONFIG_MAP, &object).await;
        };
        if found.at("/data") != Some(&data) {
            let mut changed = (*found).clone();
            changed.body.insert("data".to_owned(), data);
            self.cluster.replace(CONFIG_MAP, &changed).await?;
        }
        Ok(None)
    }
}
