//! Revisions and how they are written as keys: byte for byte as etcd does.

use std::ops::Range;

/// Position of one change: the transaction's number and the change's place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision {
    /// Number of the transaction, counted from 2.
    pub main: i64,
    /// Place in the transaction, counted from 0.
    pub sub: i64,
}

const PLAIN: usize = 17;
const TOMBSTONE: u8 = b't';

impl Revision {
    /// A revision.
    pub fn new(main: i64, sub: i64) -> Self {
        Self { main, sub }
    }

    /// The 17-byte key of a put, or the 18-byte key of a deletion.
    pub fn to_key(self, tombstone: bool) -> Vec<u8> {
        let mut key = Vec::with_capacity(PLAIN + 1);
        key.extend_from_slice(&self.main.to_be_bytes());
        key.push(b'_');
        key.extend_from_slice(&self.sub.to_be_bytes());
        if tombstone {
            key.push(TOMBSTONE);
        }
        key
    }

    /// Reads a key; the flag says whether it marks a deletion. `None` when the bytes are no revision key.
    pub fn from_key(key: &[u8]) -> Option<(Self, bool)> {
        if key.len() < PLAIN || key[8] != b'_' {
            return None;
        }
        let tombstone = match key.len() {
            PLAIN => false,
            18 if key[PLAIN] == TOMBSTONE => true,
            _ => return None,
        };
        let number = |range: Range<usize>| key[range].try_into().map(i64::from_be_bytes).ok();
        Some((Self { main: number(0..8)?, sub: number(9..17)? }, tombstone))
    }

    /// The smallest key of a transaction, as a scan bound.
    pub fn bound(main: i64) -> [u8; 8] {
        main.to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back() {
        for (rev, dead) in [(Revision::new(2, 0), false), (Revision::new(i64::MAX, 7), true)] {
            assert_eq!(Revision::from_key(&rev.to_key(dead)), Some((rev, dead)));
        }
        assert_eq!(Revision::new(1, 2).to_key(true), b"\0\0\0\0\0\0\0\x01_\0\0\0\0\0\0\0\x02t");
        for bad in [&b""[..], b"12345678x12345678", b"12345678_12345678x", b"12345678_1234567"] {
            assert_eq!(Revision::from_key(bad), None);
        }
    }

    #[test]
    fn keys_sort_as_revisions() {
        let mut revs: Vec<_> = (0..100).map(|i| Revision::new(i * 37 % 50, i % 7)).collect();
        let mut keys: Vec<_> = revs.iter().map(|r| r.to_key(false)).collect();
        revs.sort();
        keys.sort();
        assert_eq!(keys, revs.iter().map(|r| r.to_key(false)).collect::<Vec<_>>());
    }
}
