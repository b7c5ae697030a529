//! Adoption and release: which objects belong to a controller by label selector and owner reference.

use std::sync::Arc;

use sched_core::labels::Selector;
use serde_json::{Value, json};

use crate::Error;
use crate::cache::{Kind, Object};
use crate::cluster::Cluster;

/// The objects among `candidates` that `owner` manages, after adopting orphans that match and releasing
/// own ones that no longer do.
///
/// # Errors
/// What the API says to an adoption or release.
pub async fn claim(
    cluster: &Cluster,
    owner: (Kind, &Object),
    selector: &Selector,
    kind: Kind,
    candidates: Vec<Arc<Object>>,
) -> Result<Vec<Arc<Object>>, Error> {
    let (owner_kind, owner) = owner;
    let uid = &owner.metadata.uid;
    let mut claimed = Vec::new();
    let mut may_adopt: Option<bool> = None;
    for object in candidates {
        let matches = selector.matches(&object.metadata.labels);
        match object.controller() {
            Some(reference) if reference.uid != *uid => {}
            Some(_) if matches => claimed.push(object),
            Some(_) => {
                if !owner.deleting() {
                    release(cluster, kind, &object, uid).await?;
                }
            }
            None if !matches || owner.deleting() || object.deleting() => {}
            None => {
                if may_adopt.is_none() {
                    // The store may be behind: a deleted or recreated owner must not adopt.
                    let live = cluster.live(owner_kind, &owner.key()).await?;
                    may_adopt = Some(live.is_some_and(|o| o.metadata.uid == *uid && !o.deleting()));
                }
                if may_adopt == Some(true) {
                    claimed
                        .push(Arc::new(adopt(cluster, (owner_kind, owner), kind, &object).await?));
                }
            }
        }
    }
    Ok(claimed)
}

async fn adopt(
    cluster: &Cluster,
    owner: (Kind, &Object),
    kind: Kind,
    object: &Object,
) -> Result<Object, Error> {
    let mut owners = object.metadata.owner_references.clone();
    owners.push(owner.1.owner_reference(owner.0));
    set_owners(cluster, kind, object, &json!(owners)).await
}

async fn release(cluster: &Cluster, kind: Kind, object: &Object, uid: &str) -> Result<(), Error> {
    let owners = &object.metadata.owner_references;
    let left: Vec<_> = owners.iter().filter(|o| o.uid != *uid).collect();
    match set_owners(cluster, kind, object, &json!(left)).await {
        Ok(_) => Ok(()),
        Err(Error::Api(error)) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Replaces the owner references of exactly the state of the object that was looked at.
async fn set_owners(
    cluster: &Cluster,
    kind: Kind,
    object: &Object,
    owners: &Value,
) -> Result<Object, Error> {
    let meta = &object.metadata;
    let patch = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version,
        "ownerReferences": owners}});
    Ok(cluster.patch(kind, &object.key(), &patch).await?)
}

/// The selector of a workload's `spec.selector`.
///
/// # Errors
/// When it is none, or selects everything.
pub fn selector(object: &Object) -> Result<Selector, Error> {
    let selector = Selector::parse(object.at("/spec/selector").unwrap_or(&Value::Null))
        .map_err(|e| Error::Object(format!("invalid label selector: {e}")))?;
    if selector.is_empty() {
        return Err(Error::Object("an empty label selector would select every pod".to_owned()));
    }
    Ok(selector)
}
