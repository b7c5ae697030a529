//! A store that fails when told to, for tests of what happens then.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;

use crate::engine::store::{Batch, Space, Store, StoreError, Usage, View};

/// Passes everything on until its writes are used up; then every write and flush fails.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    writes_left: AtomicI64,
}

impl std::fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultyStore")
            .field("writes_left", &self.writes_left)
            .finish_non_exhaustive()
    }
}

impl FaultyStore {
    /// A store that takes `writes` more writes.
    pub fn new(inner: Arc<dyn Store>, writes: i64) -> Self {
        Self { inner, writes_left: AtomicI64::new(writes) }
    }

    /// Takes `writes` more writes from now on.
    pub fn allow(&self, writes: i64) {
        self.writes_left.store(writes, Ordering::SeqCst);
    }

    fn spend(&self) -> Result<(), StoreError> {
        if self.writes_left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        Err(StoreError { action: "write", reason: "told to fail".to_owned() })
    }
}

impl Store for FaultyStore {
    fn view(&self) -> Box<dyn View + '_> {
        self.inner.view()
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(space, key)
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.spend()?;
        self.inner.write(batch)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.spend()?;
        self.inner.flush()
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        self.inner.reclaim()
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }
}
