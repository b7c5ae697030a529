//! Content of containerd namespaces: rows beside the blobs.

use super::blobs::NewContent;
use super::rows::{ContentRow, IngestRow, decode, key, prefix, split_key};
use super::{Cf, Store, StoreError};
use crate::engine::Digest;

/// Stands for an image name in [`Cf::ImageRev`]: the namespace itself wants the blob.
const HOLDER: &str = "content";

impl Store {
    /// Labels of `digest` in a namespace; blobs of images have none of their own.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub fn content_row(&self, ns: &str, digest: &Digest) -> Result<Option<ContentRow>, StoreError> {
        if let Some(row) = self.db().row(Cf::Content, &key(&[ns, digest.as_str()]))? {
            return Ok(Some(row));
        }
        let mut held = false;
        self.db().scan(Cf::ImageRev, &prefix(&[digest.as_str(), ns]), b"", |_, _| {
            held = true;
            false
        })?;
        let Some(blob) = self.blob(digest)?.filter(|_| held) else { return Ok(None) };
        let at = blob.created.saturating_mul(1_000_000_000);
        Ok(Some(ContentRow { created: at, updated: at, ..ContentRow::default() }))
    }

    /// Digests a namespace holds, in order.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub fn content_digests(&self, ns: &str) -> Result<Vec<Digest>, StoreError> {
        let mut found = std::collections::BTreeSet::new();
        let own = prefix(&[ns]);
        self.db().scan(Cf::Content, &own, b"", |name, _| {
            found.extend(
                std::str::from_utf8(&name[own.len()..]).ok().and_then(|text| text.parse().ok()),
            );
            true
        })?;
        for image in self.images(ns)? {
            found.extend(image.blobs().cloned());
        }
        Ok(found.into_iter().collect())
    }

    /// Sets labels of content.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub async fn put_content(
        &self,
        ns: &str,
        digest: &Digest,
        row: ContentRow,
    ) -> Result<(), StoreError> {
        let (ns, digest) = (ns.to_owned(), digest.clone());
        self.db()
            .write(true, move |txn| {
                txn.put_row(Cf::Content, key(&[&ns, digest.as_str()]), &row);
                txn.put(Cf::ImageRev, key(&[digest.as_str(), &ns, HOLDER]), "");
                Ok(())
            })
            .await
    }

    /// Ends a content write: blob, labels (unless the namespace has the content), no unfinished write.
    ///
    /// # Errors
    /// When the disk or the metadata store fails.
    pub async fn commit_content(
        &self,
        ns: &str,
        reference: &str,
        digest: &Digest,
        content: NewContent,
        row: Option<ContentRow>,
    ) -> Result<(), StoreError> {
        let (ns, reference, name) = (ns.to_owned(), reference.to_owned(), digest.clone());
        self.commit_blob(digest, content, move |txn| {
            txn.delete(Cf::Ingest, key(&[&ns, &reference]));
            if let Some(row) = row {
                txn.put_row(Cf::Content, key(&[&ns, name.as_str()]), &row);
                txn.put(Cf::ImageRev, key(&[name.as_str(), &ns, HOLDER]), "");
            }
            Ok(())
        })
        .await
    }

    /// Takes content out of a namespace; `false` when it had no row there.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub async fn delete_content(&self, ns: &str, digest: &Digest) -> Result<bool, StoreError> {
        let (ns, digest, due) = (ns.to_owned(), digest.clone(), self.gc_due());
        self.db()
            .write(true, move |txn| {
                let row = key(&[&ns, digest.as_str()]);
                if !txn.has(Cf::Content, &row)? {
                    return Ok(false);
                }
                txn.delete(Cf::Content, row);
                txn.delete(Cf::ImageRev, key(&[digest.as_str(), &ns, HOLDER]));
                super::gc::enqueue(txn, &digest, due);
                Ok(true)
            })
            .await
    }

    /// An unfinished content write.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub fn ingest(&self, ns: &str, reference: &str) -> Result<Option<IngestRow>, StoreError> {
        self.db().row(Cf::Ingest, &key(&[ns, reference]))
    }

    /// Unfinished content writes of a namespace, by ref.
    ///
    /// # Errors
    /// When the metadata store fails or a row is damaged.
    pub fn ingests(&self, ns: &str) -> Result<Vec<(String, IngestRow)>, StoreError> {
        let (mut found, mut damaged) = (Vec::new(), None);
        self.db().scan(Cf::Ingest, &prefix(&[ns]), b"", |name, row| {
            let reference =
                split_key(name).get(1).map(|text| (*text).to_owned()).unwrap_or_default();
            match decode(name, row) {
                Ok(row) => found.push((reference, row)),
                Err(error) => damaged = Some(error),
            }
            damaged.is_none()
        })?;
        damaged.map_or(Ok(found), Err)
    }

    /// Records an unfinished content write.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub async fn put_ingest(
        &self,
        ns: &str,
        reference: &str,
        row: IngestRow,
    ) -> Result<(), StoreError> {
        let name = key(&[ns, reference]);
        self.db()
            .write(false, move |txn| {
                txn.put_row(Cf::Ingest, name, &row);
                Ok(())
            })
            .await
    }

    /// Forgets an unfinished content write.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub async fn delete_ingest(&self, ns: &str, reference: &str) -> Result<(), StoreError> {
        let name = key(&[ns, reference]);
        self.db()
            .write(false, move |txn| {
                txn.delete(Cf::Ingest, name);
                Ok(())
            })
            .await
    }
}
