//! Requests that are refused, and streamed ranges.

use flotilla_proto::etcd::etcdserverpb as pb;
use tonic::Code;

use crate::harness::Member;

#[tokio::test(flavor = "multi_thread")]
async fn refusals_carry_etcds_codes_and_texts() {
    let member = Member::start(&["--max-request-bytes=10000"]);
    let mut clients = member.clients().await;
    let empty = clients.kv.put(pb::PutRequest::default()).await.expect_err("empty key");
    assert_eq!(
        (empty.code(), empty.message()),
        (Code::InvalidArgument, "etcdserver: key is not provided")
    );
    let large =
        pb::PutRequest { key: "k".into(), value: vec![0; 20_000].into(), ..Default::default() };
    let large = clients.kv.put(large).await.expect_err("large");
    assert_eq!(
        (large.code(), large.message()),
        (Code::InvalidArgument, "etcdserver: request is too large")
    );
    let larger =
        pb::PutRequest { key: "k".into(), value: vec![0; 700_000].into(), ..Default::default() };
    let larger = clients.kv.put(larger).await.expect_err("larger");
    assert_eq!(larger.code(), Code::ResourceExhausted);
    assert!(larger.message().starts_with("grpc: received message larger than max ("), "{larger:?}");
    let unknown = pb::PutRequest { key: "k".into(), lease: 99, ..Default::default() };
    let unknown = clients.kv.put(unknown).await.expect_err("no lease");
    assert_eq!(
        (unknown.code(), unknown.message()),
        (Code::NotFound, "etcdserver: requested lease not found")
    );
    let future = pb::RangeRequest { key: "k".into(), revision: 9, ..Default::default() };
    let future = clients.kv.range(future).await.expect_err("future");
    assert_eq!(future.code(), Code::OutOfRange);
    let ttl = pb::LeaseGrantRequest { ttl: 9_000_000_001, id: 0 };
    let ttl = clients.lease.lease_grant(ttl).await.expect_err("ttl");
    assert_eq!((ttl.code(), ttl.message()), (Code::OutOfRange, "etcdserver: too large lease TTL"));
}

#[tokio::test(flavor = "multi_thread")]
async fn streamed_ranges_hold_the_same_keys() {
    let member = Member::start(&[]);
    let mut clients = member.clients().await;
    for n in 0..237 {
        clients.put(&format!("k{n:03}"), "v").await;
    }
    for (limit, revision) in [(0, 0), (5, 0), (100, 0), (0, 150), (1000, 0)] {
        let range = pb::RangeRequest {
            key: "k".into(),
            range_end: "l".into(),
            limit,
            revision,
            ..Default::default()
        };
        let whole = clients.kv.range(range.clone()).await.expect("range").into_inner();
        let mut parts = clients.kv.range_stream(range).await.expect("a stream").into_inner();
        let (mut kvs, mut last) = (Vec::new(), None);
        while let Some(part) = parts.message().await.expect("a part") {
            assert!(last.is_none(), "a part after the one with the header");
            let part = part.range_response.expect("a response");
            kvs.extend(part.kvs.iter().cloned());
            last = part.header.is_some().then_some(part);
        }
        let last = last.expect("a last part");
        assert_eq!(kvs, whole.kvs, "limit {limit}, revision {revision}");
        assert_eq!(
            (last.count, last.more),
            (whole.count, whole.more),
            "limit {limit}, revision {revision}"
        );
    }
    let sorted = pb::RangeRequest { key: "k".into(), sort_order: 2, ..Default::default() };
    let refused = clients.kv.range_stream(sorted).await.expect_err("no sorting");
    assert_eq!(refused.code(), Code::Unimplemented);
}
