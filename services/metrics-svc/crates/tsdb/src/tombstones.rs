//! Deleted ranges of a block's series.

use std::collections::BTreeMap;
use std::path::Path;

use crate::Error;
use crate::binary::{Put, Reader, crc};
use crate::meta::write_synced;

const MAGIC: u32 = 0x0130_BA30;
const VERSION: u8 = 1;

/// A deleted range, both ends included.
pub(crate) type Interval = (i64, i64);

/// Deleted ranges by series reference.
pub(crate) type Tombstones = BTreeMap<u64, Vec<Interval>>;

/// Adds a range and joins those that touch.
pub(crate) fn add(intervals: &mut Vec<Interval>, new: Interval) {
    intervals.push(new);
    intervals.sort_unstable();
    let mut joined: Vec<Interval> = Vec::with_capacity(intervals.len());
    for next in intervals.drain(..) {
        match joined.last_mut() {
            Some(last) if next.0 <= last.1.saturating_add(1) => last.1 = last.1.max(next.1),
            _ => joined.push(next),
        }
    }
    *intervals = joined;
}

/// Whether a time lies in one of the ranges.
pub(crate) fn contains(intervals: &[Interval], time: i64) -> bool {
    intervals.iter().any(|(min, max)| (*min..=*max).contains(&time))
}

pub(crate) fn read(dir: &Path) -> Result<Tombstones, Error> {
    let path = dir.join("tombstones");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Tombstones::new()),
        Err(error) => return Err(Error::io("read", &path)(error)),
    };
    let corrupt = |reason: &str| Error::corrupt(&path, 0, reason);
    let body = bytes
        .len()
        .checked_sub(4)
        .and_then(|end| bytes.get(4..end))
        .ok_or_else(|| corrupt("too short"))?;
    let sum = &bytes[bytes.len() - 4..];
    if bytes[..4] != MAGIC.to_be_bytes() {
        return Err(corrupt("invalid magic number"));
    }
    // The sum leaves the version byte out.
    if body.is_empty() || sum != crc(&body[1..]).to_be_bytes() {
        return Err(corrupt("checksum did not match"));
    }
    let mut reader = Reader::new(body);
    let mut out = Tombstones::new();
    let mut parse = || {
        if reader.u8()? != VERSION {
            return Err(crate::binary::Short);
        }
        while !reader.is_empty() {
            let (series, min, max) = (reader.uvarint()?, reader.varint()?, reader.varint()?);
            add(out.entry(series).or_default(), (min, max));
        }
        Ok(())
    };
    parse().map_err(|_| corrupt("invalid entry"))?;
    Ok(out)
}

pub(crate) fn write(dir: &Path, tombstones: &Tombstones) -> Result<(), Error> {
    let mut body = vec![VERSION];
    for (series, intervals) in tombstones {
        for (min, max) in intervals {
            body.put_uvarint(*series);
            body.put_varint(*min);
            body.put_varint(*max);
        }
    }
    let mut bytes = MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&body);
    bytes.put_u32(crc(&body[1..]));
    let (path, partial) = (dir.join("tombstones"), dir.join("tombstones.tmp"));
    write_synced(&partial, &bytes)?;
    std::fs::rename(&partial, &path).map_err(Error::io("rename", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_and_round_trip() {
        let mut list = Vec::new();
        for new in [(10, 20), (30, 40), (21, 29), (50, 60)] {
            add(&mut list, new);
        }
        assert_eq!(list, [(10, 40), (50, 60)]);
        let dir = tempfile::tempdir().unwrap();
        let stones = Tombstones::from([(7, list)]);
        write(dir.path(), &stones).unwrap();
        assert_eq!(read(dir.path()).unwrap(), stones);
    }
}
