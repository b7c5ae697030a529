//! One tar entry, checked: path split into plain components, numbers read from PAX where given.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use tar::EntryType;

use super::{UnpackError, entry_error};

/// Longest path and most components of an entry.
const MAX_PATH: usize = 4096;
const MAX_DEPTH: usize = 512;
const MAX_XATTR: usize = 64 << 10;

/// What an entry makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Symlink(PathBuf),
    Hardlink(Vec<OsString>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    /// Removes this name from the layers below.
    Whiteout(OsString),
    /// Hides everything the layers below have in the folder.
    Opaque,
}

/// An entry.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: PathBuf,
    /// Folders above the last component.
    pub(super) parent: Vec<OsString>,
    /// Last component; empty for the root folder itself.
    pub(super) leaf: OsString,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    pub(super) xattrs: Vec<(OsString, Vec<u8>)>,
}

/// Splits a path into components below the root; `..` is refused.
pub(super) fn components(path: &Path, entry: &Path) -> Result<Vec<OsString>, UnpackError> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() > MAX_PATH || bytes.contains(&0) {
        return Err(entry_error(entry, "path is too long or holds a zero byte"));
    }
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_owned()),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(entry_error(entry, "path leads out of the image"));
            }
        }
    }
    if parts.len() > MAX_DEPTH {
        return Err(entry_error(entry, "path is too deep"));
    }
    Ok(parts)
}

impl Entry {
    /// Reads the head of a tar entry. `None` for entries that make nothing.
    pub(super) fn read<R: Read>(raw: &mut tar::Entry<'_, R>) -> Result<Option<Self>, UnpackError> {
        let name = PathBuf::from(OsString::from_vec(raw.path_bytes().into_owned()));
        let mut parts = components(&name, &name)?;
        let leaf = parts.pop().unwrap_or_default();
        let Some(mut kind) = kind_of(raw, &name)? else { return Ok(None) };
        if let Some(hidden) = leaf.as_bytes().strip_prefix(b".wh.") {
            match hidden {
                b".wh..opq" => kind = Kind::Opaque,
                // Other names of that form are aufs bookkeeping.
                _ if hidden.starts_with(b".wh.") => return Ok(None),
                b"" | b"." | b".." => return Err(entry_error(&name, "whiteout of no valid name")),
                _ => kind = Kind::Whiteout(OsString::from_vec(hidden.to_vec())),
            }
        }
        let header = raw.header();
        let fail = |error: std::io::Error| entry_error(&name, error);
        let raw_fields = header.as_old();
        // A blank field counts as 0, as in Go and GNU tar.
        let number = |field: &[u8], read: std::io::Result<u64>| {
            let blank = field.iter().all(|byte| matches!(byte, 0 | b' '));
            if blank { Ok(0) } else { read.map_err(fail) }
        };
        let mode = number(&raw_fields.mode, header.mode().map(u64::from))? & 0o7777;
        let mode = u32::try_from(mode).unwrap_or_default();
        let (uid, gid) =
            (number(&raw_fields.uid, header.uid())?, number(&raw_fields.gid, header.gid())?);
        let mtime = (number(&raw_fields.mtime, header.mtime())?.cast_signed(), 0);
        let mut entry = Self {
            parent: parts,
            leaf,
            kind,
            mode,
            uid: narrow(uid, &name)?,
            gid: narrow(gid, &name)?,
            mtime,
            xattrs: Vec::new(),
            name,
        };
        entry.read_pax(raw)?;
        Ok(Some(entry))
    }

    fn read_pax<R: Read>(&mut self, raw: &mut tar::Entry<'_, R>) -> Result<(), UnpackError> {
        let fail = |error: std::io::Error| entry_error(&self.name, error);
        let Some(extensions) = raw.pax_extensions().map_err(fail)? else { return Ok(()) };
        let mut total = 0;
        for extension in extensions {
            let extension = extension.map_err(fail)?;
            let value = extension.value_bytes();
            let text = || std::str::from_utf8(value).unwrap_or_default();
            let bad = |what: &str| entry_error(&self.name, format!("PAX {what} is malformed"));
            match extension.key_bytes() {
                b"uid" => self.uid = narrow(text().parse().map_err(|_| bad("uid"))?, &self.name)?,
                b"gid" => self.gid = narrow(text().parse().map_err(|_| bad("gid"))?, &self.name)?,
                b"mtime" => self.mtime = parse_time(text()).ok_or_else(|| bad("mtime"))?,
                key => {
                    let Some(attribute) = key.strip_prefix(b"SCHILY.xattr.") else { continue };
                    total += key.len() + value.len();
                    if total > MAX_XATTR || attribute.is_empty() || attribute.contains(&0) {
                        return Err(bad("xattr"));
                    }
                    // Overlay's own attributes would change what the mount shows; only we set them.
                    let overlay = [&b"trusted.overlay."[..], b"user.overlay."]
                        .iter()
                        .any(|p| attribute.starts_with(p));
                    if !overlay {
                        self.xattrs.push((OsString::from_vec(attribute.to_vec()), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }
}

fn kind_of<R: Read>(raw: &tar::Entry<'_, R>, name: &Path) -> Result<Option<Kind>, UnpackError> {
    let header = raw.header();
    let device = || {
        let major = header.device_major().ok().flatten();
        let minor = header.device_minor().ok().flatten();
        major.zip(minor).ok_or_else(|| entry_error(name, "device number is malformed"))
    };
    let link = || {
        let target =
            raw.link_name_bytes().ok_or_else(|| entry_error(name, "link has no target"))?;
        if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) {
            return Err(entry_error(name, "link target is empty, too long or holds a zero byte"));
        }
        Ok(PathBuf::from(OsString::from_vec(target.into_owned())))
    };
    Ok(Some(match header.entry_type() {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Directory => Kind::Folder,
        EntryType::Symlink => Kind::Symlink(link()?),
        EntryType::Link => Kind::Hardlink(components(&link()?, name)?),
        EntryType::Char => device().map(|(major, minor)| Kind::Char(major, minor))?,
        EntryType::Block => device().map(|(major, minor)| Kind::Block(major, minor))?,
        EntryType::Fifo => Kind::Fifo,
        EntryType::XGlobalHeader => return Ok(None),
        other => {
            return Err(entry_error(
                name,
                format!("unknown entry type {:?}", other.as_byte() as char),
            ));
        }
    }))
}

fn narrow(id: u64, name: &Path) -> Result<u32, UnpackError> {
    u32::try_from(id)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| entry_error(name, "owner id is too large"))
}

fn parse_time(text: &str) -> Option<(i64, u32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some((seconds.parse().ok()?, digits.parse().ok()?))
}
