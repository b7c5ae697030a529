//! Removal of content nobody names, while everything else goes on.
//!
//! Whatever takes a name away puts the digest into [`Cf::GcQueue`] with a due time. The collector looks at due
//! digests only: under the digest's lock it checks every kind of name, and whether somebody asked for the digest
//! lately; only then the rows go, and after them the file. A push of the same content waits for the lock and
//! finds no row, so it stores the content anew.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

use super::rows::{BlobRow, key, prefix, split_key};
use super::{Cf, Store, StoreError, Txn, now};
use crate::engine::Digest;

/// Seconds between losing the last name and being looked at, unless configured.
const DEFAULT_DELAY: i64 = 3600;

#[derive(Debug)]
pub(super) struct Clock {
    delay: AtomicI64,
    interest: Arc<Mutex<Interest>>,
}

/// Who wants what, so that the collector keeps off. One mutex orders askers against the collector: whoever asks
/// first is seen by it, whoever asks later sees the digest condemned and waits.
#[derive(Debug, Default)]
struct Interest {
    /// When a digest was last asked for by a client that may be about to name it.
    seen: HashMap<Digest, i64>,
    /// Content that running work needs, with how many need it.
    pins: HashMap<Digest, usize>,
    /// Content being removed right now.
    condemned: HashSet<Digest>,
}

/// Keeps content from being collected until dropped.
#[derive(Debug)]
pub struct Pin {
    digest: Digest,
    interest: Arc<Mutex<Interest>>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut interest = self.interest.lock();
        if let Some(count) = interest.pins.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                interest.pins.remove(&self.digest);
            }
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self { delay: AtomicI64::new(DEFAULT_DELAY), interest: Arc::default() }
    }
}

/// What one round of collection did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct GcReport {
    /// Digests looked at.
    pub examined: u64,
    /// Blobs removed.
    pub removed: u64,
    /// Bytes freed.
    pub bytes: u64,
}

/// Notes that `digest` may have lost its last name.
pub(super) fn enqueue(txn: &mut Txn<'_>, digest: &Digest, due: i64) {
    txn.put(Cf::GcQueue, key(&[&format!("{due:020}"), digest.as_str()]), "");
}

fn is_named(txn: &Txn<'_>, digest: &Digest) -> Result<bool, StoreError> {
    let prefix = prefix(&[digest.as_str()]);
    Ok(txn.any(Cf::LinkRev, &prefix)? || txn.any(Cf::ImageRev, &prefix)?)
}

impl Store {
    /// Sets how long content without a name is kept.
    pub fn set_gc_delay(&self, delay: std::time::Duration) {
        self.inner.gc.delay.store(delay.as_secs().cast_signed(), Ordering::Relaxed);
    }

    pub(super) fn gc_due(&self) -> i64 {
        now() + self.inner.gc.delay.load(Ordering::Relaxed)
    }

    /// Keeps `digest` for another delay: a client is about to learn that it exists. Call before looking.
    pub async fn gc_touch(&self, digest: &Digest) {
        let condemned = {
            let mut interest = self.inner.gc.interest.lock();
            interest.seen.insert(digest.clone(), now());
            interest.condemned.contains(digest)
        };
        if condemned {
            drop(self.locks().lock(digest.as_str()).await);
        }
    }

    /// Keeps `digest` until the pin is dropped. Pin first, then look whether the content is there.
    pub async fn pin(&self, digest: &Digest) -> Pin {
        let shared = &self.inner.gc.interest;
        let condemned = {
            let mut interest = shared.lock();
            *interest.pins.entry(digest.clone()).or_default() += 1;
            interest.condemned.contains(digest)
        };
        let pin = Pin { digest: digest.clone(), interest: shared.clone() };
        if condemned {
            drop(self.locks().lock(digest.as_str()).await);
        }
        pin
    }

    /// Marks `digest` as being removed, unless somebody wants it.
    fn condemn(&self, digest: &Digest) -> bool {
        let delay = self.inner.gc.delay.load(Ordering::Relaxed);
        let mut interest = self.inner.gc.interest.lock();
        let wanted = interest.pins.contains_key(digest)
            || interest.seen.get(digest).is_some_and(|seen| now() - seen < delay);
        !wanted && interest.condemned.insert(digest.clone())
    }

    /// Looks at everything due and removes what has no name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn collect_garbage(&self) -> Result<GcReport, StoreError> {
        let (mut report, now) = (GcReport::default(), now());
        let delay = self.inner.gc.delay.load(Ordering::Relaxed);
        self.inner.gc.interest.lock().seen.retain(|_, seen| now - *seen < delay.max(60));
        let mut due = Vec::new();
        self.db().scan(Cf::GcQueue, b"", b"", |entry, _| {
            let parts = split_key(entry);
            let at: i64 = parts.first().and_then(|at| at.parse().ok()).unwrap_or_default();
            if at > now {
                return false;
            }
            if let Some(digest) = parts.get(1).and_then(|digest| digest.parse::<Digest>().ok()) {
                due.push((entry.to_vec(), digest));
            }
            true
        })?;
        for (entry, digest) in due {
            report.examined += 1;
            if let Some(bytes) = self.collect_one(entry, &digest).await? {
                report.removed += 1;
                report.bytes += bytes;
            }
        }
        Ok(report)
    }

    async fn collect_one(
        &self,
        entry: Vec<u8>,
        digest: &Digest,
    ) -> Result<Option<u64>, StoreError> {
        let _guard = self.locks().lock(digest.as_str()).await;
        let later = self.gc_due();
        let condemned = self.condemn(digest);
        let removed = self.remove_unnamed(entry, digest, later, condemned).await;
        self.inner.gc.interest.lock().condemned.remove(digest);
        let Some(row) = removed? else { return Ok(None) };
        if !row.inline {
            let path = self.blob_path(digest);
            if let Err(error) = tokio::fs::remove_file(&path).await {
                tracing::warn!(%digest, %error, "the file of a removed blob stays behind");
            }
        }
        Ok(Some(row.size))
    }

    async fn remove_unnamed(
        &self,
        entry: Vec<u8>,
        digest: &Digest,
        later: i64,
        condemned: bool,
    ) -> Result<Option<BlobRow>, StoreError> {
        let subject = digest.clone();
        self.db()
            .write(true, move |txn| {
                txn.delete(Cf::GcQueue, entry);
                let name = subject.as_str().as_bytes().to_vec();
                let Some(row) = txn.row::<BlobRow>(Cf::Blob, &name)? else { return Ok(None) };
                if is_named(txn, &subject)? {
                    return Ok(None);
                }
                if !condemned {
                    enqueue(txn, &subject, later);
                    return Ok(None);
                }
                txn.delete(Cf::Blob, name.clone());
                txn.delete(Cf::Inline, name);
                Ok(Some(row))
            })
            .await
    }
}
