//! Archives that try to leave their folder, or to be more than they are.

use std::path::Path;

use image_svc::unpack::{Target, UnpackError, unpack};
use tar::EntryType;

use super::server::{TarEntry, archive, dir, file, hardlink, symlink};

/// Unpacks into a folder with a secret beside it; returns the error.
fn attempt(entries: &[TarEntry]) -> (Result<(), UnpackError>, tempfile::TempDir) {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("root")).unwrap();
    std::fs::write(home.path().join("secret"), "secret").unwrap();
    let bytes = archive(entries);
    let target = Target { upper: home.path().join("root"), lowers: Vec::new() };
    let result = unpack(bytes.as_slice(), bytes.len() as u64, &target, None).map(drop);
    assert_eq!(std::fs::read_to_string(home.path().join("secret")).unwrap(), "secret");
    let outside: Vec<_> =
        std::fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(outside.len(), 2, "something was made outside: {outside:?}");
    (result, home)
}

#[test]
fn paths_out_of_the_folder_are_refused() {
    for path in ["../evil", "a/../../evil", "..", "/../evil", "./../../x"] {
        let (result, _home) = attempt(&[file(path, "x")]);
        let error = result.unwrap_err().to_string();
        assert!(error.contains("leads out"), "{path}: {error}");
    }
    let (result, _home) = attempt(&[hardlink("a", "../secret")]);
    assert!(result.is_err());
}

#[test]
fn absolute_paths_stay_inside() {
    let (result, home) = attempt(&[file("/etc/passwd", "inside")]);
    result.unwrap();
    assert_eq!(std::fs::read_to_string(home.path().join("root/etc/passwd")).unwrap(), "inside");
}

#[test]
fn symlinks_lead_inside_only() {
    let (result, home) = attempt(&[symlink("out", "../.."), file("out/evil", "x")]);
    result.unwrap();
    assert_eq!(std::fs::read_to_string(home.path().join("root/evil")).unwrap(), "x");
    let (result, home) = attempt(&[symlink("abs", "/tmp/dir"), file("abs/f", "x")]);
    result.unwrap();
    assert!(home.path().join("root/tmp/dir/f").is_file());
    let (result, _home) = attempt(&[symlink("a", "b"), symlink("b", "a"), file("a/f", "x")]);
    assert!(result.unwrap_err().to_string().contains("too many symlinks"));
    // A file entry replaces a symlink instead of writing through it.
    let (result, home) = attempt(&[symlink("s", "../secret"), file("s", "new")]);
    result.unwrap();
    assert!(home.path().join("root/s").symlink_metadata().unwrap().is_file());
}

#[test]
fn folder_mode_does_not_go_through_a_symlink() {
    let (result, home) =
        attempt(&[dir("d/"), symlink("l", "d"), TarEntry { mode: 0o777, ..dir("l/") }]);
    result.unwrap();
    assert!(home.path().join("root/l").symlink_metadata().unwrap().is_dir());
}

#[test]
fn links_to_nothing_and_devices_that_hide_are_refused() {
    let (result, _home) = attempt(&[hardlink("a", "missing")]);
    assert!(result.unwrap_err().to_string().contains("does not exist"));
    let (result, _home) = attempt(&[symlink("s", "../secret"), hardlink("a", "s")]);
    result.unwrap();
    let (result, _home) = attempt(&[TarEntry { kind: EntryType::Char, ..file("c", "") }]);
    assert!(result.is_err());
    let (result, _home) = attempt(&[TarEntry { kind: EntryType::new(b'Z'), ..file("z", "") }]);
    assert!(result.unwrap_err().to_string().contains("unknown entry type"));
}

#[test]
fn whiteouts_of_no_name_are_refused() {
    for name in [".wh.", ".wh..", ".wh..."] {
        let (result, _home) = attempt(&[file(name, "")]);
        assert!(result.is_err(), "{name}");
    }
    let (result, home) = attempt(&[
        file("a", "x"),
        file(".wh.a", ""),
        file(".wh..wh.plnk", ""),
        file(".wh..wh..opq", ""),
    ]);
    result.unwrap();
    assert!(!Path::new(&home.path().join("root/a")).exists());
}

#[test]
fn duplicate_entries_replace_each_other() {
    let (result, home) = attempt(&[file("x", "1"), dir("x/"), file("x/y", "2"), file("x", "3")]);
    result.unwrap();
    assert_eq!(std::fs::read_to_string(home.path().join("root/x")).unwrap(), "3");
}

#[test]
fn deep_and_long_paths_are_refused() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    builder.append_data(&mut header, "d/".repeat(2000) + "f", std::io::empty()).unwrap();
    let bytes = builder.into_inner().unwrap();
    let home = tempfile::tempdir().unwrap();
    let target = Target { upper: home.path().to_owned(), lowers: Vec::new() };
    let error =
        unpack(bytes.as_slice(), bytes.len() as u64, &target, None).unwrap_err().to_string();
    assert!(error.contains("too deep"), "{error}");
}

#[test]
fn truncated_and_mutated_archives_never_escape_or_panic() {
    use rand::{Rng, SeedableRng};
    let mut rng = rand::rngs::StdRng::seed_from_u64(11);
    let base = archive(&[
        dir("a/"),
        file("a/b", "text"),
        symlink("s", "a"),
        hardlink("h", "a/b"),
        file("s/c", "x"),
    ]);
    for _ in 0..400 {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("root")).unwrap();
        let mut bytes = base.clone();
        for _ in 0..rng.random_range(1..8) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random();
        }
        bytes.truncate(rng.random_range(0..=bytes.len()));
        let target = Target { upper: home.path().join("root"), lowers: Vec::new() };
        // Most of these fail; none may reach outside.
        let _ = unpack(bytes.as_slice(), bytes.len() as u64, &target, None);
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
