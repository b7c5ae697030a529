//! Paths inside the container's root: looked up and made without ever leaving it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Opens `path` as O_PATH below the current root. Symlinks stay inside it; magic links of /proc are refused.
pub(super) fn open(path: &str) -> rustix::io::Result<OwnedFd> {
    resolve(path, ResolveFlags::empty())
}

/// As [`open`], but refuses symlinks anywhere in the path.
pub(super) fn open_no_symlinks(path: &str) -> rustix::io::Result<OwnedFd> {
    resolve(path, ResolveFlags::NO_SYMLINKS)
}

fn resolve(path: &str, further: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    let flags = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | further;
    let root =
        rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::openat2(
        root,
        path.trim_start_matches('/'),
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        flags,
    )
    .or_else(|error| {
        // An empty path is the root itself.
        if path.trim_matches('/').is_empty() {
            rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        } else {
            Err(error)
        }
    })
}

/// Opens the mount point `path`, making folders and (when `file`) the file itself if missing.
pub(super) fn mount_point(path: &str, file: bool, symlinks: bool) -> io::Result<OwnedFd> {
    let opener = if symlinks { open } else { open_no_symlinks };
    if let Ok(found) = opener(path) {
        return Ok(found);
    }
    let parts = normal_parts(path)?;
    let (last, folders) =
        parts.split_last().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut at = String::from("/");
    for part in folders {
        make(&at, part, false, opener)?;
        at = join(&at, part);
    }
    make(&at, last, file, opener)?;
    Ok(opener(path)?)
}

/// Makes folder `path` with its ancestors.
pub(super) fn make_dirs(path: &str) -> io::Result<()> {
    mount_point(path, false, true).map(drop)
}

/// Opens the folder that holds `path` (made if missing) and returns it with the last name.
pub(super) fn parent_of(path: &str) -> io::Result<(OwnedFd, String)> {
    let parts = normal_parts(path)?;
    let (last, folders) =
        parts.split_last().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let dir = format!("/{}", folders.join("/"));
    Ok((mount_point(&dir, false, true)?, (*last).to_owned()))
}

fn make(
    at: &str,
    name: &str,
    file: bool,
    opener: fn(&str) -> rustix::io::Result<OwnedFd>,
) -> io::Result<()> {
    let parent = opener(at)?;
    let made = if file {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(parent.as_fd(), name, flags, Mode::from_raw_mode(0o644)).map(drop)
    } else {
        rustix::fs::mkdirat(parent.as_fd(), name, Mode::from_raw_mode(0o755))
    };
    match made {
        Err(rustix::io::Errno::EXIST) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn normal_parts(path: &str) -> io::Result<Vec<&str>> {
    let mut parts = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => parts
                .push(part.to_str().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("{path:?} must not contain .."),
                ));
            }
        }
    }
    Ok(parts)
}

fn join(at: &str, part: &str) -> String {
    if at == "/" { format!("/{part}") } else { format!("{at}/{part}") }
}
