//! `meta.json` of a block.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;

/// What `meta.json` says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockMeta {
    /// Name of the folder.
    pub ulid: String,
    /// First millisecond.
    pub min_time: i64,
    /// First millisecond after the block.
    pub max_time: i64,
    /// Sizes.
    #[serde(default)]
    pub stats: BlockStats,
    /// How the block came to be.
    pub compaction: BlockCompaction,
    /// Always 1.
    pub version: u32,
}

/// Counts of a block.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockStats {
    /// Samples.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_samples: u64,
    /// Series.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_series: u64,
    /// Chunks.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_chunks: u64,
    /// Deleted ranges.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_tombstones: u64,
}

/// Where a block comes from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockCompaction {
    /// 1 for blocks from the head.
    pub level: u32,
    /// Level-1 blocks it is made of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// Blocks it replaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<BlockParent>,
    /// Whether nothing was left of the sources.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deletable: bool,
}

/// A replaced block.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockParent {
    /// Its name.
    pub ulid: String,
    /// Its first millisecond.
    pub min_time: i64,
    /// First millisecond after it.
    pub max_time: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl BlockMeta {
    /// Reads the file of the block folder `dir`.
    ///
    /// # Errors
    /// When it is missing, no JSON or of another version.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("meta.json");
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let meta: Self = serde_json::from_slice(&bytes)
            .map_err(|e| Error::corrupt(&path, e.column(), e.to_string()))?;
        if meta.version != 1 {
            return Err(Error::corrupt(
                &path,
                0,
                format!("unexpected meta file version {}", meta.version),
            ));
        }
        Ok(meta)
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<(), Error> {
        let (path, partial) = (dir.join("meta.json"), dir.join("meta.json.tmp"));
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::io("encode", &path)(std::io::Error::other(error)))?;
        write_synced(&partial, &text)?;
        std::fs::rename(&partial, &path).map_err(Error::io("rename", &path))
    }
}

/// Writes a file and syncs it.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    use std::io::Write;
    let mut file = std::fs::File::create(path).map_err(Error::io("create", path))?;
    file.write_all(bytes).map_err(Error::io("write", path))?;
    file.sync_all().map_err(Error::io("sync", path))
}

/// Makes renames in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    std::fs::File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io("sync", dir))
}
