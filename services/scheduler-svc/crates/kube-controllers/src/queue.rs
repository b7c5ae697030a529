//! Keys that wait to be worked on.
//!
//! A key is worked on by one worker at a time; keys added meanwhile are worked on once more afterwards.
//! Failures put a key back after a pause that doubles from 5 ms to 1000 s.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1000);

/// A queue of keys.
#[derive(Debug)]
pub struct Queue<K> {
    inner: Mutex<Inner<K>>,
    wake: Notify,
}

#[derive(Debug)]
struct Inner<K> {
    ready: VecDeque<K>,
    /// Waiting in `ready`, or to be put there when its worker is done.
    dirty: HashSet<K>,
    working: HashSet<K>,
    later: BTreeMap<(Instant, u64), K>,
    due: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    sequence: u64,
    added: u64,
    retried: u64,
}

/// How full a queue is.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// Keys waiting.
    pub waiting: usize,
    /// Keys added so far.
    pub added: u64,
    /// Keys put back after a failure so far.
    pub retried: u64,
}

impl<K: Clone + Eq + Hash> Default for Queue<K> {
    fn default() -> Self {
        let inner = Inner {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            later: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
            added: 0,
            retried: 0,
        };
        Self { inner: Mutex::new(inner), wake: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// Adds a key to be worked on now.
    pub fn add(&self, key: K) {
        self.inner.lock().add(key);
        self.wake.notify_one();
    }

    /// Adds a key to be worked on after a while; an earlier time that is set already stands.
    pub fn add_after(&self, key: K, pause: Duration) {
        if pause.is_zero() {
            return self.add(key);
        }
        self.inner.lock().add_at(key, Instant::now() + pause);
        self.wake.notify_one();
    }

    /// Puts a key back after a failure.
    pub fn retry(&self, key: K) {
        let mut inner = self.inner.lock();
        inner.retried += 1;
        let failures = inner.failures.entry(key.clone()).or_default();
        let pause = FIRST_PAUSE.saturating_mul(1 << (*failures).min(20)).min(LONGEST_PAUSE);
        *failures += 1;
        inner.add_at(key, Instant::now() + pause);
        drop(inner);
        self.wake.notify_one();
    }

    /// Forgets the failures of a key.
    pub fn forget(&self, key: &K) {
        self.inner.lock().failures.remove(key);
    }

    /// How full the queue is.
    pub fn depth(&self) -> Depth {
        let inner = self.inner.lock();
        Depth { waiting: inner.ready.len(), added: inner.added, retried: inner.retried }
    }

    /// The next key; [`Queue::done`] must be called with it.
    pub async fn next(&self) -> K {
        loop {
            let due = {
                let mut inner = self.inner.lock();
                inner.ripen(Instant::now());
                if let Some(key) = inner.ready.pop_front() {
                    inner.dirty.remove(&key);
                    inner.working.insert(key.clone());
                    // This worker waits for nothing any more; another one must wait for what is due next.
                    if !inner.ready.is_empty() || !inner.later.is_empty() {
                        self.wake.notify_one();
                    }
                    return key;
                }
                inner.later.keys().next().map(|(at, _)| *at)
            };
            match due {
                None => self.wake.notified().await,
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, self.wake.notified()).await;
                }
            }
        }
    }

    /// Ends the work on a key.
    pub fn done(&self, key: &K) {
        let mut inner = self.inner.lock();
        inner.working.remove(key);
        if inner.dirty.contains(key) {
            inner.ready.push_back(key.clone());
            drop(inner);
            self.wake.notify_one();
        }
    }
}

impl<K: Clone + Eq + Hash> Inner<K> {
    fn add(&mut self, key: K) {
        if self.dirty.insert(key.clone()) {
            self.added += 1;
            if !self.working.contains(&key) {
                self.ready.push_back(key);
            }
        }
    }

    fn add_at(&mut self, key: K, at: Instant) {
        if let Some(old) = self.due.get(&key).copied() {
            if old.0 <= at {
                return;
            }
            self.later.remove(&old);
        }
        self.sequence += 1;
        let slot = (at, self.sequence);
        self.later.insert(slot, key.clone());
        self.due.insert(key, slot);
    }

    fn ripen(&mut self, now: Instant) {
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let key = entry.remove();
            self.due.remove(&key);
            self.add(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn key_in_work_is_not_given_twice() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        let key = queue.next().await;
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "b");
        assert!(tokio::time::timeout(Duration::from_millis(30), queue.next()).await.is_err());
        queue.done(&key);
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test]
    async fn failures_pause_longer_each_time() {
        let queue = Queue::default();
        let mut pauses = Vec::new();
        for _ in 0..4 {
            let start = Instant::now();
            queue.retry("a");
            queue.next().await;
            queue.done(&"a");
            pauses.push(start.elapsed().as_millis());
        }
        for (pause, least) in pauses.iter().zip([5, 10, 20, 40]) {
            assert!(*pause >= least, "{pauses:?}");
        }
        queue.forget(&"a");
        assert_eq!(queue.inner.lock().failures.len(), 0);
    }

    #[tokio::test]
    async fn earlier_time_stands() {
        let queue = Queue::default();
        queue.add_after("a", Duration::from_millis(20));
        queue.add_after("a", Duration::from_secs(90));
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        assert!(queue.inner.lock().due.is_empty());
    }
}
