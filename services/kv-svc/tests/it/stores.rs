//! One behaviour, every store.

use std::sync::Arc;

use bytes::Bytes;
use flotilla_proto::etcd::etcdserverpb::{InternalRaftRequest, PutRequest};
use kv_svc::engine::apply::{Command, Entry};
use kv_svc::engine::keyspace::{Keyspace, Position, Times};
use kv_svc::engine::store::{Scan, Space, Store, Write};
use kv_svc::store::faulty::FaultyStore;
use kv_svc::store::memory::MemoryStore;
use kv_svc::store::rocks::RocksStore;

fn put(space: Space, key: &str, value: &str) -> Write {
    Write::Put(
        space,
        Bytes::copy_from_slice(key.as_bytes()),
        Bytes::copy_from_slice(value.as_bytes()),
    )
}

fn keys(store: &dyn Store, from: &str, to: Option<&str>) -> Vec<String> {
    let mut keys = Vec::new();
    let view = store.view();
    view.scan(Space::Heads, from.as_bytes(), to.map(str::as_bytes), &mut |key, _| {
        keys.push(String::from_utf8(key.to_vec()).expect("text"));
        Scan::More
    })
    .expect("a scan");
    keys
}

fn behaves(store: &dyn Store) {
    let heads =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| put(Space::Heads, k, v)).collect();
    store.write(heads(&[("b", "2"), ("a", "1"), ("c", "3"), ("", "0")])).expect("a write");
    store.write(vec![put(Space::System, "a", "other")]).expect("a write");
    assert_eq!(keys(store, "", None), ["", "a", "b", "c"]);
    assert_eq!(keys(store, "a", Some("c")), ["a", "b"]);
    assert_eq!(keys(store, "c", Some("a")), Vec::<String>::new());
    let view = store.view();
    store
        .write(vec![Write::Delete(Space::Heads, "a".into()), put(Space::Heads, "b", "new")])
        .expect("a write");
    assert_eq!(
        view.get(Space::Heads, b"a").expect("a read"),
        Some("1".into()),
        "views do not change"
    );
    assert_eq!(view.get(Space::Heads, b"b").expect("a read"), Some("2".into()));
    drop(view);
    assert_eq!(store.get(Space::Heads, b"a").expect("a read"), None);
    assert_eq!(store.get(Space::System, b"a").expect("a read"), Some("other".into()));
    let mut first = None;
    let mut stop = |key: &[u8], _: &[u8]| {
        first.get_or_insert(key.to_vec());
        Scan::Stop
    };
    store.view().scan(Space::Heads, b"a", None, &mut stop).expect("a scan");
    assert_eq!(first, Some(b"b".to_vec()));
    store.flush().expect("a flush");
    store.reclaim().expect("reclaiming");
    assert!(store.usage().total > 0);
    store.write(vec![Write::Clear(Space::Heads), put(Space::Heads, "z", "1")]).expect("a write");
    assert_eq!(keys(store, "", None), ["z"]);
}

#[test]
fn every_store_behaves() {
    behaves(&MemoryStore::default());
    behaves(&FaultyStore::new(Arc::new(MemoryStore::default()), 1_000));
    let dir = tempfile::tempdir().expect("a folder");
    behaves(&RocksStore::open(dir.path()).expect("a store"));
}

#[test]
fn rocks_keeps_what_was_flushed() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = RocksStore::open(dir.path()).expect("a store");
    store.write(vec![put(Space::Heads, "a", "1")]).expect("a write");
    store.flush().expect("a flush");
    drop(store);
    let store = RocksStore::open(dir.path()).expect("a store");
    assert_eq!(store.get(Space::Heads, b"a").expect("a read"), Some("1".into()));
}

fn entry(index: u64, key: &str) -> Entry {
    let put = PutRequest { key: key.to_owned().into(), value: "v".into(), ..Default::default() };
    let request = InternalRaftRequest { put: Some(put), ..Default::default() };
    Entry { position: Position { term: 1, index }, command: Command::Request(Arc::new(request)) }
}

#[test]
fn a_failing_store_fails_the_apply_and_keeps_what_it_had() {
    let memory = Arc::new(MemoryStore::default());
    let faulty = Arc::new(FaultyStore::new(memory.clone(), 2));
    let keyspace = Keyspace::open(faulty, Times::default()).expect("a key space");
    for n in 1..=2 {
        keyspace.apply(&[entry(n, "a")]).expect("room for two");
    }
    assert!(keyspace.apply(&[entry(3, "a")]).is_err());
    let again = Keyspace::open(memory, Times::default()).expect("a key space");
    let applied = again.state().applied;
    assert_eq!((again.revision(), applied), (3, Some(Position { term: 1, index: 2 })));
}

#[test]
fn memory_and_rocks_hold_the_same_history() {
    let dir = tempfile::tempdir().expect("a folder");
    let rocks =
        Keyspace::open(Arc::new(RocksStore::open(dir.path()).expect("a store")), Times::default())
            .expect("open");
    let memory = Keyspace::open(Arc::new(MemoryStore::default()), Times::default()).expect("open");
    for n in 1..200 {
        let entries =
            [entry(n * 2, &format!("k{}", n % 17)), entry(n * 2 + 1, &format!("k{}", n % 5))];
        let (a, _) = rocks.apply(&entries).expect("apply");
        let (b, _) = memory.apply(&entries).expect("apply");
        assert_eq!(a, b);
    }
    let hash = |keyspace: &Keyspace| keyspace.hash_kv(0).expect("a hash").hash;
    assert_eq!(hash(&rocks), hash(&memory));
}
