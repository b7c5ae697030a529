//! Snapshots with containerd's contract: committed ones form a tree, active and view ones hang off it.
//!
//! The folder of a snapshot holds what differs from its parent, in overlayfs form; nothing is mounted here.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::blobs::blocking;
use super::rows::{decode, key, prefix};
use super::{Cf, SnapshotKind, SnapshotRow, Store, StoreError, Txn};

/// Label of snapshots made by unpacking an image; they go when no image needs them.
pub const IMAGE_LAYER: &str = "flotilla.io/image-layer";

/// Why a snapshot call failed; the texts are containerd's.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// No such snapshot.
    #[error("snapshot {0} does not exist: not found")]
    NotFound(String),
    /// The name is taken.
    #[error("snapshot {0}: already exists")]
    Exists(String),
    /// The parent cannot be one.
    #[error("parent {0:?} is not committed snapshot: invalid argument")]
    Parent(String),
    /// The call does not fit the kind of snapshot.
    #[error("snapshot {0} is not active: failed precondition")]
    NotActive(String),
    /// Other snapshots build on it.
    #[error("cannot remove snapshot with child: failed precondition")]
    HasChild,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a snapshot occupies without its parents.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub size: i64,
    /// Files, folders and the rest.
    pub inodes: i64,
}

/// A snapshot with its key.
pub type Named = (String, SnapshotRow);

fn nanos() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

fn load(txn: &Txn<'_>, namespace: &str, name: &str) -> Result<SnapshotRow, SnapshotError> {
    let row = txn.row(Cf::Snapshot, &key(&[namespace, name]))?;
    row.ok_or_else(|| SnapshotError::NotFound(name.to_owned()))
}

fn next_id(txn: &mut Txn<'_>) -> Result<u64, StoreError> {
    let id = txn.row::<u64>(Cf::Meta, b"snapshot_seq")?.unwrap_or_default() + 1;
    txn.put_row(Cf::Meta, b"snapshot_seq".to_vec(), &id);
    Ok(id)
}

impl Store {
    /// Folder of snapshot `id`; `fs` below it holds its content.
    pub fn snapshot_dir(&self, id: u64) -> PathBuf {
        self.root().join("snapshots").join(id.to_string())
    }

    /// The content folder of a snapshot.
    pub fn snapshot_fs(&self, id: u64) -> PathBuf {
        self.snapshot_dir(id).join("fs")
    }

    /// Makes an active or view snapshot on top of `parent` (none when empty).
    ///
    /// # Errors
    /// When the name is taken, the parent is missing or not committed, or the disk fails.
    pub async fn prepare_snapshot(
        &self,
        namespace: &str,
        name: &str,
        parent: &str,
        kind: SnapshotKind,
        labels: BTreeMap<String, String>,
    ) -> Result<SnapshotRow, SnapshotError> {
        let (ns, owned, above) = (namespace.to_owned(), name.to_owned(), parent.to_owned());
        // The folder is made first: a row whose folder is missing must never be seen.
        let id = self.db().write(false, |txn| next_id(txn).map_err(SnapshotError::from)).await?;
        let owner = self.parent_folder(namespace, parent)?;
        let dir = self.snapshot_dir(id);
        let made = dir.clone();
        blocking(move || make_dirs(&made, kind, owner.as_deref())).await?;
        let result = self
            .db()
            .write(true, move |txn| {
                let row = key(&[&ns, &owned]);
                if txn.has(Cf::Snapshot, &row)? {
                    return Err(SnapshotError::Exists(owned));
                }
                if !above.is_empty() {
                    let parent = load(txn, &ns, &above)?;
                    if parent.kind != SnapshotKind::Committed {
                        return Err(SnapshotError::Parent(above));
                    }
                    txn.put(Cf::SnapshotRev, key(&[&ns, &above, &owned]), "");
                }
                let (created, updated) = (nanos(), nanos());
                let snapshot = SnapshotRow {
                    id,
                    kind,
                    parent: above,
                    labels,
                    created,
                    updated,
                    size: 0,
                    inodes: 0,
                };
                txn.put_row(Cf::Snapshot, row, &snapshot);
                Ok(snapshot)
            })
            .await;
        if result.is_err() {
            // Swept at the next start if it cannot go now.
            let _ = tokio::fs::remove_dir_all(dir).await;
        }
        result
    }

    fn parent_folder(
        &self,
        namespace: &str,
        parent: &str,
    ) -> Result<Option<PathBuf>, SnapshotError> {
        if parent.is_empty() {
            return Ok(None);
        }
        let row = self.snapshot(namespace, parent)?;
        if row.kind != SnapshotKind::Committed {
            return Err(SnapshotError::Parent(parent.to_owned()));
        }
        Ok(Some(self.snapshot_fs(row.id)))
    }

    /// Turns active snapshot `from` into committed snapshot `name`.
    ///
    /// # Errors
    /// When `name` is taken, `from` is missing or not active, or the disk fails.
    pub async fn commit_snapshot(
        &self,
        namespace: &str,
        name: &str,
        from: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<(), SnapshotError> {
        let active = self.snapshot(namespace, from)?;
        if active.kind != SnapshotKind::Active {
            return Err(SnapshotError::NotActive(from.to_owned()));
        }
        let fs = self.snapshot_fs(active.id);
        let usage = blocking(move || disk_usage(&fs)).await?;
        let (ns, name, from) = (namespace.to_owned(), name.to_owned(), from.to_owned());
        self.db()
            .write(true, move |txn| {
                let mut row = load(txn, &ns, &from)?;
                if row.kind != SnapshotKind::Active {
                    return Err(SnapshotError::NotActive(from));
                }
                if txn.has(Cf::Snapshot, &key(&[&ns, &name]))? {
                    return Err(SnapshotError::Exists(name));
                }
                row.kind = SnapshotKind::Committed;
                row.labels = labels;
                row.updated = nanos();
                (row.size, row.inodes) = (usage.size, usage.inodes);
                txn.delete(Cf::Snapshot, key(&[&ns, &from]));
                if !row.parent.is_empty() {
                    txn.delete(Cf::SnapshotRev, key(&[&ns, &row.parent, &from]));
                    txn.put(Cf::SnapshotRev, key(&[&ns, &row.parent, &name]), "");
                }
                txn.put_row(Cf::Snapshot, key(&[&ns, &name]), &row);
                Ok(())
            })
            .await
    }

    /// Removes a snapshot without children.
    ///
    /// # Errors
    /// When it is missing or has children, or the metadata store fails.
    pub async fn remove_snapshot(&self, namespace: &str, name: &str) -> Result<(), SnapshotError> {
        let (ns, name) = (namespace.to_owned(), name.to_owned());
        let row = self
            .db()
            .write(true, move |txn| {
                let row = load(txn, &ns, &name)?;
                if txn.any(Cf::SnapshotRev, &prefix(&[&ns, &name]))? {
                    return Err(SnapshotError::HasChild);
                }
                txn.delete(Cf::Snapshot, key(&[&ns, &name]));
                if !row.parent.is_empty() {
                    txn.delete(Cf::SnapshotRev, key(&[&ns, &row.parent, &name]));
                }
                Ok(row)
            })
            .await?;
        let dir = self.snapshot_dir(row.id);
        if let Err(error) = tokio::fs::remove_dir_all(&dir).await {
            tracing::warn!(dir = %dir.display(), %error, "the folder of a removed snapshot goes at the next start");
        }
        Ok(())
    }

    /// A snapshot.
    ///
    /// # Errors
    /// When it is missing.
    pub fn snapshot(&self, namespace: &str, name: &str) -> Result<SnapshotRow, SnapshotError> {
        let row = self.db().row(Cf::Snapshot, &key(&[namespace, name]))?;
        row.ok_or_else(|| SnapshotError::NotFound(name.to_owned()))
    }

    /// Content folders below a snapshot, nearest first, without its own.
    ///
    /// # Errors
    /// When an ancestor is missing.
    pub fn snapshot_parents(
        &self,
        namespace: &str,
        row: &SnapshotRow,
    ) -> Result<Vec<PathBuf>, SnapshotError> {
        let (mut folders, mut parent) = (Vec::new(), row.parent.clone());
        while !parent.is_empty() {
            let row = self.snapshot(namespace, &parent)?;
            folders.push(self.snapshot_fs(row.id));
            parent = row.parent;
        }
        Ok(folders)
    }

    /// All snapshots of a namespace, by key.
    ///
    /// # Errors
    /// When the metadata store fails or a row is damaged.
    pub fn snapshots(&self, namespace: &str) -> Result<Vec<Named>, SnapshotError> {
        let (mut found, mut damaged) = (Vec::new(), None);
        let prefix = prefix(&[namespace]);
        self.db().scan(Cf::Snapshot, &prefix, b"", |name, row| {
            let text = String::from_utf8_lossy(&name[prefix.len()..]).into_owned();
            match decode(name, row) {
                Ok(row) => found.push((text, row)),
                Err(error) => damaged = Some(error),
            }
            damaged.is_none()
        })?;
        damaged.map_or(Ok(found), |error| Err(error.into()))
    }

    /// Replaces labels of a snapshot: all when `fields` is empty, else the named ones.
    ///
    /// # Errors
    /// When it is missing or the metadata store fails.
    pub async fn label_snapshot(
        &self,
        namespace: &str,
        name: &str,
        labels: BTreeMap<String, String>,
        fields: Option<Vec<String>>,
    ) -> Result<SnapshotRow, SnapshotError> {
        let (ns, name) = (namespace.to_owned(), name.to_owned());
        self.db()
            .write(true, move |txn| {
                let mut row = load(txn, &ns, &name)?;
                match fields {
                    None => row.labels = labels,
                    Some(keys) => {
                        for field in keys {
                            match labels.get(&field) {
                                Some(value) => row.labels.insert(field, value.clone()),
                                None => row.labels.remove(&field),
                            };
                        }
                    }
                }
                row.labels.retain(|_, value| !value.is_empty());
                row.updated = nanos();
                txn.put_row(Cf::Snapshot, key(&[&ns, &name]), &row);
                Ok(row)
            })
            .await
    }

    /// What a snapshot occupies: recorded when committed, counted now otherwise.
    ///
    /// # Errors
    /// When it is missing or its folder cannot be read.
    pub async fn snapshot_usage(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Usage, SnapshotError> {
        let row = self.snapshot(namespace, name)?;
        if row.kind == SnapshotKind::Committed {
            return Ok(Usage { size: row.size, inodes: row.inodes });
        }
        let fs = self.snapshot_fs(row.id);
        Ok(blocking(move || disk_usage(&fs)).await?)
    }

    /// Keeps unpacked layers that have no image yet, until the guard is dropped.
    pub async fn hold_layers(&self) -> tokio::sync::OwnedRwLockReadGuard<()> {
        self.inner.layers.clone().read_owned().await
    }

    /// Removes committed image layers of `namespace` that no image and no snapshot needs, leaves first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sweep_image_layers(
        &self,
        namespace: &str,
        older_than: i64,
    ) -> Result<usize, SnapshotError> {
        let Ok(_alone) = self.inner.layers.clone().try_write_owned() else {
            // Somebody unpacks or builds; the next sweep finds what this one leaves.
            return Ok(0);
        };
        let mut needed = std::collections::HashSet::new();
        for image in self.images(namespace)? {
            let mut name = image.chain_id;
            while !name.is_empty() && needed.insert(name.clone()) {
                name = self.snapshot(namespace, &name).map(|row| row.parent).unwrap_or_default();
            }
        }
        let mut removed = 0;
        loop {
            let before = removed;
            for (name, row) in self.snapshots(namespace)? {
                let swept = row.kind == SnapshotKind::Committed
                    && row.labels.contains_key(IMAGE_LAYER)
                    && row.updated / 1_000_000_000 <= older_than
                    && !needed.contains(&name);
                if swept && self.remove_snapshot(namespace, &name).await.is_ok() {
                    removed += 1;
                }
            }
            if removed == before {
                return Ok(removed);
            }
        }
    }

    /// Removes folders without a row, and active unpacks that an earlier process left.
    pub(super) fn recover_snapshots(&self) -> Result<(), StoreError> {
        let mut known = std::collections::HashSet::new();
        self.db().scan(Cf::Snapshot, b"", b"", |name, row| {
            if let Ok(row) = decode::<SnapshotRow>(name, row) {
                known.insert(row.id.to_string());
            }
            true
        })?;
        let dir = self.root().join("snapshots");
        for entry in fs::read_dir(&dir).map_err(|error| StoreError::io(&dir, error))?.flatten() {
            if !known.contains(entry.file_name().to_string_lossy().as_ref()) {
                // Tried again at the next start.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }
}

fn make_dirs(dir: &Path, kind: SnapshotKind, parent: Option<&Path>) -> Result<(), StoreError> {
    let fail = |error: std::io::Error| StoreError::io(dir, error);
    let fs = dir.join("fs");
    fs::create_dir_all(&fs).map_err(fail)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).map_err(fail)?;
    let mut mode = 0o755;
    if let Some(meta) = parent.map(fs::metadata).transpose().map_err(fail)? {
        // The root folder of the merged view is this one: it looks like the parent's until changed.
        mode = meta.permissions().mode() & 0o7777;
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&fs, Some(meta.uid()), Some(meta.gid())).map_err(fail)?;
        }
    }
    fs::set_permissions(&fs, fs::Permissions::from_mode(mode)).map_err(fail)?;
    if kind == SnapshotKind::Active {
        let work = dir.join("work");
        fs::create_dir_all(&work).map_err(fail)?;
        fs::set_permissions(&work, fs::Permissions::from_mode(0o711)).map_err(fail)?;
    }
    Ok(())
}

/// Bytes and inodes below `dir`, hard links counted once.
fn disk_usage(dir: &Path) -> Result<Usage, StoreError> {
    let mut usage = Usage::default();
    let mut seen = std::collections::HashSet::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path).map_err(|error| StoreError::io(&path, error))?;
        if meta.nlink() > 1 && !meta.is_dir() && !seen.insert(meta.ino()) {
            continue;
        }
        usage.inodes += 1;
        usage.size += meta.blocks().cast_signed() * 512;
        if meta.is_dir() {
            for entry in fs::read_dir(&path).map_err(|error| StoreError::io(&path, error))? {
                pending.push(entry.map_err(|error| StoreError::io(&path, error))?.path());
            }
        }
    }
    Ok(usage)
}
