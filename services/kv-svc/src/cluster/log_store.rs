//! openraft's log over our segments: entries since the last purge are kept in memory and written behind it.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flotilla_proto::etcd::etcdserverpb::InternalRaftRequest;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use prost::Message;

use crate::cluster::membership;
use crate::cluster::types::{Entry, LogId, Proposal, TypeConfig, Vote};
use crate::store::wal::{self, LogEntry, LogPlace, Payload, Record, Recovered, Wal};

/// The log of one member. Clones share it.
#[derive(Debug, Clone)]
pub struct LogStore {
    inner: Arc<Mutex<Inner>>,
    wal: Wal,
    logged_bytes: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Inner {
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
    vote: Option<Vote>,
    purged: Option<LogId>,
    committed: Option<LogId>,
}

impl Inner {
    fn first_index(&self) -> u64 {
        self.entries.front().map_or(0, |(entry, _)| entry.index())
    }

    fn truncate(&mut self, from: u64) {
        while let Some((entry, bytes)) = self.entries.pop_back() {
            if entry.index() < from {
                self.entries.push_back((entry, bytes));
                return;
            }
            self.bytes -= bytes;
        }
    }
}

fn place(id: &LogId) -> LogPlace {
    LogPlace { term: **id.committed_leader_id(), index: id.index() }
}

fn to_entry(logged: LogEntry) -> Option<(Entry, usize)> {
    let id = membership::log_id(logged.place.term, logged.place.index);
    let (payload, bytes) = match logged.payload {
        Payload::Blank => (EntryPayload::Blank, 0),
        Payload::Request(data) => {
            let bytes = data.len();
            (
                EntryPayload::Normal(Proposal(Arc::new(InternalRaftRequest::decode(data).ok()?))),
                bytes,
            )
        }
        Payload::Membership(data) => {
            (EntryPayload::Membership(membership::decode(&data)?.membership().clone()), data.len())
        }
    };
    Some((Entry { log_id: id, payload }, bytes))
}

fn to_logged(entry: &Entry) -> (LogEntry, usize) {
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank,
        EntryPayload::Normal(Proposal(request)) => Payload::Request(request.encode_to_vec().into()),
        EntryPayload::Membership(members) => {
            Payload::Membership(membership::encode(members, Some(&entry.log_id)))
        }
    };
    let bytes = match &payload {
        Payload::Blank => 0,
        Payload::Request(data) | Payload::Membership(data) => data.len(),
    };
    (LogEntry { place: place(&entry.log_id), payload }, bytes)
}

impl LogStore {
    /// The log as it was recovered; new records go to `wal`.
    ///
    /// # Errors
    /// When an entry's content does not read, though its checksum was right.
    pub fn new(recovered: Recovered, wal: Wal) -> io::Result<Self> {
        let mut inner = Inner {
            entries: VecDeque::with_capacity(recovered.entries.len()),
            bytes: 0,
            vote: recovered.vote.map(|vote| {
                let new = if vote.committed { Vote::new_committed } else { Vote::new };
                new(vote.term, vote.node)
            }),
            purged: recovered.purged.map(|at| membership::log_id(at.term, at.index)),
            committed: recovered.committed.map(|at| membership::log_id(at.term, at.index)),
        };
        for logged in recovered.entries {
            let (entry, bytes) = to_entry(logged)
                .ok_or_else(|| io::Error::other("an entry of the log does not read"))?;
            inner.bytes += bytes;
            inner.entries.push_back((entry, bytes));
        }
        let last = inner.entries.back().map(|(entry, _)| entry.log_id);
        inner.committed = inner.committed.min(last.max(inner.purged));
        Ok(Self { inner: Arc::new(Mutex::new(inner)), wal, logged_bytes: Arc::default() })
    }

    /// Entries and bytes kept in memory, and bytes appended since the process started.
    pub fn usage(&self) -> (usize, usize, u64) {
        let inner = self.inner.lock();
        (inner.entries.len(), inner.bytes, self.logged_bytes.load(Ordering::Relaxed))
    }

    /// The entry up to which the log may be purged so that `entries` and `bytes` at most remain.
    pub fn purge_mark(&self, entries: usize, bytes: usize) -> Option<u64> {
        let inner = self.inner.lock();
        let (mut kept, mut mark) = (0, None);
        for (n, (entry, size)) in inner.entries.iter().rev().enumerate() {
            kept += size;
            if n >= entries || (n > 0 && kept > bytes) {
                mark = Some(entry.index());
                break;
            }
        }
        mark
    }

    async fn write(&self, records: Vec<Record>) -> io::Result<()> {
        let (done, written) = tokio::sync::oneshot::channel();
        self.wal.append(records, move |result| {
            // The waiter is gone only when its runtime is.
            let _ = done.send(result);
        });
        written.await.map_err(|_| io::Error::other("the log is closed"))?
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let inner = self.inner.lock();
        let first = inner.first_index();
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        let entries = inner.entries.iter().skip(skip).map(|(entry, _)| entry);
        Ok(entries.take_while(|entry| range.contains(&entry.index())).cloned().collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.inner.lock().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let inner = self.inner.lock();
        let last = inner.entries.back().map(|(entry, _)| entry.log_id);
        Ok(LogState { last_purged_log_id: inner.purged, last_log_id: last.or(inner.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.inner.lock().vote = Some(*vote);
        let leader = vote.leader_id();
        let record =
            wal::Vote { term: leader.term, node: leader.voted_for, committed: vote.is_committed() };
        self.write(vec![Record::Vote(record)]).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Written along with the next append; it only saves time at the next start.
        self.inner.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.inner.lock().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        {
            let mut inner = self.inner.lock();
            records.extend(inner.committed.as_ref().map(|id| Record::Committed(place(id))));
            for entry in entries {
                let (logged, bytes) = to_logged(&entry);
                records.push(Record::Entry(logged));
                inner.bytes += bytes;
                inner.entries.push_back((entry, bytes));
                self.logged_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            }
        }
        self.wal.append(records, move |result| callback.io_completed(result));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |id| id.index() + 1);
        self.inner.lock().truncate(from);
        self.write(vec![Record::Truncate(from)]).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        {
            let mut inner = self.inner.lock();
            inner.purged = inner.purged.max(Some(upto));
            while inner.entries.front().is_some_and(|(entry, _)| entry.index() <= upto.index()) {
                if let Some((_, bytes)) = inner.entries.pop_front() {
                    inner.bytes -= bytes;
                }
            }
        }
        self.write(vec![Record::Purge(place(&upto))]).await
    }
}
