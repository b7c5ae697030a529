//! Leases: which exist, what hangs on them, and - on the leader - when they end.
//!
//! Existence and attachments are replicated. Time is not: only the leader counts it, by a clock that never goes
//! backwards, and an ended lease is revoked through the log.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_proto::etcd::leasepb::Lease as StoredLease;
use prost::Message;

use crate::engine::store::{StoreError, View, bucket};
use crate::error::KvError;

/// Bucket of leases, as etcd names it.
pub const LEASES: &str = "lease";
/// Longest time to live in seconds.
pub const MAX_TTL: i64 = 9_000_000_000;

/// A lease.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Granted time to live in seconds.
    pub ttl: i64,
    /// When it ends, on the leader.
    pub ends: Option<Instant>,
    /// Keys that are deleted with it.
    pub keys: BTreeSet<Bytes>,
}

/// All leases.
#[derive(Debug)]
pub struct Lessor {
    leases: HashMap<i64, Lease>,
    by_end: BTreeMap<(Instant, i64), ()>,
    min_ttl: i64,
    leading: bool,
}

impl Lessor {
    /// Reads the stored leases; attachments come from the keys.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn restore(view: &dyn View, min_ttl: i64) -> Result<Self, StoreError> {
        let mut leases = HashMap::new();
        for (_, value) in bucket(view, LEASES)? {
            let stored = StoredLease::decode(value).map_err(|error| StoreError {
                action: "read a lease",
                reason: error.to_string(),
            })?;
            let ttl = stored.ttl.max(min_ttl);
            leases.insert(stored.id, Lease { ttl, ends: None, keys: BTreeSet::new() });
        }
        Ok(Self { leases, by_end: BTreeMap::new(), min_ttl, leading: false })
    }

    /// Shortest time to live in seconds.
    pub fn min_ttl(&self) -> i64 {
        self.min_ttl
    }

    /// Whether a lease exists.
    pub fn contains(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    /// A lease.
    pub fn get(&self, id: i64) -> Option<&Lease> {
        self.leases.get(&id)
    }

    /// Ids of all leases, those that end first in front.
    pub fn ids(&self) -> Vec<i64> {
        let mut ids: Vec<_> = self.leases.iter().map(|(id, lease)| (lease.ends, *id)).collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// Adds a lease and returns its time to live and the bytes to store.
    ///
    /// # Errors
    /// When the id is taken or the time too long.
    pub fn grant(&mut self, id: i64, ttl: i64, now: Instant) -> Result<(i64, Bytes), KvError> {
        if self.leases.contains_key(&id) {
            return Err(KvError::LeaseExists);
        }
        if ttl > MAX_TTL {
            return Err(KvError::LeaseTtlTooLarge);
        }
        let ttl = ttl.max(self.min_ttl);
        self.leases.insert(id, Lease { ttl, ends: None, keys: BTreeSet::new() });
        if self.leading {
            self.extend(id, now);
        }
        let stored = StoredLease { id, ttl, remaining_ttl: 0 };
        Ok((ttl, stored.encode_to_vec().into()))
    }

    /// Removes a lease and returns the keys to delete, in order.
    ///
    /// # Errors
    /// When there is no such lease.
    pub fn revoke(&mut self, id: i64) -> Result<BTreeSet<Bytes>, KvError> {
        let lease = self.leases.remove(&id).ok_or(KvError::LeaseNotFound)?;
        if let Some(ends) = lease.ends {
            self.by_end.remove(&(ends, id));
        }
        Ok(lease.keys)
    }

    /// Attaches a key; lease 0 means none.
    pub fn attach(&mut self, id: i64, key: &Bytes) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.insert(key.clone());
        }
    }

    /// Detaches a key.
    pub fn detach(&mut self, id: i64, key: &Bytes) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    /// Starts (with full times for everyone) or stops counting time.
    pub fn lead(&mut self, leading: bool, now: Instant) {
        self.leading = leading;
        self.by_end.clear();
        let ids: Vec<i64> = self.leases.keys().copied().collect();
        for id in ids {
            if let Some(lease) = self.leases.get_mut(&id) {
                lease.ends = None;
            }
            if leading {
                self.extend(id, now);
            }
        }
    }

    fn extend(&mut self, id: i64, now: Instant) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        if let Some(old) = lease.ends.take() {
            self.by_end.remove(&(old, id));
        }
        let ttl = Duration::from_secs(u64::try_from(lease.ttl).unwrap_or_default());
        // Beyond what the clock can count a lease does not end.
        if let Some(ends) = now.checked_add(ttl) {
            lease.ends = Some(ends);
            self.by_end.insert((ends, id), ());
        }
    }

    /// Starts the time of a lease anew and returns it in seconds. `None`: no such lease, or it has ended.
    pub fn renew(&mut self, id: i64, now: Instant) -> Option<i64> {
        let lease = self.leases.get(&id)?;
        if lease.ends.is_some_and(|ends| ends <= now) {
            return None;
        }
        let ttl = lease.ttl;
        self.extend(id, now);
        Some(ttl)
    }

    /// Seconds that are left of a lease.
    pub fn remaining(&self, id: i64, now: Instant) -> Option<i64> {
        let lease = self.leases.get(&id)?;
        let Some(ends) = lease.ends else { return Some(lease.ttl) };
        Some(ends.saturating_duration_since(now).as_secs() as i64)
    }

    /// Leases that have ended, the earliest first, `limit` at most.
    pub fn ended(&self, now: Instant, limit: usize) -> Vec<i64> {
        let ended = self.by_end.keys().take_while(|(ends, _)| *ends <= now);
        ended.take(limit).map(|(_, id)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lessor() -> Lessor {
        Lessor { leases: HashMap::new(), by_end: BTreeMap::new(), min_ttl: 2, leading: true }
    }

    #[test]
    fn short_times_grow_and_long_ones_are_refused() {
        let now = Instant::now();
        let mut lessor = lessor();
        assert_eq!(lessor.grant(7, 1, now).unwrap().0, 2);
        assert_eq!(lessor.grant(7, 5, now), Err(KvError::LeaseExists));
        assert_eq!(lessor.grant(8, MAX_TTL + 1, now), Err(KvError::LeaseTtlTooLarge));
        assert!(lessor.grant(9, MAX_TTL, now).is_ok());
    }

    #[test]
    fn renewing_moves_the_end() {
        let start = Instant::now();
        let mut lessor = lessor();
        lessor.grant(1, 10, start).unwrap();
        let later = start + Duration::from_secs(9);
        assert_eq!(lessor.remaining(1, later), Some(1));
        assert_eq!(lessor.renew(1, later), Some(10));
        assert!(lessor.ended(start + Duration::from_secs(18), 10).is_empty());
        assert_eq!(lessor.ended(start + Duration::from_secs(19), 10), [1]);
        assert_eq!(lessor.renew(1, start + Duration::from_secs(19)), None);
    }

    #[test]
    fn a_new_leader_gives_everyone_the_full_time() {
        let start = Instant::now();
        let mut lessor = lessor();
        lessor.grant(1, 10, start).unwrap();
        lessor.lead(false, start);
        assert!(lessor.ended(start + Duration::from_secs(60), 10).is_empty());
        let elected = start + Duration::from_secs(60);
        lessor.lead(true, elected);
        assert_eq!(lessor.remaining(1, elected), Some(10));
    }
}
