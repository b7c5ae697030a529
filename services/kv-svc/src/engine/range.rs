//! Range reads: revisions, limits, filters, orders.

use flotilla_proto::etcd::etcdserverpb::range_request::{SortOrder, SortTarget};
use flotilla_proto::etcd::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};
use flotilla_proto::etcd::mvccpb::KeyValue;

use crate::engine::index::KeyRange;
use crate::engine::keyspace::{Keyspace, Snapshot, State, decode_kv};
use crate::engine::store::{Scan, Space, StoreError};
use crate::error::KvError;

/// Something reads can be answered from.
pub trait Source {
    /// The index and the revisions.
    fn state(&self) -> &State;

    /// The revision a reader of the newest state sees.
    fn revision(&self) -> i64;

    /// Visits the key-values of a range in key order, as they are (`None`) or as they were at a revision.
    ///
    /// # Errors
    /// When the store fails.
    fn visit(
        &self,
        range: &KeyRange,
        at: Option<i64>,
        visit: &mut dyn FnMut(KeyValue) -> Scan,
    ) -> Result<(), StoreError>;
}

impl Source for Snapshot<'_> {
    fn state(&self) -> &State {
        &self.state
    }

    fn revision(&self) -> i64 {
        self.state.revision
    }

    fn visit(
        &self,
        range: &KeyRange,
        at: Option<i64>,
        visit: &mut dyn FnMut(KeyValue) -> Scan,
    ) -> Result<(), StoreError> {
        let Some(at) = at else { return visit_heads(self.view.as_ref(), range, visit) };
        for (_, revision) in self.state.index.range_at(range, at) {
            let bytes =
                self.view.get(Space::Revisions, &revision.to_key(false))?.ok_or_else(|| {
                    StoreError {
                        action: "find a revision",
                        reason: format!("{revision:?} is missing"),
                    }
                })?;
            if visit(decode_kv(bytes)?) == Scan::Stop {
                break;
            }
        }
        Ok(())
    }
}

fn visit_heads(
    view: &dyn crate::engine::store::View,
    range: &KeyRange,
    visit: &mut dyn FnMut(KeyValue) -> Scan,
) -> Result<(), StoreError> {
    if let Some(key) = range.only_key() {
        if let Some(value) = view.get(Space::Heads, key)? {
            visit(decode_kv(value)?);
        }
        return Ok(());
    }
    if range.is_empty() {
        return Ok(());
    }
    let mut failed = Ok(());
    view.scan(Space::Heads, &range.from, range.to.as_deref(), &mut |_, value| match decode_kv(
        bytes::Bytes::copy_from_slice(value),
    ) {
        Ok(kv) => visit(kv),
        Err(error) => {
            failed = Err(error);
            Scan::Stop
        }
    })?;
    failed
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The request cannot be answered.
    #[error(transparent)]
    Request(#[from] KvError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ReadError> for KvError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Request(error) => error,
            ReadError::Store(error) => {
                tracing::error!(%error, "a read failed");
                Self::StoreFailed
            }
        }
    }
}

/// Whether the answer comes in key order, as the index has it.
pub fn is_default_order(request: &RangeRequest) -> bool {
    let key = request.sort_target == SortTarget::Key as i32;
    request.sort_order == SortOrder::None as i32
        || (key && request.sort_order == SortOrder::Ascend as i32)
}

/// Whether revisions are filtered.
pub fn has_revision_filters(request: &RangeRequest) -> bool {
    [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ]
    .iter()
    .any(|&bound| bound != 0)
}

/// The revision to read at: `None` for the newest state.
///
/// # Errors
/// When it is compacted or not there yet.
pub fn read_revision(source: &impl Source, asked: i64) -> Result<Option<i64>, KvError> {
    if asked > source.revision() {
        return Err(KvError::FutureRevision);
    }
    if asked <= 0 || asked == source.revision() {
        return if asked > 0 && asked < source.state().compacted {
            Err(KvError::Compacted)
        } else {
            Ok(None)
        };
    }
    if asked < source.state().compacted { Err(KvError::Compacted) } else { Ok(Some(asked)) }
}

/// Answers a range request.
///
/// # Errors
/// When the revision cannot be read, or the store fails.
pub fn range(source: &impl Source, request: &RangeRequest) -> Result<RangeResponse, ReadError> {
    let at = read_revision(source, request.revision)?;
    let keys = KeyRange::new(&request.key, &request.range_end);
    let count = source.state().index.count(&keys, at);
    let mut response = RangeResponse {
        header: Some(ResponseHeader { revision: source.revision(), ..ResponseHeader::default() }),
        count: count as i64,
        ..RangeResponse::default()
    };
    if request.count_only || count == 0 {
        return Ok(response);
    }
    let limit = usize::try_from(request.limit).ok().filter(|&limit| limit > 0);
    // As in etcd, a target without a direction sorts only what the limit lets through, and one more.
    let in_order = is_default_order(request) && !has_revision_filters(request);
    let enough = limit.filter(|_| in_order).map_or(usize::MAX, |limit| limit.saturating_add(1));
    let mut kvs = Vec::with_capacity(enough.min(count as usize));
    let mut seen = 0;
    source.visit(&keys, at, &mut |mut kv| {
        seen += 1;
        if passes(request, &kv) {
            if request.keys_only && request.sort_target != SortTarget::Value as i32 {
                kv.value = bytes::Bytes::new();
            }
            kvs.push(kv);
        }
        if seen >= enough { Scan::Stop } else { Scan::More }
    })?;
    sort(request, &mut kvs);
    if let Some(limit) = limit {
        response.more = kvs.len() > limit;
        kvs.truncate(limit);
    }
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = bytes::Bytes::new());
    }
    response.kvs = kvs;
    Ok(response)
}

fn passes(request: &RangeRequest, kv: &KeyValue) -> bool {
    let within =
        |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
}

/// Target and direction when the answer must be sorted. A target other than the key without a direction ascends.
fn order(request: &RangeRequest) -> Option<(SortTarget, bool)> {
    let target = SortTarget::try_from(request.sort_target).ok()?;
    match SortOrder::try_from(request.sort_order).ok()? {
        SortOrder::Descend => Some((target, true)),
        SortOrder::Ascend | SortOrder::None if target != SortTarget::Key => Some((target, false)),
        _ => None,
    }
}

fn sort(request: &RangeRequest, kvs: &mut [KeyValue]) {
    let Some((target, descending)) = order(request) else { return };
    let compare = |a: &KeyValue, b: &KeyValue| match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    };
    if descending {
        kvs.sort_by(|a, b| compare(b, a));
    } else {
        kvs.sort_by(compare);
    }
}

impl Keyspace {
    /// Answers a range request from the newest state.
    ///
    /// # Errors
    /// When the revision cannot be read, or the store fails.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        Ok(range(&self.snapshot(), request)?)
    }
}
