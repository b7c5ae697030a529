//! Watches: order, resumption, compaction, filters, bookmarks, fragments.

use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::etcd::etcdserverpb as pb;
use flotilla_proto::etcd::mvccpb::event::EventType;
use pb::watch_request::RequestUnion;
use tokio::sync::mpsc::UnboundedSender;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;

use crate::harness::{Clients, Member, SOON};

struct Stream {
    requests: UnboundedSender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

impl Stream {
    async fn open(clients: &mut Clients) -> Self {
        let (requests, receiver) = tokio::sync::mpsc::unbounded_channel();
        let receiver = UnboundedReceiverStream::new(receiver);
        let responses = clients.watch.watch(receiver).await.expect("a stream").into_inner();
        Self { requests, responses }
    }

    fn send(&self, union: RequestUnion) {
        self.requests
            .send(pb::WatchRequest { request_union: Some(union) })
            .expect("an open stream");
    }

    async fn create(&mut self, create: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.send(RequestUnion::CreateRequest(create));
        self.next().await
    }

    async fn next(&mut self) -> pb::WatchResponse {
        let message =
            tokio::time::timeout(SOON, self.responses.message()).await.expect("a response in time");
        message.expect("no error").expect("an open stream")
    }

    /// Reads events until `count` were seen.
    async fn events(&mut self, count: usize) -> Vec<(i64, String, bool)> {
        let mut events = Vec::new();
        while events.len() < count {
            for event in self.next().await.events {
                let deleted = event.r#type() == EventType::Delete;
                let kv = event.kv.expect("a key-value");
                events.push((
                    kv.mod_revision,
                    String::from_utf8_lossy(&kv.key).into_owned(),
                    deleted,
                ));
            }
        }
        events
    }
}

fn prefix(key: &'static str, end: &'static str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: Bytes::from_static(key.as_bytes()),
        range_end: Bytes::from_static(end.as_bytes()),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn past_and_present_come_once_and_in_order() {
    let member = Member::start(&[]);
    let mut clients = member.clients().await;
    for n in 0..2_500 {
        clients.put(&format!("k{}", n % 50), "x").await;
    }
    let mut stream = Stream::open(&mut clients).await;
    let created =
        stream.create(pb::WatchCreateRequest { start_revision: 2, ..prefix("k", "l") }).await;
    assert!(created.created && created.watch_id == 0);
    let mut writer = clients.clone();
    let writing = tokio::spawn(async move {
        for n in 0..500 {
            writer.put(&format!("k{}", n % 50), "y").await;
        }
    });
    let revisions: Vec<i64> = stream.events(3_000).await.into_iter().map(|event| event.0).collect();
    writing.await.expect("writes");
    assert_eq!(revisions, (2..3_002).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_transaction_is_one_response() {
    let member = Member::start(&[]);
    let mut clients = member.clients().await;
    let mut stream = Stream::open(&mut clients).await;
    stream.create(pb::WatchCreateRequest { prev_kv: true, ..prefix("k", "l") }).await;
    let put = |key: &str, value: &str| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        })),
    };
    for value in ["1", "2"] {
        let txn = pb::TxnRequest {
            success: vec![put("k1", value), put("other", "x"), put("k2", value)],
            ..Default::default()
        };
        clients.kv.txn(txn).await.expect("txn");
    }
    let first = stream.next().await;
    assert_eq!(first.events.len(), 2);
    assert!(first.events.iter().all(|event| event.prev_kv.is_none()));
    let second = stream.next().await;
    let before: Vec<_> =
        second.events.iter().map(|e| e.prev_kv.as_ref().expect("before").value.clone()).collect();
    assert_eq!(before, ["1", "1"]);
    clients.delete("k1").await;
    let deleted = stream.next().await;
    assert_eq!(deleted.events[0].r#type(), EventType::Delete);
    assert_eq!(deleted.events[0].prev_kv.as_ref().expect("before").value, "2");
    assert_eq!(deleted.events[0].kv.as_ref().expect("kv").mod_revision, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_watches_say_why() {
    let member = Member::start(&[]);
    let mut clients = member.clients().await;
    for _ in 0..10 {
        clients.put("k", "v").await;
    }
    clients.compact(8).await;
    let mut stream = Stream::open(&mut clients).await;
    let named = pb::WatchCreateRequest { watch_id: 5, ..prefix("k", "") };
    assert_eq!(stream.create(named.clone()).await.watch_id, 5);
    let twice = stream.create(named).await;
    assert!(twice.created && twice.canceled && twice.watch_id == -1, "{twice:?}");
    assert!(twice.cancel_reason.contains("duplicate watch ID"));
    let empty = stream.create(prefix("b", "a")).await;
    assert!(empty.canceled && empty.cancel_reason.contains("range is empty"), "{empty:?}");
    let old = stream.create(pb::WatchCreateRequest { start_revision: 3, ..prefix("k", "") }).await;
    assert!(old.created && !old.canceled);
    let gone = stream.next().await;
    assert_eq!((gone.watch_id, gone.canceled, gone.compact_revision), (old.watch_id, true, 8));
    let edge = stream.create(pb::WatchCreateRequest { start_revision: 8, ..prefix("k", "") }).await;
    assert!(edge.created);
    assert_eq!(stream.events(4).await.iter().map(|e| e.0).collect::<Vec<_>>(), [8, 9, 10, 11]);
    stream.send(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 5 }));
    let canceled = stream.next().await;
    assert!(canceled.canceled && canceled.watch_id == 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_at_the_compaction_is_still_told() {
    let member = Member::start(&[]);
    let mut clients = member.clients().await;
    clients.put("k", "v").await;
    let deleted = clients.delete("k").await;
    clients.put("other", "v").await;
    clients.compact(deleted).await;
    let mut stream = Stream::open(&mut clients).await;
    stream.create(pb::WatchCreateRequest { start_revision: deleted, ..prefix("k", "") }).await;
    assert_eq!(stream.events(1).await, [(deleted, "k".to_owned(), true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_leave_out_what_was_named() {
    let member = Member::start(&[]);
    let mut clients = member.clients().await;
    let mut stream = Stream::open(&mut clients).await;
    let no_put = pb::WatchCreateRequest { filters: vec![0], ..prefix("k", "") };
    stream.create(no_put).await;
    clients.put("k", "v").await;
    let deleted = clients.delete("k").await;
    assert_eq!(stream.events(1).await, [(deleted, "k".to_owned(), true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bookmarks_come_after_the_events() {
    let member = Member::start(&["--watch-progress-notify-interval=200ms"]);
    let mut clients = member.clients().await;
    for _ in 0..300 {
        clients.put("k", "v").await;
    }
    let mut stream = Stream::open(&mut clients).await;
    stream.create(pb::WatchCreateRequest { start_revision: 2, ..prefix("k", "") }).await;
    stream.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
    let mut seen = 1;
    loop {
        let response = stream.next().await;
        if response.watch_id == -1 {
            let revision = response.header.expect("a header").revision;
            assert!(revision <= seen, "a bookmark at {revision} after events up to {seen}");
            break;
        }
        seen = response.events.last().map_or(seen, |e| e.kv.as_ref().expect("kv").mod_revision);
    }
    let mut other = Stream::open(&mut clients).await;
    other.create(pb::WatchCreateRequest { progress_notify: true, ..prefix("z", "") }).await;
    let bookmark = other.next().await;
    assert!(bookmark.events.is_empty() && bookmark.watch_id == 0);
    assert_eq!(bookmark.header.expect("a header").revision, 301);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_transactions_are_split_when_asked_for() {
    let member = Member::start(&["--max-request-bytes=100000"]);
    let mut clients = member.clients().await;
    for n in 0..80 {
        clients.put(&format!("k{n:02}"), &"x".repeat(20_000)).await;
    }
    let mut stream = Stream::open(&mut clients).await;
    let create = pb::WatchCreateRequest { fragment: true, prev_kv: true, ..prefix("k", "l") };
    stream.create(create).await;
    let keys =
        pb::DeleteRangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    clients.kv.delete_range(keys).await.expect("delete");
    let (mut events, mut parts) = (0, 0);
    loop {
        let part = stream.next().await;
        events += part.events.len();
        parts += 1;
        if !part.fragment {
            break;
        }
    }
    assert_eq!(events, 80);
    assert!(parts > 1, "1.6 MB came in one response");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_nobody_reads_does_not_stop_others() {
    let member = Member::start(&[]);
    let mut clients = member.clients().await;
    let mut slow = Stream::open(&mut clients).await;
    slow.create(prefix("k", "l")).await;
    let mut other = member.clients().await;
    for n in 0..600 {
        other.put(&format!("k{n}"), &"x".repeat(20_000)).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 600 {
        seen.extend(slow.events(1).await.into_iter().map(|event| event.0));
    }
    assert_eq!(seen, (2..602).collect::<Vec<_>>());
    tokio::time::timeout(Duration::from_secs(5), other.put("k", "last"))
        .await
        .expect("no blocking");
}
