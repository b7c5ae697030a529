//! One watch of the whole prefix feeds every cache.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::etcd::etcdserverpb as pb;
use flotilla_proto::etcd::mvccpb::event::EventType;
use flotilla_server::{Readiness, Shutdown};
use pb::watch_request::RequestUnion;
use tokio_stream::wrappers::ReceiverStream;

use super::{Cache, Entry, Etcd, Kv, StoreError};
use crate::stored;

const PAGE: i64 = 500;
const PAUSE: Duration = Duration::from_millis(200);

/// What the feed works on.
#[derive(Clone, Debug)]
pub struct Feed {
    /// The store.
    pub etcd: Etcd,
    /// Where objects go.
    pub cache: Arc<Cache>,
    /// Prefix of every key, with a slash at the end.
    pub prefix: String,
    /// Set while the caches follow the store.
    pub readiness: Readiness,
}

/// Loads everything, then follows the store until `shutdown` fires.
pub async fn follow(feed: Feed, shutdown: Shutdown) {
    tokio::select! {
        () = shutdown.triggered() => {}
        () = feed.run() => {}
    }
}

impl Feed {
    async fn run(&self) {
        let mut revision = 0;
        loop {
            let result = match revision {
                0 => self.load().await,
                from => self.watch(from).await,
            };
            match result {
                Ok(at) => revision = at,
                Err(StoreError::Compacted) => {
                    tracing::warn!(
                        "the watch fell behind the store's history; loading everything again"
                    );
                    revision = 0;
                }
                Err(error) => {
                    if self.readiness.is_ready() {
                        tracing::warn!(%error, "the store does not answer; serving reads from the cache");
                    }
                    self.readiness.set(false);
                    revision = self.cache.revision();
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn load(&self) -> Result<i64, StoreError> {
        let end = prefix_end(self.prefix.as_bytes());
        let (mut from, mut revision) = (self.prefix.clone().into_bytes(), 0);
        let mut objects: BTreeMap<&'static str, BTreeMap<String, Arc<Entry>>> = BTreeMap::new();
        loop {
            let page = self.etcd.range(&from, &end, revision, PAGE).await?;
            if revision == 0 {
                revision = page.revision;
            }
            for kv in &page.kvs {
                if let Some((storage, entry)) = self.decode(kv) {
                    objects.entry(storage).or_default().insert(entry.key.clone(), Arc::new(entry));
                }
            }
            match page.kvs.last() {
                Some(last) if page.more => {
                    from = last.key.to_vec();
                    from.push(0);
                }
                _ => break,
            }
        }
        for cache in self.cache.all() {
            cache.replace(objects.remove(cache.resource.storage).unwrap_or_default(), revision);
        }
        self.cache.advance(revision);
        self.readiness.set(true);
        Ok(revision)
    }

    async fn watch(&self, after: i64) -> Result<i64, StoreError> {
        let (requests, stream) = tokio::sync::mpsc::channel(8);
        let create = pb::WatchCreateRequest {
            key: Bytes::copy_from_slice(self.prefix.as_bytes()),
            range_end: prefix_end(self.prefix.as_bytes()).into(),
            start_revision: after + 1,
            progress_notify: true,
            fragment: true,
            ..Default::default()
        };
        let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The channel is fresh, so there is room.
        let _ = requests.send(create).await;
        let mut watcher = self.etcd.watcher();
        let opened = tokio::time::timeout(
            Duration::from_secs(5),
            watcher.watch(ReceiverStream::new(stream)),
        )
        .await;
        let mut responses = opened
            .map_err(|_| StoreError::Unavailable("no answer to the watch".to_owned()))??
            .into_inner();
        let mut at = after;
        loop {
            let response = tokio::select! {
                response = responses.message() => response?,
                () = self.cache.nudged() => {
                    let ask = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                    // A closed stream shows in the next message.
                    let _ = requests.try_send(pb::WatchRequest { request_union: Some(ask) });
                    continue;
                }
            };
            let Some(response) = response else {
                return Err(StoreError::Unavailable("the watch ended".to_owned()));
            };
            if response.compact_revision > 0 {
                return Err(StoreError::Compacted);
            }
            if response.canceled {
                return Err(StoreError::Unavailable(format!(
                    "the watch was cancelled: {}",
                    response.cancel_reason
                )));
            }
            if response.created {
                self.readiness.set(true);
                continue;
            }
            let is_progress = response.events.is_empty();
            for event in &response.events {
                if let Some(kv) = &event.kv {
                    at = at.max(kv.mod_revision);
                    self.apply(event.r#type == i32::from(EventType::Delete), kv);
                }
            }
            if is_progress {
                at = at.max(response.header.map_or(0, |h| h.revision));
            }
            if !response.fragment {
                self.cache.advance(at);
            }
        }
    }

    fn apply(&self, deleted: bool, kv: &Kv) {
        if deleted {
            if let Some((cache, key)) = self.split(kv) {
                cache.remove(key, kv.mod_revision);
            }
        } else if let Some((cache, key)) = self.split(kv) {
            match stored::decode(cache.resource, &kv.value, kv.mod_revision) {
                Ok(object) => {
                    cache.put(Entry::new(key.to_owned(), object, kv.value.clone(), kv.mod_revision))
                }
                Err(error) => tracing::warn!(key, %error, "skipped an object that cannot be read"),
            }
        }
    }

    fn split<'k>(&self, kv: &'k Kv) -> Option<(&super::ResourceCache, &'k str)> {
        let key = std::str::from_utf8(&kv.key).ok()?.strip_prefix(self.prefix.as_str())?;
        self.cache.locate(key)
    }

    fn decode(&self, kv: &Kv) -> Option<(&'static str, Entry)> {
        let (cache, key) = self.split(kv)?;
        match stored::decode(cache.resource, &kv.value, kv.mod_revision) {
            Ok(object) => {
                let entry = Entry::new(key.to_owned(), object, kv.value.clone(), kv.mod_revision);
                Some((cache.resource.storage, entry))
            }
            Err(error) => {
                tracing::warn!(key, %error, "skipped an object that cannot be read");
                None
            }
        }
    }
}

/// The first key after all keys that start with `prefix`.
pub(crate) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < 0xff {
            *last += 1;
            return end;
        }
        end.pop();
    }
    vec![0]
}
