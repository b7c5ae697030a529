//! WATCH: events from the cache's ring, bookmarks, and the end of the stream.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use http::{HeaderValue, Response};
use kube_spec::Resource;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Call;
use super::options::{ListOptions, Match};
use crate::error::ApiError;
use crate::output::{Encoding, Output, Shape, protobuf};
use crate::selector::Selector;
use crate::server::Api;
use crate::store::{Cache, CacheEvent, Entry};
use crate::{pages, views};

const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Chunks that wait for a slow client before its watch is cut.
const QUEUE: usize = 64;

struct Watcher {
    resource: &'static Resource,
    cache: Arc<Cache>,
    prefix: String,
    selector: Selector,
    output: Output,
    bookmarks: bool,
    columns_sent: bool,
    include: String,
    at: i64,
}

impl Api {
    pub(super) async fn watch(&self, call: Call) -> Result<Response<Body>, ApiError> {
        let resource = call.resource();
        let mut options = ListOptions::parse(resource, &call.query)?;
        check_initial_events(&options)?;
        if !call.target.name.is_empty() {
            let only = format!("metadata.name={}", call.target.name);
            options.selector = Selector::parse(resource, call.query.get("labelSelector"), &only)?;
        }
        if self.cache.revision() == 0 {
            return Err(ApiError::unavailable("storage is (re)initializing"));
        }
        let namespace = &call.target.namespace;
        let prefix = if resource.namespaced && !namespace.is_empty() {
            format!("{namespace}/")
        } else {
            String::new()
        };
        let mut watcher = Watcher {
            resource,
            cache: self.cache.clone(),
            prefix,
            selector: options.selector.clone(),
            output: call.output,
            bookmarks: options.bookmarks,
            columns_sent: false,
            include: call.query.get("includeObject").to_owned(),
            at: options.version.unwrap_or(0),
        };
        let initial = match (options.initial_events, options.version) {
            (Some(true), _) | (None, None | Some(0)) => {
                let listed = self
                    .listed(
                        &call,
                        &ListOptions { limit: 0, matching: Match::Unset, ..options.clone() },
                    )
                    .await?;
                watcher.at = listed.revision;
                let mut chunks: Vec<Bytes> =
                    listed.entries.iter().map(|e| watcher.line("ADDED", e)).collect();
                if options.initial_events == Some(true) && options.bookmarks {
                    chunks.push(watcher.bookmark(true));
                }
                chunks
            }
            (Some(false), None | Some(0)) => {
                watcher.at = self.cache.revision();
                Vec::new()
            }
            _ => {
                if watcher.at > self.cache.revision()
                    && !self.cache.wait(watcher.at, Duration::from_secs(3)).await
                {
                    return Err(ApiError::version_ahead(watcher.at, self.cache.revision()));
                }
                Vec::new()
            }
        };
        let limit =
            options.timeout.filter(|t| *t > 0).unwrap_or_else(|| rand::random_range(1800..3600));
        let content_type = match (call.output.encoding, call.output.shape) {
            (Encoding::Protobuf, Shape::Object) => {
                "application/vnd.kubernetes.protobuf;stream=watch"
            }
            _ => "application/json",
        };
        let stream = watcher.run(initial, Duration::from_secs(limit), self.shutdown.clone());
        let mut response = Response::new(Body::from_stream(stream));
        response.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
        response
            .headers_mut()
            .insert("cache-control", HeaderValue::from_static("no-cache, private"));
        Ok(response)
    }
}

fn check_initial_events(options: &ListOptions) -> Result<(), ApiError> {
    if options.initial_events.is_some() && options.matching != Match::NotOlder {
        return Err(ApiError::bad_request(
            "sendInitialEvents: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ));
    }
    if options.initial_events.is_none() && options.matching != Match::Unset {
        return Err(ApiError::bad_request(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ));
    }
    Ok(())
}

impl Watcher {
    /// The stream of chunks. The producer runs as a task with a bounded queue: a client that does not read is
    /// waited for without holding anything but its own queue, and ends when it falls out of the ring.
    fn run(
        mut self,
        initial: Vec<Bytes>,
        limit: Duration,
        shutdown: flotilla_server::Shutdown,
    ) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
        let (sender, receiver) = tokio::sync::mpsc::channel(QUEUE);
        tokio::spawn(async move {
            for chunk in initial {
                if sender.send(Ok(chunk)).await.is_err() {
                    return;
                }
            }
            let Some(cache) =
                self.cache.clone().of(self.resource).map(crate::store::ResourceCache::subscribe)
            else {
                return;
            };
            let mut changed = cache;
            let end = Instant::now() + limit;
            let mut bookmark_at = Instant::now() + BOOKMARK_EVERY;
            loop {
                changed.borrow_and_update();
                let chunks = self.pending();
                let over = chunks.as_ref().is_err();
                for chunk in chunks.unwrap_or_else(|error| vec![error]) {
                    if sender.send(Ok(chunk)).await.is_err() {
                        return;
                    }
                }
                if over {
                    return;
                }
                tokio::select! {
                    changed = changed.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                    () = shutdown.triggered() => return,
                    () = tokio::time::sleep_until(end) => {
                        if self.bookmarks {
                            // The client may be gone already.
                            let _ = sender.send(Ok(self.fresh_bookmark())).await;
                        }
                        return;
                    }
                    () = tokio::time::sleep_until(bookmark_at) => {
                        bookmark_at = Instant::now() + BOOKMARK_EVERY;
                        if self.bookmarks && sender.send(Ok(self.fresh_bookmark())).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        tokio_stream::wrappers::ReceiverStream::new(receiver)
    }

    /// Events since the last call; the error is the last line of the stream.
    fn pending(&mut self) -> Result<Vec<Bytes>, Bytes> {
        let cache = self.cache.clone();
        let Some(cache) = cache.of(self.resource) else { return Ok(Vec::new()) };
        match cache.since(self.at) {
            Ok(events) => {
                let mut chunks = Vec::new();
                for event in events {
                    self.at = event.revision;
                    if let Some(chunk) = self.chunk(&event) {
                        chunks.push(chunk);
                    }
                }
                Ok(chunks)
            }
            Err(oldest) => {
                let error =
                    ApiError::expired(format!("too old resource version: {} ({oldest})", self.at));
                Err(self.frame("ERROR", &error.status()))
            }
        }
    }

    fn chunk(&mut self, event: &CacheEvent) -> Option<Bytes> {
        if !event.current.key.starts_with(&self.prefix) {
            return None;
        }
        let fits = |entry: &Entry| self.selector.is_empty() || self.selector.matches(&entry.object);
        let before = event.previous.as_deref().is_some_and(fits);
        let after = !event.deleted && fits(&event.current);
        match (before, after) {
            (false, true) => Some(self.line("ADDED", &event.current)),
            (true, true) => Some(self.line("MODIFIED", &event.current)),
            (true, false) if event.deleted => Some(self.line("DELETED", &event.current)),
            (true, false) => {
                // It ceased to match: its last matching state, at the revision of the change.
                let mut object = event.previous.as_ref()?.object.clone();
                object["metadata"]["resourceVersion"] = event.revision.to_string().into();
                Some(self.shaped("DELETED", &object))
            }
            (false, false) => None,
        }
    }

    fn line(&mut self, kind: &str, entry: &Entry) -> Bytes {
        let plain = self.output.encoding == Encoding::Json && self.output.shape == Shape::Object;
        if !plain || views::differs(self.resource) {
            return self.shaped(kind, &entry.object);
        }
        let json = entry.json();
        let mut line = BytesMut::with_capacity(json.len() + 40);
        line.put_slice(b"{\"type\":\"");
        line.put_slice(kind.as_bytes());
        line.put_slice(b"\",\"object\":");
        line.put_slice(&json);
        line.put_slice(b"}\n");
        line.freeze()
    }

    fn shaped(&mut self, kind: &str, object: &Value) -> Bytes {
        let shaped = match self.output.shape {
            Shape::Object => views::to_client(self.resource, object).into_owned(),
            Shape::Metadata => views::partial(object),
            Shape::Table => {
                let view = views::to_client(self.resource, object);
                let include =
                    if self.include.is_empty() { "Metadata" } else { self.include.as_str() };
                let metadata = json!({"resourceVersion": crate::object::version(object)});
                let mut table = pages::table(self.resource, &[&view], Some(metadata), include);
                if self.columns_sent {
                    table["columnDefinitions"] = Value::Null;
                }
                self.columns_sent = true;
                table
            }
        };
        self.frame(kind, &shaped)
    }

    fn fresh_bookmark(&mut self) -> Bytes {
        // Everything up to the progress is in the ring, and the ring was read up to `at`.
        let progress = self.cache.revision();
        if let Some(Ok(events)) = self.cache.of(self.resource).map(|c| c.since(self.at))
            && events.is_empty()
        {
            self.at = self.at.max(progress);
        }
        self.bookmark(false)
    }

    fn bookmark(&mut self, initial_end: bool) -> Bytes {
        let mut metadata =
            json!({"resourceVersion": self.at.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.output.shape {
            Shape::Table => json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": self.at.to_string()}, "columnDefinitions": null,
                "rows": [{"cells": [], "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}}]}),
            Shape::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Shape::Object => {
                json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata})
            }
        };
        self.frame("BOOKMARK", &object)
    }

    fn frame(&self, kind: &str, object: &Value) -> Bytes {
        if self.output.encoding == Encoding::Protobuf
            && self.output.shape == Shape::Object
            && let Some(object) = protobuf(object)
        {
            return kube_codec::proto::watch_frame(kind, &object).into();
        }
        format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into()
    }
}
