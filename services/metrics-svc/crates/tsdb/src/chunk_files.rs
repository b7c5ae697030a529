//! Chunk segments of a block: `chunks/000001`, each at most 512 MiB.
//!
//! A chunk's reference is the segment's index in the upper and the byte offset in the lower 32 bits.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::binary::{Put, Reader, crc};
use crate::mapped::Mapped;

const MAGIC: u32 = 0x85BD_40DD;
const HEADER: [u8; 8] = [0x85, 0xBD, 0x40, 0xDD, 1, 0, 0, 0];
const SEGMENT_SIZE: u64 = 512 << 20;

/// Writes the segments of a new block.
#[derive(Debug)]
pub(crate) struct ChunkWriter {
    dir: PathBuf,
    file: Option<BufWriter<File>>,
    segments: u64,
    offset: u64,
}

impl ChunkWriter {
    pub(crate) fn create(dir: PathBuf) -> Result<Self, Error> {
        std::fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        Ok(Self { dir, file: None, segments: 0, offset: 0 })
    }

    fn path(&self) -> PathBuf {
        self.dir.join(format!("{:06}", self.segments))
    }

    /// Adds a chunk and returns its reference.
    pub(crate) fn add(&mut self, encoding: u8, data: &[u8]) -> Result<u64, Error> {
        let mut entry = Vec::with_capacity(data.len() + 12);
        entry.put_uvarint(data.len() as u64);
        let start = entry.len();
        entry.push(encoding);
        entry.extend_from_slice(data);
        let sum = crc(&entry[start..]);
        entry.put_u32(sum);
        if self.file.is_none() || self.offset + entry.len() as u64 > SEGMENT_SIZE {
            self.finish()?;
            self.segments += 1;
            let path = self.path();
            let mut file = BufWriter::new(File::create(&path).map_err(Error::io("create", &path))?);
            file.write_all(&HEADER).map_err(Error::io("write", &path))?;
            self.file = Some(file);
            self.offset = HEADER.len() as u64;
        }
        let reference = (self.segments - 1) << 32 | self.offset;
        let path = self.path();
        if let Some(file) = &mut self.file {
            file.write_all(&entry).map_err(Error::io("write", path))?;
        }
        self.offset += entry.len() as u64;
        Ok(reference)
    }

    /// Flushes and syncs the open segment.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let path = self.path();
        let file = file.into_inner().map_err(|e| Error::io("write", &path)(e.into_error()))?;
        file.sync_all().map_err(Error::io("sync", &path))
    }
}

/// Reads chunks of a block.
#[derive(Debug)]
pub(crate) struct ChunkReader {
    dir: PathBuf,
    segments: Vec<Mapped>,
}

impl ChunkReader {
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let mut names: Vec<PathBuf> = std::fs::read_dir(dir)
            .map_err(Error::io("list", dir))?
            .flatten()
            .map(|e| e.path())
            .filter(|p| {
                p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.parse::<u32>().is_ok())
            })
            .collect();
        names.sort();
        let mut segments = Vec::new();
        for path in &names {
            let map = Mapped::open(path)?;
            if map.get(..4) != Some(&MAGIC.to_be_bytes()[..]) {
                return Err(Error::corrupt(path, 0, "invalid magic number"));
            }
            segments.push(map);
        }
        Ok(Self { dir: dir.to_owned(), segments })
    }

    /// Bytes of all segments.
    pub(crate) fn size(&self) -> u64 {
        self.segments.iter().map(|s| s.len() as u64).sum()
    }

    /// Encoding and data of a chunk, after its checksum was verified.
    pub(crate) fn chunk(&self, reference: u64) -> Result<(u8, &[u8]), Error> {
        let (index, offset) = ((reference >> 32) as usize, (reference & 0xffff_ffff) as usize);
        let corrupt = |reason: &str| {
            Error::corrupt(self.dir.join(format!("{:06}", index + 1)), offset, reason)
        };
        let segment = self.segments.get(index).ok_or_else(|| corrupt("no such segment"))?;
        let bytes = segment.get(offset..).ok_or_else(|| corrupt("reference beyond the segment"))?;
        let mut reader = Reader::new(bytes);
        let mut parse = || {
            let len = reader.uvarint()?;
            let body = reader.take((len as usize).saturating_add(1))?;
            Ok::<_, crate::binary::Short>((body, reader.u32()?))
        };
        let (body, sum) = parse().map_err(|_| corrupt("chunk beyond the segment"))?;
        if crc(body) != sum {
            return Err(corrupt("checksum mismatch"));
        }
        Ok((body[0], &body[1..]))
    }
}
