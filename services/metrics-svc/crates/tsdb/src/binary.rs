//! Reading and writing the integers of the disk formats: big endian, varints, CRC-32C.

/// Why bytes cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short;

/// Reads from a slice; never panics on short input.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Short> {
        let (head, rest) = self.bytes.split_at_checked(count).ok_or(Short)?;
        self.bytes = rest;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Short> {
        self.take(1).map(|b| b[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Short> {
        let bytes: [u8; 4] = self.take(4)?.try_into().map_err(|_| Short)?;
        Ok(u32::from_be_bytes(bytes))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Short> {
        let bytes: [u8; 8] = self.take(8)?.try_into().map_err(|_| Short)?;
        Ok(u64::from_be_bytes(bytes))
    }

    pub(crate) fn uvarint(&mut self) -> Result<u64, Short> {
        let (mut value, mut shift) = (0u64, 0u32);
        loop {
            let byte = self.u8()?;
            if shift > 63 {
                return Err(Short);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    pub(crate) fn varint(&mut self) -> Result<i64, Short> {
        self.uvarint().map(|raw| (raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Short> {
        let len = usize::try_from(self.uvarint()?).map_err(|_| Short)?;
        std::str::from_utf8(self.take(len)?).map_err(|_| Short)
    }
}

/// What writers add to a byte buffer.
pub(crate) trait Put {
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    fn put_uvarint(&mut self, value: u64);
    fn put_varint(&mut self, value: i64);
    fn put_text(&mut self, text: &str);
}

impl Put for Vec<u8> {
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn put_varint(&mut self, value: i64) {
        self.put_uvarint((value << 1 ^ value >> 63).cast_unsigned());
    }

    fn put_text(&mut self, text: &str) {
        self.put_uvarint(text.len() as u64);
        self.extend_from_slice(text.as_bytes());
    }
}

/// CRC-32C (Castagnoli).
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip() {
        for value in [0, 1, -1, 63, -64, 64, i64::MAX, i64::MIN, 1 << 40] {
            let mut bytes = Vec::new();
            bytes.put_varint(value);
            assert_eq!(Reader::new(&bytes).varint(), Ok(value));
        }
        assert_eq!(Reader::new(&[0xff; 11]).uvarint(), Err(Short));
    }
}
