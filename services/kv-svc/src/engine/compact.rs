//! Removing what a compaction made superfluous, a little at a time.

use std::sync::Arc;

use bytes::Bytes;

use crate::engine::keyspace::Keyspace;
use crate::engine::store::{Space, StoreError, Write};

/// Revisions removed per batch, so that writes in between wait for little.
const BATCH: usize = 1_000;

/// Removes revision keys from the store.
///
/// # Errors
/// When the store cannot be written.
pub fn sweep(keyspace: &Arc<Keyspace>, garbage: Vec<Bytes>) -> Result<usize, StoreError> {
    let removed = garbage.len();
    let mut garbage = garbage.into_iter().peekable();
    while garbage.peek().is_some() {
        let batch = garbage.by_ref().take(BATCH).map(|key| Write::Delete(Space::Revisions, key));
        keyspace.store().write(batch.collect())?;
    }
    Ok(removed)
}
