//! Locks and elections.

use std::time::Duration;

use flotilla_proto::etcd::etcdserverpb::LeaseRevokeRequest;
use flotilla_proto::etcd::v3electionpb::election_client::ElectionClient;
use flotilla_proto::etcd::v3electionpb::{
    CampaignRequest, LeaderRequest, ProclaimRequest, ResignRequest,
};
use flotilla_proto::etcd::v3lockpb::lock_client::LockClient;
use flotilla_proto::etcd::v3lockpb::{LockRequest, UnlockRequest};

use crate::harness::{Member, SOON};

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_has_one_holder_and_passes_on_in_order() {
    let member = Member::start(&[]);
    let url = format!("http://{}", member.address);
    let mut first = LockClient::connect(url.clone()).await.expect("a connection");
    let held = first
        .lock(LockRequest { name: "l".into(), lease: 0 })
        .await
        .expect("the lock")
        .into_inner();
    assert!(held.key.starts_with(b"l/"));
    let mut second = LockClient::connect(url.clone()).await.expect("a connection");
    let gives_up = second.lock(LockRequest { name: "l".into(), lease: 0 });
    assert!(
        tokio::time::timeout(Duration::from_millis(300), gives_up).await.is_err(),
        "two holders"
    );
    let mut third = LockClient::connect(url).await.expect("a connection");
    let waiting =
        tokio::spawn(async move { third.lock(LockRequest { name: "l".into(), lease: 0 }).await });
    first.unlock(UnlockRequest { key: held.key }).await.expect("unlock");
    // The second gave up and left the line, so that the third is next.
    let next = tokio::time::timeout(SOON, waiting)
        .await
        .expect("in time")
        .expect("a task")
        .expect("the lock");
    assert!(next.into_inner().key.starts_with(b"l/"));
}

#[tokio::test(flavor = "multi_thread")]
async fn elections_have_one_leader_who_can_resign() {
    let member = Member::start(&[]);
    let url = format!("http://{}", member.address);
    let mut election = ElectionClient::connect(url.clone()).await.expect("a connection");
    let nobody = election.leader(LeaderRequest { name: "e".into() }).await.expect_err("no leader");
    assert_eq!(nobody.message(), "election: no leader");
    let campaign = |value: &str| CampaignRequest {
        name: "e".into(),
        lease: 0,
        value: value.to_owned().into(),
    };
    let one =
        election.campaign(campaign("one")).await.expect("won").into_inner().leader.expect("a key");
    let mut observed =
        election.observe(LeaderRequest { name: "e".into() }).await.expect("a stream").into_inner();
    let mut seen = async || {
        let response = tokio::time::timeout(SOON, observed.message()).await.expect("in time");
        response.expect("no error").expect("a leader").kv.expect("a key-value").value
    };
    assert_eq!(seen().await, "one");
    let mut other = ElectionClient::connect(url).await.expect("a connection");
    let rival = tokio::spawn(async move { other.campaign(campaign("two")).await });
    let again = ProclaimRequest { leader: Some(one.clone()), value: "uno".into() };
    election.proclaim(again).await.expect("proclaim");
    assert_eq!(seen().await, "uno");
    election.resign(ResignRequest { leader: Some(one.clone()) }).await.expect("resign");
    let two = rival.await.expect("a task").expect("won").into_inner().leader.expect("a key");
    assert_eq!(seen().await, "two");
    let late = ProclaimRequest { leader: Some(one), value: "x".into() };
    assert_eq!(
        election.proclaim(late).await.expect_err("not leader").message(),
        "election: not leader"
    );
    let mut clients = member.clients().await;
    clients.lease.lease_revoke(LeaseRevokeRequest { id: two.lease }).await.expect("revoke");
    assert!(election.leader(LeaderRequest { name: "e".into() }).await.is_err());
}
