//! Applies a tar stream to a layer's folder.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};

use super::entry::{Entry, Kind};
use super::tree::{Tree, lstat, remove_all, set_opaque};
use super::{Target, UnpackError, entry_error};

/// Entries of one layer at most.
const MAX_ENTRIES: u64 = 10_000_000;

/// Unpacks every entry.
pub(super) fn apply(stream: &mut impl Read, target: &Target) -> Result<(), UnpackError> {
    let mut layer =
        Layer { tree: Tree::open(target)?, folders: Vec::new(), buffer: vec![0; 128 << 10] };
    let mut archive = tar::Archive::new(stream);
    let mut count = 0;
    for raw in archive.entries().map_err(UnpackError::Archive)? {
        let mut raw = raw.map_err(UnpackError::Archive)?;
        count += 1;
        if count > MAX_ENTRIES {
            return Err(UnpackError::Archive(io::Error::other("too many entries")));
        }
        if let Some(entry) = Entry::read(&mut raw)? {
            layer.put(&entry, &mut raw)?;
        }
    }
    layer.finish()
}

struct Layer {
    tree: Tree,
    /// Folders whose time is set when nothing is added to them any more.
    folders: Vec<(PathBuf, Vec<OsString>, (i64, u32))>,
    buffer: Vec<u8>,
}

fn timestamps(mtime: (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: mtime.0, tv_nsec: i64::from(mtime.1) };
    Timestamps { last_access: time, last_modification: time }
}

impl Layer {
    fn put<R: Read>(
        &mut self,
        entry: &Entry,
        content: &mut tar::Entry<'_, R>,
    ) -> Result<(), UnpackError> {
        if entry.leaf.is_empty() {
            return self.root(entry);
        }
        let parent = self.tree.folder(&entry.parent, &entry.name)?;
        self.place(entry, content, parent.as_fd()).map_err(|error| entry_error(&entry.name, error))
    }

    /// The entry `./`: metadata of the root folder.
    fn root(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if entry.kind != Kind::Folder {
            return Err(entry_error(&entry.name, "the root of an image must be a folder"));
        }
        let folder = self.tree.folder(&[], &entry.name)?;
        self.describe(folder.as_fd(), entry).map_err(|error| entry_error(&entry.name, error))?;
        self.folders.push((entry.name.clone(), Vec::new(), entry.mtime));
        Ok(())
    }

    fn place<R: Read>(
        &mut self,
        entry: &Entry,
        content: &mut tar::Entry<'_, R>,
        dir: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let leaf = entry.leaf.as_os_str();
        match &entry.kind {
            Kind::Opaque => {
                if self.tree.has_lowers() {
                    set_opaque(dir)?;
                }
                return Ok(());
            }
            Kind::Whiteout(hidden) => return self.whiteout(dir, hidden),
            Kind::Folder => return self.folder(entry, dir),
            _ => self.make_room(dir, leaf)?,
        }
        match &entry.kind {
            Kind::File => {
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let mut file =
                    File::from(rustix::fs::openat(dir, leaf, flags, Mode::from_raw_mode(0o600))?);
                self.copy(content, &mut file)?;
                self.describe(file.as_fd(), entry)?;
                rustix::fs::futimens(&file, &timestamps(entry.mtime))?;
            }
            Kind::Symlink(target) => {
                rustix::fs::symlinkat(target, dir, leaf)?;
                self.describe_name(dir, entry)?;
            }
            Kind::Hardlink(target) => self.hardlink(entry, target, dir)?,
            Kind::Char(major, minor) => {
                if (*major, *minor) == (0, 0) {
                    return Err(io::Error::other("a device 0:0 would hide files of other layers"));
                }
                self.node(
                    dir,
                    entry,
                    FileType::CharacterDevice,
                    rustix::fs::makedev(*major, *minor),
                )?;
            }
            Kind::Block(major, minor) => {
                self.node(dir, entry, FileType::BlockDevice, rustix::fs::makedev(*major, *minor))?;
            }
            Kind::Fifo => self.node(dir, entry, FileType::Fifo, 0)?,
            Kind::Folder | Kind::Whiteout(_) | Kind::Opaque => {}
        }
        Ok(())
    }

    fn make_room(&mut self, dir: BorrowedFd<'_>, leaf: &OsStr) -> io::Result<()> {
        if lstat(dir, leaf)?.is_some() {
            self.tree.forget();
            remove_all(dir, leaf)?;
        }
        Ok(())
    }

    fn copy<R: Read>(
        &mut self,
        content: &mut tar::Entry<'_, R>,
        file: &mut File,
    ) -> io::Result<()> {
        loop {
            let got = content.read(&mut self.buffer)?;
            if got == 0 {
                return Ok(());
            }
            file.write_all(&self.buffer[..got])?;
        }
    }

    fn folder(&mut self, entry: &Entry, dir: BorrowedFd<'_>) -> io::Result<()> {
        let leaf = entry.leaf.as_os_str();
        let existing = lstat(dir, leaf)?;
        let is_folder =
            existing.is_some_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory);
        if !is_folder {
            let hides_lower = existing.is_some_and(|s| {
                s.st_rdev == 0 && FileType::from_raw_mode(s.st_mode) == FileType::CharacterDevice
            });
            if existing.is_some() {
                self.tree.forget();
                rustix::fs::unlinkat(dir, leaf, AtFlags::empty())?;
            }
            rustix::fs::mkdirat(dir, leaf, Mode::from_raw_mode(0o700))?;
            if hides_lower {
                set_opaque(open_folder(dir, leaf)?.as_fd())?;
            }
        }
        let folder = open_folder(dir, leaf)?;
        self.describe(folder.as_fd(), entry)?;
        let mut path = entry.parent.clone();
        path.push(entry.leaf.clone());
        self.folders.push((entry.name.clone(), path, entry.mtime));
        Ok(())
    }

    /// A whiteout hides what lies below; what this layer itself put there stays away too.
    fn whiteout(&mut self, dir: BorrowedFd<'_>, hidden: &OsStr) -> io::Result<()> {
        self.make_room(dir, hidden)?;
        if self.tree.has_lowers() {
            rustix::fs::mknodat(dir, hidden, FileType::CharacterDevice, Mode::empty(), 0)?;
        }
        Ok(())
    }

    fn node(
        &self,
        dir: BorrowedFd<'_>,
        entry: &Entry,
        kind: FileType,
        device: u64,
    ) -> io::Result<()> {
        rustix::fs::mknodat(
            dir,
            entry.leaf.as_os_str(),
            kind,
            Mode::from_raw_mode(entry.mode),
            device,
        )?;
        self.describe_name(dir, entry)?;
        let mode = Mode::from_raw_mode(entry.mode);
        Ok(rustix::fs::chmodat(dir, entry.leaf.as_os_str(), mode, AtFlags::empty())?)
    }

    fn hardlink(
        &mut self,
        entry: &Entry,
        target: &[OsString],
        dir: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let Some((name, above)) = target.split_last() else {
            return Err(io::Error::other("hard link to the root folder"));
        };
        let source = self.tree.folder(above, &entry.name).map_err(io::Error::other)?;
        if lstat(source.as_fd(), name)?.is_none() {
            let plain = self.tree.resolve(above, &entry.name).map_err(io::Error::other)?;
            self.copy_up(&plain, name, source.as_fd())?;
        }
        Ok(rustix::fs::linkat(
            &source,
            name.as_os_str(),
            dir,
            entry.leaf.as_os_str(),
            AtFlags::empty(),
        )?)
    }

    /// Brings a file of a lower layer into this one, so that it can be linked to.
    fn copy_up(&mut self, dir: &[OsString], name: &OsStr, to: BorrowedFd<'_>) -> io::Result<()> {
        let missing = || io::Error::other("hard link to a file that does not exist");
        let (from, stat) = self.tree.lower_with(dir, name)?.ok_or_else(missing)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other(
                "hard link to something of a lower layer that is no file",
            ));
        }
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut source = File::from(rustix::fs::openat(&from, name, read, Mode::empty())?);
        let write =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut copy = File::from(rustix::fs::openat(to, name, write, Mode::from_raw_mode(0o600))?);
        io::copy(&mut source, &mut copy)?;
        rustix::fs::fchown(
            &copy,
            Some(Uid::from_raw(stat.st_uid)),
            Some(Gid::from_raw(stat.st_gid)),
        )?;
        rustix::fs::fchmod(&copy, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or_default();
        Ok(rustix::fs::futimens(&copy, &timestamps((stat.st_mtime, nanos)))?)
    }

    /// Owner, mode and attributes, in the order in which none undoes another: chown clears setuid and capabilities.
    fn describe(&self, node: BorrowedFd<'_>, entry: &Entry) -> io::Result<()> {
        rustix::fs::fchown(node, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
        rustix::fs::fchmod(node, Mode::from_raw_mode(entry.mode))?;
        for (name, value) in &entry.xattrs {
            match rustix::fs::fsetxattr(node, name.as_os_str(), value, XattrFlags::empty()) {
                // A file system or process that cannot keep an attribute still keeps the file.
                Ok(()) | Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The same for things that must not be opened: links and devices.
    fn describe_name(&self, dir: BorrowedFd<'_>, entry: &Entry) -> io::Result<()> {
        let leaf = entry.leaf.as_os_str();
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        rustix::fs::chownat(dir, leaf, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if !entry.xattrs.is_empty() {
            let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(leaf);
            for (name, value) in &entry.xattrs {
                match rustix::fs::lsetxattr(&path, name.as_os_str(), value, XattrFlags::empty()) {
                    Ok(()) | Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::PERM) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(rustix::fs::utimensat(dir, leaf, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets the times of folders, deepest last made first.
    fn finish(mut self) -> Result<(), UnpackError> {
        self.tree.forget();
        for (name, path, mtime) in std::mem::take(&mut self.folders).into_iter().rev() {
            let Some((leaf, above)) = path.split_last() else {
                let root = self.tree.folder(&[], &name)?;
                rustix::fs::futimens(&root, &timestamps(mtime))
                    .map_err(|error| entry_error(&name, error))?;
                continue;
            };
            let dir = self.tree.folder(above, &name)?;
            // The folder may have been replaced by a later entry.
            let is_folder = lstat(dir.as_fd(), leaf)
                .map_err(|error| entry_error(&name, error))?
                .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
            if is_folder {
                rustix::fs::utimensat(
                    &dir,
                    leaf.as_os_str(),
                    &timestamps(mtime),
                    AtFlags::SYMLINK_NOFOLLOW,
                )
                .map_err(|error| entry_error(&name, error))?;
            }
        }
        Ok(())
    }
}

fn open_folder(dir: BorrowedFd<'_>, leaf: &OsStr) -> io::Result<rustix::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, leaf, flags, Mode::empty())?)
}
