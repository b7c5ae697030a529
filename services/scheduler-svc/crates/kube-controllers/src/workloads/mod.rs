//! Workloads besides deployments: a pod per node, pods with identities, pods that end.

mod daemonset;
mod indexes;
mod job;
mod statefulset;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::Error;
use crate::cache::kind::CONTROLLER_REVISION;
use crate::cache::{Kind, Object};
use crate::cluster::{Cluster, Propagation};
use crate::hash;

pub use daemonset::DaemonSets;
pub use job::Jobs;
pub use statefulset::StatefulSets;

/// Label that says of which revision a pod is.
const REVISION_LABEL: &str = "controller-revision-hash";

/// The stored revisions of a workload's template, oldest first.
fn revisions(cluster: &Cluster, owner: &Object) -> Vec<Arc<Object>> {
    let mut all = cluster.store(CONTROLLER_REVISION).owned_by(&owner.metadata.uid);
    all.retain(|revision| revision.controlled_by(&owner.metadata.uid));
    all.sort_by_key(|revision| (revision.int("/revision").unwrap_or(0), revision.created()));
    all
}

/// The template as a revision stores it: a patch of the workload, as `kubectl rollout undo` wants it.
fn revision_data(owner: &Object) -> Value {
    let mut template = owner.at("/spec/template").cloned().unwrap_or_default();
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// The revision of the current template; made, or made the newest again, if need be.
async fn current_revision(
    cluster: &Cluster,
    kind: Kind,
    owner: &Object,
) -> Result<Arc<Object>, Error> {
    let known = revisions(cluster, owner);
    let data = revision_data(owner);
    let next = known.last().and_then(|r| r.int("/revision")).unwrap_or(0) + 1;
    let same = |r: &&Arc<Object>| {
        let (a, b) = (r.at("/data/spec/template"), data.pointer("/spec/template"));
        a.zip(b).is_some_and(|(a, b)| hash::same_template(a, b))
    };
    if let Some(found) = known.iter().find(same) {
        if found.int("/revision") == Some(next - 1) {
            return Ok(found.clone());
        }
        let mut changed = (**found).clone();
        changed.body.insert("revision".to_owned(), json!(next));
        return Ok(Arc::new(cluster.replace(CONTROLLER_REVISION, &changed).await?));
    }
    let mut collisions = owner.int("/status/collisionCount");
    loop {
        let hash = hash::template_hash(&data["spec"]["template"], collisions);
        let meta = &owner.metadata;
        let name = format!("{}-{hash}", meta.name);
        let mut revision = Object::new(CONTROLLER_REVISION, &meta.namespace, &name);
        let labels = owner.at("/spec/template/metadata/labels").cloned().unwrap_or_default();
        revision.metadata.labels = serde_json::from_value(labels).unwrap_or_default();
        revision.metadata.labels.insert(REVISION_LABEL.to_owned(), hash);
        revision.metadata.owner_references = vec![owner.owner_reference(kind)];
        revision.body.insert("data".to_owned(), data.clone());
        revision.body.insert("revision".to_owned(), json!(next));
        match cluster.create(CONTROLLER_REVISION, &revision).await {
            Ok(made) => return Ok(Arc::new(made)),
            Err(error) if error.is_conflict() => {
                let found = cluster.live(CONTROLLER_REVISION, &revision.key()).await?;
                if let Some(found) = found.filter(|f| same(&&Arc::new(f.clone()))) {
                    return Ok(Arc::new(found));
                }
                collisions = Some(collisions.unwrap_or(0) + 1);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Deletes the oldest revisions above the workload's limit that no pod is of.
async fn trim_revisions(
    cluster: &Cluster,
    owner: &Object,
    live: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    let limit = owner.int("/spec/revisionHistoryLimit").unwrap_or(10);
    let mut old = revisions(cluster, owner);
    old.retain(|r| !live(revision_hash(r)));
    let surplus = usize::try_from(old.len() as i64 - limit).unwrap_or(0);
    for revision in old.iter().take(surplus) {
        cluster.delete(CONTROLLER_REVISION, revision, Propagation::Background, None).await?;
    }
    Ok(())
}

/// Hash in a revision's label.
fn revision_hash(revision: &Object) -> &str {
    revision.metadata.labels.get(REVISION_LABEL).map(String::as_str).unwrap_or_default()
}

/// Hash of the revision a pod is of.
fn pod_revision(pod: &Object) -> &str {
    revision_hash(pod)
}
