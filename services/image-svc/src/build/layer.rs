//! A layer in the making: what it holds, and its deterministic archive.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::engine::{Algorithm, Digest, Hasher};
use crate::store::{IngestFile, Mark, Store, StoreError};

/// Content of an entry.
#[derive(Debug)]
pub(super) enum Content {
    Folder,
    File(File, u64),
    Symlink(PathBuf),
}

/// An entry of a layer.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) content: Content,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since 1970.
    pub(super) mtime: i64,
}

/// Entries by path without leading slash.
pub(super) type Entries = BTreeMap<PathBuf, Entry>;

/// A written layer.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) file: IngestFile,
    pub(super) diff_id: Digest,
}

/// Writes the entries as a gzip-compressed tar. Same entries, same bytes. Blocks.
pub(super) fn write(store: &Store, entries: Entries) -> Result<Written, StoreError> {
    let path = store.ingest_path(&uuid::Uuid::new_v4().to_string());
    let file = IngestFile::open(&path, Mark::start(Algorithm::Sha256))?;
    let fail = |error: io::Error| StoreError::io(&path, error);
    // The header of the gzip stream carries neither name nor time.
    let gzip = GzEncoder::new(Sink { file, buffer: Vec::new() }, Compression::new(6));
    let mut archive =
        tar::Builder::new(Hashing { inner: gzip, hasher: Hasher::new(Algorithm::Sha256) });
    archive.mode(tar::HeaderMode::Deterministic);
    for (path, entry) in entries {
        append(&mut archive, path, entry).map_err(fail)?;
    }
    let hashing = archive.into_inner().map_err(fail)?;
    let mut sink = hashing.inner.finish().map_err(fail)?;
    sink.flush().map_err(fail)?;
    Ok(Written { file: sink.file, diff_id: hashing.hasher.finish() })
}

fn append(archive: &mut tar::Builder<impl Write>, path: PathBuf, entry: Entry) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_uid(entry.uid.into());
    header.set_gid(entry.gid.into());
    header.set_mtime(entry.mtime.max(0).unsigned_abs());
    header.set_size(0);
    match entry.content {
        Content::Folder => {
            header.set_entry_type(tar::EntryType::Directory);
            let mut folder = path.into_os_string();
            folder.push("/");
            archive.append_data(&mut header, folder, io::empty())
        }
        Content::Symlink(target) => {
            header.set_entry_type(tar::EntryType::Symlink);
            archive.append_link(&mut header, path, target)
        }
        Content::File(file, size) => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(size);
            archive.append_data(&mut header, path, file)
        }
    }
}

struct Hashing<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

const CHUNK: usize = 256 << 10;

struct Sink {
    file: IngestFile,
    buffer: Vec<u8>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let full = std::mem::take(&mut self.buffer);
        self.file.append(&[full.into()]).map_err(io::Error::other)
    }
}
