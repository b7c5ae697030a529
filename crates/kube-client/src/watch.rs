//! Watch streams: one JSON event a line.

use std::marker::PhantomData;

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{Error, ObjectMeta, Status};

/// Bytes one event may have; the store refuses objects far smaller than this.
const MAX_EVENT: usize = 16 << 20;

/// One change of a collection.
#[derive(Debug, Clone)]
pub enum WatchEvent<T> {
    /// The object is new, or began to match the selector.
    Added(T),
    /// The object changed.
    Modified(T),
    /// The object is gone, or ceased to match; its last state.
    Deleted(T),
    /// Nothing happened up to this resource version.
    Bookmark(String),
}

/// The events of a watch, in order.
#[derive(Debug)]
pub struct WatchStream<T> {
    body: Incoming,
    buffer: BytesMut,
    scanned: usize,
    kind: PhantomData<fn() -> T>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a serde_json::value::RawValue,
}

#[derive(Deserialize)]
struct OnlyMeta {
    metadata: ObjectMeta,
}

impl<T: DeserializeOwned> WatchStream<T> {
    pub(crate) fn new(body: Incoming) -> Self {
        Self { body, buffer: BytesMut::new(), scanned: 0, kind: PhantomData }
    }

    /// The next event; `None` when the server ended the watch.
    ///
    /// # Errors
    /// When the connection breaks, an event cannot be read, or the server reports an error (410: list anew).
    pub async fn next(&mut self) -> Result<Option<WatchEvent<T>>, Error> {
        loop {
            if let Some(end) = self.buffer[self.scanned..].iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(self.scanned + end);
                self.buffer.advance(1);
                self.scanned = 0;
                if line.is_empty() {
                    continue;
                }
                return decode(&line).map(Some);
            }
            self.scanned = self.buffer.len();
            if self.buffer.len() > MAX_EVENT {
                return Err(Error::Connection(format!("a watch event exceeds {MAX_EVENT} bytes")));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(Error::Connection(error.to_string())),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }
}

fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<WatchEvent<T>, Error> {
    let line: Line<'_> = serde_json::from_slice(line)?;
    let text = line.object.get();
    match line.kind {
        "ADDED" => Ok(WatchEvent::Added(serde_json::from_str(text)?)),
        "MODIFIED" => Ok(WatchEvent::Modified(serde_json::from_str(text)?)),
        "DELETED" => Ok(WatchEvent::Deleted(serde_json::from_str(text)?)),
        "BOOKMARK" => {
            let object: OnlyMeta = serde_json::from_str(text)?;
            Ok(WatchEvent::Bookmark(object.metadata.resource_version))
        }
        _ => Err(Error::Api(serde_json::from_str::<Status>(text)?)),
    }
}
