//! The watchers of one stream, and what to tell them next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::etcd::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchResponse};
use flotilla_proto::etcd::mvccpb::{Event, KeyValue};
use prost::Message;
use tokio::time::Instant;

use crate::engine::index::KeyRange;
use crate::engine::keyspace::{Keyspace, decode_kv};
use crate::engine::revision::Revision;
use crate::engine::store::{Scan, Space, StoreError};
use crate::engine::watch::filter::{Interest, event};
use crate::engine::watch::hub::Behind;
use crate::engine::watch::outbox::{Delivery, Outbox};
use crate::engine::write::Change;
use crate::error::KvError;

/// Watch id of answers that concern no watcher, or all.
pub const NO_WATCH: i64 = -1;
/// Events read from the store at once for watchers that are behind.
const CATCH_UP_EVENTS: usize = 1_000;
/// Bytes read at once.
const CATCH_UP_BYTES: usize = 2 << 20;

#[derive(Debug)]
struct Watch {
    hub_id: u64,
    previous: bool,
    progress: bool,
    fragment: bool,
    last_told: Instant,
}

/// One stream's watchers.
#[derive(Debug)]
pub struct Session {
    keyspace: Arc<Keyspace>,
    outbox: Arc<Outbox>,
    watches: BTreeMap<i64, Watch>,
    by_hub_id: BTreeMap<u64, i64>,
    next_id: i64,
    progress_asked: bool,
    progress_every: Duration,
    max_response: usize,
}

impl Drop for Session {
    fn drop(&mut self) {
        for watch in self.watches.values() {
            self.keyspace.hub().remove(watch.hub_id);
        }
    }
}

impl Session {
    /// A stream without watchers. Responses of watchers that allow fragments stay below `max_response` bytes.
    pub fn new(keyspace: Arc<Keyspace>, progress_every: Duration, max_response: usize) -> Self {
        Self {
            keyspace,
            outbox: Arc::new(Outbox::default()),
            watches: BTreeMap::new(),
            by_hub_id: BTreeMap::new(),
            next_id: 0,
            progress_asked: false,
            progress_every,
            max_response,
        }
    }

    /// Adds a watcher and returns what to answer.
    pub fn create(&mut self, request: &WatchCreateRequest) -> WatchResponse {
        let key =
            if request.key.is_empty() { Bytes::from_static(b"\0") } else { request.key.clone() };
        let range = KeyRange::new(&key, &request.range_end);
        if request.start_revision < 0 {
            return self.refuse(KvError::Compacted.text());
        }
        if range.is_empty() {
            return self.refuse("mvcc: watcher range is empty");
        }
        let id = match request.watch_id {
            0 => self.free_id(),
            id if self.watches.contains_key(&id) => {
                return self.refuse("mvcc: duplicate watch ID provided on the WatchStream");
            }
            id => id,
        };
        let interest = Interest::new(range, &request.filters, request.prev_kv);
        let (hub_id, revision) =
            self.keyspace.hub().add(self.outbox.clone(), interest, request.start_revision);
        self.by_hub_id.insert(hub_id, id);
        let watch = Watch {
            hub_id,
            previous: request.prev_kv,
            progress: request.progress_notify,
            fragment: request.fragment,
            last_told: Instant::now(),
        };
        self.watches.insert(id, watch);
        WatchResponse { created: true, ..response(revision, id) }
    }

    /// The answer to a watcher that cannot be created.
    pub fn refuse(&self, reason: &str) -> WatchResponse {
        WatchResponse {
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..response(self.keyspace.revision(), NO_WATCH)
        }
    }

    fn free_id(&mut self) -> i64 {
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Removes a watcher; nothing is answered when there is none.
    pub fn cancel(&mut self, id: i64) -> Option<WatchResponse> {
        self.forget(id)?;
        Some(WatchResponse { canceled: true, ..response(self.keyspace.revision(), id) })
    }

    fn forget(&mut self, id: i64) -> Option<Watch> {
        let watch = self.watches.remove(&id)?;
        self.by_hub_id.remove(&watch.hub_id);
        self.keyspace.hub().remove(watch.hub_id);
        Some(watch)
    }

    /// Asks for a bookmark as soon as every watcher is level.
    pub fn ask_progress(&mut self) {
        self.progress_asked = true;
        self.outbox.wake();
    }

    /// Waits for the next things to say. Nothing is lost when the wait is given up.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn next(&mut self) -> Result<Vec<WatchResponse>, StoreError> {
        loop {
            let said = self.poll_next()?;
            if !said.is_empty() {
                return Ok(said);
            }
            let due = self.watches.values().filter(|w| w.progress).map(|w| w.last_told).min();
            match due {
                Some(last) => {
                    tokio::select! {
                        () = self.outbox.woken() => {}
                        () = tokio::time::sleep_until(last + self.progress_every) => {}
                    }
                }
                None => self.outbox.woken().await,
            }
        }
    }

    fn poll_next(&mut self) -> Result<Vec<WatchResponse>, StoreError> {
        while let Some(delivery) = self.outbox.pop() {
            let revision = delivery.revision;
            let said = self.tell(delivery, revision);
            if !said.is_empty() {
                return Ok(said);
            }
        }
        let ids: Vec<u64> = self.by_hub_id.keys().copied().collect();
        let said = self.catch_up(&ids)?;
        if !said.is_empty() {
            return Ok(said);
        }
        Ok(self.progress(&ids))
    }

    fn progress(&mut self, ids: &[u64]) -> Vec<WatchResponse> {
        let now = Instant::now();
        let due = |watch: &Watch, every| watch.progress && watch.last_told + every <= now;
        let anyone = self.watches.values().any(|watch| due(watch, self.progress_every));
        if !self.progress_asked && !anyone {
            return Vec::new();
        }
        let hub = self.keyspace.hub();
        let mut said = Vec::new();
        for (id, watch) in &mut self.watches {
            if due(watch, self.progress_every) {
                watch.last_told = now;
                if let Some(revision) = hub.level_revision(&[watch.hub_id], &self.outbox) {
                    said.push(response(revision, *id));
                }
            }
        }
        if self.progress_asked
            && let Some(revision) = hub.level_revision(ids, &self.outbox)
        {
            self.progress_asked = false;
            said.push(response(revision, NO_WATCH));
        }
        said
    }

    fn tell(&mut self, delivery: Delivery, revision: i64) -> Vec<WatchResponse> {
        let Some(id) = self.by_hub_id.get(&delivery.watcher) else { return Vec::new() };
        let Some(watch) = self.watches.get_mut(id) else { return Vec::new() };
        watch.last_told = Instant::now();
        let whole = WatchResponse { events: delivery.events, ..response(revision, *id) };
        if watch.fragment { fragments(whole, self.max_response) } else { vec![whole] }
    }

    /// Reads a stretch of the store for watchers that are behind.
    fn catch_up(&mut self, ids: &[u64]) -> Result<Vec<WatchResponse>, StoreError> {
        let keyspace = self.keyspace.clone();
        let (mut behind, head) = keyspace.hub().behind(ids);
        if behind.is_empty() {
            return Ok(Vec::new());
        }
        let store = keyspace.store();
        let view = store.view();
        // After the view: what the view may already lack, the mark already shows.
        let compacted = keyspace.state().compacted;
        let mut said = Vec::new();
        behind.retain(|watcher| {
            let lost = watcher.next < compacted;
            if lost {
                said.extend(self.compacted(watcher, compacted));
            }
            !lost
        });
        let Some(from) = behind.iter().map(|watcher| watcher.next).min() else { return Ok(said) };
        let mut changes: Vec<(i64, Change)> = Vec::new();
        let (mut bytes, mut reached) = (0, head);
        let end = Revision::bound(head + 1);
        let mut failed = Ok(());
        view.scan(Space::Revisions, &Revision::bound(from), Some(&end), &mut |key, value| {
            let Some((at, deleted)) = Revision::from_key(key) else { return Scan::More };
            let new_transaction =
                changes.last().is_some_and(|(_, last)| last.kv.mod_revision != at.main);
            if new_transaction && (changes.len() >= CATCH_UP_EVENTS || bytes >= CATCH_UP_BYTES) {
                reached = at.main - 1;
                return Scan::Stop;
            }
            bytes += value.len();
            match decode_kv(Bytes::copy_from_slice(value)) {
                Ok(mut kv) => {
                    kv.mod_revision = at.main;
                    changes.push((at.main, Change { kv, deleted, previous: None }));
                    Scan::More
                }
                Err(error) => {
                    failed = Err(error);
                    Scan::Stop
                }
            }
        })?;
        failed?;
        drop(view);
        for watcher in behind.iter().filter(|watcher| watcher.next <= reached) {
            said.extend(self.tell_past(watcher, &changes, head)?);
        }
        for watcher in &behind {
            keyspace.hub().caught_up(watcher.watcher, watcher.next.max(reached + 1));
        }
        // Watchers may be behind still, or again; the next look finds out.
        self.outbox.wake();
        Ok(said)
    }

    fn tell_past(
        &mut self,
        watcher: &Behind,
        changes: &[(i64, Change)],
        head: i64,
    ) -> Result<Vec<WatchResponse>, StoreError> {
        let wanted =
            |(at, change): &&(i64, Change)| *at >= watcher.next && watcher.interest.wants(change);
        let mut events: Vec<Event> = Vec::new();
        for (at, change) in changes.iter().filter(wanted) {
            let mut event = event(change);
            if watcher.interest.previous {
                event.prev_kv = self.before(change, *at)?;
            }
            events.push(event);
        }
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let delivery = Delivery { watcher: watcher.watcher, revision: head, events };
        Ok(self.tell(delivery, head))
    }

    fn before(&self, change: &Change, at: i64) -> Result<Option<KeyValue>, StoreError> {
        let created = !change.deleted && change.kv.create_revision == change.kv.mod_revision;
        let snapshot = self.keyspace.snapshot();
        if created || at - 1 < snapshot.state.compacted {
            return Ok(None);
        }
        let key = KeyRange::single(&change.kv.key);
        let Some((_, revision)) = snapshot.state.index.range_at(&key, at - 1).next() else {
            return Ok(None);
        };
        snapshot.view.get(Space::Revisions, &revision.to_key(false))?.map(decode_kv).transpose()
    }

    fn compacted(&mut self, watcher: &Behind, compacted: i64) -> Option<WatchResponse> {
        let id = *self.by_hub_id.get(&watcher.watcher)?;
        self.forget(id)?;
        Some(WatchResponse {
            canceled: true,
            compact_revision: compacted,
            ..response(self.keyspace.revision(), id)
        })
    }

    /// Whether any watcher wants values before; used to size buffers.
    pub fn wants_previous(&self) -> bool {
        self.watches.values().any(|watch| watch.previous)
    }
}

fn response(revision: i64, watch_id: i64) -> WatchResponse {
    let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
    WatchResponse { header, watch_id, ..WatchResponse::default() }
}

/// Splits a response so that each part stays below `limit` bytes where its events allow; all but the last part
/// are marked.
fn fragments(whole: WatchResponse, limit: usize) -> Vec<WatchResponse> {
    if whole.encoded_len() < limit || whole.events.len() <= 1 {
        return vec![whole];
    }
    let frame = WatchResponse { events: Vec::new(), fragment: true, ..whole.clone() };
    let mut parts = Vec::new();
    let (mut part, mut bytes) = (frame.clone(), frame.encoded_len());
    for event in whole.events {
        let size = event.encoded_len() + 8;
        if !part.events.is_empty() && bytes + size > limit {
            parts.push(std::mem::replace(&mut part, frame.clone()));
            bytes = frame.encoded_len();
        }
        bytes += size;
        part.events.push(event);
    }
    part.fragment = false;
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_hold_every_event_once() {
        let kv = |n: u8| KeyValue { value: vec![n; 100].into(), ..KeyValue::default() };
        let events: Vec<_> =
            (0..20).map(|n| Event { kv: Some(kv(n)), ..Event::default() }).collect();
        let whole = WatchResponse { events: events.clone(), ..response(5, 1) };
        let parts = fragments(whole.clone(), 500);
        assert!(parts.len() > 3);
        assert!(parts.iter().all(|part| part.encoded_len() <= 500));
        let marks: Vec<bool> = parts.iter().map(|part| part.fragment).collect();
        assert_eq!(marks.iter().filter(|mark| !**mark).count(), 1);
        assert!(!marks[marks.len() - 1]);
        let joined: Vec<_> = parts.into_iter().flat_map(|part| part.events).collect();
        assert_eq!(joined, events);
        assert_eq!(fragments(whole, 1 << 20).len(), 1);
    }
}
