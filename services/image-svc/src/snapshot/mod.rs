//! The snapshotter: containerd's contract in terms of overlay mounts that others make.

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use crate::store::{SnapshotError, SnapshotKind, SnapshotRow};
use crate::store::{Store, Usage, now};

/// A mount that shows a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSpec {
    /// `overlay` or `bind`.
    pub kind: &'static str,
    /// Source of the mount.
    pub source: String,
    /// Options of the mount.
    pub options: Vec<String>,
}

/// The snapshots of a store.
#[derive(Debug, Clone)]
pub struct Snapshotter {
    store: Store,
}

impl Snapshotter {
    /// A snapshotter over `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Makes an active snapshot or a view and returns its mounts.
    ///
    /// # Errors
    /// When the key is empty or taken, or the parent is missing or not committed.
    pub async fn prepare(
        &self,
        ns: &str,
        name: &str,
        parent: &str,
        kind: SnapshotKind,
        labels: BTreeMap<String, String>,
    ) -> Result<Vec<MountSpec>, SnapshotError> {
        if name.is_empty() || name.contains('\0') || parent.contains('\0') {
            return Err(SnapshotError::NotFound(name.to_owned()));
        }
        let row = self.store.prepare_snapshot(ns, name, parent, kind, labels).await?;
        self.specs(ns, &row)
    }

    /// Mounts of an active snapshot or view.
    ///
    /// # Errors
    /// When it is missing or committed.
    pub fn mounts(&self, ns: &str, name: &str) -> Result<Vec<MountSpec>, SnapshotError> {
        let row = self.store.snapshot(ns, name)?;
        if row.kind == SnapshotKind::Committed {
            return Err(SnapshotError::NotActive(name.to_owned()));
        }
        self.specs(ns, &row)
    }

    /// Turns an active snapshot into a committed one.
    ///
    /// # Errors
    /// When `name` is taken or `from` is not active.
    pub async fn commit(
        &self,
        ns: &str,
        name: &str,
        from: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<(), SnapshotError> {
        self.store.commit_snapshot(ns, name, from, labels).await
    }

    /// Removes a snapshot without children.
    ///
    /// # Errors
    /// When it is missing or has children.
    pub async fn remove(&self, ns: &str, name: &str) -> Result<(), SnapshotError> {
        self.store.remove_snapshot(ns, name).await
    }

    /// A snapshot.
    ///
    /// # Errors
    /// When it is missing.
    pub fn stat(&self, ns: &str, name: &str) -> Result<SnapshotRow, SnapshotError> {
        self.store.snapshot(ns, name)
    }

    /// Replaces labels: all, or those in `fields`.
    ///
    /// # Errors
    /// When it is missing.
    pub async fn update(
        &self,
        ns: &str,
        name: &str,
        labels: BTreeMap<String, String>,
        fields: Option<Vec<String>>,
    ) -> Result<SnapshotRow, SnapshotError> {
        self.store.label_snapshot(ns, name, labels, fields).await
    }

    /// All snapshots of a namespace.
    ///
    /// # Errors
    /// When the store fails.
    pub fn list(&self, ns: &str) -> Result<Vec<(String, SnapshotRow)>, SnapshotError> {
        self.store.snapshots(ns)
    }

    /// What a snapshot occupies.
    ///
    /// # Errors
    /// When it is missing.
    pub async fn usage(&self, ns: &str, name: &str) -> Result<Usage, SnapshotError> {
        self.store.snapshot_usage(ns, name).await
    }

    /// Removes image layers nothing needs.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn cleanup(&self, ns: &str) -> Result<(), SnapshotError> {
        self.store.sweep_image_layers(ns, now() - 60).await.map(drop)
    }

    fn specs(&self, ns: &str, row: &SnapshotRow) -> Result<Vec<MountSpec>, SnapshotError> {
        let parents = self.store.snapshot_parents(ns, row)?;
        let text = |path: PathBuf| path.display().to_string();
        let bind = |source: PathBuf, mode: &str| {
            vec![MountSpec {
                kind: "bind",
                source: text(source),
                options: vec![mode.to_owned(), "rbind".to_owned()],
            }]
        };
        let writable = row.kind == SnapshotKind::Active;
        if parents.is_empty() {
            return Ok(bind(self.store.snapshot_fs(row.id), if writable { "rw" } else { "ro" }));
        }
        if !writable && parents.len() == 1 {
            return Ok(bind(parents.into_iter().next().unwrap_or_default(), "ro"));
        }
        let lower = parents.into_iter().map(text).collect::<Vec<_>>().join(":");
        let mut options = vec!["index=off".to_owned()];
        if writable {
            options.push(format!("workdir={}", text(self.store.snapshot_dir(row.id).join("work"))));
            options.push(format!("upperdir={}", text(self.store.snapshot_fs(row.id))));
        }
        options.push(format!("lowerdir={lower}"));
        Ok(vec![MountSpec { kind: "overlay", source: "overlay".to_owned(), options }])
    }
}
