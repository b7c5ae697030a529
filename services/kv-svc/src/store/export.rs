//! The key space as etcd's database file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use crate::engine::alarm::ALARMS;
use crate::engine::auth::rules::{AUTH, ROLES, USERS};
use crate::engine::keyspace::{FINISHED_COMPACTION, Keyspace, META, SCHEDULED_COMPACTION};
use crate::engine::lease::LEASES;
use crate::engine::revision::Revision;
use crate::engine::store::{Scan, Space, StoreError, View, bucket};
use crate::store::bbolt::BoltWriter;

/// Buckets of the file, in order.
const BUCKETS: [&str; 10] =
    [ALARMS, AUTH, ROLES, USERS, "cluster", "key", LEASES, "members", "members_removed", META];

fn other(error: StoreError) -> io::Error {
    io::Error::other(error)
}

/// Writes everything as it is now. Members and the cluster's version are left out, as restoring sets them anew.
///
/// # Errors
/// When the store cannot be read or the file not written.
pub fn export(keyspace: &Keyspace, file: File) -> io::Result<File> {
    let snapshot = keyspace.snapshot();
    let compacted = snapshot.state.compacted;
    let kept = snapshot.state.index.kept(compacted);
    let applied = snapshot.state.applied.unwrap_or_default();
    let view = snapshot.view;
    drop(snapshot.state);
    let mut out = BoltWriter::new(file)?;
    let mut names = BUCKETS;
    names.sort_unstable();
    for name in names {
        match name {
            "key" => {
                let keeps = |at: Revision, tombstone: bool| {
                    at.main > compacted || kept.contains(&at) || (tombstone && at.main == compacted)
                };
                revisions(view.as_ref(), &mut out, keeps)?;
            }
            META => {
                let mut meta = BTreeMap::from([
                    (b"consistent_index".to_vec(), applied.index.to_be_bytes().to_vec()),
                    (b"term".to_vec(), applied.term.to_be_bytes().to_vec()),
                ]);
                if compacted > 0 {
                    let mark = Revision::new(compacted, 0).to_key(false);
                    meta.insert(SCHEDULED_COMPACTION.to_vec(), mark.clone());
                    meta.insert(FINISHED_COMPACTION.to_vec(), mark);
                }
                meta.iter().try_for_each(|(key, value)| out.put(key, value))?;
            }
            name => {
                for (key, value) in bucket(view.as_ref(), name).map_err(other)? {
                    out.put(&key, &value)?;
                }
            }
        }
        out.end_bucket(name)?;
    }
    out.finish()
}

fn revisions(
    view: &dyn View,
    out: &mut BoltWriter,
    keeps: impl Fn(Revision, bool) -> bool,
) -> io::Result<()> {
    let mut written = Ok(());
    view.scan(Space::Revisions, b"", None, &mut |key, value| {
        let kept = Revision::from_key(key).is_some_and(|(at, tombstone)| keeps(at, tombstone));
        if kept {
            written = out.put(key, value);
        }
        if written.is_ok() { Scan::More } else { Scan::Stop }
    })
    .map_err(other)?;
    written
}
