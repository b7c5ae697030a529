//! Frames: length, checksum and number in front of a group of records.

/// Bytes in front of a frame's content: length, CRC-32C, number.
pub const HEADER: usize = 16;
/// Frames start at multiples of this.
pub const ALIGN: usize = 8;
/// A disk writes sectors of this size whole or not at all.
const SECTOR: usize = 512;
/// Segments are preallocated in multiples of this.
const PAGE: usize = 4096;

/// What lies at a place in a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A frame.
    Frame {
        /// Its number.
        number: u64,
        /// Its content.
        content: &'a [u8],
        /// Where the next one starts.
        next: usize,
    },
    /// Nothing was written here.
    End,
    /// A frame a crash cut short.
    Torn,
    /// Bytes that no crash explains.
    Damaged,
}

fn checksum(seed: u32, number: u64, content: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(seed, &(content.len() as u32).to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &number.to_le_bytes()), content)
}

/// Bytes a frame of this content takes.
pub fn size(content: usize) -> usize {
    (HEADER + content).next_multiple_of(ALIGN)
}

/// Finishes a frame in place: `buffer` holds [`HEADER`] free bytes and the content.
pub fn seal(buffer: &mut Vec<u8>, seed: u32, number: u64) {
    let length = (buffer.len() - HEADER) as u32;
    let crc = checksum(seed, number, &buffer[HEADER..]);
    buffer[0..4].copy_from_slice(&length.to_le_bytes());
    buffer[4..8].copy_from_slice(&crc.to_le_bytes());
    buffer[8..16].copy_from_slice(&number.to_le_bytes());
    buffer.resize(buffer.len().next_multiple_of(ALIGN), 0);
}

/// Reads what lies at `at`.
pub fn read(segment: &[u8], at: usize, seed: u32) -> Found<'_> {
    let Some(header) = segment.get(at..at + HEADER) else { return Found::End };
    if header.iter().all(|&byte| byte == 0) {
        return if is_blank(&segment[at..]) {
            Found::End
        } else {
            torn_or_damaged(segment, at, segment.len())
        };
    }
    let number = |range: std::ops::Range<usize>| {
        header[range].iter().rev().fold(0u64, |value, &byte| (value << 8) | u64::from(byte))
    };
    let (length, crc, number) = (number(0..4) as usize, number(4..8) as u32, number(8..16));
    let end = at + HEADER + length;
    let Some(content) = segment.get(at + HEADER..end) else {
        // Segments are made of whole pages; a file that is not lost its end.
        let shortened = !segment.len().is_multiple_of(PAGE);
        return if shortened { Found::Torn } else { torn_or_damaged(segment, at, segment.len()) };
    };
    if checksum(seed, number, content) == crc {
        return Found::Frame { number, content, next: at + size(length) };
    }
    torn_or_damaged(segment, at, end)
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// Segments are zero before they are written. A torn frame therefore misses at least one whole sector, and
/// nothing follows it; anything else was written once and changed since.
fn torn_or_damaged(segment: &[u8], at: usize, end: usize) -> Found<'static> {
    let end = end.min(segment.len());
    let written_to = segment.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    if written_to > end {
        return Found::Damaged;
    }
    let mut from = at;
    while from < end {
        let to = (from / SECTOR + 1) * SECTOR;
        if is_blank(&segment[from..to.min(end)]) {
            return Found::Torn;
        }
        from = to;
    }
    Found::Damaged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(contents: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (n, content) in contents.iter().enumerate() {
            let mut frame = vec![0; HEADER];
            frame.extend_from_slice(content);
            seal(&mut frame, 7, n as u64);
            bytes.extend(frame);
        }
        bytes.resize(bytes.len() + 4096, 0);
        bytes
    }

    #[test]
    fn frames_read_back() {
        let bytes = segment(&[b"one", b"twotwotwo"]);
        let Found::Frame { number: 0, content: b"one", next } = read(&bytes, 0, 7) else {
            panic!()
        };
        let Found::Frame { number: 1, content: b"twotwotwo", next } = read(&bytes, next, 7) else {
            panic!()
        };
        assert_eq!(read(&bytes, next, 7), Found::End);
        assert!(!matches!(read(&bytes, 0, 8), Found::Frame { .. }), "the seed counts");
    }

    #[test]
    fn a_cut_last_frame_is_torn_and_a_changed_one_is_damage() {
        let long = vec![0xabu8; 3000];
        let bytes = segment(&[b"first", &long]);
        let second = size(5);
        for cut in (second + 600..second + 2400).step_by(97) {
            let mut torn = bytes.clone();
            torn[cut.next_multiple_of(SECTOR)..].fill(0);
            assert_eq!(read(&torn, second, 7), Found::Torn, "cut at {cut}");
        }
        for flip in [second, second + 5, second + 9, second + 100, second + 2000] {
            let mut flipped = bytes.clone();
            flipped[flip] ^= 0x10;
            assert_eq!(read(&flipped, second, 7), Found::Damaged, "flip at {flip}");
        }
        let mut early = bytes;
        early[HEADER] ^= 1;
        assert_eq!(read(&early, 0, 7), Found::Damaged);
    }
}
