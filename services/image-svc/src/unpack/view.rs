//! Layers as one read-only tree, without mounting them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::tree::Tree;
use super::{Target, UnpackError};

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A symlink and its target.
    Symlink(PathBuf),
    /// A device, pipe or socket.
    Special,
}

/// A file, folder or link of a view.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file.
    pub size: u64,
    /// Modification time, seconds since 1970.
    pub mtime: i64,
}

/// A path without symlinks, as components below the root.
pub type Plain = Vec<OsString>;

/// Layers seen as one tree.
#[derive(Debug)]
pub struct View {
    tree: Option<Tree>,
}

impl View {
    /// A view of `layers`, nearest first.
    ///
    /// # Errors
    /// When a folder cannot be opened.
    pub fn open(layers: &[PathBuf]) -> Result<Self, UnpackError> {
        let Some((upper, lowers)) = layers.split_first() else { return Ok(Self { tree: None }) };
        let target = Target { upper: upper.clone(), lowers: lowers.to_vec() };
        Ok(Self { tree: Some(Tree::open(&target)?) })
    }

    /// The path with all symlinks followed, the last component's too. What does not exist stays as written.
    ///
    /// # Errors
    /// When the path is malformed or leads through too many links.
    pub fn resolve(&self, path: &Path) -> Result<Plain, UnpackError> {
        let parts = super::entry::components(path, path)?;
        match &self.tree {
            Some(tree) => tree.resolve(&parts, path),
            None => Ok(parts),
        }
    }

    /// The path with symlinks followed up to the last component, which stays.
    ///
    /// # Errors
    /// As [`View::resolve`].
    pub fn resolve_parent(&self, path: &Path) -> Result<Plain, UnpackError> {
        let mut parts = super::entry::components(path, path)?;
        let Some(last) = parts.pop() else { return Ok(parts) };
        let mut plain = match &self.tree {
            Some(tree) => tree.resolve(&parts, path)?,
            None => parts,
        };
        plain.push(last);
        Ok(plain)
    }

    /// What stands at a plain path.
    ///
    /// # Errors
    /// When a layer cannot be read.
    pub fn info(&self, path: &[OsString]) -> io::Result<Option<NodeInfo>> {
        let Some(tree) = &self.tree else {
            return Ok(path.is_empty().then_some(NodeInfo {
                kind: NodeKind::Folder,
                mode: 0o755,
                uid: 0,
                gid: 0,
                size: 0,
                mtime: 0,
            }));
        };
        tree.info(path)
    }

    /// Names in a folder, in order.
    ///
    /// # Errors
    /// When a layer cannot be read.
    pub fn names(&self, folder: &[OsString]) -> io::Result<BTreeSet<OsString>> {
        self.tree.as_ref().map_or_else(|| Ok(BTreeSet::new()), |tree| tree.names(folder))
    }

    /// Opens the file at a plain path.
    ///
    /// # Errors
    /// When it is missing or no file.
    pub fn file(&self, path: &[OsString]) -> io::Result<File> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        self.tree.as_ref().ok_or_else(missing)?.file(path)
    }

    /// The text of a small file, or `None` when there is none.
    ///
    /// # Errors
    /// When reading fails or it is larger than 1 MiB.
    pub fn text(&self, path: &str) -> io::Result<Option<String>> {
        let plain = self.resolve(Path::new(path)).map_err(io::Error::other)?;
        let Some(info) = self.info(&plain)? else { return Ok(None) };
        if info.kind != NodeKind::File || info.size > 1 << 20 {
            return Ok(None);
        }
        let mut text = String::new();
        io::Read::read_to_string(&mut self.file(&plain)?, &mut text)?;
        Ok(Some(text))
    }
}

/// A plain path as text with slashes, no leading one.
pub fn join(path: &[OsString]) -> PathBuf {
    let mut bytes = Vec::new();
    for (index, part) in path.iter().enumerate() {
        if index > 0 {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(part.as_bytes());
    }
    PathBuf::from(<OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes))
}
