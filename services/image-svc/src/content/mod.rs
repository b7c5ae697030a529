//! containerd's content store: blobs of a namespace with labels, and writes that may be taken up again.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use thiserror::Error;

use crate::engine::{Algorithm, Digest};
use crate::store::{
    BlobBody, ContentRow, IngestFile, IngestRow, NewContent, Pin, Store, StoreError,
};

/// Why a content call failed; the texts are containerd's.
#[derive(Debug, Error)]
pub enum ContentError {
    /// No such content or write.
    #[error("content {0}: not found")]
    NotFound(String),
    /// The content exists already.
    #[error("content {0}: already exists")]
    Exists(Digest),
    /// Another client writes under this ref.
    #[error("ref {0} locked: unavailable")]
    Locked(String),
    /// The data does not fit the write.
    #[error("{0}: failed precondition")]
    Precondition(String),
    /// The request is malformed.
    #[error("{0}: invalid argument")]
    Invalid(String),
    /// An offset lies outside the content.
    #[error("{0}: out of range")]
    Range(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Content with its labels.
#[derive(Debug, Clone)]
pub struct Info {
    /// Digest.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Labels and times.
    pub row: ContentRow,
}

/// An unfinished write.
#[derive(Debug, Clone)]
pub struct Status {
    /// Name the client gave it.
    pub reference: String,
    /// Bytes so far.
    pub offset: u64,
    /// What is recorded of it.
    pub row: IngestRow,
}

/// The content of a store.
#[derive(Debug, Clone)]
pub struct Content {
    store: Store,
    writing: Arc<Mutex<HashSet<String>>>,
}

/// A write under way. Dropping it frees its ref; what was written stays.
#[derive(Debug)]
pub struct Writer {
    content: Content,
    ns: String,
    reference: String,
    row: IngestRow,
    file: Option<IngestFile>,
    _pin: Option<Pin>,
}

fn nanos() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(StoreError::Closed(error.to_string())))
}

impl Content {
    /// The content of `store`.
    pub fn new(store: Store) -> Self {
        Self { store, writing: Arc::default() }
    }

    /// What is known of `digest` in a namespace.
    ///
    /// # Errors
    /// When the namespace has no such content.
    pub fn info(&self, ns: &str, digest: &Digest) -> Result<Info, ContentError> {
        let missing = || ContentError::NotFound(digest.to_string());
        let blob = self.store.blob(digest)?.ok_or_else(missing)?;
        let row = self.store.content_row(ns, digest)?.ok_or_else(missing)?;
        Ok(Info { digest: digest.clone(), size: blob.size, row })
    }

    /// All content of a namespace, by digest.
    ///
    /// # Errors
    /// When the store fails.
    pub fn list(&self, ns: &str) -> Result<Vec<Info>, ContentError> {
        let mut infos = Vec::new();
        for digest in self.store.content_digests(ns)? {
            match self.info(ns, &digest) {
                Ok(info) => infos.push(info),
                Err(ContentError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(infos)
    }

    /// Replaces labels: all, or those in `fields`.
    ///
    /// # Errors
    /// When the namespace has no such content.
    pub async fn update(
        &self,
        ns: &str,
        digest: &Digest,
        labels: BTreeMap<String, String>,
        fields: Option<Vec<String>>,
    ) -> Result<Info, ContentError> {
        let mut info = self.info(ns, digest)?;
        match fields {
            None => info.row.labels = labels,
            Some(names) => {
                for name in names {
                    match labels.get(&name) {
                        Some(value) => info.row.labels.insert(name, value.clone()),
                        None => info.row.labels.remove(&name),
                    };
                }
            }
        }
        info.row.labels.retain(|_, value| !value.is_empty());
        info.row.updated = nanos();
        self.store.put_content(ns, digest, info.row.clone()).await?;
        Ok(info)
    }

    /// Takes content out of a namespace.
    ///
    /// # Errors
    /// When the namespace has no such content, or an image needs it.
    pub async fn delete(&self, ns: &str, digest: &Digest) -> Result<(), ContentError> {
        if self.store.delete_content(ns, digest).await? {
            return Ok(());
        }
        match self.info(ns, digest) {
            Ok(_) => {
                Err(ContentError::Precondition(format!("content {digest} belongs to an image")))
            }
            Err(error) => Err(error),
        }
    }

    /// Opens content for reading from `offset`; `size` 0 means to the end. Returns body, start and length.
    ///
    /// # Errors
    /// When it is missing or the range lies outside.
    pub fn open(
        &self,
        ns: &str,
        digest: &Digest,
        offset: i64,
        size: i64,
    ) -> Result<(BlobBody, u64, u64), ContentError> {
        self.info(ns, digest)?;
        let body = self
            .store
            .open_blob(digest)?
            .ok_or_else(|| ContentError::NotFound(digest.to_string()))?;
        let outside =
            || ContentError::Range(format!("read past object length {} bytes", body.len()));
        let (start, wanted) = (
            u64::try_from(offset).map_err(|_| outside())?,
            u64::try_from(size).map_err(|_| outside())?,
        );
        if start > body.len() {
            return Err(outside());
        }
        let rest = body.len() - start;
        if wanted > rest {
            return Err(outside());
        }
        let length = if wanted == 0 { rest } else { wanted };
        Ok((body, start, length))
    }

    /// An unfinished write.
    ///
    /// # Errors
    /// When there is none under this ref.
    pub fn status(&self, ns: &str, reference: &str) -> Result<Status, ContentError> {
        let row = self.store.ingest(ns, reference)?;
        let row = row.ok_or_else(|| ContentError::NotFound(reference.to_owned()))?;
        Ok(self.describe(reference, row))
    }

    fn describe(&self, reference: &str, row: IngestRow) -> Status {
        let length =
            std::fs::metadata(self.store.ingest_path(&row.file)).map_or(0, |meta| meta.len());
        Status { reference: reference.to_owned(), offset: length, row }
    }

    /// All unfinished writes of a namespace.
    ///
    /// # Errors
    /// When the store fails.
    pub fn statuses(&self, ns: &str) -> Result<Vec<Status>, ContentError> {
        let rows = self.store.ingests(ns)?;
        Ok(rows.into_iter().map(|(reference, row)| self.describe(&reference, row)).collect())
    }

    /// Gives a write up.
    ///
    /// # Errors
    /// When there is none under this ref.
    pub async fn abort(&self, ns: &str, reference: &str) -> Result<(), ContentError> {
        let status = self.status(ns, reference)?;
        self.store.delete_ingest(ns, reference).await?;
        // A write without bytes has no file.
        let _ = tokio::fs::remove_file(self.store.ingest_path(&status.row.file)).await;
        Ok(())
    }

    /// Begins a write under `reference`, or takes up an earlier one.
    ///
    /// # Errors
    /// When another client has it, the content exists already, or it does not fit the earlier write.
    pub async fn writer(
        &self,
        ns: &str,
        reference: &str,
        total: u64,
        expected: Option<Digest>,
    ) -> Result<Writer, ContentError> {
        if reference.is_empty() || reference.contains('\0') {
            return Err(ContentError::Invalid("writer ref must not be empty".to_owned()));
        }
        if !self.writing.lock().insert(format!("{ns}\0{reference}")) {
            return Err(ContentError::Locked(reference.to_owned()));
        }
        let (ns_owned, name) = (ns.to_owned(), reference.to_owned());
        let now = nanos();
        let fresh = IngestRow {
            file: uuid::Uuid::new_v4().to_string(),
            total,
            expected,
            started: now,
            updated: now,
        };
        // From here on dropping the writer frees the ref.
        let mut writer = Writer {
            content: self.clone(),
            ns: ns_owned,
            reference: name,
            row: fresh,
            file: None,
            _pin: None,
        };
        writer.start(total).await?;
        Ok(writer)
    }
}

impl Writer {
    async fn start(&mut self, total: u64) -> Result<(), ContentError> {
        let store = self.content.store.clone();
        if let Some(digest) = self.row.expected.clone() {
            self._pin = Some(store.pin(&digest).await);
            if self.content.info(&self.ns, &digest).is_ok() {
                return Err(ContentError::Exists(digest));
            }
        }
        let expected = self.row.expected.clone();
        if let Some(row) = store.ingest(&self.ns, &self.reference)? {
            if total > 0 && row.total > 0 && total != row.total {
                let (have, want) = (row.total, total);
                return Err(ContentError::Precondition(format!(
                    "provided total differs from status: {want} != {have}"
                )));
            }
            self.row = row;
            self.row.total = self.row.total.max(total);
            self.row.expected = self.row.expected.take().or(expected);
        }
        let path = store.ingest_path(&self.row.file);
        let algorithm = self.row.expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let file = blocking(move || {
            let length = std::fs::metadata(&path).map_or(0, |meta| meta.len());
            IngestFile::open(&path, IngestFile::resume_mark(&path, length, algorithm)?)
        });
        self.file = Some(file.await?);
        Ok(store.put_ingest(&self.ns, &self.reference, self.row.clone()).await?)
    }

    /// Bytes so far.
    pub fn offset(&self) -> u64 {
        self.file.as_ref().map_or(0, IngestFile::offset)
    }

    /// Digest of the bytes so far.
    pub fn digest(&self) -> Option<Digest> {
        self.file.as_ref().map(|file| file.mark().hasher().clone().finish())
    }

    /// What is recorded of the write.
    pub fn row(&self) -> &IngestRow {
        &self.row
    }

    /// Appends bytes; going back to an earlier offset throws away what follows it.
    ///
    /// # Errors
    /// When `offset` lies past the end or the bytes are more than announced.
    pub async fn write(&mut self, offset: u64, data: Bytes) -> Result<(), ContentError> {
        let at = self.offset();
        if offset > at {
            return Err(ContentError::Range(format!(
                "invalid offset: {offset}, {at} bytes are written"
            )));
        }
        if self.row.total > 0 && offset + data.len() as u64 > self.row.total {
            return Err(ContentError::Range(format!(
                "data exceeds the announced {} bytes",
                self.row.total
            )));
        }
        let Some(mut file) = self.file.take() else {
            return Err(ContentError::NotFound(self.reference.clone()));
        };
        if offset < at {
            let (path, algorithm) = (file.path().to_owned(), file.mark().hasher().algorithm());
            drop(file);
            file = blocking(move || {
                let mark = IngestFile::resume_mark(&path, offset, algorithm)?;
                IngestFile::open(&path, mark)
            })
            .await?;
        }
        if !data.is_empty() {
            file = blocking(move || file.append(&[data]).map(|()| file)).await?;
        }
        self.file = Some(file);
        self.row.updated = nanos();
        Ok(())
    }

    /// Ends the write as content of the namespace.
    ///
    /// # Errors
    /// When size or digest differ from what is expected, or the content exists.
    pub async fn commit(
        &mut self,
        total: u64,
        expected: Option<Digest>,
        labels: BTreeMap<String, String>,
    ) -> Result<Digest, ContentError> {
        let at = self.offset();
        let expected_size = if total > 0 { total } else { self.row.total };
        if expected_size > 0 && at != expected_size {
            return Err(ContentError::Precondition(format!(
                "unexpected commit size {at}, expected {expected_size}"
            )));
        }
        let Some(file) = self.file.take() else {
            return Err(ContentError::NotFound(self.reference.clone()));
        };
        let mut digest = file.mark().hasher().clone().finish();
        if let Some(expected) = expected.or_else(|| self.row.expected.clone()) {
            if expected.algorithm() != digest.algorithm() {
                let (path, algorithm) = (file.path().to_owned(), expected.algorithm());
                digest = blocking(move || IngestFile::resume_mark(&path, at, algorithm))
                    .await?
                    .hasher()
                    .clone()
                    .finish();
            }
            if expected != digest {
                self.file = Some(file);
                return Err(ContentError::Precondition(format!(
                    "unexpected commit digest {digest}, expected {expected}"
                )));
            }
        }
        let store = self.content.store.clone();
        let _pin = store.pin(&digest).await;
        let known = self.content.info(&self.ns, &digest).is_ok();
        let row = ContentRow { labels, created: nanos(), updated: nanos() };
        store
            .commit_content(
                &self.ns,
                &self.reference,
                &digest,
                NewContent::File(file),
                (!known).then_some(row),
            )
            .await?;
        if known { Err(ContentError::Exists(digest)) } else { Ok(digest) }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.content.writing.lock().remove(&format!("{}\0{}", self.ns, self.reference));
    }
}
