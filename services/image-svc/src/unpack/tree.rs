//! A layer's folder over the folders below it, reached by descriptor only.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

use super::view::{NodeInfo, NodeKind};
use super::{Target, UnpackError, entry_error};

/// Symlinks followed on one path, as the kernel.
const MAX_LINKS: usize = 40;
const OPAQUE: &str = "trusted.overlay.opaque";

/// The folders of a layer and of those below.
#[derive(Debug)]
pub(super) struct Tree {
    upper: OwnedFd,
    lowers: Vec<OwnedFd>,
    /// The folder used last: entries of a folder usually follow each other.
    last: Option<(Vec<OsString>, OwnedFd)>,
}

fn open_root(path: &Path) -> Result<OwnedFd, UnpackError> {
    rustix::fs::openat(
        CWD,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
    )
    .map_err(|error| entry_error(path, error))
}

/// Opens the folder `path` below `root`, no symlink on the way.
fn open_dir(root: BorrowedFd<'_>, path: &[OsString]) -> rustix::io::Result<OwnedFd> {
    let path: PathBuf = if path.is_empty() { ".".into() } else { path.iter().collect() };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(
        root,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )
}

pub(super) fn lstat(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// What the layers together have at a name.
enum Found {
    Upper(Stat),
    /// In the lower layer of that index.
    Lower(usize, Stat),
    Nothing,
}

impl Tree {
    pub(super) fn open(target: &Target) -> Result<Self, UnpackError> {
        let lowers =
            target.lowers.iter().map(|lower| open_root(lower)).collect::<Result<_, _>>()?;
        Ok(Self { upper: open_root(&target.upper)?, lowers, last: None })
    }

    pub(super) fn has_lowers(&self) -> bool {
        !self.lowers.is_empty()
    }

    /// Forgets the folder used last, because something was removed.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    /// Opens the folder `path` of the image in this layer. Missing folders are made, like those of the layers
    /// below when these have them; symlinks lead where they lead inside the image.
    pub(super) fn folder(
        &mut self,
        path: &[OsString],
        entry: &Path,
    ) -> Result<OwnedFd, UnpackError> {
        if let Some((known, fd)) = &self.last
            && known == path
        {
            return fd.try_clone().map_err(|error| entry_error(entry, error));
        }
        let plain = self.resolve(path, entry)?;
        let fd = self.make(&plain, entry)?;
        let copy = fd.try_clone().map_err(|error| entry_error(entry, error))?;
        self.last = Some((path.to_vec(), copy));
        Ok(fd)
    }

    /// The path without symlinks.
    pub(super) fn resolve(
        &self,
        path: &[OsString],
        entry: &Path,
    ) -> Result<Vec<OsString>, UnpackError> {
        let mut todo: Vec<OsString> = path.iter().rev().cloned().collect();
        let mut done: Vec<OsString> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            let link = match self.find(&done, &part).map_err(|error| entry_error(entry, error))? {
                Found::Upper(stat) => self.link(self.upper.as_fd(), &done, &part, &stat),
                Found::Lower(index, stat) => {
                    self.link(self.lowers[index].as_fd(), &done, &part, &stat)
                }
                Found::Nothing => Ok(None),
            };
            let Some(target) = link.map_err(|error| entry_error(entry, error))? else {
                done.push(part);
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(entry_error(entry, "too many symlinks on its path"));
            }
            if target.is_absolute() {
                done.clear();
            }
            // `..` inside a symlink target walks up, but not above the image.
            let mut parts: Vec<OsString> = Vec::new();
            for component in target.components() {
                match component {
                    Component::Normal(part) => parts.push(part.to_owned()),
                    Component::ParentDir if parts.pop().is_none() => drop(done.pop()),
                    _ => {}
                }
            }
            todo.extend(parts.into_iter().rev());
        }
        Ok(done)
    }

    fn link(
        &self,
        root: BorrowedFd<'_>,
        dir: &[OsString],
        name: &OsStr,
        stat: &Stat,
    ) -> io::Result<Option<PathBuf>> {
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return Ok(None);
        }
        let dir = open_dir(root, dir)?;
        let target = rustix::fs::readlinkat(&dir, name, Vec::new())?;
        let target: OsString = std::os::unix::ffi::OsStringExt::from_vec(target.into_bytes());
        Ok(Some(target.into()))
    }

    /// Which layer shows `name` in folder `dir` (free of symlinks).
    fn find(&self, dir: &[OsString], name: &OsStr) -> rustix::io::Result<Found> {
        match open_dir(self.upper.as_fd(), dir) {
            Ok(folder) => {
                if let Some(stat) = lstat(folder.as_fd(), name)? {
                    return Ok(if is_whiteout(&stat) {
                        Found::Nothing
                    } else {
                        Found::Upper(stat)
                    });
                }
                if is_opaque(folder.as_fd()) {
                    return Ok(Found::Nothing);
                }
            }
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        self.find_lower(dir, name)
    }

    fn find_lower(&self, dir: &[OsString], name: &OsStr) -> rustix::io::Result<Found> {
        for (index, lower) in self.lowers.iter().enumerate() {
            let folder = match open_dir(lower.as_fd(), dir) {
                Ok(folder) => folder,
                Err(Errno::NOENT) => {
                    // A whiteout of a folder above ends the search.
                    if self.hidden(lower.as_fd(), dir)? {
                        return Ok(Found::Nothing);
                    }
                    continue;
                }
                Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Found::Nothing),
                Err(error) => return Err(error),
            };
            if let Some(stat) = lstat(folder.as_fd(), name)? {
                return Ok(if is_whiteout(&stat) {
                    Found::Nothing
                } else {
                    Found::Lower(index, stat)
                });
            }
            if is_opaque(folder.as_fd()) {
                return Ok(Found::Nothing);
            }
        }
        Ok(Found::Nothing)
    }

    /// Whether a folder on the way to `dir` is whited out or opaque in this layer.
    fn hidden(&self, root: BorrowedFd<'_>, dir: &[OsString]) -> rustix::io::Result<bool> {
        for depth in 0..dir.len() {
            let Ok(folder) = open_dir(root, &dir[..depth]) else { return Ok(false) };
            match lstat(folder.as_fd(), &dir[depth])? {
                Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
                Some(_) => return Ok(true),
                None => return Ok(is_opaque(folder.as_fd())),
            }
        }
        Ok(false)
    }

    fn make(&self, path: &[OsString], entry: &Path) -> Result<OwnedFd, UnpackError> {
        let fail = |error: Errno| entry_error(entry, error);
        if let Ok(folder) = open_dir(self.upper.as_fd(), path) {
            return Ok(folder);
        }
        for depth in 0..path.len() {
            let above = open_dir(self.upper.as_fd(), &path[..depth]).map_err(fail)?;
            let name = &path[depth];
            match lstat(above.as_fd(), name).map_err(fail)? {
                Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                    continue;
                }
                Some(stat) if is_whiteout(&stat) => {
                    rustix::fs::unlinkat(&above, name, AtFlags::empty()).map_err(fail)?;
                    rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)).map_err(fail)?;
                    set_opaque(
                        open_dir(above.as_fd(), std::slice::from_ref(name)).map_err(fail)?.as_fd(),
                    )
                    .map_err(fail)?;
                }
                Some(_) => return Err(entry_error(entry, "a component of its path is no folder")),
                None => {
                    rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)).map_err(fail)?;
                    self.imitate(&path[..depth], name, above.as_fd()).map_err(fail)?;
                }
            }
        }
        open_dir(self.upper.as_fd(), path).map_err(fail)
    }

    /// Gives a folder made on the way owner, mode and times of the one below it.
    fn imitate(
        &self,
        dir: &[OsString],
        name: &OsString,
        above: BorrowedFd<'_>,
    ) -> rustix::io::Result<()> {
        let Found::Lower(_, stat) = self.find_lower(dir, name)? else { return Ok(()) };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(());
        }
        let folder = open_dir(above, std::slice::from_ref(name))?;
        rustix::fs::fchown(
            &folder,
            Some(Uid::from_raw(stat.st_uid)),
            Some(Gid::from_raw(stat.st_gid)),
        )?;
        rustix::fs::fchmod(&folder, Mode::from_raw_mode(stat.st_mode & 0o7777))
    }

    /// What stands at a path without symlinks.
    pub(super) fn info(&self, path: &[OsString]) -> io::Result<Option<NodeInfo>> {
        let Some((name, dir)) = path.split_last() else {
            return Ok(Some(node_info(&rustix::fs::fstat(&self.upper)?, NodeKind::Folder)));
        };
        let found = match self.find(dir, name) {
            Ok(found) => found,
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let (root, stat) = match found {
            Found::Upper(stat) => (self.upper.as_fd(), stat),
            Found::Lower(index, stat) => (self.lowers[index].as_fd(), stat),
            Found::Nothing => return Ok(None),
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => NodeKind::File,
            FileType::Directory => NodeKind::Folder,
            FileType::Symlink => {
                NodeKind::Symlink(self.link(root, dir, name, &stat)?.unwrap_or_default())
            }
            _ => NodeKind::Special,
        };
        Ok(Some(node_info(&stat, kind)))
    }

    /// Names all layers together show in a folder.
    pub(super) fn names(&self, folder: &[OsString]) -> io::Result<BTreeSet<OsString>> {
        let (mut names, mut gone) = (BTreeSet::new(), BTreeSet::new());
        for root in std::iter::once(&self.upper).chain(&self.lowers) {
            let dir = match open_dir(root.as_fd(), folder) {
                Ok(dir) => dir,
                Err(Errno::NOENT) if !self.hidden(root.as_fd(), folder)? => continue,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => break,
                Err(error) => return Err(error.into()),
            };
            for item in rustix::fs::Dir::read_from(&dir)? {
                let item = item?;
                let bytes = item.file_name().to_bytes();
                if matches!(bytes, b"." | b"..") {
                    continue;
                }
                let name = <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes).to_owned();
                if gone.contains(&name) {
                    continue;
                }
                match lstat(dir.as_fd(), &name)? {
                    Some(stat) if is_whiteout(&stat) => drop(gone.insert(name)),
                    Some(_) => drop(names.insert(name)),
                    None => {}
                }
            }
            if is_opaque(dir.as_fd()) {
                break;
            }
        }
        Ok(names)
    }

    /// Opens a file for reading.
    pub(super) fn file(&self, path: &[OsString]) -> io::Result<std::fs::File> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let (name, dir) = path.split_last().ok_or_else(missing)?;
        let root = match self.find(dir, name)? {
            Found::Upper(_) => self.upper.as_fd(),
            Found::Lower(index, _) => self.lowers[index].as_fd(),
            Found::Nothing => return Err(missing()),
        };
        let folder = open_dir(root, dir)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(std::fs::File::from(rustix::fs::openat(
            &folder,
            name.as_os_str(),
            flags,
            Mode::empty(),
        )?))
    }

    /// Opens the lower layer's folder that shows `name`, to copy a hard link's target up.
    pub(super) fn lower_with(
        &self,
        dir: &[OsString],
        name: &OsStr,
    ) -> rustix::io::Result<Option<(OwnedFd, Stat)>> {
        match self.find_lower(dir, name)? {
            Found::Lower(index, stat) => {
                Ok(Some((open_dir(self.lowers[index].as_fd(), dir)?, stat)))
            }
            _ => Ok(None),
        }
    }
}

fn node_info(stat: &Stat, kind: NodeKind) -> NodeInfo {
    NodeInfo {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: stat.st_size.unsigned_abs(),
        mtime: stat.st_mtime,
    }
}

fn is_opaque(dir: BorrowedFd<'_>) -> bool {
    let mut value = [0u8; 2];
    matches!(rustix::fs::fgetxattr(dir, OPAQUE, &mut value), Ok(1) if value[0] == b'y')
}

/// Hides what the layers below have in `dir`.
pub(super) fn set_opaque(dir: BorrowedFd<'_>) -> rustix::io::Result<()> {
    rustix::fs::fsetxattr(dir, OPAQUE, b"y", rustix::fs::XattrFlags::empty())
}

/// Removes `name` from `dir`, with everything below it when it is a folder.
pub(super) fn remove_all(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    let Some(stat) = lstat(dir, name)? else { return Ok(()) };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return rustix::fs::unlinkat(dir, name, AtFlags::empty());
    }
    let folder = open_dir(dir, &[name.to_owned()])?;
    let mut names = Vec::new();
    for item in rustix::fs::Dir::read_from(&folder)? {
        let item = item?;
        let bytes = item.file_name().to_bytes();
        if !matches!(bytes, b"." | b"..") {
            names.push(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes).to_owned());
        }
    }
    for below in names {
        remove_all(folder.as_fd(), &below)?;
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}
