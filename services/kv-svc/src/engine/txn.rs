//! Transactions: compares choose a branch, checks refuse it whole, then its operations run in order.

use std::cmp::Ordering;

use bytes::Bytes;
use flotilla_proto::etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use flotilla_proto::etcd::etcdserverpb::request_op::Request;
use flotilla_proto::etcd::etcdserverpb::response_op::Response;
use flotilla_proto::etcd::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RequestOp,
    ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use flotilla_proto::etcd::mvccpb::KeyValue;

use crate::engine::index::KeyRange;
use crate::engine::range::{ReadError, Source, range, read_revision};
use crate::engine::store::{Scan, StoreError};
use crate::engine::write::Writer;
use crate::error::KvError;

/// The branches a transaction takes, itself first, then the nested ones in order.
type Path = Vec<bool>;

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

/// Whether a transaction changes nothing whichever branch it takes.
pub fn is_read_only(request: &TxnRequest) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.all(|op| matches!(op.request, Some(Request::RequestRange(_))))
}

/// Whether every read of a transaction may be answered without asking the others.
pub fn is_serializable(request: &TxnRequest) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.all(|op| matches!(&op.request, Some(Request::RequestRange(range)) if range.serializable))
}

/// Runs a transaction that only reads.
///
/// # Errors
/// When a revision cannot be read, or the store fails.
pub fn read_only(source: &impl Source, request: &TxnRequest) -> Result<TxnResponse, ReadError> {
    let path = choose(source, request)?;
    check(source, request, &path)?;
    let mut responses = Vec::new();
    for op in branch(request, path[0]) {
        if let Some(Request::RequestRange(read)) = &op.request {
            responses
                .push(ResponseOp { response: Some(Response::ResponseRange(range(source, read)?)) });
        }
    }
    Ok(TxnResponse { header: header(source.revision()), succeeded: path[0], responses })
}

/// Runs a transaction. Nothing is changed when it fails with a request error.
///
/// # Errors
/// When a check refuses it, or the store fails.
pub fn execute(writer: &mut Writer<'_>, request: &TxnRequest) -> Result<TxnResponse, ReadError> {
    let path = choose(writer, request)?;
    check(writer, request, &path)?;
    let (mut response, _) = run(writer, request, &path)?;
    response.header = header(writer.revision());
    Ok(response)
}

/// Runs a put of its own.
///
/// # Errors
/// When lease or key do not exist, or the store fails.
pub fn put(writer: &mut Writer<'_>, request: &PutRequest) -> Result<PutResponse, ReadError> {
    check_put(writer, request)?;
    run_put(writer, request)
}

/// Runs a deletion.
///
/// # Errors
/// When the store fails.
pub fn delete(
    writer: &mut Writer<'_>,
    request: &DeleteRangeRequest,
) -> Result<DeleteRangeResponse, ReadError> {
    let keys = KeyRange::new(&request.key, &request.range_end);
    let mut prev_kvs = Vec::new();
    if request.prev_kv {
        writer.visit(&keys, None, &mut |kv| {
            prev_kvs.push(kv);
            Scan::More
        })?;
    }
    let deleted = writer.delete(&keys);
    Ok(DeleteRangeResponse { header: header(writer.revision()), deleted, prev_kvs })
}

fn branch(request: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &request.success } else { &request.failure }
}

fn nested(op: &RequestOp) -> Option<&TxnRequest> {
    match &op.request {
        Some(Request::RequestTxn(txn)) => Some(txn),
        _ => None,
    }
}

fn choose(source: &impl Source, request: &TxnRequest) -> Result<Path, StoreError> {
    let mut succeeded = true;
    for compare in &request.compare {
        if !holds(source, compare)? {
            succeeded = false;
            break;
        }
    }
    let mut path = vec![succeeded];
    for txn in branch(request, succeeded).iter().filter_map(nested) {
        path.extend(choose(source, txn)?);
    }
    Ok(path)
}

fn holds(source: &impl Source, compare: &Compare) -> Result<bool, StoreError> {
    let keys = KeyRange::new(&compare.key, &compare.range_end);
    let target = compare.target();
    let (mut any, mut all) = (false, true);
    if target == CompareTarget::Value {
        source.visit(&keys, None, &mut |kv| {
            any = true;
            all = matches(compare, kv.value.as_ref().cmp(wanted_value(compare)));
            if all { Scan::More } else { Scan::Stop }
        })?;
        // An absent value and an empty one look the same on the wire, so absent never compares as true.
        return Ok(any && all);
    }
    for (_, live) in source.state().index.live_range(&keys) {
        any = true;
        let found = match target {
            CompareTarget::Version => live.version,
            CompareTarget::Create => live.created,
            CompareTarget::Mod => live.modified.main,
            CompareTarget::Lease | CompareTarget::Value => live.lease,
        };
        if !matches(compare, found.cmp(&wanted_number(compare))) {
            return Ok(false);
        }
    }
    Ok(any || matches(compare, 0.cmp(&wanted_number(compare))))
}

/// The number to compare with; one given for another target counts as 0, as in etcd.
fn wanted_number(compare: &Compare) -> i64 {
    match (compare.target(), &compare.target_union) {
        (CompareTarget::Version, Some(TargetUnion::Version(n)))
        | (CompareTarget::Create, Some(TargetUnion::CreateRevision(n)))
        | (CompareTarget::Mod, Some(TargetUnion::ModRevision(n)))
        | (CompareTarget::Lease, Some(TargetUnion::Lease(n))) => *n,
        _ => 0,
    }
}

fn wanted_value(compare: &Compare) -> &[u8] {
    match &compare.target_union {
        Some(TargetUnion::Value(value)) => value,
        _ => b"",
    }
}

fn matches(compare: &Compare, order: Ordering) -> bool {
    match compare.result() {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
    }
}

/// Refuses what would fail half-way. Returns how many nested transactions were walked.
fn check(source: &impl Source, request: &TxnRequest, path: &[bool]) -> Result<usize, ReadError> {
    let mut walked = 0;
    for op in branch(request, path[0]) {
        match &op.request {
            Some(Request::RequestRange(read)) => {
                read_revision(source, read.revision)?;
            }
            Some(Request::RequestPut(put)) => check_put(source, put)?,
            Some(Request::RequestTxn(txn)) => {
                walked += 1 + check(source, txn, &path[1 + walked..])?
            }
            Some(Request::RequestDeleteRange(_)) | None => {}
        }
    }
    Ok(walked)
}

fn check_put(source: &impl Source, put: &PutRequest) -> Result<(), KvError> {
    if put.lease != 0 && !source.state().leases.contains(put.lease) {
        return Err(KvError::LeaseNotFound);
    }
    if (put.ignore_value || put.ignore_lease) && source.state().index.live(&put.key).is_none() {
        return Err(KvError::KeyNotFound);
    }
    Ok(())
}

fn run(
    writer: &mut Writer<'_>,
    request: &TxnRequest,
    path: &[bool],
) -> Result<(TxnResponse, usize), ReadError> {
    let mut walked = 0;
    let mut responses = Vec::new();
    for op in branch(request, path[0]) {
        let response = match &op.request {
            Some(Request::RequestRange(read)) => {
                Some(Response::ResponseRange(range(writer, read)?))
            }
            Some(Request::RequestPut(put)) => Some(Response::ResponsePut(run_put(writer, put)?)),
            Some(Request::RequestDeleteRange(keys)) => {
                Some(Response::ResponseDeleteRange(delete(writer, keys)?))
            }
            Some(Request::RequestTxn(txn)) => {
                let (response, deeper) = run(writer, txn, &path[1 + walked..])?;
                walked += 1 + deeper;
                Some(Response::ResponseTxn(response))
            }
            None => None,
        };
        responses.push(ResponseOp { response });
    }
    let response =
        TxnResponse { header: Some(ResponseHeader::default()), succeeded: path[0], responses };
    Ok((response, walked))
}

fn run_put(writer: &mut Writer<'_>, put: &PutRequest) -> Result<PutResponse, ReadError> {
    let mut previous = None;
    if put.prev_kv || put.ignore_value {
        previous = newest(writer, &put.key)?;
    }
    let value = match &previous {
        Some(kv) if put.ignore_value => kv.value.clone(),
        _ => put.value.clone(),
    };
    let lease = match writer.state.index.live(&put.key) {
        Some(live) if put.ignore_lease => live.lease,
        _ => put.lease,
    };
    writer.put(&put.key, value, lease);
    Ok(PutResponse { header: header(writer.revision()), prev_kv: previous.filter(|_| put.prev_kv) })
}

fn newest(source: &impl Source, key: &Bytes) -> Result<Option<KeyValue>, StoreError> {
    let mut found = None;
    source.visit(&KeyRange::single(key), None, &mut |kv| {
        found = Some(kv);
        Scan::Stop
    })?;
    Ok(found)
}
