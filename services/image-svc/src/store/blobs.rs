//! Blobs: content by digest.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::rows::BlobRow;
use super::{Cf, INLINE_LIMIT, IngestFile, Store, StoreError, Txn, now};
use crate::engine::Digest;

/// What is known of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobInfo {
    /// Bytes.
    pub size: u64,
    /// When it was stored, seconds since 1970.
    pub created: i64,
}

/// Content of a blob, ready to be read.
#[derive(Debug, Clone)]
pub enum BlobBody {
    /// Small content.
    Bytes(Bytes),
    /// An open file and its length. The content stays readable even when the blob is removed meanwhile.
    File(Arc<File>, u64),
}

impl BlobBody {
    /// Bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, size) => *size,
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads up to `length` bytes from `offset`; blocks on the disk for file content.
    ///
    /// # Errors
    /// When reading fails or the file is shorter than recorded.
    pub fn read_at(&self, offset: u64, length: usize) -> std::io::Result<Bytes> {
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.slice(start..start.saturating_add(length).min(bytes.len())))
            }
            Self::File(file, size) => {
                let left = size.saturating_sub(offset);
                let mut buffer = vec![0; length.min(usize::try_from(left).unwrap_or(usize::MAX))];
                std::os::unix::fs::FileExt::read_exact_at(file.as_ref(), &mut buffer, offset)?;
                Ok(buffer.into())
            }
        }
    }

    /// A blocking reader over all of it.
    pub fn reader(&self) -> BlobReader {
        BlobReader { body: self.clone(), offset: 0 }
    }
}

/// Reads a blob from start to end.
#[derive(Debug)]
pub struct BlobReader {
    body: BlobBody,
    offset: u64,
}

impl std::io::Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let got = match &self.body {
            BlobBody::Bytes(_) => {
                let chunk = self.body.read_at(self.offset, buffer.len())?;
                buffer[..chunk.len()].copy_from_slice(&chunk);
                chunk.len()
            }
            BlobBody::File(file, _) => {
                std::os::unix::fs::FileExt::read_at(file.as_ref(), buffer, self.offset)?
            }
        };
        self.offset += got as u64;
        Ok(got)
    }
}

/// Where new content lies before it becomes a blob.
#[derive(Debug)]
pub enum NewContent {
    /// In memory.
    Bytes(Bytes),
    /// In a file below `ingest/`.
    File(IngestFile),
}

impl Store {
    /// Size and age of a blob, or `None`.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub fn blob(&self, digest: &Digest) -> Result<Option<BlobInfo>, StoreError> {
        let row: Option<BlobRow> = self.db().row(Cf::Blob, digest.as_str().as_bytes())?;
        Ok(row.map(|row| BlobInfo { size: row.size, created: row.created }))
    }

    /// Opens a blob, or `None`. A file that is missing or of another size counts as no blob.
    ///
    /// # Errors
    /// When the metadata store or the disk fails.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<BlobBody>, StoreError> {
        let Some(row) = self.db().row::<BlobRow>(Cf::Blob, digest.as_str().as_bytes())? else {
            return Ok(None);
        };
        if row.inline {
            let bytes = self.db().get(Cf::Inline, digest.as_str().as_bytes())?;
            return Ok(bytes.map(|bytes| BlobBody::Bytes(bytes.into())));
        }
        let path = self.blob_path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                tracing::error!(%digest, "the file of a blob is gone");
                return Ok(None);
            }
            Err(error) => return Err(StoreError::io(&path, error)),
        };
        let length = file.metadata().map_err(|error| StoreError::io(&path, error))?.len();
        if length != row.size {
            tracing::error!(%digest, length, expected = row.size, "a blob has the wrong size");
            return Ok(None);
        }
        Ok(Some(BlobBody::File(Arc::new(file), length)))
    }

    /// All bytes of a blob of at most `limit` bytes.
    ///
    /// # Errors
    /// When reading fails, or the blob is larger.
    pub async fn read_blob(
        &self,
        digest: &Digest,
        limit: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        let Some(body) = self.open_blob(digest)? else { return Ok(None) };
        if body.len() > limit {
            return Err(StoreError::Damaged(format!(
                "{digest}: {} bytes, at most {limit} expected",
                body.len()
            )));
        }
        let path = self.blob_path(digest);
        let length = usize::try_from(body.len()).unwrap_or(usize::MAX);
        let read = tokio::task::spawn_blocking(move || body.read_at(0, length)).await;
        match read {
            Ok(Ok(bytes)) => Ok(Some(bytes)),
            Ok(Err(error)) => Err(StoreError::io(&path, error)),
            Err(error) => Err(StoreError::io(&path, error)),
        }
    }

    /// Makes verified content a blob, together with what `also` changes in the same transaction.
    ///
    /// The caller has checked that `content` has `digest`. Content that exists already is dropped.
    ///
    /// # Errors
    /// When the disk or the metadata store fails, or `also` does.
    pub async fn commit_blob<T, E>(
        &self,
        digest: &Digest,
        content: NewContent,
        also: impl FnOnce(&mut Txn<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let _guard = self.locks().lock(digest.as_str()).await;
        let name = digest.as_str().as_bytes().to_vec();
        let known = self.blob(digest).map_err(E::from)?.is_some();
        let mut row = BlobRow { size: 0, inline: false, created: now() };
        let mut inline = None;
        match content {
            NewContent::File(file) if known => file.discard(),
            NewContent::Bytes(_) if known => {}
            NewContent::Bytes(bytes) => {
                (row.size, row.inline) = (bytes.len() as u64, true);
                inline = Some(bytes.to_vec());
            }
            NewContent::File(file) if file.offset() <= INLINE_LIMIT => {
                row.size = file.offset();
                row.inline = true;
                inline = Some(
                    blocking(move || {
                        let mut file = file;
                        let bytes = file.read_all();
                        file.discard();
                        bytes
                    })
                    .await
                    .map_err(E::from)?,
                );
            }
            NewContent::File(file) => {
                row.size = file.offset();
                let target = self.blob_path(digest);
                blocking(move || file.publish(&target)).await.map_err(E::from)?;
            }
        }
        let (unnamed, due) = (digest.clone(), self.gc_due());
        self.db()
            .write(true, move |txn| {
                if !known {
                    // Looked at later, in case what was to name it never comes.
                    super::gc::enqueue(txn, &unnamed, due);
                    txn.put_row(Cf::Blob, name.clone(), &row);
                    if let Some(bytes) = inline {
                        txn.put(Cf::Inline, name, bytes);
                    }
                }
                also(txn)
            })
            .await
    }

    /// A fresh path for unfinished content.
    pub fn ingest_path(&self, name: &str) -> PathBuf {
        self.root().join("ingest").join(name)
    }

    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root().join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(StoreError::Closed(error.to_string())))
}
