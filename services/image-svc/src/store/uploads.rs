//! Unfinished uploads of the registry: a file each, and the offset up to which it was acknowledged.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use thiserror::Error;

use super::blobs::{NewContent, blocking};
use super::ingest::Mark;
use super::rows::{UploadRow, key};
use super::{Cf, IngestFile, Store, StoreError, now};
use crate::engine::{Algorithm, Digest};

/// Why bytes could not be appended.
#[derive(Debug, Error)]
pub enum AppendError {
    /// The client stopped sending, or sent other than announced; the upload is as it was.
    #[error("the body ended early or is longer than announced")]
    Body,
    /// The upload would become larger than allowed.
    #[error("the upload is larger than {0} bytes")]
    TooLarge(u64),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An upload in progress.
#[derive(Debug)]
pub struct Session {
    /// Unguessable id.
    pub id: String,
    /// Repository it belongs to.
    pub repo: String,
    /// When it began, seconds since 1970.
    pub started: i64,
    algorithm: Algorithm,
    /// Held by the one request that appends.
    state: Arc<tokio::sync::Mutex<Option<Mark>>>,
    offset: std::sync::atomic::AtomicU64,
}

/// The sessions of a store.
#[derive(Debug, Default)]
pub struct Uploads {
    sessions: Mutex<HashMap<String, Arc<Session>>>,
}

impl Session {
    /// Acknowledged bytes.
    pub fn offset(&self) -> u64 {
        self.offset.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Takes the right to append, unless another request holds it.
    pub fn try_claim(&self) -> Option<tokio::sync::OwnedMutexGuard<Option<Mark>>> {
        self.state.clone().try_lock_owned().ok()
    }
}

/// The right to append to a session.
pub type Claim = tokio::sync::OwnedMutexGuard<Option<Mark>>;

impl Uploads {
    /// Unfinished uploads.
    pub fn len(&self) -> usize {
        self.sessions.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Store {
    /// Begins an upload to `repo`.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub async fn begin_upload(
        &self,
        repo: &str,
        algorithm: Algorithm,
    ) -> Result<Arc<Session>, StoreError> {
        let id = uuid::Uuid::new_v4().to_string();
        let row = UploadRow {
            repo: repo.to_owned(),
            offset: 0,
            algorithm: algorithm.name().to_owned(),
            started: now(),
        };
        let session = self.remember(&id, &row, Some(Mark::start(algorithm)));
        self.db()
            .write(false, move |txn| {
                txn.put_row(Cf::Upload, key(&[&id]), &row);
                Ok::<_, StoreError>(())
            })
            .await?;
        Ok(session)
    }

    fn remember(&self, id: &str, row: &UploadRow, mark: Option<Mark>) -> Arc<Session> {
        let session = Arc::new(Session {
            id: id.to_owned(),
            repo: row.repo.clone(),
            started: row.started,
            algorithm: Algorithm::by_name(&row.algorithm).unwrap_or_default(),
            state: Arc::new(tokio::sync::Mutex::new(mark)),
            offset: row.offset.into(),
        });
        self.uploads().sessions.lock().insert(id.to_owned(), session.clone());
        session
    }

    /// The upload `id` of `repo`, also one that an earlier process began.
    pub fn upload(&self, repo: &str, id: &str) -> Option<Arc<Session>> {
        let session = self.uploads().sessions.lock().get(id).cloned()?;
        (session.repo == repo).then_some(session)
    }

    /// Appends what `body` yields. On failure the upload stays as it was before the call.
    ///
    /// `expected` is the announced length; the body must have exactly that many bytes.
    ///
    /// # Errors
    /// When the body breaks off or differs from `expected`, is too large, or the disk refuses it.
    pub async fn append_upload(
        &self,
        session: &Session,
        claim: &mut Claim,
        expected: Option<u64>,
        limit: u64,
        body: axum::body::Body,
    ) -> Result<u64, AppendError> {
        let path = self.ingest_path(&session.id);
        let before = self.mark_of(session, claim).await?;
        let opened = {
            let (path, before) = (path.clone(), before.clone());
            blocking(move || IngestFile::open(&path, before)).await?
        };
        let filled = fill(opened, expected, limit, body).await;
        match filled {
            Ok(file) => {
                let mark = file.mark();
                let offset = mark.offset();
                **claim = Some(mark);
                session.offset.store(offset, std::sync::atomic::Ordering::Release);
                self.save_offset(session, offset).await?;
                Ok(offset)
            }
            Err(error) => {
                **claim = Some(before.clone());
                blocking(move || IngestFile::open(&path, before).map(drop)).await?;
                Err(error)
            }
        }
    }

    async fn mark_of(&self, session: &Session, claim: &mut Claim) -> Result<Mark, StoreError> {
        if let Some(mark) = claim.as_ref() {
            return Ok(mark.clone());
        }
        let (path, offset, algorithm) =
            (self.ingest_path(&session.id), session.offset(), session.algorithm);
        let mark = blocking(move || IngestFile::resume_mark(&path, offset, algorithm)).await?;
        **claim = Some(mark.clone());
        Ok(mark)
    }

    async fn save_offset(&self, session: &Session, offset: u64) -> Result<(), StoreError> {
        let row = UploadRow {
            repo: session.repo.clone(),
            offset,
            algorithm: session.algorithm.name().to_owned(),
            started: session.started,
        };
        let id = session.id.clone();
        self.db()
            .write(false, move |txn| {
                txn.put_row(Cf::Upload, key(&[&id]), &row);
                Ok(())
            })
            .await
    }

    /// Ends an upload as blob `digest` linked into its repository. `false` when the content has another digest;
    /// the upload then stays.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn finish_upload(
        &self,
        session: &Session,
        claim: &mut Claim,
        digest: &Digest,
    ) -> Result<bool, StoreError> {
        let mut mark = self.mark_of(session, claim).await?;
        if digest.algorithm() != mark.hasher().algorithm() {
            let (path, offset, algorithm) =
                (self.ingest_path(&session.id), mark.offset(), digest.algorithm());
            mark = blocking(move || IngestFile::resume_mark(&path, offset, algorithm)).await?;
        }
        if mark.hasher().clone().finish() != *digest {
            return Ok(false);
        }
        let content = if mark.offset() == 0 {
            NewContent::Bytes(Bytes::new())
        } else {
            let path = self.ingest_path(&session.id);
            NewContent::File(blocking(move || IngestFile::open(&path, mark)).await?)
        };
        let (repo, id, linked) = (session.repo.clone(), session.id.clone(), digest.clone());
        self.commit_blob(digest, content, move |txn| {
            txn.delete(Cf::Upload, key(&[&id]));
            super::repos::link_blob(txn, &repo, &linked)
        })
        .await?;
        self.forget(session);
        Ok(true)
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub async fn cancel_upload(&self, session: &Session) -> Result<(), StoreError> {
        self.forget(session);
        let (path, id) = (self.ingest_path(&session.id), session.id.clone());
        self.db()
            .write(false, move |txn| {
                txn.delete(Cf::Upload, key(&[&id]));
                Ok::<_, StoreError>(())
            })
            .await?;
        // An upload without bytes has no file.
        let _ = tokio::fs::remove_file(path).await;
        Ok(())
    }

    fn forget(&self, session: &Session) {
        self.uploads().sessions.lock().remove(&session.id);
    }

    /// Cancels uploads that began before `before` (seconds since 1970) and returns how many.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub async fn purge_uploads(&self, before: i64) -> Result<usize, StoreError> {
        let old: Vec<Arc<Session>> = self
            .uploads()
            .sessions
            .lock()
            .values()
            .filter(|s| s.started < before)
            .cloned()
            .collect();
        let mut purged = 0;
        for session in old {
            if let Some(_claim) = session.try_claim() {
                self.cancel_upload(&session).await?;
                purged += 1;
            }
        }
        Ok(purged)
    }

    /// Loads sessions of the earlier process and removes files nobody knows.
    pub(super) fn recover_ingest(&self) -> Result<(), StoreError> {
        let mut known = std::collections::HashSet::new();
        let mut rows = Vec::new();
        self.db().scan(Cf::Upload, b"", b"", |id, row| {
            rows.push((id.to_vec(), row.to_vec()));
            true
        })?;
        for (id, row) in rows {
            let row: UploadRow = super::rows::decode(&id, &row)?;
            let id = String::from_utf8_lossy(&id).into_owned();
            self.remember(&id, &row, None);
            known.insert(id);
        }
        self.db().scan(Cf::Ingest, b"", b"", |key, row| {
            if let Ok(row) = super::rows::decode::<super::IngestRow>(key, row) {
                known.insert(row.file);
            }
            true
        })?;
        let dir = self.root().join("ingest");
        let entries = std::fs::read_dir(&dir).map_err(|error| StoreError::io(&dir, error))?;
        for entry in entries.flatten() {
            if !known.contains(entry.file_name().to_string_lossy().as_ref()) {
                // Removed at the next start if not now. Folders are build contexts.
                let path = entry.path();
                let _ = if path.is_dir() {
                    std::fs::remove_dir_all(path)
                } else {
                    std::fs::remove_file(path)
                };
            }
        }
        Ok(())
    }
}

/// Bytes gathered before they are written in one go.
const GATHER: usize = 512 << 10;

async fn fill(
    mut file: IngestFile,
    expected: Option<u64>,
    limit: u64,
    mut body: axum::body::Body,
) -> Result<IngestFile, AppendError> {
    use http_body_util::BodyExt;
    let start = file.offset();
    let (mut pending, mut gathered, mut total) = (Vec::new(), 0, 0u64);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| AppendError::Body)?.into_data() else { continue };
        total += data.len() as u64;
        if expected.is_some_and(|expected| total > expected) {
            return Err(AppendError::Body);
        }
        if start + total > limit {
            return Err(AppendError::TooLarge(limit));
        }
        gathered += data.len();
        pending.push(data);
        if gathered >= GATHER {
            file = append(file, std::mem::take(&mut pending)).await?;
            gathered = 0;
        }
    }
    if expected.is_some_and(|expected| total != expected) {
        return Err(AppendError::Body);
    }
    Ok(append(file, pending).await?)
}

async fn append(mut file: IngestFile, chunks: Vec<Bytes>) -> Result<IngestFile, StoreError> {
    if chunks.is_empty() {
        return Ok(file);
    }
    blocking(move || file.append(&chunks).map(|()| file)).await
}
