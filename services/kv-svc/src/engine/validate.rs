//! Checks of requests before they are proposed.

use std::collections::HashSet;

use bytes::Bytes;
use flotilla_proto::etcd::etcdserverpb::range_request::{SortOrder, SortTarget};
use flotilla_proto::etcd::etcdserverpb::request_op::Request;
use flotilla_proto::etcd::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use crate::engine::index::KeyRange;
use crate::engine::range::{has_revision_filters, is_default_order};
use crate::error::KvError;

/// Checks a range request.
///
/// # Errors
/// When the key is empty or the order unknown.
pub fn range(request: &RangeRequest) -> Result<(), KvError> {
    if request.key.is_empty() {
        return Err(KvError::EmptyKey);
    }
    let known = SortOrder::try_from(request.sort_order).is_ok()
        && SortTarget::try_from(request.sort_target).is_ok();
    if known { Ok(()) } else { Err(KvError::InvalidSortOption) }
}

/// Checks a streamed range request.
///
/// # Errors
/// As [`range`], and when it asks for an order or filters.
pub fn range_stream(request: &RangeRequest) -> Result<(), KvError> {
    range(request)?;
    if !is_default_order(request) {
        return Err(KvError::StreamCustomSort);
    }
    if has_revision_filters(request) { Err(KvError::StreamRevisionFilters) } else { Ok(()) }
}

/// Checks a put.
///
/// # Errors
/// When the key is empty, or value or lease are both given and ignored.
pub fn put(request: &PutRequest) -> Result<(), KvError> {
    if request.key.is_empty() {
        return Err(KvError::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(KvError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(KvError::LeaseProvided);
    }
    Ok(())
}

/// Checks a deletion.
///
/// # Errors
/// When the key is empty.
pub fn delete(request: &DeleteRangeRequest) -> Result<(), KvError> {
    if request.key.is_empty() { Err(KvError::EmptyKey) } else { Ok(()) }
}

/// Checks a transaction, nested ones included.
///
/// # Errors
/// When it has more than `max_ops` operations, an operation is malformed, or operations of one branch overlap.
pub fn txn(request: &TxnRequest, max_ops: usize) -> Result<(), KvError> {
    txn_ops(request, max_ops)?;
    overlaps(&request.success)?;
    overlaps(&request.failure)?;
    Ok(())
}

fn txn_ops(request: &TxnRequest, max_ops: usize) -> Result<(), KvError> {
    let used = request.compare.len().max(request.success.len()).max(request.failure.len());
    // Nesting is bounded too: each level has an operation less to spend.
    let left = max_ops.checked_sub(used).ok_or(KvError::TooManyOps)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(KvError::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(read)) => range(read)?,
            Some(Request::RequestPut(write)) => put(write)?,
            Some(Request::RequestDeleteRange(keys)) => delete(keys)?,
            Some(Request::RequestTxn(nested)) => txn_ops(nested, left)?,
            None => return Err(KvError::KeyNotFound),
        }
    }
    Ok(())
}

#[derive(Default)]
struct Touched<'a> {
    puts: HashSet<&'a Bytes>,
    deletes: Vec<KeyRange>,
}

impl<'a> Touched<'a> {
    fn deletes_key(&self, key: &Bytes) -> bool {
        self.deletes.iter().any(|range| range.contains(key))
    }

    fn put(&mut self, key: &'a Bytes, allowed: Option<&HashSet<&'a Bytes>>) -> Result<(), KvError> {
        let twice =
            self.puts.contains(key) && !allowed.is_some_and(|allowed| allowed.contains(key));
        if twice || self.deletes_key(key) {
            return Err(KvError::DuplicateKey);
        }
        self.puts.insert(key);
        Ok(())
    }
}

/// Keys a deletion counts for here. As in etcd a deletion without an upper end counts for none.
fn deleted(keys: &DeleteRangeRequest) -> KeyRange {
    if keys.range_end.as_ref() == [0] {
        return KeyRange { from: keys.key.clone(), to: Some(keys.range_end.clone()) };
    }
    KeyRange::new(&keys.key, &keys.range_end)
}

/// Refuses two puts of one key, and a put of a key that the same transaction deletes.
fn overlaps(ops: &[RequestOp]) -> Result<Touched<'_>, KvError> {
    let mut touched = Touched::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(keys)) = &op.request {
            touched.deletes.push(deleted(keys));
        }
    }
    for op in ops {
        let Some(Request::RequestTxn(nested)) = &op.request else { continue };
        let then = overlaps(&nested.success)?;
        let otherwise = overlaps(&nested.failure)?;
        for key in &then.puts {
            touched.put(key, None)?;
        }
        // Only one of the branches runs, so both may put the same key.
        for key in &otherwise.puts {
            touched.put(key, Some(&then.puts))?;
        }
        touched.deletes.extend(then.deletes);
        touched.deletes.extend(otherwise.deletes);
    }
    for op in ops {
        if let Some(Request::RequestPut(write)) = &op.request {
            touched.put(&write.key, None)?;
        }
    }
    Ok(touched)
}

/// Whether a transaction may store something; such ones are refused when space is short.
pub fn costs_space(request: &TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).any(|op| match &op.request {
        Some(Request::RequestPut(_)) => true,
        Some(Request::RequestTxn(nested)) => costs_space(nested),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_op(key: &'static str) -> RequestOp {
        let put = PutRequest { key: Bytes::from_static(key.as_bytes()), ..PutRequest::default() };
        RequestOp { request: Some(Request::RequestPut(put)) }
    }

    fn delete_op(from: &'static str, to: &'static str) -> RequestOp {
        let keys = DeleteRangeRequest {
            key: Bytes::from_static(from.as_bytes()),
            range_end: Bytes::from_static(to.as_bytes()),
            prev_kv: false,
        };
        RequestOp { request: Some(Request::RequestDeleteRange(keys)) }
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        let txn = TxnRequest { compare: Vec::new(), success, failure };
        RequestOp { request: Some(Request::RequestTxn(txn)) }
    }

    fn check(success: Vec<RequestOp>) -> Result<(), KvError> {
        txn(&TxnRequest { compare: Vec::new(), success, failure: Vec::new() }, 128)
    }

    #[test]
    fn overlaps_are_refused() {
        assert_eq!(check(vec![put_op("a"), put_op("a")]), Err(KvError::DuplicateKey));
        assert_eq!(check(vec![put_op("b"), delete_op("a", "c")]), Err(KvError::DuplicateKey));
        assert_eq!(check(vec![put_op("c"), delete_op("a", "c")]), Ok(()));
        assert_eq!(check(vec![nested(vec![put_op("a")], vec![put_op("a")])]), Ok(()));
        let twice = vec![nested(vec![put_op("a")], vec![]), nested(vec![put_op("a")], vec![])];
        assert_eq!(check(twice), Err(KvError::DuplicateKey));
        assert_eq!(
            check(vec![put_op("a"), nested(vec![], vec![put_op("a")])]),
            Err(KvError::DuplicateKey)
        );
    }

    #[test]
    fn deep_nesting_runs_out_of_operations() {
        let mut op = put_op("a");
        for _ in 0..200 {
            op = nested(vec![op], vec![]);
        }
        assert_eq!(check(vec![op]), Err(KvError::TooManyOps));
    }

    #[test]
    fn the_budget_is_per_branch() {
        let many = |n: usize| (0..n).map(|_| delete_op("x", "")).collect::<Vec<_>>();
        assert_eq!(check(many(128)), Ok(()));
        assert_eq!(check(many(129)), Err(KvError::TooManyOps));
    }
}
