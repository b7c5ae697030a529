//! Pauses between restarts and between pulls: 10 s, doubled up to 5 min, forgotten after 10 min of peace.

use std::collections::HashMap;

/// Default first pause in nanoseconds.
pub const FIRST: i64 = 10_000_000_000;
/// Default longest pause in nanoseconds.
pub const LONGEST: i64 = 300_000_000_000;

/// Pauses by key.
#[derive(Debug)]
pub struct Backoff {
    first: i64,
    longest: i64,
    entries: HashMap<String, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    pause: i64,
    updated: i64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(FIRST, LONGEST)
    }
}

impl Backoff {
    /// Pauses from `first` to `longest` nanoseconds.
    pub fn new(first: i64, longest: i64) -> Self {
        Self { first, longest, entries: HashMap::new() }
    }

    /// When the pause after a failure at `failed` ends, if it has not ended by `now`.
    pub fn blocked_until(&self, key: &str, failed: i64, now: i64) -> Option<i64> {
        let entry = self.entries.get(key)?;
        if self.is_stale(*entry, failed) {
            return None;
        }
        let end = failed.saturating_add(entry.pause);
        (now < end).then_some(end)
    }

    /// Notes a retry at `now`: the next pause is the first one, or twice the last.
    pub fn next(&mut self, key: &str, now: i64) {
        let pause = match self.entries.get(key) {
            Some(entry) if !self.is_stale(*entry, now) => (entry.pause * 2).min(self.longest),
            _ => self.first,
        };
        self.entries.insert(key.to_owned(), Entry { pause, updated: now });
    }

    /// The pause that follows the next failure, for messages.
    pub fn pause(&self, key: &str) -> i64 {
        self.entries.get(key).map_or(0, |entry| entry.pause)
    }

    /// When the last retry was noted.
    pub fn last(&self, key: &str) -> Option<i64> {
        self.entries.get(key).map(|entry| entry.updated)
    }

    /// Forgets a key, after a success.
    pub fn reset(&mut self, key: &str) {
        self.entries.remove(key);
    }

    fn is_stale(&self, entry: Entry, now: i64) -> bool {
        now.saturating_sub(entry.updated) > self.longest.saturating_mul(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn first_restart_is_immediate_then_pauses_double() {
        let mut backoff = Backoff::default();
        let mut now = 1_000 * SECOND;
        assert_eq!(backoff.blocked_until("a", now, now), None);
        backoff.next("a", now);
        for pause in [10, 20, 40, 80, 160, 300, 300] {
            let failed = now + SECOND;
            assert_eq!(backoff.blocked_until("a", failed, failed), Some(failed + pause * SECOND));
            now = failed + pause * SECOND;
            assert_eq!(backoff.blocked_until("a", failed, now), None);
            backoff.next("a", now);
        }
    }

    #[test]
    fn peace_of_ten_minutes_forgets() {
        let mut backoff = Backoff::default();
        backoff.next("a", SECOND);
        backoff.next("a", 2 * SECOND);
        assert_eq!(backoff.pause("a"), 20 * SECOND);
        let later = 700 * SECOND;
        assert_eq!(backoff.blocked_until("a", later, later), None);
        backoff.next("a", later);
        assert_eq!(backoff.pause("a"), 10 * SECOND);
    }
}
