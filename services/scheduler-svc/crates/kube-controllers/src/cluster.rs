//! Reads from the stores, writes to the API, and tells the stores what was written.

use std::sync::Arc;

use flotilla_kube_client::{Client, Error, EventRecorder, Patch};
use serde_json::{Value, json};

use crate::Config;
use crate::cache::{Informers, Key, Kind, Object, Store};

/// How the dependents of a deleted object fare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They go later.
    Background,
    /// They go first.
    Foreground,
    /// They stay.
    Orphan,
}

/// The cluster as every controller sees it. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The API.
    pub client: Client,
    /// The stores.
    pub informers: Arc<Informers>,
    /// Events are recorded here.
    pub events: EventRecorder,
    /// The flags.
    pub config: Arc<Config>,
}

impl Cluster {
    /// The store of a kind; it is watched from the first call on.
    pub fn store(&self, kind: Kind) -> Arc<Store> {
        self.informers.watch(kind, false)
    }

    /// One object as the store has it.
    pub fn cached(&self, kind: Kind, key: &Key) -> Option<Arc<Object>> {
        self.store(kind).get(key)
    }

    /// One object as the API has it; `None` when it is not there.
    ///
    /// # Errors
    /// What the API says but 404.
    pub async fn live(&self, kind: Kind, key: &Key) -> Result<Option<Object>, Error> {
        match self.client.get::<Object>(&kind.path(key)).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates an object.
    ///
    /// # Errors
    /// What the API says.
    pub async fn create(&self, kind: Kind, object: &Object) -> Result<Object, Error> {
        let path = kind.collection(&object.metadata.namespace);
        let made: Object = self.client.create(&path, object).await?;
        self.informers.wrote(kind, made.clone());
        Ok(made)
    }

    /// Replaces an object; a stale one is a conflict.
    ///
    /// # Errors
    /// What the API says.
    pub async fn replace(&self, kind: Kind, object: &Object) -> Result<Object, Error> {
        let object = complete(kind, object);
        let made: Object = self.client.replace(&kind.path(&object.key()), &object).await?;
        self.informers.wrote(kind, made.clone());
        Ok(made)
    }

    /// Replaces the status of an object; a stale one is a conflict.
    ///
    /// # Errors
    /// What the API says.
    pub async fn replace_status(&self, kind: Kind, object: &Object) -> Result<Object, Error> {
        let object = complete(kind, object);
        let path = format!("{}/status", kind.path(&object.key()));
        let made: Object = self.client.replace(&path, &object).await?;
        self.informers.wrote(kind, made.clone());
        Ok(made)
    }

    /// Applies a merge patch (RFC 7386).
    ///
    /// # Errors
    /// What the API says.
    pub async fn patch(&self, kind: Kind, key: &Key, patch: &Value) -> Result<Object, Error> {
        let made: Object = self.client.patch(&kind.path(key), Patch::Merge(patch)).await?;
        self.informers.wrote(kind, made.clone());
        Ok(made)
    }

    /// Sets conditions of an object's status by a strategic merge patch; others stay.
    ///
    /// # Errors
    /// What the API says.
    pub async fn patch_conditions(
        &self,
        kind: Kind,
        object: &Object,
        conditions: &[Value],
    ) -> Result<Object, Error> {
        let patch = json!({"metadata": {"uid": object.metadata.uid},
            "status": {"conditions": conditions}});
        let path = format!("{}/status", kind.path(&object.key()));
        let made: Object = self.client.patch(&path, Patch::Strategic(&patch)).await?;
        self.informers.wrote(kind, made.clone());
        Ok(made)
    }

    /// Deletes exactly this object; one that is gone already is fine.
    ///
    /// # Errors
    /// What the API says but 404.
    pub async fn delete(
        &self,
        kind: Kind,
        object: &Object,
        propagation: Propagation,
        grace: Option<i64>,
    ) -> Result<(), Error> {
        let policy = match propagation {
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
            Propagation::Orphan => "Orphan",
        };
        let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1",
            "propagationPolicy": policy, "preconditions": {"uid": object.metadata.uid}});
        if let Some(grace) = grace {
            options["gracePeriodSeconds"] = json!(grace);
        }
        match self.client.delete(&kind.path(&object.key()), &options).await {
            Ok(()) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        self.informers.accepted_deletion(kind, object);
        Ok(())
    }
}

/// Objects out of lists lack kind and version, which writes must have.
fn complete(kind: Kind, object: &Object) -> Object {
    let mut object = object.clone();
    object.kind = kind.kind.to_owned();
    object.api_version = kind.api_version.to_owned();
    object
}
