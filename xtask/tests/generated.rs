//! The committed generated code is what the schemas say.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop here")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn read_tree(dir: &Path, base: &Path, into: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_tree(&path, base, into);
        } else {
            let name = path.strip_prefix(base).unwrap().display().to_string();
            into.insert(name, fs::read(&path).unwrap());
        }
    }
}

#[test]
fn generated_code_matches_schemas() {
    let fresh = tempfile::tempdir().unwrap();
    xtask::protos::generate(fresh.path()).unwrap();
    let committed = xtask::root().join("crates/proto/src");
    let (mut want, mut have) = (BTreeMap::new(), BTreeMap::new());
    read_tree(&fresh.path().join("gen"), fresh.path(), &mut want);
    read_tree(&committed.join("gen"), &committed, &mut have);
    let stale: Vec<_> = want
        .iter()
        .filter(|(name, text)| have.get(*name) != Some(text))
        .map(|(name, _)| name)
        .collect();
    assert!(stale.is_empty(), "run `cargo xtask gen-protos`; out of date: {stale:?}");
    let left: Vec<_> = have.keys().filter(|name| !want.contains_key(*name)).collect();
    assert!(left.is_empty(), "files no schema produces: {left:?}");
    for list in ["apis.rs", "descriptors.rs"] {
        let (want, have) = (fresh.path().join(list), committed.join(list));
        assert_eq!(fs::read_to_string(want).unwrap(), fs::read_to_string(have).unwrap(), "{list}");
    }
}

#[test]
fn rooms_are_in_order() {
    xtask::lint_rooms::check(&xtask::root()).unwrap();
}
