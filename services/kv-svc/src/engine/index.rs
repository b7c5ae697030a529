//! The in-memory index: every key with its revisions, in key order.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use bytes::Bytes;

use crate::engine::history::{History, Live};
use crate::engine::revision::Revision;

/// Keys a request addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// First key.
    pub from: Bytes,
    /// First key that is not addressed; `None` means no upper end.
    pub to: Option<Bytes>,
}

impl KeyRange {
    /// Reads `key` and `range_end` of a request: empty is the one key, NUL is no upper end.
    pub fn new(key: &Bytes, range_end: &Bytes) -> Self {
        let to = match range_end.as_ref() {
            [] => Some(successor(key)),
            [0] => None,
            _ => Some(range_end.clone()),
        };
        Self { from: key.clone(), to }
    }

    /// One key.
    pub fn single(key: &Bytes) -> Self {
        Self { from: key.clone(), to: Some(successor(key)) }
    }

    /// Whether a key is addressed.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.from.as_ref() && self.to.as_ref().is_none_or(|to| key < to.as_ref())
    }

    /// The key when only one can be addressed.
    pub fn only_key(&self) -> Option<&Bytes> {
        let to = self.to.as_ref()?;
        (to.len() == self.from.len() + 1 && to.starts_with(&self.from) && to.last() == Some(&0))
            .then_some(&self.from)
    }

    /// Whether no key can be addressed.
    pub fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }

    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let to = self.to.as_ref().map_or(Bound::Unbounded, |to| Bound::Excluded(to.as_ref()));
        (Bound::Included(self.from.as_ref()), to)
    }
}

fn successor(key: &Bytes) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// Every key that lives or has revisions left.
#[derive(Debug, Default)]
pub struct Index {
    keys: BTreeMap<Bytes, History>,
    /// Keys with more than their live version.
    with_past: HashSet<Bytes>,
    live: u64,
}

impl Index {
    /// Number of live keys.
    pub fn live_keys(&self) -> u64 {
        self.live
    }

    /// The live version of a key.
    pub fn live(&self, key: &[u8]) -> Option<&Live> {
        self.keys.get(key).and_then(History::live)
    }

    /// Live keys of a range, in order.
    pub fn live_range<'a>(
        &'a self,
        range: &'a KeyRange,
    ) -> impl Iterator<Item = (&'a Bytes, &'a Live)> {
        self.entries(range).filter_map(|(key, history)| Some((key, history.live()?)))
    }

    /// Keys of a range with the revision a reader at transaction `at` sees, in order.
    pub fn range_at<'a>(
        &'a self,
        range: &'a KeyRange,
        at: i64,
    ) -> impl Iterator<Item = (&'a Bytes, Revision)> {
        self.entries(range).filter_map(move |(key, history)| Some((key, history.at(at)?)))
    }

    /// Number of keys of a range a reader at `at` sees; `None` reads the newest state.
    pub fn count(&self, range: &KeyRange, at: Option<i64>) -> u64 {
        let everything =
            range.to.is_none() && (range.from.is_empty() || range.from.as_ref() == [0]);
        let count = match at {
            None if everything && !self.keys.contains_key(&b""[..]) => return self.live,
            None => self.live_range(range).count(),
            Some(at) => self.range_at(range, at).count(),
        };
        count as u64
    }

    fn entries<'a>(
        &'a self,
        range: &'a KeyRange,
    ) -> impl Iterator<Item = (&'a Bytes, &'a History)> {
        let bounds = (!range.is_empty()).then(|| range.bounds());
        bounds.into_iter().flat_map(|bounds| self.keys.range::<[u8], _>(bounds))
    }

    /// Records a put.
    pub fn put(&mut self, key: &Bytes, live: Live) {
        let history = match self.keys.get_mut(key) {
            Some(history) => history,
            None => self.keys.entry(key.clone()).or_default(),
        };
        if history.live().is_none() {
            self.live += 1;
        }
        history.put(live);
        if history.has_past() && !self.with_past.contains(key) {
            // A copy: a slice of a request would keep the request in memory.
            self.with_past.insert(Bytes::copy_from_slice(key));
        }
    }

    /// Records a deletion.
    pub fn delete(&mut self, key: &Bytes, at: Revision) {
        let history = self.keys.entry(key.clone()).or_default();
        if history.live().is_some() {
            self.live -= 1;
        }
        history.delete(at);
        self.with_past.insert(key.clone());
    }

    /// Forgets what a compaction at `at` removes and hands over the removed revision keys.
    pub fn compact(&mut self, at: i64) -> Vec<Bytes> {
        let mut removed = Vec::new();
        let keys = &mut self.keys;
        self.with_past.retain(|key| {
            let Some(history) = keys.get_mut(key) else { return false };
            history.compact(at, |rev, tombstone| removed.push(rev.to_key(tombstone).into()));
            if history.is_empty() {
                keys.remove(key);
                return false;
            }
            history.has_past()
        });
        removed
    }

    /// Revisions at or below `at` that a compaction there would keep.
    pub fn kept(&self, at: i64) -> HashSet<Revision> {
        self.keys.values().filter_map(|history| history.kept(at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn ranges_read_as_etcd_does() {
        let one = KeyRange::new(&bytes("a"), &bytes(""));
        assert!(one.contains(b"a") && !one.contains(b"a\0") && one.only_key().is_some());
        let open = KeyRange::new(&bytes("b"), &bytes("\0"));
        assert!(open.contains(b"b") && open.contains(b"\xff\xff") && !open.contains(b"a"));
        let reversed = KeyRange::new(&bytes("c"), &bytes("b"));
        assert!(reversed.is_empty() && reversed.only_key().is_none());
        assert_eq!(Index::default().count(&reversed, None), 0);
    }

    #[test]
    fn counting_follows_puts_deletions_and_compaction() {
        let mut index = Index::default();
        for (n, key) in ["a", "b", "c"].into_iter().enumerate() {
            let rev = Revision::new(n as i64 + 2, 0);
            index.put(&bytes(key), Live { modified: rev, created: rev.main, version: 1, lease: 0 });
        }
        index.delete(&bytes("b"), Revision::new(5, 0));
        let all = KeyRange::new(&bytes("\0"), &bytes("\0"));
        assert_eq!((index.count(&all, None), index.count(&all, Some(4))), (2, 3));
        assert_eq!(index.compact(6).len(), 2);
        assert_eq!(index.count(&all, Some(6)), 2);
        assert!(index.with_past.is_empty() && index.keys.len() == 2);
    }
}
