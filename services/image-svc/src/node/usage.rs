//! What images and containers occupy.

use std::path::PathBuf;

use super::{Node, NodeError};

/// Space taken below a folder.
#[derive(Debug)]
pub struct DiskUsage {
    /// The folder.
    pub folder: PathBuf,
    /// Bytes.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

impl Node {
    /// Sums the snapshots of all kinds, as containerd's ImageFsInfo does.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn disk_usage(&self) -> Result<DiskUsage, NodeError> {
        let (mut bytes, mut inodes) = (0u64, 0u64);
        for (name, _) in self.store.snapshots(super::NAMESPACE)? {
            // A snapshot removed meanwhile takes no space.
            if let Ok(usage) = self.store.snapshot_usage(super::NAMESPACE, &name).await {
                bytes += usage.size.unsigned_abs();
                inodes += usage.inodes.unsigned_abs();
            }
        }
        Ok(DiskUsage { folder: self.store.root().join("snapshots"), bytes, inodes })
    }
}
