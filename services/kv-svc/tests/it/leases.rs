//! Leases end, are kept alive, and take their keys with them.

use flotilla_proto::etcd::etcdserverpb as pb;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::harness::{Member, SOON};

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_lease_deletes_its_keys_and_a_kept_one_does_not() {
    let member = Member::start(&[]);
    let mut clients = member.clients().await;
    for id in [1, 2] {
        let granted =
            clients.lease.lease_grant(pb::LeaseGrantRequest { ttl: 1, id }).await.expect("grant");
        assert_eq!(granted.into_inner().ttl, 2, "short times grow to what an election may take");
        for key in ["a", "b"] {
            let put = pb::PutRequest {
                key: format!("{key}{id}").into(),
                lease: id,
                ..Default::default()
            };
            clients.kv.put(put).await.expect("put");
        }
    }
    let (requests, receiver) = tokio::sync::mpsc::unbounded_channel();
    let kept = clients.lease.lease_keep_alive(UnboundedReceiverStream::new(receiver)).await;
    let mut kept = kept.expect("a stream").into_inner();
    let deadline = std::time::Instant::now() + SOON;
    loop {
        requests.send(pb::LeaseKeepAliveRequest { id: 2 }).expect("an open stream");
        assert_eq!(kept.message().await.expect("no error").expect("an answer").ttl, 2);
        if clients.get("a1").await.is_none() && clients.get("b1").await.is_none() {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "lease 1 did not end");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(clients.get("a2").await.is_some());
    requests.send(pb::LeaseKeepAliveRequest { id: 1 }).expect("an open stream");
    assert_eq!(kept.message().await.expect("no error").expect("an answer").ttl, 0);
    let times = pb::LeaseTimeToLiveRequest { id: 1, keys: true };
    assert_eq!(clients.lease.lease_time_to_live(times).await.expect("times").into_inner().ttl, -1);
    let leases =
        clients.lease.lease_leases(pb::LeaseLeasesRequest {}).await.expect("leases").into_inner();
    assert_eq!(leases.leases.iter().map(|lease| lease.id).collect::<Vec<_>>(), [2]);
}
