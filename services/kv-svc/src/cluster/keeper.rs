//! Keeps the log short: flushes the store from time to time and purges what the store then holds.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;

use crate::cluster::log_store::LogStore;
use crate::cluster::types::Raft;

/// How often the log's length is looked at.
const EVERY: Duration = Duration::from_millis(250);
/// Bytes of log after which the store is flushed even if entries are few.
const FLUSH_BYTES: u64 = 48 << 20;
/// Bytes of log kept for members that lag.
const KEEP_BYTES: usize = 16 << 20;

/// When to flush and what to keep.
#[derive(Debug, Clone, Copy)]
pub struct Keeping {
    /// Entries between two flushes.
    pub flush_entries: u64,
    /// Entries kept for members that lag.
    pub keep_entries: usize,
}

/// Runs until the log closes.
pub async fn keep(raft: Raft, log: LogStore, keeping: Keeping) {
    let mut ticks = tokio::time::interval(EVERY);
    let (mut flushed_at, mut flushed_bytes) = (applied(&raft), 0);
    loop {
        ticks.tick().await;
        let now = applied(&raft);
        let bytes = log.usage().2;
        let due = now.saturating_sub(flushed_at) >= keeping.flush_entries
            || bytes.saturating_sub(flushed_bytes) >= FLUSH_BYTES;
        if due {
            (flushed_at, flushed_bytes) = (now, bytes);
            if raft.trigger().snapshot().await.is_err() {
                return;
            }
        }
        let flushed = raft.metrics().borrow_watched().snapshot.map(|id| id.index());
        let mark = log.purge_mark(keeping.keep_entries, KEEP_BYTES);
        if let (Some(flushed), Some(mark)) = (flushed, mark)
            && raft.trigger().purge_log(flushed.min(mark)).await.is_err()
        {
            return;
        }
    }
}

fn applied(raft: &Raft) -> u64 {
    raft.metrics().borrow_watched().last_applied.map_or(0, |id| id.index())
}
