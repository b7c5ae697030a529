//! One async lock per key, for as long as somebody holds or wants it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// The locks.
#[derive(Debug, Default, Clone)]
pub struct KeyedLocks {
    map: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

/// Holds the lock of one key.
#[derive(Debug)]
pub struct KeyGuard {
    key: String,
    locks: KeyedLocks,
    guard: Option<OwnedMutexGuard<()>>,
}

impl KeyedLocks {
    /// Waits for the lock of `key`.
    pub async fn lock(&self, key: &str) -> KeyGuard {
        let lock = self.map.lock().entry(key.to_owned()).or_default().clone();
        let guard = lock.lock_owned().await;
        KeyGuard { key: key.to_owned(), locks: self.clone(), guard: Some(guard) }
    }
}

impl Drop for KeyGuard {
    fn drop(&mut self) {
        let mut map = self.locks.map.lock();
        self.guard.take();
        // The map's own reference is the last one when nobody waits.
        if map.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            map.remove(&self.key);
        }
    }
}
