//! Hashes of the key space, equal to etcd's for the same history.

use flotilla_proto::etcd::etcdserverpb::HashKvResponse;

use crate::engine::keyspace::Keyspace;
use crate::engine::range::ReadError;
use crate::engine::revision::Revision;
use crate::engine::store::{Scan, Space};
use crate::error::KvError;

/// Name of etcd's bucket of revisions; the hash starts with it.
const BUCKET: &[u8] = b"key";

impl Keyspace {
    /// CRC-32C over every revision up to `asked` (0: all) that a compaction there would keep.
    ///
    /// # Errors
    /// When the revision is compacted or in the future, or the store fails.
    pub fn hash_kv(&self, asked: i64) -> Result<HashKvResponse, ReadError> {
        let snapshot = self.snapshot();
        let (current, compacted) = (snapshot.state.revision, snapshot.state.compacted);
        if asked > 0 && asked <= compacted {
            return Err(KvError::Compacted.into());
        }
        if asked > 0 && asked > current {
            return Err(KvError::FutureRevision.into());
        }
        let revision = if asked == 0 { current } else { asked };
        let kept = snapshot.state.index.kept(revision);
        let view = snapshot.view;
        drop(snapshot.state);
        let mut hash = crc32c::crc32c(BUCKET);
        view.scan(Space::Revisions, b"", None, &mut |key, value| {
            let Some((at, tombstone)) = Revision::from_key(key) else { return Scan::More };
            if at.main > revision {
                return Scan::Stop;
            }
            let superseded = at.main <= compacted && !kept.is_empty() && !kept.contains(&at);
            let left_out = superseded || (tombstone && at.main == compacted);
            if !left_out {
                hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, key), value);
            }
            Scan::More
        })?;
        Ok(HashKvResponse {
            hash,
            compact_revision: compacted,
            hash_revision: revision,
            header: None,
        })
    }

    /// CRC-32C over the whole store.
    ///
    /// # Errors
    /// When the store fails.
    pub fn hash_store(&self) -> Result<u32, ReadError> {
        let view = self.store.view();
        let mut hash = 0;
        for space in [Space::Revisions, Space::System] {
            view.scan(space, b"", None, &mut |key, value| {
                hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, key), value);
                Scan::More
            })?;
        }
        Ok(hash)
    }
}
