//! Appends records to log segments.
//!
//! A segment is a row of 32 KiB pages. A record is split into fragments that do not cross pages; a fragment has
//! a 7-byte header (type and compression, length, CRC-32C). Records do not cross segments. Every call writes
//! its bytes to the file before it returns; fsync happens when a segment is finished, as in Prometheus.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::binary::crc;

/// Bytes of a page.
pub(crate) const PAGE: usize = 32 * 1024;
/// Bytes of a fragment header.
pub(crate) const HEADER: usize = 7;
/// Bit of the header that says the record is compressed with snappy.
pub(crate) const SNAPPY: u8 = 1 << 3;
/// Bit of the header that says the record is compressed with zstd.
pub(crate) const ZSTD: u8 = 1 << 4;
/// Fragment types.
pub(crate) const FULL: u8 = 1;
pub(crate) const FIRST: u8 = 2;
pub(crate) const MIDDLE: u8 = 3;
pub(crate) const LAST: u8 = 4;

/// The writing end of a log folder.
#[derive(Debug)]
pub(crate) struct WalWriter {
    dir: PathBuf,
    segment_size: u64,
    number: u32,
    file: File,
    /// Next byte of the file.
    offset: u64,
    compress: bool,
    encoder: snap::raw::Encoder,
}

/// `wal/00000012`
pub(crate) fn segment_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}"))
}

fn create(dir: &Path, number: u32) -> Result<File, Error> {
    let path = segment_path(dir, number);
    File::options().write(true).create_new(true).open(&path).map_err(Error::io("create", &path))
}

impl WalWriter {
    /// Starts segment `number`.
    pub(crate) fn create(
        dir: &Path,
        number: u32,
        segment_size: u64,
        compress: bool,
    ) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        let file = create(dir, number)?;
        let dir = dir.to_owned();
        Ok(Self {
            dir,
            segment_size,
            number,
            file,
            offset: 0,
            compress,
            encoder: snap::raw::Encoder::new(),
        })
    }

    /// Number of the segment being written.
    pub(crate) fn segment(&self) -> u32 {
        self.number
    }

    /// Writes records; after an error the log must not be used further than [`WalWriter::next_segment`].
    pub(crate) fn log(&mut self, records: &[Vec<u8>]) -> Result<(), Error> {
        for record in records {
            self.record(record)?;
        }
        Ok(())
    }

    fn record(&mut self, record: &[u8]) -> Result<(), Error> {
        let packed = if self.compress { self.encoder.compress_vec(record).ok() } else { None };
        let packed = packed.filter(|p| p.len() < record.len());
        let (flag, body) = packed.as_deref().map_or((0, record), |p| (SNAPPY, p));
        let room = self.room_in_segment();
        if body.len() as u64 > room && self.offset > 0 {
            self.next_segment()?;
        }
        let start = self.offset;
        let mut out = Vec::with_capacity(body.len() + HEADER * 2);
        let mut rest = body;
        let mut first = true;
        loop {
            let at = (start as usize + out.len()) % PAGE;
            let left = PAGE - at;
            if left < HEADER + 1 {
                out.resize(out.len() + left, 0);
                continue;
            }
            let (part, after) = rest.split_at(rest.len().min(left - HEADER));
            let kind = match (first, after.is_empty()) {
                (true, true) => FULL,
                (true, false) => FIRST,
                (false, false) => MIDDLE,
                (false, true) => LAST,
            };
            out.push(kind | flag);
            out.extend_from_slice(&(part.len() as u16).to_be_bytes());
            out.extend_from_slice(&crc(part).to_be_bytes());
            out.extend_from_slice(part);
            rest = after;
            first = false;
            if rest.is_empty() {
                break;
            }
        }
        let path = segment_path(&self.dir, self.number);
        self.file.write_all_at(&out, start).map_err(Error::io("write", path))?;
        self.offset = start + out.len() as u64;
        Ok(())
    }

    /// Payload bytes that still fit, headers taken off.
    fn room_in_segment(&self) -> u64 {
        let left = self.segment_size.saturating_sub(self.offset);
        let pages = left / PAGE as u64 + 1;
        left.saturating_sub(pages * HEADER as u64)
    }

    /// Finishes the segment on disk and starts the next one; returns the finished one's number.
    pub(crate) fn next_segment(&mut self) -> Result<u32, Error> {
        self.finish()?;
        let finished = self.number;
        self.file = create(&self.dir, finished + 1)?;
        self.number = finished + 1;
        self.offset = 0;
        Ok(finished)
    }

    /// Fills the last page with zeroes and syncs.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        let path = segment_path(&self.dir, self.number);
        let padded = self.offset.next_multiple_of(PAGE as u64);
        self.file.set_len(padded).map_err(Error::io("extend", &path))?;
        self.file.sync_all().map_err(Error::io("sync", &path))
    }
}
