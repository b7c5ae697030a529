//! Layers of the store into committed snapshots, one per chain id.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{NAMESPACE, Node, NodeError, Watcher, report};
use crate::engine::{Descriptor, Digest};
use crate::store::{IMAGE_LAYER, SnapshotError, SnapshotKind, StoreError};
use crate::unpack::{Target, UnpackError, chain_ids, unpack};

/// Keys of snapshots being filled begin with this.
pub(super) const EXTRACT: &str = "extract-";

impl Node {
    /// Unpacks layers in order; those unpacked before are left as they are.
    pub(crate) async fn unpack_layers(
        &self,
        layers: &[Descriptor],
        diff_ids: &[Digest],
        watcher: &Watcher,
    ) -> Result<(), NodeError> {
        let mut parent = String::new();
        for ((layer, diff_id), chain_id) in layers.iter().zip(diff_ids).zip(chain_ids(diff_ids)) {
            let chain_id = chain_id.to_string();
            let _one = self.flights.lock(&format!("unpack {chain_id}")).await;
            if self.store.snapshot(NAMESPACE, &chain_id).is_err() {
                report(watcher, &layer.digest, "unpack", 0, layer.size);
                self.unpack_layer(layer, diff_id, &parent, &chain_id).await?;
            }
            report(watcher, &layer.digest, "done", layer.size, layer.size);
            parent = chain_id;
        }
        Ok(())
    }

    /// Folders of unpacked layers, nearest first.
    ///
    /// # Errors
    /// When they are not unpacked.
    pub(crate) fn layer_folders(&self, diff_ids: &[Digest]) -> Result<Vec<PathBuf>, NodeError> {
        let Some(chain_id) = chain_ids(diff_ids).pop() else { return Ok(Vec::new()) };
        let row = self.store.snapshot(NAMESPACE, chain_id.as_str())?;
        let mut folders = vec![self.store.snapshot_fs(row.id)];
        folders.extend(self.store.snapshot_parents(NAMESPACE, &row)?);
        Ok(folders)
    }

    async fn unpack_layer(
        &self,
        layer: &Descriptor,
        diff_id: &Digest,
        parent: &str,
        chain_id: &str,
    ) -> Result<(), NodeError> {
        let key = format!("{EXTRACT}{} {chain_id}", uuid::Uuid::new_v4());
        let active = self
            .store
            .prepare_snapshot(NAMESPACE, &key, parent, SnapshotKind::Active, BTreeMap::new())
            .await?;
        let lowers = self.store.snapshot_parents(NAMESPACE, &active)?;
        let target = Target { upper: self.store.snapshot_fs(active.id), lowers };
        let filled = self.fill(layer, diff_id.clone(), target).await;
        let committed = match filled {
            Ok(()) => {
                let labels = BTreeMap::from([
                    (IMAGE_LAYER.to_owned(), "true".to_owned()),
                    ("containerd.io/snapshot.ref".to_owned(), chain_id.to_owned()),
                ]);
                self.store
                    .commit_snapshot(NAMESPACE, chain_id, &key, labels)
                    .await
                    .map_err(NodeError::from)
            }
            Err(error) => Err(error),
        };
        if committed.is_err()
            && let Err(error) = self.store.remove_snapshot(NAMESPACE, &key).await
        {
            tracing::warn!(key, %error, "a half unpacked layer goes at the next start");
        }
        match committed {
            Err(NodeError::Snapshot(SnapshotError::Exists(_))) => Ok(()),
            other => other,
        }
    }

    async fn fill(
        &self,
        layer: &Descriptor,
        diff_id: Digest,
        target: Target,
    ) -> Result<(), NodeError> {
        let fail = |source: UnpackError| NodeError::Unpack { layer: layer.digest.clone(), source };
        let blob = self.store.open_blob(&layer.digest)?;
        let blob = blob.ok_or_else(|| StoreError::Damaged(format!("{} is gone", layer.digest)))?;
        let unpacking = tokio::task::spawn_blocking(move || {
            unpack(blob.reader(), blob.len(), &target, Some(&diff_id)).map(drop)
        });
        unpacking.await.map_err(|error| StoreError::Closed(error.to_string()))?.map_err(fail)
    }
}
