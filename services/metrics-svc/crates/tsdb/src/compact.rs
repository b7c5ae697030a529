//! Merging blocks.

use std::path::Path;
use std::sync::Arc;

use crate::Error;
use crate::block::Block;
use crate::block_writer::BlockWriter;
use crate::meta::{BlockCompaction, BlockMeta, BlockParent};
use crate::select::merge;

/// Writes one block with everything in `blocks` that is not deleted; `None` when nothing is left.
pub(crate) fn merge_blocks(
    dir: &Path,
    blocks: &[Arc<Block>],
    now_millis: u64,
) -> Result<Option<BlockMeta>, Error> {
    let metas: Vec<&BlockMeta> = blocks.iter().map(|b| &b.meta).collect();
    let min = metas.iter().map(|m| m.min_time).min().unwrap_or_default();
    let max = metas.iter().map(|m| m.max_time).max().unwrap_or_default();
    let mut sources: Vec<String> =
        metas.iter().flat_map(|m| m.compaction.sources.iter().cloned()).collect();
    sources.sort();
    sources.dedup();
    let parents = metas
        .iter()
        .map(|m| BlockParent { ulid: m.ulid.clone(), min_time: m.min_time, max_time: m.max_time })
        .collect();
    let level =
        metas.iter().map(|m| m.compaction.level).max().unwrap_or(1) + u32::from(blocks.len() > 1);
    let parts = blocks.iter().map(Block::all).collect::<Result<Vec<_>, _>>()?;
    let mut writer = BlockWriter::create(dir, now_millis)?;
    for series in merge(parts) {
        writer.add(&series, i64::MIN, i64::MAX)?;
    }
    writer.finish(min, max, BlockCompaction { level, sources, parents, deletable: false })
}
