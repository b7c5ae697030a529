//! The same random history on etcd 3.5.1 and on kv-svc: every answer and every hash must be equal.

use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::etcd::etcdserverpb as pb;
use flotilla_proto::etcd::mvccpb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use pb::response_op::Response;
use tonic::Status;

use crate::harness::{Clients, Member, Seeded};

const KEYS: &[&str] = &["a", "a0", "ab", "b", "b/1", "b/2", "b/3", "c", "c\u{1}", "d", "zz"];
const ENDS: &[&str] = &["", "\0", "b", "b0", "c", "d", "zzz"];

/// A request of the history.
#[derive(Debug, Clone)]
enum Step {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    Grant(pb::LeaseGrantRequest),
    Revoke(pb::LeaseRevokeRequest),
    Times(pb::LeaseTimeToLiveRequest),
    Hash(pb::HashKvRequest),
}

struct History {
    seed: Seeded,
    revision: i64,
    compacted: i64,
    tombstones: Vec<i64>,
}

impl History {
    fn key(&mut self) -> Bytes {
        if self.seed.one_in(200) {
            Bytes::new()
        } else {
            Bytes::from_static(self.seed.pick(KEYS).as_bytes())
        }
    }

    fn end(&mut self) -> Bytes {
        if self.seed.one_in(2) {
            Bytes::new()
        } else {
            Bytes::from_static(self.seed.pick(ENDS).as_bytes())
        }
    }

    fn value(&mut self) -> Bytes {
        let length = self.seed.below(40) as usize;
        (0..length).map(|_| self.seed.next() as u8).collect::<Vec<_>>().into()
    }

    fn lease(&mut self) -> i64 {
        if self.seed.one_in(4) { 1 + self.seed.below(6) as i64 } else { 0 }
    }

    fn past(&mut self) -> i64 {
        match self.seed.below(6) {
            0 => 1 + self.seed.below(self.revision as u64 + 2) as i64,
            1 => self.compacted.max(1) + self.seed.below(3) as i64 - 1,
            _ => 0,
        }
    }

    fn range(&mut self) -> pb::RangeRequest {
        let mut range = pb::RangeRequest {
            key: self.key(),
            range_end: self.end(),
            revision: self.past(),
            limit: if self.seed.one_in(3) { self.seed.below(4) as i64 } else { 0 },
            serializable: self.seed.one_in(3),
            keys_only: self.seed.one_in(5),
            count_only: self.seed.one_in(8),
            ..Default::default()
        };
        if self.seed.one_in(3) {
            range.sort_order = self.seed.below(3) as i32;
            // Ties of other targets come in any order.
            range.sort_target = *self.seed.pick(&[0, 0, 3]);
        }
        if self.seed.one_in(6) {
            range.min_mod_revision = self.seed.below(self.revision as u64 + 1) as i64;
        }
        if self.seed.one_in(6) {
            range.max_create_revision = self.seed.below(self.revision as u64 + 1) as i64;
        }
        range
    }

    fn put(&mut self) -> pb::PutRequest {
        let mut put = pb::PutRequest {
            key: self.key(),
            value: self.value(),
            lease: self.lease(),
            prev_kv: self.seed.one_in(3),
            ..Default::default()
        };
        if self.seed.one_in(10) {
            put.ignore_value = true;
            // Which of two faults of one put is named differs between 3.5.1 and later versions.
            put.lease = 0;
            if !self.seed.one_in(4) {
                put.value = Bytes::new();
            }
        }
        if self.seed.one_in(10) {
            put.ignore_lease = true;
            if !self.seed.one_in(4) {
                put.lease = 0;
            }
        }
        put
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        pb::DeleteRangeRequest {
            key: self.key(),
            range_end: self.end(),
            prev_kv: self.seed.one_in(2),
        }
    }

    fn compare(&mut self) -> pb::Compare {
        let number = self.seed.below(self.revision as u64 + 1) as i64;
        let small = self.seed.below(4) as i64;
        let target_union = match self.seed.below(6) {
            0 => TargetUnion::Version(small),
            1 => TargetUnion::CreateRevision(number),
            2 => TargetUnion::ModRevision(number),
            3 => TargetUnion::Value(self.value()),
            4 => TargetUnion::Lease(small),
            _ => TargetUnion::ModRevision(0),
        };
        let target = match &target_union {
            TargetUnion::Version(_) => CompareTarget::Version,
            TargetUnion::CreateRevision(_) => CompareTarget::Create,
            TargetUnion::ModRevision(_) => CompareTarget::Mod,
            TargetUnion::Value(_) => CompareTarget::Value,
            TargetUnion::Lease(_) => CompareTarget::Lease,
        };
        let result = [
            CompareResult::Equal,
            CompareResult::Greater,
            CompareResult::Less,
            CompareResult::NotEqual,
        ];
        pb::Compare {
            result: *self.seed.pick(&result) as i32,
            target: target as i32,
            key: self.key(),
            range_end: if self.seed.one_in(4) { self.end() } else { Bytes::new() },
            target_union: Some(target_union),
        }
    }

    fn ops(&mut self, depth: u32) -> Vec<pb::RequestOp> {
        let count = self.seed.below(4);
        (0..count).map(|_| self.op(depth)).collect()
    }

    fn op(&mut self, depth: u32) -> pb::RequestOp {
        let request = match self.seed.below(8) {
            0 | 1 => Request::RequestRange(self.range()),
            2..=4 => Request::RequestPut(self.put()),
            5 => Request::RequestDeleteRange(self.delete()),
            _ if depth < 3 => Request::RequestTxn(self.txn(depth + 1)),
            _ => Request::RequestPut(self.put()),
        };
        pb::RequestOp { request: Some(request) }
    }

    fn txn(&mut self, depth: u32) -> pb::TxnRequest {
        let compares = self.seed.below(3);
        pb::TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.ops(depth),
            failure: self.ops(depth),
        }
    }

    fn step(&mut self) -> Step {
        match self.seed.below(40) {
            0..=7 => Step::Range(self.range()),
            8..=19 => Step::Put(self.put()),
            20..=23 => Step::Delete(self.delete()),
            24..=32 => Step::Txn(self.txn(0)),
            33 => {
                let mut revision = 1 + self.seed.below(self.revision as u64 + 1) as i64;
                // 3.5.1 removes a deletion exactly at the compaction; later versions keep it.
                while self.tombstones.contains(&revision) {
                    revision += 1;
                }
                Step::Compact(pb::CompactionRequest { revision, physical: true })
            }
            34 => Step::Grant(pb::LeaseGrantRequest {
                ttl: 3000 + self.seed.below(9) as i64,
                id: 1 + self.seed.below(6) as i64,
            }),
            35 => Step::Revoke(pb::LeaseRevokeRequest { id: 1 + self.seed.below(6) as i64 }),
            36 => Step::Times(pb::LeaseTimeToLiveRequest {
                id: 1 + self.seed.below(6) as i64,
                keys: true,
            }),
            _ => Step::Hash(pb::HashKvRequest { revision: self.past() }),
        }
    }
}

/// An answer without what may differ: ids, terms, times.
#[derive(Debug, PartialEq)]
enum Answer {
    Range(pb::RangeResponse),
    Put(pb::PutResponse),
    Delete(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Revision(i64),
    Grant(i64, i64, i64),
    Times(i64, i64, Vec<Bytes>),
    Hash(u32, i64, i64),
    Error(tonic::Code, String),
}

fn plain(header: &mut Option<pb::ResponseHeader>) -> i64 {
    let Some(header) = header else { return 0 };
    (header.cluster_id, header.member_id, header.raft_term) = (0, 0, 0);
    header.revision
}

fn sorted(kvs: &mut [mvccpb::KeyValue]) {
    kvs.sort_by(|a, b| a.key.cmp(&b.key));
}

fn refused(status: &Status) -> Answer {
    Answer::Error(status.code(), status.message().to_owned())
}

async fn run(clients: &mut Clients, step: Step) -> Result<Answer, Status> {
    Ok(match step {
        Step::Range(range) => {
            let by_revision = range.sort_target != 0;
            let mut response = clients.kv.range(range).await?.into_inner();
            plain(&mut response.header);
            if by_revision && response.kvs.len() as i64 == response.count {
                sorted(&mut response.kvs);
            }
            Answer::Range(response)
        }
        Step::Put(put) => {
            let mut response = clients.kv.put(put).await?.into_inner();
            plain(&mut response.header);
            Answer::Put(response)
        }
        Step::Delete(keys) => {
            let mut response = clients.kv.delete_range(keys).await?.into_inner();
            plain(&mut response.header);
            Answer::Delete(response)
        }
        Step::Txn(txn) => {
            let mut response = clients.kv.txn(txn).await?.into_inner();
            plain(&mut response.header);
            Answer::Txn(response)
        }
        Step::Compact(compaction) => {
            Answer::Revision(plain(&mut clients.kv.compact(compaction).await?.into_inner().header))
        }
        Step::Grant(grant) => {
            let mut response = clients.lease.lease_grant(grant).await?.into_inner();
            Answer::Grant(response.id, response.ttl, plain(&mut response.header))
        }
        Step::Revoke(revoke) => Answer::Revision(plain(
            &mut clients.lease.lease_revoke(revoke).await?.into_inner().header,
        )),
        Step::Times(times) => {
            let response = clients.lease.lease_time_to_live(times).await?.into_inner();
            let mut keys = response.keys;
            keys.sort();
            Answer::Times(response.id, response.granted_ttl, keys)
        }
        Step::Hash(hash) => {
            let mut response = clients.maintenance.hash_kv(hash).await?.into_inner();
            Answer::Hash(response.hash, response.compact_revision, plain(&mut response.header))
        }
    })
}

fn deletes(response: &pb::TxnResponse) -> bool {
    response.responses.iter().any(|op| match &op.response {
        Some(Response::ResponseDeleteRange(delete)) => delete.deleted > 0,
        Some(Response::ResponseTxn(txn)) => deletes(txn),
        _ => false,
    })
}

/// Ties between equal mod revisions inside one transaction come in any order when sorted by it.
fn is_ambiguous(step: &Step) -> bool {
    fn ranged(range: &pb::RangeRequest) -> bool {
        range.sort_target != 0
    }
    fn inside(txn: &pb::TxnRequest) -> bool {
        txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
            Some(Request::RequestRange(range)) => ranged(range),
            Some(Request::RequestTxn(txn)) => inside(txn),
            _ => false,
        })
    }
    match step {
        Step::Range(range) => ranged(range) && (range.limit > 0 || range.sort_order == 0),
        Step::Txn(txn) => inside(txn),
        _ => false,
    }
}

async fn compare(seed: u64, steps: usize) {
    let (original, ours) = (Member::original(), Member::start(&[]));
    let (mut original, mut ours) = (original.clients().await, ours.clients().await);
    let mut history =
        History { seed: Seeded(seed), revision: 1, compacted: 0, tombstones: Vec::new() };
    let mut changes = 0;
    for n in 0..steps {
        let step = history.step();
        if is_ambiguous(&step) {
            continue;
        }
        let expected =
            run(&mut original, step.clone()).await.unwrap_or_else(|status| refused(&status));
        let answer = run(&mut ours, step.clone()).await.unwrap_or_else(|status| refused(&status));
        assert_eq!(answer, expected, "seed {seed}, step {n}: {step:?}");
        let (revision, deleted) = match &answer {
            Answer::Put(put) => (put.header.as_ref().map_or(0, |h| h.revision), false),
            Answer::Delete(delete) => {
                (delete.header.as_ref().map_or(0, |h| h.revision), delete.deleted > 0)
            }
            Answer::Txn(txn) => (txn.header.as_ref().map_or(0, |h| h.revision), deletes(txn)),
            Answer::Revision(revision) => (*revision, matches!(step, Step::Revoke(_))),
            _ => (0, false),
        };
        changes += usize::from(revision > history.revision);
        history.revision = history.revision.max(revision);
        if deleted {
            history.tombstones.push(revision);
        }
        if let (Step::Compact(compaction), Answer::Revision(_)) = (&step, &answer) {
            history.compacted = compaction.revision;
        }
    }
    assert!(changes > steps / 8, "the history changed too little to prove anything: {changes}");
    let last = Step::Hash(pb::HashKvRequest { revision: 0 });
    let expected = run(&mut original, last.clone()).await.expect("a hash");
    assert_eq!(run(&mut ours, last).await.expect("a hash"), expected, "seed {seed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn random_histories_are_answered_as_by_etcd() {
    for seed in [1, 2, 3] {
        tokio::time::timeout(Duration::from_secs(300), compare(seed, 1_500))
            .await
            .expect("in time");
    }
}
