//! The root filesystem: mounting what the snapshotter answered and making it the root.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::{Step, failure, sys};
use crate::spec::RootMount;
use crate::wire::Failure;

/// Mount data of the classic call must fit into a page with its final zero.
const MAX_DATA: usize = 4095;

/// Mounts `mounts`, in order, over the folder `at`.
pub(super) fn mount_root(mounts: &[RootMount], at: &Path) -> Result<(), Failure> {
    if mounts.is_empty() {
        return Err(failure("the snapshotter answered no mounts"));
    }
    for spec in mounts {
        match spec.kind.as_str() {
            "overlay" => overlay(&spec.options, at)?,
            "bind" => bind(spec, at)?,
            other => {
                return Err(failure(format!(
                    "not supported yet: root filesystem mount of type {other:?}"
                )));
            }
        }
    }
    Ok(())
}

fn bind(spec: &RootMount, at: &Path) -> Result<(), Failure> {
    let source = spec.source.as_str();
    let what = || format!("mount the root filesystem {source}");
    mount(Some(source), at, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .step(what)?;
    mount(None::<&str>, at, None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .step(what)?;
    if spec.options.iter().any(|option| option == "ro") {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, at, None::<&str>, flags, None::<&str>).step(what)?;
    }
    Ok(())
}

/// Mounts an overlay. A writable one is `volatile`: its upper folder never outlives the container, so nothing is
/// gained by syncing it.
fn overlay(options: &[String], at: &Path) -> Result<(), Failure> {
    let mut data: Vec<&str> =
        options.iter().map(String::as_str).filter(|o| !matches!(*o, "ro" | "rw")).collect();
    let readonly = options.iter().any(|option| option == "ro");
    let writable = data.iter().any(|option| option.starts_with("upperdir="));
    if writable && !data.contains(&"volatile") {
        data.push("volatile");
    }
    let joined = data.join(",");
    if joined.len() > MAX_DATA {
        return overlay_of_many(&data, readonly, at);
    }
    let flags = if readonly { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    match mount(Some("overlay"), at, Some("overlay"), flags, Some(joined.as_str())) {
        // Kernels before 5.10 do not know `volatile`.
        Err(nix::errno::Errno::EINVAL) if writable => {
            let plain = joined.replace(",volatile", "");
            mount(Some("overlay"), at, Some("overlay"), flags, Some(plain.as_str()))
        }
        other => other,
    }
    .step(|| format!("mount the overlay root filesystem ({joined})"))
}

/// Layer by layer, for options longer than a page; needs Linux 6.5.
fn overlay_of_many(data: &[&str], readonly: bool, at: &Path) -> Result<(), Failure> {
    let what = || "mount an overlay root filesystem of many layers".to_owned();
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).step(what)?;
    for option in data {
        match option.split_once('=') {
            Some(("lowerdir", dirs)) => {
                for dir in dirs.split(':') {
                    fsconfig_set_string(context.as_fd(), "lowerdir+", dir).step(what)?;
                }
            }
            Some((key, value)) => fsconfig_set_string(context.as_fd(), key, value).step(what)?,
            None => rustix::mount::fsconfig_set_flag(context.as_fd(), *option).step(what)?,
        }
    }
    fsconfig_create(context.as_fd()).step(what)?;
    let attributes =
        if readonly { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
    let tree = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).step(what)?;
    move_mount(tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step(what)
}

/// Clones the mount at `at`, or the part of it below `sub_path`, which cannot lead out of it.
pub(super) fn clone_below(at: &Path, sub_path: &str) -> Result<OwnedFd, Failure> {
    let what = || format!("find {sub_path:?} in the image");
    let root =
        rustix::fs::open(at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .step(what)?;
    let relative =
        if sub_path.trim_matches('/').is_empty() { "." } else { sub_path.trim_matches('/') };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found =
        rustix::fs::openat2(root, relative, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
            .step(what)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(found, "", flags).step(what)
}

/// Makes the mount at `at` the root and lets go of the old one.
pub(super) fn pivot(at: &Path) -> Result<(), Failure> {
    let here: &CStr = c".";
    nix::unistd::chdir(at).step(|| "enter the root filesystem".to_owned())?;
    nix::unistd::pivot_root(here, here).step(|| "pivot_root".to_owned())?;
    umount2(here, MntFlags::MNT_DETACH).step(|| "let go of the host's root".to_owned())?;
    nix::unistd::chdir("/").step(|| "enter the new root".to_owned())
}

/// Makes the root mount read-only; mounts below it keep their own setting.
pub(super) fn make_root_readonly() -> Result<(), Failure> {
    let root =
        rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .step(|| "open the root".to_owned())?;
    sys::mount_setattr(root.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, false)
        .step(|| "make the root filesystem read-only".to_owned())
}
