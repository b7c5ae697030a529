//! The write path shared by all verbs: change an object, check it, compare and swap.

use std::sync::Arc;

use kube_spec::Resource;
use serde_json::Value;

use super::key;
use crate::error::ApiError;
use crate::object;
use crate::policy::{self, Phase};
use crate::server::Api;
use crate::store::{Entry, Outcome, StoreError};
use crate::stored;

/// Attempts of a write that gives no resource version.
const ATTEMPTS: usize = 8;

/// What a write touches.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// Resource.
    pub resource: &'static Resource,
    /// Namespace; empty for cluster scope.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// What part of the object may change.
    pub phase: Phase,
    /// Check, but do not write.
    pub dry_run: bool,
}

/// What a write left behind.
#[derive(Debug)]
pub enum Written {
    /// The object as stored.
    Stored(Value),
    /// The last finalizer went, and the object with it.
    Deleted(Value),
}

impl Written {
    /// The object.
    pub fn into_object(self) -> Value {
        match self {
            Self::Stored(object) | Self::Deleted(object) => object,
        }
    }
}

impl Api {
    /// Writes a new object that is complete and checked.
    pub(crate) async fn store_new(
        &self,
        resource: &'static Resource,
        mut object: Value,
        guards: Vec<(String, bytes::Bytes)>,
    ) -> Result<Value, ApiError> {
        let name = object::name(&object).to_owned();
        let store_key = self.store_key(resource, &key(resource, object::namespace(&object), &name));
        let value = stored::encode(resource, &object).map_err(ApiError::internal)?;
        self.check_size(&value)?;
        let outcome = if guards.is_empty() {
            let lease = if resource.storage == "events" { self.event_lease().await? } else { 0 };
            self.etcd.put(&store_key, value, 0, lease).await?
        } else {
            self.etcd.create_guarded(&store_key, value, guards).await?
        };
        match outcome {
            Outcome::Done(revision) => {
                object["metadata"]["resourceVersion"] = revision.to_string().into();
                Ok(object)
            }
            Outcome::Differs(Some(_)) => Err(ApiError::already_exists(resource, &name)),
            Outcome::Differs(None) => {
                Err(ApiError::conflict(resource, &name, "an address was taken meanwhile"))
            }
        }
    }

    /// Changes an object: `change` makes the new state out of the current one; it runs again when somebody else
    /// was faster, unless the new state names the version it is for.
    pub(crate) async fn change(
        &self,
        what: Change<'_>,
        mut change: impl FnMut(&Value) -> Result<Value, ApiError>,
    ) -> Result<Written, ApiError> {
        let Change { resource, namespace, name, .. } = what;
        let key = key(resource, namespace, name);
        let mut current = self.cache.of(resource).and_then(|c| c.get(&key));
        if current.is_none() {
            current = self.fetch(resource, &key).await?;
        }
        for _ in 0..ATTEMPTS {
            let Some(entry) = current else { return Err(ApiError::not_found(resource, name)) };
            let wanted = change(&entry.object)?;
            let version = object::version(&wanted).to_owned();
            let pinned = !version.is_empty() && version != "0";
            if pinned && version != object::version(&entry.object) {
                // The cache may lag behind what the client has seen.
                let fresh = self.fetch(resource, &key).await?;
                match fresh {
                    Some(fresh) if fresh.revision != entry.revision => {
                        current = Some(fresh);
                        continue;
                    }
                    Some(_) => return Err(ApiError::modified(resource, name)),
                    None => return Err(ApiError::not_found(resource, name)),
                }
            }
            let next = policy::prepare_update(self, resource, what.phase, &entry.object, wanted)?;
            match self.swap(&what, &key, &entry, next).await? {
                Ok(written) => return Ok(written),
                Err(found) => current = found,
            }
        }
        Err(ApiError::modified(resource, name))
    }

    /// One compare-and-swap; the inner error is the state that was found instead.
    async fn swap(
        &self,
        what: &Change<'_>,
        key: &str,
        entry: &Entry,
        mut next: Value,
    ) -> Result<Result<Written, Option<Arc<Entry>>>, ApiError> {
        let resource = what.resource;
        if policy::finished(resource, &next) {
            if what.dry_run {
                return Ok(Ok(Written::Deleted(next)));
            }
            return match self.remove(resource, key, entry).await? {
                Ok(revision) => {
                    next["metadata"]["resourceVersion"] = revision.to_string().into();
                    Ok(Ok(Written::Deleted(next)))
                }
                Err(found) => Ok(Err(found)),
            };
        }
        let value = stored::encode(resource, &next).map_err(ApiError::internal)?;
        self.check_size(&value)?;
        next["metadata"]["resourceVersion"] = entry.revision.to_string().into();
        if what.dry_run {
            return Ok(Ok(Written::Stored(next)));
        }
        if value == entry.stored {
            // Nothing changed: no new revision. But what is in the cache may be old.
            let fresh = self.fetch(resource, key).await?;
            return Ok(match fresh {
                Some(fresh) if fresh.revision == entry.revision => Ok(Written::Stored(next)),
                found => Err(found),
            });
        }
        let lease = if resource.storage == "events" { self.event_lease().await? } else { 0 };
        match self.etcd.put(&self.store_key(resource, key), value, entry.revision, lease).await? {
            Outcome::Done(revision) => {
                next["metadata"]["resourceVersion"] = revision.to_string().into();
                Ok(Ok(Written::Stored(next)))
            }
            Outcome::Differs(kv) => Ok(Err(self.entry_of(resource, key, kv)?)),
        }
    }

    /// Deletes an object at the revision of `entry`; the inner error is the state that was found instead.
    pub(crate) async fn remove(
        &self,
        resource: &'static Resource,
        key: &str,
        entry: &Entry,
    ) -> Result<Result<i64, Option<Arc<Entry>>>, ApiError> {
        let others = self.addresses.keys_of(self, resource, &entry.object);
        match self.etcd.delete(&self.store_key(resource, key), entry.revision, &others).await? {
            Outcome::Done(revision) => Ok(Ok(revision)),
            Outcome::Differs(kv) => Ok(Err(self.entry_of(resource, key, kv)?)),
        }
    }

    /// The object as the store has it.
    pub(crate) async fn fetch(
        &self,
        resource: &'static Resource,
        key: &str,
    ) -> Result<Option<Arc<Entry>>, ApiError> {
        let (kv, _) = self.etcd.get(&self.store_key(resource, key)).await?;
        self.entry_of(resource, key, kv)
    }

    fn entry_of(
        &self,
        resource: &'static Resource,
        key: &str,
        kv: Option<crate::store::Kv>,
    ) -> Result<Option<Arc<Entry>>, ApiError> {
        let Some(kv) = kv else { return Ok(None) };
        let object =
            stored::decode(resource, &kv.value, kv.mod_revision).map_err(ApiError::internal)?;
        Ok(Some(Arc::new(Entry::new(key.to_owned(), object, kv.value, kv.mod_revision))))
    }

    fn check_size(&self, value: &[u8]) -> Result<(), ApiError> {
        // etcd's default request limit; a clear answer instead of a broken call.
        if value.len() > 1536 << 10 { Err(StoreError::TooLarge.into()) } else { Ok(()) }
    }
}
