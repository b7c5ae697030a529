//! Files that grow until their digest is known.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::StoreError;
use crate::engine::{Algorithm, Hasher};

/// Start writing a finished stretch back to disk every so many bytes, so that the final sync is short.
const WRITEBACK: u64 = 8 << 20;

/// An append-only file with the digest of its content so far. All methods block.
#[derive(Debug)]
pub struct IngestFile {
    path: PathBuf,
    file: File,
    offset: u64,
    written_back: u64,
    hasher: Hasher,
}

/// What a file held at some point, to go back to.
#[derive(Debug, Clone)]
pub struct Mark {
    offset: u64,
    hasher: Hasher,
}

impl Mark {
    /// The empty file.
    pub fn start(algorithm: Algorithm) -> Self {
        Self { offset: 0, hasher: Hasher::new(algorithm) }
    }

    /// Bytes at the mark.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The digest at the mark.
    pub fn hasher(&self) -> &Hasher {
        &self.hasher
    }
}

impl IngestFile {
    /// Makes the file, or opens it and cuts it back to `mark`.
    ///
    /// # Errors
    /// When the file cannot be made, or is shorter than the mark.
    pub fn open(path: &Path, mark: Mark) -> Result<Self, StoreError> {
        let fail = |error: std::io::Error| StoreError::io(path, error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(fail)?;
        let length = file.metadata().map_err(fail)?.len();
        if length < mark.offset {
            return Err(StoreError::io(
                path,
                format!("holds {length} of {} acknowledged bytes", mark.offset),
            ));
        }
        if length > mark.offset {
            file.set_len(mark.offset).map_err(fail)?;
        }
        file.seek(SeekFrom::Start(mark.offset)).map_err(fail)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            offset: mark.offset,
            written_back: mark.offset,
            hasher: mark.hasher,
        })
    }

    /// Reads the first `offset` bytes of a file left by an earlier process to learn their digest.
    ///
    /// # Errors
    /// When the file is missing or shorter.
    pub fn resume_mark(path: &Path, offset: u64, algorithm: Algorithm) -> Result<Mark, StoreError> {
        let mut mark = Mark::start(algorithm);
        if offset == 0 {
            return Ok(mark);
        }
        let mut file = File::open(path).map_err(|error| StoreError::io(path, error))?;
        let mut buffer = vec![0; 256 << 10];
        while mark.offset < offset {
            let want =
                buffer.len().min(usize::try_from(offset - mark.offset).unwrap_or(usize::MAX));
            let got =
                file.read(&mut buffer[..want]).map_err(|error| StoreError::io(path, error))?;
            if got == 0 {
                return Err(StoreError::io(
                    path,
                    format!("holds {} of {offset} acknowledged bytes", mark.offset),
                ));
            }
            mark.hasher.update(&buffer[..got]);
            mark.offset += got as u64;
        }
        Ok(mark)
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// When the disk refuses them.
    pub fn append(&mut self, chunks: &[Bytes]) -> Result<(), StoreError> {
        for chunk in chunks {
            self.file.write_all(chunk).map_err(|error| StoreError::io(&self.path, error))?;
            self.hasher.update(chunk);
            self.offset += chunk.len() as u64;
        }
        let pending = self.offset - self.written_back;
        if pending >= WRITEBACK {
            start_writeback(&self.file, self.written_back, pending);
            self.written_back = self.offset;
        }
        Ok(())
    }

    /// Where the file stands.
    pub fn mark(&self) -> Mark {
        Mark { offset: self.offset, hasher: self.hasher.clone() }
    }

    /// Bytes so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads everything written so far.
    ///
    /// # Errors
    /// When reading fails.
    pub fn read_all(&mut self) -> Result<Vec<u8>, StoreError> {
        let fail = |error: std::io::Error| StoreError::io(&self.path, error);
        self.file.seek(SeekFrom::Start(0)).map_err(fail)?;
        let mut bytes = Vec::with_capacity(usize::try_from(self.offset).unwrap_or_default());
        self.file.read_to_end(&mut bytes).map_err(fail)?;
        Ok(bytes)
    }

    /// Moves the file to `target` and makes content and name durable.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn publish(self, target: &Path) -> Result<(), StoreError> {
        std::fs::rename(&self.path, target).map_err(|error| StoreError::io(target, error))?;
        // fsync after the rename: the journalling file systems put the new name on disk with the inode.
        self.file.sync_all().map_err(|error| StoreError::io(target, error))
    }

    /// Removes the file.
    pub fn discard(self) {
        // A file that stays behind is swept at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(target_os = "linux")]
fn start_writeback(file: &File, offset: u64, length: u64) {
    // Only a hint; the final sync reports errors.
    let _ = nix::fcntl::posix_fadvise(
        file.as_fd(),
        i64::try_from(offset).unwrap_or_default(),
        i64::try_from(length).unwrap_or_default(),
        nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED,
    );
}
