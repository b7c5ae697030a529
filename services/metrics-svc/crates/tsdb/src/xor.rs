//! Gorilla-compressed float chunks (encoding 1), bit for bit as Prometheus writes them.
//!
//! Two bytes of sample count, then timestamps as delta of deltas in 1, 16, 20, 24 or 68 bits and values as the
//! XOR with the value before.

/// Number of the encoding in chunk files.
pub(crate) const ENCODING: u8 = 1;
const NO_WINDOW: u8 = 0xff;

/// Builds a chunk.
#[derive(Debug, Clone)]
pub struct XorAppender {
    bytes: Vec<u8>,
    /// Bits still free in the last byte.
    free: u32,
    count: u16,
    time: i64,
    value: f64,
    delta: u64,
    leading: u8,
    trailing: u8,
}

impl Default for XorAppender {
    fn default() -> Self {
        Self {
            bytes: vec![0, 0],
            free: 0,
            count: 0,
            time: 0,
            value: 0.0,
            delta: 0,
            leading: NO_WINDOW,
            trailing: 0,
        }
    }
}

impl XorAppender {
    /// Samples so far.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// The chunk so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The finished chunk.
    pub fn into_bytes(self) -> Box<[u8]> {
        self.bytes.into_boxed_slice()
    }

    fn bits(&mut self, value: u64, mut count: u32) {
        while count > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let take = self.free.min(count);
            let part = (value >> (count - take)) as u8 & (0xff_u16 >> (8 - take)) as u8;
            self.free -= take;
            if let Some(last) = self.bytes.last_mut() {
                *last |= part << self.free;
            }
            count -= take;
        }
    }

    fn uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bits(value & 0x7f | 0x80, 8);
            value >>= 7;
        }
        self.bits(value, 8);
    }

    /// Adds a sample; times must not fall, and a chunk holds at most 65535 samples.
    pub fn append(&mut self, time: i64, value: f64) {
        match self.count {
            0 => {
                self.uvarint((time << 1 ^ time >> 63).cast_unsigned());
                self.bits(value.to_bits(), 64);
            }
            1 => {
                self.delta = time.wrapping_sub(self.time).cast_unsigned();
                self.uvarint(self.delta);
                self.xor(value);
            }
            _ => {
                let delta = time.wrapping_sub(self.time).cast_unsigned();
                self.double_delta(delta.wrapping_sub(self.delta).cast_signed());
                self.delta = delta;
                self.xor(value);
            }
        }
        self.time = time;
        self.value = value;
        self.count += 1;
        self.bytes[..2].copy_from_slice(&self.count.to_be_bytes());
    }

    fn double_delta(&mut self, dod: i64) {
        let fits = |bits: u32| (-((1i64 << (bits - 1)) - 1)..=1i64 << (bits - 1)).contains(&dod);
        let raw = dod.cast_unsigned();
        if dod == 0 {
            self.bits(0, 1);
        } else if fits(14) {
            self.bits(0b10, 2);
            self.bits(raw, 14);
        } else if fits(17) {
            self.bits(0b110, 3);
            self.bits(raw, 17);
        } else if fits(20) {
            self.bits(0b1110, 4);
            self.bits(raw, 20);
        } else {
            self.bits(0b1111, 4);
            self.bits(raw, 64);
        }
    }

    fn xor(&mut self, value: f64) {
        let delta = value.to_bits() ^ self.value.to_bits();
        if delta == 0 {
            self.bits(0, 1);
            return;
        }
        self.bits(1, 1);
        let leading = (delta.leading_zeros() as u8).min(31);
        let trailing = delta.trailing_zeros() as u8;
        if self.leading != NO_WINDOW && leading >= self.leading && trailing >= self.trailing {
            self.bits(0, 1);
            let size = 64 - u32::from(self.leading) - u32::from(self.trailing);
            self.bits(delta >> self.trailing, size);
            return;
        }
        (self.leading, self.trailing) = (leading, trailing);
        let size = 64 - u32::from(leading) - u32::from(trailing);
        self.bits(1, 1);
        self.bits(u64::from(leading), 5);
        // 64 significant bits are written as 0.
        self.bits(u64::from(size & 0x3f), 6);
        self.bits(delta >> trailing, size);
    }
}

/// Reads a chunk; ends early when the bytes do.
#[derive(Debug, Clone)]
pub struct XorIter<'a> {
    bytes: &'a [u8],
    at: usize,
    left: u32,
    total: u16,
    read: u16,
    time: i64,
    value: u64,
    delta: u64,
    leading: u8,
    trailing: u8,
}

impl<'a> XorIter<'a> {
    /// An iterator over the samples of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        let total = bytes.first_chunk().map_or(0, |count| u16::from_be_bytes(*count));
        Self {
            bytes,
            at: 2,
            left: 8,
            total,
            read: 0,
            time: 0,
            value: 0,
            delta: 0,
            leading: 0,
            trailing: 0,
        }
    }

    fn bits(&mut self, mut count: u32) -> Option<u64> {
        let mut value = 0u64;
        while count > 0 {
            let byte = *self.bytes.get(self.at)?;
            let take = self.left.min(count);
            let part = (byte >> (self.left - take)) as u16 & (0xff_u16 >> (8 - take));
            value = (if take == 64 { 0 } else { value << take }) | u64::from(part);
            self.left -= take;
            if self.left == 0 {
                self.left = 8;
                self.at += 1;
            }
            count -= take;
        }
        Some(value)
    }

    fn uvarint(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0u64, 0u32);
        loop {
            let byte = self.bits(8)?;
            if shift > 63 {
                return None;
            }
            value |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
            shift += 7;
        }
    }

    fn double_delta(&mut self) -> Option<i64> {
        let mut ones = 0;
        while ones < 4 && self.bits(1)? == 1 {
            ones += 1;
        }
        let size = match ones {
            0 => return Some(0),
            1 => 14,
            2 => 17,
            3 => 20,
            _ => return self.bits(64).map(u64::cast_signed),
        };
        let raw = self.bits(size)?.cast_signed();
        Some(if raw > 1 << (size - 1) { raw - (1 << size) } else { raw })
    }

    fn xor(&mut self) -> Option<()> {
        if self.bits(1)? == 0 {
            return Some(());
        }
        if self.bits(1)? == 1 {
            self.leading = self.bits(5)? as u8;
            let size = self.bits(6)? as u8;
            let size = if size == 0 { 64 } else { size };
            self.trailing = 64u8.checked_sub(self.leading)?.checked_sub(size)?;
        }
        let size = 64 - u32::from(self.leading) - u32::from(self.trailing);
        self.value ^= self.bits(size)? << self.trailing;
        Some(())
    }
}

impl Iterator for XorIter<'_> {
    type Item = (i64, f64);

    fn next(&mut self) -> Option<Self::Item> {
        if self.read >= self.total {
            return None;
        }
        match self.read {
            0 => {
                let raw = self.uvarint()?;
                self.time = (raw >> 1).cast_signed() ^ -((raw & 1).cast_signed());
                self.value = self.bits(64)?;
            }
            1 => {
                self.delta = self.uvarint()?;
                self.time = self.time.wrapping_add(self.delta.cast_signed());
                self.xor()?;
            }
            _ => {
                let dod = self.double_delta()?;
                self.delta = self.delta.wrapping_add(dod.cast_unsigned());
                self.time = self.time.wrapping_add(self.delta.cast_signed());
                self.xor()?;
            }
        }
        self.read += 1;
        Some((self.time, f64::from_bits(self.value)))
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn samples_round_trip() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        for _ in 0..500 {
            let (mut time, mut chunk, mut want) =
                (rng.random_range(-1000..2_000_000_000_000i64), XorAppender::default(), Vec::new());
            for _ in 0..rng.random_range(1..200) {
                time += match rng.random_range(0..5) {
                    0 => rng.random_range(0..1i64 << 40),
                    1 => rng.random_range(0..100_000),
                    _ => 15_000,
                };
                let value = match rng.random_range(0..4) {
                    0 => f64::from_bits(rng.random()),
                    1 => 12.0,
                    _ => f64::from(rng.random_range(0..1000u32)),
                };
                chunk.append(time, value);
                want.push((time, value.to_bits()));
            }
            let got: Vec<_> = XorIter::new(chunk.bytes()).map(|(t, v)| (t, v.to_bits())).collect();
            assert_eq!(got, want);
        }
    }

    #[test]
    fn broken_chunks_never_panic() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(2);
        for _ in 0..20_000 {
            let len = rng.random_range(0..40);
            let bytes: Vec<u8> = (0..len).map(|_| rng.random()).collect();
            assert!(XorIter::new(&bytes).count() <= 65_535);
        }
    }
}
