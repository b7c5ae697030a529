//! Unpacked layers look as overlayfs and the archive's maker expect.

use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use flotilla_testkit::skip_unless_root;
use image_svc::engine::Digest;
use image_svc::unpack::{Target, unpack};

use super::server::{TarEntry, archive, dir, file, hardlink, symlink};

struct Layers {
    home: tempfile::TempDir,
    /// Nearest first.
    folders: Vec<PathBuf>,
}

impl Layers {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap(), folders: Vec::new() }
    }

    fn add(&mut self, entries: &[TarEntry]) -> PathBuf {
        let upper = self.home.path().join(self.folders.len().to_string());
        std::fs::create_dir(&upper).unwrap();
        let bytes = archive(entries);
        let target = Target { upper: upper.clone(), lowers: self.folders.clone() };
        unpack(bytes.as_slice(), bytes.len() as u64, &target, Some(&Digest::sha256(&bytes)))
            .unwrap();
        self.folders.insert(0, upper.clone());
        upper
    }
}

fn is_whiteout(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0)
}

#[test]
fn modes_owners_times_and_links_are_kept() {
    if skip_unless_root("modes_owners_times_and_links_are_kept") {
        return;
    }
    let mut layers = Layers::new();
    let setuid = TarEntry { mode: 0o4755, uid: 1234, ..file("d/su", "x") };
    let root = layers.add(&[
        TarEntry { mode: 0o1777, ..dir("d/") },
        setuid,
        hardlink("d/hard", "d/su"),
        symlink("d/soft", "su"),
    ]);
    let meta = root.join("d/su").metadata().unwrap();
    assert_eq!((meta.permissions().mode() & 0o7777, meta.uid(), meta.nlink()), (0o4755, 1234, 2));
    assert_eq!(meta.mtime(), 1_700_000_000);
    let folder = root.join("d").metadata().unwrap();
    assert_eq!((folder.permissions().mode() & 0o7777, folder.mtime()), (0o1777, 1_700_000_000));
    assert_eq!(std::fs::read_link(root.join("d/soft")).unwrap(), Path::new("su"));
}

#[test]
fn whiteouts_become_overlay_markers() {
    if skip_unless_root("whiteouts_become_overlay_markers") {
        return;
    }
    let mut layers = Layers::new();
    layers.add(&[dir("a/"), file("a/x", "1"), file("a/y", "2"), dir("b/"), file("b/z", "3")]);
    let upper = layers.add(&[
        file("a/.wh.x", ""),
        dir("b/"),
        file("b/.wh..wh..opq", ""),
        file("b/new", "4"),
    ]);
    assert!(is_whiteout(&upper.join("a/x")));
    let mut value = [0u8; 4];
    let got = rustix::fs::getxattr(upper.join("b"), "trusted.overlay.opaque", &mut value).unwrap();
    assert_eq!(&value[..got], b"y");
    assert!(upper.join("b/new").is_file());
}

#[test]
fn folders_of_lower_layers_are_imitated_and_their_links_followed() {
    if skip_unless_root("folders_of_lower_layers_are_imitated_and_their_links_followed") {
        return;
    }
    let mut layers = Layers::new();
    let private = TarEntry { mode: 0o700, uid: 77, ..dir("home/") };
    layers.add(&[
        dir("usr/"),
        dir("usr/bin/"),
        symlink("bin", "usr/bin"),
        private,
        file("usr/bin/tool", "t"),
    ]);
    let upper =
        layers.add(&[file("bin/new", "n"), file("home/f", "x"), hardlink("copy", "bin/tool")]);
    assert!(upper.join("usr/bin/new").is_file() && !upper.join("bin").exists());
    let home = upper.join("home").metadata().unwrap();
    assert_eq!((home.permissions().mode() & 0o7777, home.uid()), (0o700, 77));
    assert_eq!(std::fs::read_to_string(upper.join("copy")).unwrap(), "t");
}

#[test]
fn overlay_attributes_of_the_archive_are_dropped() {
    if skip_unless_root("overlay_attributes_of_the_archive_are_dropped") {
        return;
    }
    let mut builder = tar::Builder::new(Vec::new());
    let pax: [(&str, &[u8]); 2] =
        [("SCHILY.xattr.trusted.overlay.opaque", b"y"), ("SCHILY.xattr.user.kept", b"v")];
    builder.append_pax_extensions(pax).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    header.set_mode(0o755);
    builder.append_data(&mut header, "d/", std::io::empty()).unwrap();
    let bytes = builder.into_inner().unwrap();
    let home = tempfile::tempdir_in("/var/tmp").unwrap();
    let target = Target { upper: home.path().to_owned(), lowers: Vec::new() };
    unpack(bytes.as_slice(), bytes.len() as u64, &target, None).unwrap();
    let mut value = [0u8; 4];
    assert!(
        rustix::fs::getxattr(home.path().join("d"), "trusted.overlay.opaque", &mut value).is_err()
    );
    let got = rustix::fs::getxattr(home.path().join("d"), "user.kept", &mut value).unwrap();
    assert_eq!(&value[..got], b"v");
}

#[test]
fn gzip_and_zstd_are_recognised_and_diff_ids_checked() {
    let plain = archive(&[file("f", &"text ".repeat(10_000))]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&plain).unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 3).unwrap();
    let diff_id = Digest::sha256(&plain);
    for bytes in [plain.clone(), gzip.finish().unwrap(), zstd] {
        let home = tempfile::tempdir().unwrap();
        let target = Target { upper: home.path().to_owned(), lowers: Vec::new() };
        let found = unpack(bytes.as_slice(), bytes.len() as u64, &target, Some(&diff_id)).unwrap();
        assert_eq!(found, diff_id);
        let wrong = Digest::sha256(b"wrong");
        let home = tempfile::tempdir().unwrap();
        let target = Target { upper: home.path().to_owned(), lowers: Vec::new() };
        assert!(
            unpack(bytes.as_slice(), bytes.len() as u64, &target, Some(&wrong))
                .unwrap_err()
                .to_string()
                .contains("diff id")
        );
        let cut = &bytes[..bytes.len() / 2];
        let home = tempfile::tempdir().unwrap();
        let target = Target { upper: home.path().to_owned(), lowers: Vec::new() };
        assert!(unpack(cut, cut.len() as u64, &target, Some(&diff_id)).is_err());
    }
}
