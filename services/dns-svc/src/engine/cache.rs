//! The `cache` plugin: answers kept until their TTL runs out.
//!
//! Entries are whole messages; a hit copies one and lowers its TTLs by its age. Positive and negative answers
//! have an own capacity and an own longest TTL each, SERVFAIL is kept for a few seconds.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::site::is_negative;
use crate::wire::types::{NOERROR, NXDOMAIN, OPT, SERVFAIL, TC};
use crate::wire::{Name, Query, Scan, Span};

const SHARDS: usize = 64;
/// What a message may have to be kept; larger ones are rare and costly.
const MAX_MESSAGE: usize = 16 << 10;

/// Limits of the cache, with CoreDNS's defaults.
#[derive(Debug, Clone)]
pub struct CacheConfig {
    /// Positive answers kept.
    pub success_capacity: usize,
    /// Longest and shortest time a positive answer is kept, in seconds.
    pub success_ttl: (u32, u32),
    /// Negative answers kept.
    pub denial_capacity: usize,
    /// Longest and shortest time a negative answer is kept, in seconds.
    pub denial_ttl: (u32, u32),
    /// How long SERVFAIL is kept.
    pub servfail: Duration,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            success_capacity: 9984,
            success_ttl: (3600, 5),
            denial_capacity: 9984,
            denial_ttl: (1800, 5),
            servfail: Duration::from_secs(5),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    name: Name,
    qtype: u16,
    class: u16,
    dnssec: bool,
    checking_disabled: bool,
}

#[derive(Debug)]
struct Entry {
    message: Vec<u8>,
    ttls: Vec<usize>,
    stored: Instant,
    keep: Duration,
}

/// Counts for the administrator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Answers kept now.
    pub entries: u64,
    /// Queries answered from the cache.
    pub hits: u64,
    /// Queries that had to be asked on.
    pub misses: u64,
}

/// Answers kept, in shards each under its own lock.
#[derive(Debug)]
pub struct Cache {
    config: CacheConfig,
    hasher: RandomState,
    shards: Vec<Mutex<[HashMap<Key, Entry>; 2]>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Cache {
    /// An empty cache.
    pub fn new(config: CacheConfig) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            config,
            hasher: RandomState::new(),
            shards,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// The kept answer, with TTLs lowered by its age.
    pub fn get(&self, query: &Query) -> Option<Vec<u8>> {
        let key = key(query);
        let shard = self.shard(&key).lock();
        let entry = shard
            .iter()
            .find_map(|map| map.get(&key))
            .filter(|entry| entry.stored.elapsed() < entry.keep);
        let Some(entry) = entry else {
            self.misses.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        self.hits.fetch_add(1, Ordering::Relaxed);
        let left = entry.keep.saturating_sub(entry.stored.elapsed());
        // Rounded up: an answer stored this second still shows its full TTL.
        let left = u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        let mut message = entry.message.clone();
        for at in &entry.ttls {
            message[*at..*at + 4].copy_from_slice(&left.to_be_bytes());
        }
        Some(message)
    }

    /// Keeps an answer if it may be kept. Its TTLs become the time it is kept, for this client as for the next ones.
    pub fn put(&self, query: &Query, message: &mut [u8], walked: &Scan) {
        let Some((class, keep)) = self.keep(message, walked) else { return };
        let capacity = [self.config.success_capacity, self.config.denial_capacity][class] / SHARDS;
        let key = key(query);
        let ttls: Vec<usize> = walked
            .records
            .iter()
            .filter(|record| record.rtype != OPT)
            .map(|record: &Span| record.ttl_at)
            .collect();
        let seconds = u32::try_from(keep.as_secs()).unwrap_or(u32::MAX).to_be_bytes();
        ttls.iter().for_each(|at| message[*at..*at + 4].copy_from_slice(&seconds));
        let entry = Entry { message: message.to_vec(), ttls, stored: Instant::now(), keep };
        let mut shard = self.shard(&key).lock();
        shard[1 - class].remove(&key);
        let map = &mut shard[class];
        if map.len() >= capacity.max(1) && !map.contains_key(&key) {
            let expired = map
                .iter()
                .find(|(_, entry)| entry.stored.elapsed() >= entry.keep)
                .map(|(key, _)| key.clone());
            // Without an expired one any will do: HashMap order is random, like CoreDNS's eviction.
            if let Some(victim) = expired.or_else(|| map.keys().next().cloned()) {
                map.remove(&victim);
            }
        }
        map.insert(key, entry);
    }

    /// Forgets everything, or everything at and below `suffix`; returns how many answers went.
    pub fn flush(&self, suffix: Option<&Name>) -> u64 {
        let mut gone = 0;
        for shard in &self.shards {
            for map in shard.lock().iter_mut() {
                let before = map.len();
                map.retain(|key, _| suffix.is_some_and(|suffix| !key.name.is_within(suffix)));
                gone += (before - map.len()) as u64;
            }
        }
        gone
    }

    /// Counts.
    pub fn stats(&self) -> CacheStats {
        let entries = self
            .shards
            .iter()
            .map(|shard| shard.lock().iter().map(HashMap::len).sum::<usize>())
            .sum::<usize>();
        CacheStats {
            entries: entries as u64,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }

    /// 0 for a positive and 1 for a negative answer, and how long it is kept; `None` when it must not be.
    fn keep(&self, message: &[u8], walked: &Scan) -> Option<(usize, Duration)> {
        if walked.flags & TC != 0 || message.len() > MAX_MESSAGE {
            return None;
        }
        let rcode = walked.rcode();
        let seconds = |ttl: u32, (longest, shortest): (u32, u32)| {
            Duration::from_secs(ttl.clamp(shortest, longest).into())
        };
        match rcode {
            SERVFAIL => Some((1, self.config.servfail)),
            NOERROR | NXDOMAIN if is_negative(rcode, walked.answers()) => {
                Some((1, seconds(walked.negative_ttl(message)?, self.config.denial_ttl)))
            }
            NOERROR => Some((0, seconds(walked.min_ttl()?, self.config.success_ttl))),
            // An alias that leads to a name that is not there.
            NXDOMAIN => Some((1, seconds(walked.min_ttl()?, self.config.denial_ttl))),
            _ => None,
        }
    }

    fn shard(&self, key: &Key) -> &Mutex<[HashMap<Key, Entry>; 2]> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }
}

fn key(query: &Query) -> Key {
    Key {
        name: query.name.clone(),
        qtype: query.qtype,
        class: query.class,
        dnssec: query.wants_dnssec(),
        checking_disabled: query.flags & crate::wire::types::CD != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{MessageBuilder, Rdata, Record, scan};

    fn query(name: &str) -> Query {
        let name = Name::parse(name).unwrap();
        Query {
            id: 1,
            flags: 0,
            original: name.clone(),
            name,
            qtype: 1,
            class: 1,
            edns: None,
            size: 0,
        }
    }

    fn answer(query: &Query, ttl: u32) -> Vec<u8> {
        let mut builder = MessageBuilder::answer(query, 0, NOERROR);
        builder.push_answer(&Record {
            name: query.name.clone(),
            ttl,
            data: Rdata::A([1, 2, 3, 4].into()),
        });
        builder.build()
    }

    #[tokio::test(start_paused = true)]
    async fn ttl_counts_down_and_entry_expires() {
        let cache = Cache::new(CacheConfig::default());
        let query = query("a.example.");
        let mut message = answer(&query, 30);
        let walked = scan(&message).unwrap();
        cache.put(&query, &mut message, &walked);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(scan(&cache.get(&query).unwrap()).unwrap().min_ttl(), Some(20));
        tokio::time::advance(Duration::from_secs(20)).await;
        assert!(cache.get(&query).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn capacity_holds_under_a_flood_of_names() {
        let cache = Cache::new(CacheConfig { success_capacity: 128, ..CacheConfig::default() });
        for index in 0..5000 {
            let query = query(&format!("n{index}.example."));
            let mut message = answer(&query, 30);
            let walked = scan(&message).unwrap();
            cache.put(&query, &mut message, &walked);
        }
        let entries = cache.stats().entries;
        assert!((1..=128).contains(&entries), "{entries}");
        assert_eq!(cache.flush(None), entries);
        assert_eq!(cache.stats().entries, 0);
    }

    #[tokio::test]
    async fn refused_and_soaless_denial_are_not_kept() {
        let cache = Cache::new(CacheConfig::default());
        let query = query("a.example.");
        for rcode in [crate::wire::types::REFUSED, NXDOMAIN] {
            let mut message = MessageBuilder::answer(&query, 0, rcode).build();
            let walked = scan(&message).unwrap();
            cache.put(&query, &mut message, &walked);
            assert!(cache.get(&query).is_none());
        }
    }
}
