//! Reads log segments record by record, and repairs a torn tail.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::binary::crc;
use crate::wal_writer::{FIRST, FULL, HEADER, LAST, MIDDLE, PAGE, SNAPPY, ZSTD, segment_path};

/// Decompressed bytes one record may have.
const MAX_RECORD: usize = 512 << 20;

/// Numbers of the segments in a folder, ascending.
pub(crate) fn segments(dir: &Path) -> Result<Vec<u32>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", dir)(error)),
    };
    let mut numbers: Vec<u32> =
        entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The newest `checkpoint.N` folder.
pub(crate) fn last_checkpoint(dir: &Path) -> Option<(u32, PathBuf)> {
    let entries = fs::read_dir(dir).ok()?;
    entries
        .flatten()
        .filter_map(|e| {
            Some((e.file_name().to_str()?.strip_prefix("checkpoint.")?.parse().ok()?, e.path()))
        })
        .max()
}

/// Calls `visit` with each record of one segment.
///
/// # Errors
/// [`Error::Corrupt`] carries the offset up to which the segment is good; errors of `visit` pass through.
pub(crate) fn read_segment(
    path: &Path,
    mut visit: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), Error> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let mut cursor = Cursor { bytes: &bytes, at: 0 };
    loop {
        let good = cursor.at;
        let corrupt = |reason: String| Error::corrupt(path, good, reason);
        match cursor.record() {
            Ok(None) => return Ok(()),
            Ok(Some(record)) => visit(&record).map_err(corrupt)?,
            Err(reason) => return Err(corrupt(reason)),
        }
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn record(&mut self) -> Result<Option<Vec<u8>>, String> {
        let mut body: Vec<u8> = Vec::new();
        let mut open = false;
        loop {
            let left = PAGE - self.at % PAGE;
            let rest = &self.bytes[self.at.min(self.bytes.len())..];
            if rest.is_empty() {
                return if open { Err("last record is torn".to_owned()) } else { Ok(None) };
            }
            if rest[0] == 0 {
                // Page padding: zeroes up to the page's end.
                let padding = &rest[..rest.len().min(left)];
                if padding.iter().any(|b| *b != 0) {
                    return Err("unexpected non-zero byte in padded page".to_owned());
                }
                self.at += padding.len();
                continue;
            }
            let (kind, length, sum, part) = fragment(rest, left)?;
            if crc(part) != sum {
                return Err(format!("unexpected checksum {:x}, expected {sum:x}", crc(part)));
            }
            match (kind & 7, open) {
                (FULL | FIRST, false) | (MIDDLE | LAST, true) => {}
                (other, _) => return Err(format!("unexpected fragment type {other}")),
            }
            body.extend_from_slice(part);
            self.at += HEADER + length;
            open = true;
            if matches!(kind & 7, FULL | LAST) {
                return unpack(kind & (SNAPPY | ZSTD), body).map(Some);
            }
            if body.len() > MAX_RECORD {
                return Err("record too large".to_owned());
            }
        }
    }
}

fn fragment(rest: &[u8], left_in_page: usize) -> Result<(u8, usize, u32, &[u8]), String> {
    let header: &[u8; HEADER] = rest.first_chunk().ok_or("torn header")?;
    let length = usize::from(u16::from_be_bytes([header[1], header[2]]));
    let sum = u32::from_be_bytes([header[3], header[4], header[5], header[6]]);
    if HEADER + length > left_in_page {
        return Err(format!("invalid record size {length}"));
    }
    let part = rest.get(HEADER..HEADER + length).ok_or("last record is torn")?;
    Ok((header[0], length, sum, part))
}

fn unpack(compression: u8, body: Vec<u8>) -> Result<Vec<u8>, String> {
    match compression {
        0 => Ok(body),
        SNAPPY => {
            let len = snap::raw::decompress_len(&body).map_err(|e| e.to_string())?;
            if len > MAX_RECORD {
                return Err("record too large".to_owned());
            }
            snap::raw::Decoder::new().decompress_vec(&body).map_err(|e| e.to_string())
        }
        ZSTD => zstd::bulk::decompress(
            &body,
            MAX_RECORD.min(body.len().saturating_mul(200).max(1 << 20)),
        )
        .map_err(|e| e.to_string()),
        _ => Err("unknown compression".to_owned()),
    }
}

/// Cuts `segment` at `offset`, keeps what was cut beside it as `.corrupt`, and sets later segments aside.
pub(crate) fn repair(dir: &Path, segment: u32, offset: u64) -> Result<(), Error> {
    let path = segment_path(dir, segment);
    let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
    let offset_in_memory = (offset as usize).min(bytes.len());
    let aside = path.with_extension("corrupt");
    fs::write(&aside, &bytes[offset_in_memory..]).map_err(Error::io("write", &aside))?;
    let file = fs::File::options().write(true).open(&path).map_err(Error::io("open", &path))?;
    file.set_len(offset).map_err(Error::io("truncate", &path))?;
    file.sync_all().map_err(Error::io("sync", &path))?;
    for later in segments(dir)?.into_iter().filter(|n| *n > segment) {
        let from = segment_path(dir, later);
        fs::rename(&from, from.with_extension("corrupt")).map_err(Error::io("rename", &from))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal_writer::WalWriter;

    fn read_all(dir: &Path) -> Result<Vec<Vec<u8>>, Error> {
        let mut all = Vec::new();
        for number in segments(dir)? {
            read_segment(&segment_path(dir, number), |record| {
                all.push(record.to_vec());
                Ok(())
            })?;
        }
        Ok(all)
    }

    fn records() -> Vec<Vec<u8>> {
        (0..400usize)
            .map(|i| (0..i * 37 % 5000 + 1).map(|b| (b * 31 % 251) as u8 ^ i as u8).collect())
            .collect()
    }

    #[test]
    fn records_come_back_in_order() {
        for compress in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = WalWriter::create(dir.path(), 0, 4 * PAGE as u64, compress).unwrap();
            writer.log(&records()).unwrap();
            assert_eq!(read_all(dir.path()).unwrap(), records());
            assert!(compress || segments(dir.path()).unwrap().len() > 2);
        }
    }

    #[test]
    fn torn_tail_is_cut_and_kept_aside() {
        let dir = tempfile::tempdir().unwrap();
        WalWriter::create(dir.path(), 0, 1 << 30, true).unwrap().log(&records()).unwrap();
        let path = segment_path(dir.path(), 0);
        let whole = fs::read(&path).unwrap();
        for cut in (1..whole.len()).step_by(4999) {
            fs::write(&path, &whole[..cut]).unwrap();
            let before = match read_all(dir.path()) {
                Ok(all) => all,
                Err(Error::Corrupt { offset, .. }) => {
                    repair(dir.path(), 0, offset).unwrap();
                    read_all(dir.path()).unwrap()
                }
                Err(other) => panic!("{other}"),
            };
            assert_eq!(before, records()[..before.len()]);
        }
    }

    #[test]
    fn flipped_bytes_never_panic() {
        let dir = tempfile::tempdir().unwrap();
        WalWriter::create(dir.path(), 0, 1 << 30, true).unwrap().log(&records()[..60]).unwrap();
        let path = segment_path(dir.path(), 0);
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(61) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            fs::write(&path, &bytes).unwrap();
            if let Ok(all) = read_all(dir.path()) {
                assert!(all.len() <= 60);
            }
        }
    }
}
