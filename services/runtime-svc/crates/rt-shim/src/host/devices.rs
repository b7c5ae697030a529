//! Device nodes in the container's /dev.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid, chownat, mknodat, symlinkat};

use super::{Step, failure, tree};
use crate::spec::ContainerSpec;
use crate::wire::Failure;

/// A node to make.
pub(crate) struct Node {
    path: String,
    kind: FileType,
    rdev: u64,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// Nodes every container gets: name, major, minor.
const DEFAULT: &[(&str, u32, u32)] = &[
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Looks up the host's nodes the container asks for. Must run while the host is in view.
pub(super) fn find(spec: &ContainerSpec) -> Result<Vec<Node>, Failure> {
    let mut nodes = Vec::new();
    if spec.all_devices {
        collect(Path::new("/dev"), &mut nodes);
    }
    for device in &spec.devices {
        let meta = fs::metadata(&device.host_path)
            .step(|| format!("find device {}", device.host_path.display()))?;
        let node = node(&device.container_path, &meta)
            .ok_or_else(|| failure(format!("{} is not a device", device.host_path.display())))?;
        nodes.push(node);
    }
    Ok(nodes)
}

fn collect(dir: &Path, nodes: &mut Vec<Node>) {
    const OWN: &[&str] = &["pts", "shm", "mqueue", "fd", "console", "ptmx", "hugepages"];
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let is_default = DEFAULT.iter().any(|(default, ..)| name == *default);
        if dir == Path::new("/dev") && (is_default || OWN.iter().any(|own| name == *own)) {
            continue;
        }
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            collect(&path, nodes);
        } else if let (Some(text), true) = (path.to_str(), !meta.is_symlink()) {
            nodes.extend(node(text, &meta));
        }
    }
}

fn node(path: &str, meta: &fs::Metadata) -> Option<Node> {
    let kind = if meta.file_type().is_char_device() {
        FileType::CharacterDevice
    } else if meta.file_type().is_block_device() {
        FileType::BlockDevice
    } else {
        return None;
    };
    let mode = meta.mode() & 0o7777;
    Some(Node {
        path: path.to_owned(),
        kind,
        rdev: meta.rdev(),
        mode,
        uid: meta.uid(),
        gid: meta.gid(),
    })
}

/// Fills a fresh /dev.
pub(super) fn populate(_spec: &ContainerSpec, found: &[Node]) -> Result<(), Failure> {
    for (name, major, minor) in DEFAULT {
        let rdev = libc::makedev(*major, *minor);
        let kind = FileType::CharacterDevice;
        make(&Node { path: format!("/dev/{name}"), kind, rdev, mode: 0o666, uid: 0, gid: 0 })?;
    }
    let dev = tree::open_no_symlinks("/dev").step(|| "open /dev".to_owned())?;
    for (name, target) in LINKS {
        symlinkat(*target, dev.as_fd(), *name).step(|| format!("link /dev/{name}"))?;
    }
    found.iter().try_for_each(make)
}

fn make(node: &Node) -> Result<(), Failure> {
    let what = || format!("make device {}", node.path);
    let (parent, name) = tree::parent_of(&node.path).step(what)?;
    // Replaces a default node of the same name.
    let _ = rustix::fs::unlinkat(parent.as_fd(), name.as_str(), AtFlags::empty());
    mknodat(parent.as_fd(), name.as_str(), node.kind, Mode::empty(), node.rdev).step(what)?;
    let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
    chownat(parent.as_fd(), name.as_str(), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .step(what)?;
    rustix::fs::chmodat(
        parent.as_fd(),
        name.as_str(),
        Mode::from_raw_mode(node.mode),
        AtFlags::empty(),
    )
    .step(what)
}

/// Type, major and minor of a device on the host; `None` when it is no device.
pub fn number(path: &Path) -> Option<(char, u32, u32)> {
    let meta = fs::metadata(path).ok()?;
    let kind = if meta.file_type().is_char_device() {
        'c'
    } else if meta.file_type().is_block_device() {
        'b'
    } else {
        return None;
    };
    Some((kind, libc::major(meta.rdev()), libc::minor(meta.rdev())))
}
