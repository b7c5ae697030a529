//! List, then watch, then list again when the watch is too old: a collection kept in step.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::watch::WatchStream;
use crate::{Client, Error, ListParams, ObjectMeta, WatchEvent};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const PAGE: u32 = 500;

/// What happened to a collection.
#[derive(Debug, Clone)]
pub enum Change<T> {
    /// Everything there is, at the start and after a gap; what is not in it is gone.
    Replaced(Vec<T>),
    /// One object is new or changed.
    Applied(T),
    /// One object is gone; its last state.
    Deleted(T),
}

/// Follows one collection for as long as it is asked.
///
/// Failures of the server are waited out with growing pauses: the caller keeps serving what it has.
#[derive(Debug)]
pub struct Reflector<T> {
    client: Client,
    path: String,
    params: ListParams,
    watch: Option<WatchStream<Box<RawValue>>>,
    version: String,
    ready: VecDeque<Change<T>>,
    pause: Duration,
}

#[derive(Deserialize)]
struct OnlyMeta {
    metadata: ObjectMeta,
}

impl<T: DeserializeOwned> Reflector<T> {
    /// A reflector of the collection at `path`; nothing is asked before [`Reflector::next`].
    pub fn new(client: Client, path: impl Into<String>, params: ListParams) -> Self {
        Self {
            client,
            path: path.into(),
            params,
            watch: None,
            version: String::new(),
            ready: VecDeque::new(),
            pause: FIRST_PAUSE,
        }
    }

    /// The next change. Cancel-safe between calls only: drop the future and the reflector together.
    pub async fn next(&mut self) -> Change<T> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return change;
            }
            match self.step().await {
                Ok(()) => self.pause = FIRST_PAUSE,
                Err(error) => {
                    if error.is_expired() {
                        self.version.clear();
                    } else {
                        tracing::warn!(path = self.path, %error, "cannot follow the API server");
                    }
                    self.watch = None;
                    tokio::time::sleep(self.pause).await;
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Version of the collection that the changes so far lead to; empty before the first.
    pub fn version(&self) -> &str {
        &self.version
    }

    async fn step(&mut self) -> Result<(), Error> {
        if self.version.is_empty() {
            return self.relist().await;
        }
        if self.watch.is_none() {
            let params =
                ListParams { resource_version: Some(self.version.clone()), ..self.params.clone() };
            self.watch = Some(self.client.watch(&self.path, &params).await?);
        }
        let Some(watch) = &mut self.watch else { return Ok(()) };
        match watch.next().await? {
            // The server ends watches now and then; go on from the last version.
            None => self.watch = None,
            Some(WatchEvent::Bookmark(version)) => self.version = version,
            Some(WatchEvent::Added(raw) | WatchEvent::Modified(raw)) => {
                let object = self.decode(&raw)?;
                self.ready.push_back(Change::Applied(object));
            }
            Some(WatchEvent::Deleted(raw)) => {
                let object = self.decode(&raw)?;
                self.ready.push_back(Change::Deleted(object));
            }
        }
        Ok(())
    }

    fn decode(&mut self, raw: &RawValue) -> Result<T, Error> {
        let meta: OnlyMeta = serde_json::from_str(raw.get())?;
        self.version = meta.metadata.resource_version;
        Ok(serde_json::from_str(raw.get())?)
    }

    async fn relist(&mut self) -> Result<(), Error> {
        let mut all = Vec::new();
        let mut params = ListParams { limit: Some(PAGE), ..self.params.clone() };
        loop {
            let page = self.client.list(&self.path, &params).await?;
            all.extend(page.items);
            if page.metadata.continue_token.is_empty() {
                self.version = page.metadata.resource_version;
                break;
            }
            params.continue_token = Some(page.metadata.continue_token);
        }
        self.ready.push_back(Change::Replaced(all));
        Ok(())
    }
}
