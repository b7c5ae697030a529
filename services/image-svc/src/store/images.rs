//! Names of images on this node, and the blobs each needs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::rows::{decode, key, prefix};
use super::{Cf, Store, StoreError, Txn};
use crate::engine::{Descriptor, Digest};

/// An image under one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Full name, `docker.io/library/busybox:latest` or `docker.io/library/busybox@sha256:...`.
    pub name: String,
    /// What the name stands for: manifest or index.
    pub target: Descriptor,
    /// The manifest for this node's platform.
    pub manifest: Digest,
    /// Digest of the config: the image's id.
    pub config: Digest,
    /// Layer blobs in order.
    pub layers: Vec<Digest>,
    /// Chain id of all layers; empty for an image without layers.
    pub chain_id: String,
    /// Bytes of manifest, config and compressed layers.
    pub size: u64,
    /// When the name was set, nanoseconds since 1970.
    pub updated: i64,
    /// Labels of the record.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl ImageRecord {
    /// Every blob the image needs.
    pub fn blobs(&self) -> impl Iterator<Item = &Digest> {
        [&self.target.digest, &self.manifest, &self.config].into_iter().chain(&self.layers)
    }
}

fn forget(txn: &mut Txn<'_>, namespace: &str, record: &ImageRecord, due: i64) {
    for digest in record.blobs() {
        txn.delete(Cf::ImageRev, key(&[digest.as_str(), namespace, &record.name]));
        super::gc::enqueue(txn, digest, due);
    }
}

impl Store {
    /// Sets names to images; all or none.
    ///
    /// # Errors
    /// When the metadata store fails, or a blob of an image is gone.
    pub async fn put_images(
        &self,
        namespace: &str,
        records: Vec<ImageRecord>,
    ) -> Result<(), StoreError> {
        let (namespace, due) = (namespace.to_owned(), self.gc_due());
        self.db()
            .write(true, move |txn| {
                for record in &records {
                    let name = key(&[&namespace, &record.name]);
                    if let Some(old) = txn.row::<ImageRecord>(Cf::Image, &name)? {
                        forget(txn, &namespace, &old, due);
                    }
                    for digest in record.blobs() {
                        if !txn.has(Cf::Blob, digest.as_str().as_bytes())? {
                            return Err(StoreError::Damaged(format!(
                                "{digest} of image {} is gone",
                                record.name
                            )));
                        }
                        txn.put(
                            Cf::ImageRev,
                            key(&[digest.as_str(), &namespace, &record.name]),
                            "",
                        );
                    }
                    txn.put_row(Cf::Image, name, record);
                }
                Ok(())
            })
            .await
    }

    /// The image of a full name.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub fn image(&self, namespace: &str, name: &str) -> Result<Option<ImageRecord>, StoreError> {
        self.db().row(Cf::Image, &key(&[namespace, name]))
    }

    /// All images of a namespace, by name.
    ///
    /// # Errors
    /// When the metadata store fails or a row is damaged.
    pub fn images(&self, namespace: &str) -> Result<Vec<ImageRecord>, StoreError> {
        let (mut found, mut damaged) = (Vec::new(), None);
        self.db().scan(Cf::Image, &prefix(&[namespace]), b"", |name, row| {
            match decode(name, row) {
                Ok(record) => found.push(record),
                Err(error) => damaged = Some(error),
            }
            damaged.is_none()
        })?;
        damaged.map_or(Ok(found), Err)
    }

    /// Takes names away.
    ///
    /// # Errors
    /// When the metadata store fails.
    pub async fn remove_images(
        &self,
        namespace: &str,
        names: Vec<String>,
    ) -> Result<(), StoreError> {
        let (namespace, due) = (namespace.to_owned(), self.gc_due());
        self.db()
            .write(true, move |txn| {
                for name in &names {
                    let row = key(&[&namespace, name]);
                    if let Some(record) = txn.row::<ImageRecord>(Cf::Image, &row)? {
                        forget(txn, &namespace, &record, due);
                        txn.delete(Cf::Image, row);
                    }
                }
                Ok(())
            })
            .await
    }
}
