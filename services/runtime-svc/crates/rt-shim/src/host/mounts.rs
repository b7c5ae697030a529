//! The mounts of a container.
//!
//! Host paths are cloned into detached mounts while the host is still in view ([`Sources::collect`]); after
//! `pivot_root` they are attached to destinations that are looked up inside the container ([`mount_all`]). So no
//! destination, whatever symlinks the image holds, can lead to the host.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::{Step, devices, failure, rootfs, sys, tree};
use crate::cgroup::Cgroups;
use crate::spec::{ContainerSpec, MountKind, MountSpec, Propagation};
use crate::wire::Failure;

/// Detached clones of everything that comes from the host, in the order of the mounts.
pub(super) struct Sources(Vec<Vec<(String, OwnedFd)>>);

impl Sources {
    /// Clones the pod's shared memory. Must run in the shim's mount namespace.
    pub(super) fn shared_memory(spec: &ContainerSpec, shm: &Path) -> Result<Self, Failure> {
        let collect = |mount: &MountSpec| match mount.kind {
            MountKind::Shm => clone(shm, false).map(|fd| vec![(String::new(), fd)]),
            _ => Ok(Vec::new()),
        };
        spec.mounts.iter().map(collect).collect::<Result<_, _>>().map(Self)
    }

    /// Clones bind sources and cgroup folders. Must run in the host's mount namespace.
    pub(super) fn collect(
        &mut self,
        spec: &ContainerSpec,
        cgroups: &Cgroups,
    ) -> Result<(), Failure> {
        for (mount, sources) in spec.mounts.iter().zip(&mut self.0) {
            match &mount.kind {
                MountKind::Bind { source, .. } => {
                    sources.push((String::new(), clone(source, true)?))
                }
                MountKind::Cgroup { .. } if !(cgroups.is_v2() && spec.own_cgroup_ns) => {
                    for (root, dir) in cgroups.roots().zip(cgroups.dirs(&spec.cgroup)) {
                        let name = root.strip_prefix("/sys/fs/cgroup").unwrap_or(root);
                        sources.push((name.to_string_lossy().into_owned(), clone(&dir, false)?));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Mounts image volumes aside and clones them. Must run in the container's mount namespace, before its root
    /// is mounted at `aside`.
    pub(super) fn collect_images(&mut self, spec: &ContainerSpec) -> Result<(), Failure> {
        for (mount, sources) in spec.mounts.iter().zip(&mut self.0) {
            if let MountKind::Rootfs { mounts, sub_path } = &mount.kind {
                rootfs::mount_root(mounts, &spec.rootfs_dir)?;
                let tree = rootfs::clone_below(&spec.rootfs_dir, sub_path)?;
                nix::mount::umount2(&spec.rootfs_dir, nix::mount::MntFlags::MNT_DETACH)
                    .step(|| format!("unmount the image aside of {}", mount.destination))?;
                sources.push((String::new(), tree));
            }
        }
        Ok(())
    }
}

fn clone(path: &Path, recursive: bool) -> Result<OwnedFd, Failure> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags).step(|| format!("bind mount {}", path.display()))
}

/// Makes every mount of `spec`. Runs after `pivot_root`.
pub(super) fn mount_all(
    spec: &ContainerSpec,
    sources: Sources,
    found: &[devices::Node],
) -> Result<(), Failure> {
    for (mount, sources) in spec.mounts.iter().zip(sources.0) {
        mount_one(spec, mount, sources, found)?;
    }
    Ok(())
}

fn mount_one(
    spec: &ContainerSpec,
    mount: &MountSpec,
    sources: Vec<(String, OwnedFd)>,
    found: &[devices::Node],
) -> Result<(), Failure> {
    let to = mount.destination.as_str();
    let strict = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let read_only =
        |on: bool| if on { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
    match &mount.kind {
        MountKind::Proc => attach_new("proc", "", strict, to),
        MountKind::Sysfs { readonly } => attach_new("sysfs", "", strict | read_only(*readonly), to),
        MountKind::Mqueue => attach_new("mqueue", "", strict, to),
        MountKind::Devpts => {
            let data = "newinstance,ptmxmode=0666,mode=0620,gid=5";
            attach_new(
                "devpts",
                data,
                MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC,
                to,
            )
        }
        MountKind::Tmpfs { data, readonly, exec } => {
            let mut attributes =
                MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
            if !exec {
                attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
            }
            attach_new("tmpfs", data, attributes | read_only(*readonly), to)
        }
        MountKind::Dev => {
            let data = "mode=0755,size=64m";
            attach_new(
                "tmpfs",
                data,
                MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC,
                to,
            )?;
            devices::populate(spec, found)
        }
        MountKind::Cgroup { readonly } => cgroup(to, sources, *readonly),
        MountKind::Shm => attach(only(sources)?, to, false),
        MountKind::Bind { readonly, recursive_readonly, propagation, .. } => {
            let tree = only(sources)?;
            set_propagation(&tree, *propagation).step(|| format!("set the propagation of {to}"))?;
            if *readonly {
                sys::mount_setattr(tree.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, *recursive_readonly)
                    .step(|| format!("make {to} read-only"))?;
            }
            let file = is_file(&tree)?;
            attach_at(tree, to, file, true)
        }
        MountKind::Rootfs { .. } => {
            let tree = only(sources)?;
            let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOEXEC;
            sys::mount_setattr(tree.as_fd(), attributes, 0, true)
                .step(|| format!("make {to} read-only"))?;
            let file = is_file(&tree)?;
            attach_at(tree, to, file, true)
        }
    }
}

fn only(sources: Vec<(String, OwnedFd)>) -> Result<OwnedFd, Failure> {
    sources.into_iter().next().map(|(_, fd)| fd).ok_or_else(|| failure("a mount has no source"))
}

fn set_propagation(tree: &OwnedFd, propagation: Propagation) -> std::io::Result<()> {
    match propagation {
        // The clone is in the peer group of its source already.
        Propagation::Shared => Ok(()),
        Propagation::Slave => sys::mount_setattr(tree.as_fd(), 0, libc::MS_SLAVE, true),
        Propagation::Private => sys::mount_setattr(tree.as_fd(), 0, libc::MS_PRIVATE, true),
    }
}

fn is_file(tree: &OwnedFd) -> Result<bool, Failure> {
    let stat = rustix::fs::statat(tree, "", AtFlags::EMPTY_PATH)
        .step(|| "stat a mount source".to_owned())?;
    Ok(FileType::from_raw_mode(stat.st_mode) != FileType::Directory)
}

fn new_mount(kind: &str, data: &str, attributes: MountAttrFlags) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", kind)?;
    for option in data.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(context.as_fd(), key, value)?,
            None => rustix::mount::fsconfig_set_flag(context.as_fd(), option)?,
        }
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn attach_new(kind: &str, data: &str, attributes: MountAttrFlags, to: &str) -> Result<(), Failure> {
    let tree = new_mount(kind, data, attributes).step(|| format!("mount {kind} at {to}"))?;
    // A symlink at /proc, /sys or /dev is an attack; tmpfs volumes may lie behind one.
    attach_at(tree, to, false, kind == "tmpfs" && to != "/dev")
}

fn attach(tree: OwnedFd, to: &str, file: bool) -> Result<(), Failure> {
    attach_at(tree, to, file, false)
}

fn attach_at(tree: OwnedFd, to: &str, file: bool, symlinks: bool) -> Result<(), Failure> {
    let point =
        tree::mount_point(to, file, symlinks).step(|| format!("make the mount point {to}"))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", point, "", flags).step(|| format!("mount at {to}"))
}

fn cgroup(to: &str, sources: Vec<(String, OwnedFd)>, readonly: bool) -> Result<(), Failure> {
    let strict = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let read_only =
        if readonly { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
    let bits = u64::from((strict | read_only).bits());
    if sources.is_empty() {
        return attach_new("cgroup2", "", strict | read_only, to);
    }
    if let [(name, _)] = sources.as_slice()
        && name.is_empty()
    {
        let tree = only(sources)?;
        sys::mount_setattr(tree.as_fd(), bits, 0, true)
            .step(|| format!("set attributes of {to}"))?;
        return attach(tree, to, false);
    }
    attach_new("tmpfs", "mode=0755,size=1m", strict, to)?;
    for (name, tree) in sources {
        sys::mount_setattr(tree.as_fd(), bits, 0, true)
            .step(|| format!("set attributes of {to}/{name}"))?;
        attach(tree, &format!("{to}/{name}"), false)?;
    }
    let root = tree::open(to).step(|| format!("open {to}"))?;
    sys::mount_setattr(root.as_fd(), bits, 0, false).step(|| format!("set attributes of {to}"))
}

/// Hides `path` below an empty file or folder. A missing path needs no hiding.
pub(super) fn mask(path: &str) -> Result<(), Failure> {
    let Ok(point) = tree::open(path) else { return Ok(()) };
    let tree = if is_file(&point)? {
        null_device()?
    } else {
        new_mount("tmpfs", "size=0", MountAttrFlags::MOUNT_ATTR_RDONLY)
            .step(|| format!("mask {path}"))?
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", point, "", flags).step(|| format!("mask {path}"))
}

/// A clone of /dev/null that is the null device for sure.
fn null_device() -> Result<OwnedFd, Failure> {
    let null = tree::open_no_symlinks("/dev/null").step(|| "open /dev/null".to_owned())?;
    let stat = rustix::fs::fstat(&null).step(|| "stat /dev/null".to_owned())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice
        || stat.st_rdev != libc::makedev(1, 3)
    {
        return Err(failure("/dev/null of the container is not the null device"));
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(null, "", flags).step(|| "clone /dev/null".to_owned())
}

/// Remounts `path` read-only. A missing path needs nothing.
pub(super) fn make_readonly(path: &str) -> Result<(), Failure> {
    let Ok(point) = tree::open(path) else { return Ok(()) };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let what = || format!("make {path} read-only");
    let tree = open_tree(point.as_fd(), "", flags).step(what)?;
    sys::mount_setattr(tree.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, true).step(what)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", point, "", flags).step(what)
}

/// Writes kernel parameters of the namespaces this process is in.
pub(crate) fn write_sysctls<'a>(
    sysctls: impl Iterator<Item = (&'a String, &'a String)>,
) -> Result<(), Failure> {
    for (name, value) in sysctls {
        let clean = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
            && !name.contains("..");
        if !clean {
            return Err(failure(format!("sysctl {name:?} is no name of a kernel parameter")));
        }
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        fs::write(&path, value).step(|| format!("set sysctl {name} to {value:?}"))?;
    }
    Ok(())
}
