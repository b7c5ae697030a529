//! Repositories: which blobs and manifests they hold, and what tags name.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::blobs::NewContent;
use super::rows::{key, prefix, split_key};
use super::{Cf, INLINE_LIMIT, IngestFile, ManifestRow, Store, StoreError, Txn, now};
use crate::engine::{Descriptor, Digest, Manifest};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct TagRow {
    digest: Digest,
    at: i64,
}

/// A manifest to store.
#[derive(Debug)]
pub struct ManifestPut {
    /// Repository.
    pub repo: String,
    /// Digest of `bytes`.
    pub digest: Digest,
    /// The document as it came.
    pub bytes: Bytes,
    /// What it says.
    pub manifest: Manifest,
    /// Tags to set.
    pub tags: Vec<String>,
    /// Whether blobs and manifests it names may be missing.
    pub sparse: bool,
}

/// Why a manifest was not stored.
#[derive(Debug, Error)]
pub enum PutError {
    /// Blobs or manifests it names are not in the repository.
    #[error("the manifest names content that is not in the repository")]
    Missing(Vec<Digest>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A manifest as it is handed out.
#[derive(Debug, Clone)]
pub struct StoredManifest {
    /// Digest.
    pub digest: Digest,
    /// Media type.
    pub media_type: String,
    /// The document as it came.
    pub bytes: Bytes,
}

/// Names, and whether more follow.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TagPage {
    /// In lexical order.
    pub names: Vec<String>,
    /// Whether there are more after the last.
    pub more: bool,
}

/// Puts a blob into a repository.
pub(super) fn link_blob(txn: &mut Txn<'_>, repo: &str, digest: &Digest) -> Result<(), StoreError> {
    make_repo(txn, repo)?;
    txn.put(Cf::Link, key(&[repo, digest.as_str()]), "");
    txn.put(Cf::LinkRev, key(&[digest.as_str(), repo]), "");
    Ok(())
}

fn make_repo(txn: &mut Txn<'_>, repo: &str) -> Result<(), StoreError> {
    if !txn.has(Cf::Repo, repo.as_bytes())? {
        txn.put_row(Cf::Repo, key(&[repo]), &BTreeMap::from([("created", now())]));
    }
    Ok(())
}

fn set_tag(txn: &mut Txn<'_>, repo: &str, tag: &str, digest: &Digest) -> Result<(), StoreError> {
    let name = key(&[repo, tag]);
    if let Some(old) = txn.row::<TagRow>(Cf::Tag, &name)? {
        txn.delete(Cf::TagRev, key(&[repo, old.digest.as_str(), tag]));
    }
    txn.put_row(Cf::Tag, name, &TagRow { digest: digest.clone(), at: now() });
    txn.put(Cf::TagRev, key(&[repo, digest.as_str(), tag]), "");
    Ok(())
}

impl Store {
    /// Whether the repository exists.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub fn has_repo(&self, repo: &str) -> Result<bool, StoreError> {
        self.db().has(Cf::Repo, repo.as_bytes())
    }

    /// Whether `repo` holds blob `digest`.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub fn is_linked(&self, repo: &str, digest: &Digest) -> Result<bool, StoreError> {
        self.db().has(Cf::Link, &key(&[repo, digest.as_str()]))
    }

    /// Puts blob `digest` of `from` (of any repository when `None`) into `repo`, unless it is not there.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub async fn mount_blob(
        &self,
        repo: &str,
        digest: &Digest,
        from: Option<&str>,
    ) -> Result<bool, StoreError> {
        let _guard = self.locks().lock(digest.as_str()).await;
        let (repo, digest, from) = (repo.to_owned(), digest.clone(), from.map(str::to_owned));
        self.db()
            .write(true, move |txn| {
                let there = match from {
                    Some(from) => txn.has(Cf::Link, &key(&[&from, digest.as_str()]))?,
                    None => txn.any(Cf::LinkRev, &prefix(&[digest.as_str()]))?,
                };
                if !there || !txn.has(Cf::Blob, digest.as_str().as_bytes())? {
                    return Ok(false);
                }
                link_blob(txn, &repo, &digest)?;
                Ok(true)
            })
            .await
    }

    /// Puts a blob of the store into `repo`, whoever brought it.
    ///
    /// # Errors
    /// When the blob is gone or the metadata store fails.
    pub async fn adopt_blob(&self, repo: &str, digest: &Digest) -> Result<(), StoreError> {
        let _guard = self.locks().lock(digest.as_str()).await;
        let (repo, digest) = (repo.to_owned(), digest.clone());
        self.db()
            .write(true, move |txn| {
                if !txn.has(Cf::Blob, digest.as_str().as_bytes())? {
                    return Err(StoreError::Damaged(format!("{digest} is gone")));
                }
                link_blob(txn, &repo, &digest)
            })
            .await
    }

    /// Takes a blob out of a repository; `false` when it was not there.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub async fn unlink_blob(&self, repo: &str, digest: &Digest) -> Result<bool, StoreError> {
        let (repo, digest, due) = (repo.to_owned(), digest.clone(), self.gc_due());
        self.db()
            .write(true, move |txn| {
                let link = key(&[&repo, digest.as_str()]);
                if !txn.has(Cf::Link, &link)? {
                    return Ok(false);
                }
                txn.delete(Cf::Link, link);
                txn.delete(Cf::LinkRev, key(&[digest.as_str(), &repo]));
                super::gc::enqueue(txn, &digest, due);
                Ok(true)
            })
            .await
    }

    /// Stores a manifest, its tags and what they imply in one step.
    ///
    /// # Errors
    /// Names missing content, or says that the store failed.
    pub async fn put_manifest(&self, put: ManifestPut) -> Result<(), PutError> {
        let digest = put.digest.clone();
        let content = self.manifest_content(&digest, put.bytes.clone()).await?;
        for child in put.manifest.blobs().chain(&put.manifest.manifests) {
            self.gc_touch(&child.digest).await;
        }
        self.commit_blob(&digest, content, move |txn| apply_put(txn, &put)).await
    }

    async fn manifest_content(
        &self,
        digest: &Digest,
        bytes: Bytes,
    ) -> Result<NewContent, StoreError> {
        if bytes.len() as u64 <= INLINE_LIMIT {
            return Ok(NewContent::Bytes(bytes));
        }
        let path = self.ingest_path(&uuid::Uuid::new_v4().to_string());
        let mark = super::ingest::Mark::start(digest.algorithm());
        super::blobs::blocking(move || {
            let mut file = IngestFile::open(&path, mark)?;
            file.append(&[bytes])?;
            Ok(NewContent::File(file))
        })
        .await
    }

    /// The digest a tag names.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub fn tag(&self, repo: &str, tag: &str) -> Result<Option<Digest>, StoreError> {
        Ok(self.db().row::<TagRow>(Cf::Tag, &key(&[repo, tag]))?.map(|row| row.digest))
    }

    /// The row of a manifest of a repository.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub fn manifest_row(
        &self,
        repo: &str,
        digest: &Digest,
    ) -> Result<Option<ManifestRow>, StoreError> {
        self.db().row(Cf::Manifest, &key(&[repo, digest.as_str()]))
    }

    /// A manifest of a repository with its bytes.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn manifest(
        &self,
        repo: &str,
        digest: &Digest,
    ) -> Result<Option<StoredManifest>, StoreError> {
        let Some(row) = self.manifest_row(repo, digest)? else { return Ok(None) };
        let Some(bytes) = self.read_blob(digest, row.size).await? else { return Ok(None) };
        Ok(Some(StoredManifest { digest: digest.clone(), media_type: row.media_type, bytes }))
    }

    /// Removes a manifest with all its tags; `false` when it was not there.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub async fn delete_manifest(&self, repo: &str, digest: &Digest) -> Result<bool, StoreError> {
        let (repo, digest, due) = (repo.to_owned(), digest.clone(), self.gc_due());
        self.db().write(true, move |txn| apply_delete(txn, &repo, &digest, due)).await
    }

    /// Removes a tag; `false` when it was not there.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub async fn delete_tag(&self, repo: &str, tag: &str) -> Result<bool, StoreError> {
        let (repo, tag) = (repo.to_owned(), tag.to_owned());
        self.db()
            .write(true, move |txn| {
                let name = key(&[&repo, &tag]);
                let Some(row) = txn.row::<TagRow>(Cf::Tag, &name)? else { return Ok(false) };
                txn.delete(Cf::Tag, name);
                txn.delete(Cf::TagRev, key(&[&repo, row.digest.as_str(), &tag]));
                Ok(true)
            })
            .await
    }

    /// Tags of a repository after `last`, at most `limit`.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub fn tags(&self, repo: &str, last: &str, limit: usize) -> Result<TagPage, StoreError> {
        self.page(Cf::Tag, &prefix(&[repo]), last, limit)
    }

    /// Repositories after `last`, at most `limit`.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub fn repos(&self, last: &str, limit: usize) -> Result<TagPage, StoreError> {
        self.page(Cf::Repo, b"", last, limit)
    }

    fn page(&self, cf: Cf, prefix: &[u8], last: &str, limit: usize) -> Result<TagPage, StoreError> {
        let mut page = TagPage::default();
        let start = [prefix, last.as_bytes()].concat();
        self.db().scan(cf, prefix, &start, |key, _| {
            if !last.is_empty() && key == start {
                return true;
            }
            if page.names.len() >= limit {
                page.more = true;
                return false;
            }
            page.names.push(String::from_utf8_lossy(&key[prefix.len()..]).into_owned());
            true
        })?;
        Ok(page)
    }

    /// Descriptors of the manifests that refer to `subject`, those after digest `last`, at most `limit`.
    ///
    /// # Errors
    /// When the metadata store fails or a row is damaged.
    pub fn referrers(
        &self,
        repo: &str,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, StoreError> {
        let mut found = Vec::new();
        let mut damaged = None;
        let prefix = prefix(&[repo, subject.as_str()]);
        self.db().scan(Cf::Referrer, &prefix, b"", |key, row| {
            match super::rows::decode::<Descriptor>(key, row) {
                Ok(descriptor) => {
                    if artifact_type.is_none_or(|t| descriptor.artifact_type.as_deref() == Some(t))
                    {
                        found.push(descriptor);
                    }
                }
                Err(error) => damaged = Some(error),
            }
            damaged.is_none()
        })?;
        damaged.map_or(Ok(found), Err)
    }
}

fn apply_put(txn: &mut Txn<'_>, put: &ManifestPut) -> Result<(), PutError> {
    let (repo, manifest) = (put.repo.as_str(), &put.manifest);
    if !put.sparse {
        let mut missing = Vec::new();
        for blob in manifest.blobs().filter(|blob| blob.is_distributable()) {
            if !txn.has(Cf::Link, &key(&[repo, blob.digest.as_str()]))? {
                missing.push(blob.digest.clone());
            }
        }
        for child in &manifest.manifests {
            if !txn.has(Cf::Manifest, &key(&[repo, child.digest.as_str()]))? {
                missing.push(child.digest.clone());
            }
        }
        if !missing.is_empty() {
            return Err(PutError::Missing(missing));
        }
    }
    make_repo(txn, repo)?;
    let digest = put.digest.as_str();
    let children: Vec<Digest> =
        manifest.blobs().chain(&manifest.manifests).map(|child| child.digest.clone()).collect();
    for child in &children {
        txn.put(Cf::EdgeRev, key(&[child.as_str(), repo, digest]), "");
    }
    let subject = manifest.subject.as_ref().map(|subject| subject.digest.clone());
    if let Some(subject) = &subject {
        let mut descriptor =
            Descriptor::new(&manifest.media_type, put.digest.clone(), put.bytes.len() as u64);
        descriptor.artifact_type.clone_from(&manifest.artifact_type);
        descriptor.annotations.clone_from(&manifest.annotations);
        txn.put_row(Cf::Referrer, key(&[repo, subject.as_str(), digest]), &descriptor);
    }
    let row = ManifestRow {
        media_type: manifest.media_type.clone(),
        size: put.bytes.len() as u64,
        subject,
        children,
        pushed: now(),
    };
    txn.put_row(Cf::Manifest, key(&[repo, digest]), &row);
    txn.put(Cf::LinkRev, key(&[digest, repo]), "");
    for tag in &put.tags {
        set_tag(txn, repo, tag, &put.digest)?;
    }
    Ok(())
}

fn apply_delete(
    txn: &mut Txn<'_>,
    repo: &str,
    digest: &Digest,
    due: i64,
) -> Result<bool, StoreError> {
    let name = key(&[repo, digest.as_str()]);
    let Some(row) = txn.row::<ManifestRow>(Cf::Manifest, &name)? else { return Ok(false) };
    txn.delete(Cf::Manifest, name);
    // A manifest may also have been pushed as a blob; then the blob stays.
    if !txn.has(Cf::Link, &key(&[repo, digest.as_str()]))? {
        txn.delete(Cf::LinkRev, key(&[digest.as_str(), repo]));
    }
    for (tag_rev, _) in txn.scan(Cf::TagRev, &prefix(&[repo, digest.as_str()]))? {
        let tag = split_key(&tag_rev).get(2).map(|tag| (*tag).to_owned()).unwrap_or_default();
        txn.delete(Cf::Tag, key(&[repo, &tag]));
        txn.delete(Cf::TagRev, tag_rev);
    }
    if let Some(subject) = &row.subject {
        txn.delete(Cf::Referrer, key(&[repo, subject.as_str(), digest.as_str()]));
    }
    for child in &row.children {
        txn.delete(Cf::EdgeRev, key(&[child.as_str(), repo, digest.as_str()]));
        super::gc::enqueue(txn, child, due);
    }
    super::gc::enqueue(txn, digest, due);
    Ok(true)
}
