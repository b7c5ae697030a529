//! The build context as a tar stream. `.dockerignore` is applied by image-svc; only what it surely drops is left out.

use std::io::{self, Write};
use std::path::PathBuf;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

const CHUNK: usize = 256 << 10;

/// Packs `folder`. The chunks end early when a file cannot be read; the handle says why.
pub(super) fn pack(folder: PathBuf) -> (ReceiverStream<Bytes>, JoinHandle<io::Result<()>>) {
    let (sender, receiver) = mpsc::channel(8);
    let packing = tokio::task::spawn_blocking(move || {
        let mut archive = tar::Builder::new(Chunks { sender, buffer: Vec::with_capacity(CHUNK) });
        archive.follow_symlinks(false);
        add(&mut archive, &folder, PathBuf::new())?;
        match archive.into_inner() {
            Ok(mut chunks) => match chunks.flush() {
                // image-svc stopped listening; it says why itself.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                other => other,
            },
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(error),
        }
    });
    (ReceiverStream::new(receiver), packing)
}

fn add(archive: &mut tar::Builder<Chunks>, root: &PathBuf, relative: PathBuf) -> io::Result<()> {
    let folder = root.join(&relative);
    let named = |error: io::Error, path: &PathBuf| {
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    };
    let mut entries: Vec<_> =
        std::fs::read_dir(&folder).map_err(|e| named(e, &folder))?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), relative.join(entry.file_name()));
        let kind = entry.file_type().map_err(|e| named(e, &path))?;
        if kind.is_dir() {
            archive.append_dir(&name, &path).map_err(|e| named(e, &path))?;
            add(archive, root, name)?;
        } else if kind.is_file() || kind.is_symlink() {
            archive.append_path_with_name(&path, &name).map_err(|e| named(e, &path))?;
        }
    }
    Ok(())
}

struct Chunks {
    sender: mpsc::Sender<Bytes>,
    buffer: Vec<u8>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.sender.blocking_send(full.into()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
