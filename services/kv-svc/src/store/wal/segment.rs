//! Segment files: preallocated, named after the number of their first frame.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

/// Bytes a segment is preallocated to.
pub const SEGMENT: u64 = 16 << 20;
/// Bytes in front of the first frame.
pub const PREFIX: usize = 32;
const MAGIC: &[u8; 8] = b"FLTKVWA1";

/// The first bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Start value of the frames' checksums, so that no frame of another segment passes for one of this.
    pub seed: u32,
    /// Number of the first frame.
    pub first: u64,
}

impl Prefix {
    fn encode(self) -> [u8; PREFIX] {
        let mut bytes = [0; PREFIX];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&self.seed.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.first.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..20]);
        bytes[20..24].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the first bytes of a segment.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..PREFIX)?;
        let crc = u32::from_le_bytes(bytes[20..24].try_into().ok()?);
        if &bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..20]) != crc {
            return None;
        }
        let seed = u32::from_le_bytes(bytes[8..12].try_into().ok()?);
        Some(Self { seed, first: u64::from_le_bytes(bytes[12..20].try_into().ok()?) })
    }
}

/// Path of the segment whose first frame has this number.
pub fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:016x}.wal"))
}

/// Segments of a folder, oldest first.
pub fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".wal"));
        let number =
            number.filter(|hex| hex.len() == 16).and_then(|hex| u64::from_str_radix(hex, 16).ok());
        segments.extend(number.map(|number| (number, path)));
    }
    segments.sort();
    Ok(segments)
}

/// Creates a segment that holds at least `needed` bytes of frames, under a temporary name first: a crash leaves
/// either no segment or one with a good prefix.
pub fn create(dir: &Path, prefix: Prefix, needed: usize) -> io::Result<(File, u64)> {
    let target = path(dir, prefix.first);
    let draft = target.with_extension("tmp");
    let file =
        OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&draft)?;
    let size = SEGMENT.max((PREFIX + needed).next_multiple_of(4096) as u64);
    match fallocate(&file, FallocateFlags::empty(), 0, size) {
        Ok(()) => {}
        // Not every file system can; a plain size is only slower.
        Err(rustix::io::Errno::NOTSUP) => file.set_len(size)?,
        Err(error) => {
            // What was reserved so far must not keep a full disk full.
            let _ = std::fs::remove_file(&draft);
            return Err(error.into());
        }
    }
    file.write_all_at(&prefix.encode(), 0)?;
    file.sync_all()?;
    std::fs::rename(&draft, &target)?;
    sync_dir(dir)?;
    Ok((file, size))
}

/// Makes names in a folder durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_reads_back_and_notices_changes() {
        let prefix = Prefix { seed: 0xdead_beef, first: 42 };
        let bytes = prefix.encode();
        assert_eq!(Prefix::decode(&bytes), Some(prefix));
        for at in 0..24 {
            let mut changed = bytes;
            changed[at] ^= 1;
            assert_eq!(Prefix::decode(&changed), None, "byte {at}");
        }
        assert_eq!(Prefix::decode(&bytes[..10]), None);
    }
}
