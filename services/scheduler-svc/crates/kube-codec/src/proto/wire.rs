//! Tags, varints and lengths.

use thiserror::Error;

/// Why bytes are no message.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WireError {
    /// The bytes end inside a field.
    #[error("unexpected EOF")]
    Eof,
    /// A varint of more than ten bytes.
    #[error("proto: integer overflow")]
    Overflow,
    /// A wire type nobody uses.
    #[error("proto: illegal wireType {0}")]
    WireType(u8),
    /// Field number zero.
    #[error("proto: illegal tag 0")]
    Tag,
    /// A field came with the wire type of another.
    #[error("proto: wrong wireType = {wire} for field {field}")]
    Mismatch {
        /// The field.
        field: &'static str,
        /// What came.
        wire: u8,
    },
    /// Nested too deep.
    #[error("proto: exceeded max depth")]
    Depth,
}

/// Reads fields one after the other.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// Number and wire type of the next field.
    pub(crate) fn tag(&mut self) -> Result<Option<(u32, u8)>, WireError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| WireError::Overflow)?;
        if number == 0 {
            return Err(WireError::Tag);
        }
        Ok(Some((number, (tag & 7) as u8)))
    }

    pub(crate) fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(WireError::Eof)?;
            self.0 = rest;
            if shift == 63 && *byte > 1 {
                return Err(WireError::Overflow);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Overflow)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let len = usize::try_from(self.varint()?).map_err(|_| WireError::Overflow)?;
        if len > self.0.len() {
            return Err(WireError::Eof);
        }
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        Ok(head)
    }

    /// A text; broken UTF-8 becomes replacement characters, as Go's JSON encoder prints it.
    pub(crate) fn text(&mut self) -> Result<String, WireError> {
        Ok(String::from_utf8_lossy(self.bytes()?).into_owned())
    }

    pub(crate) fn fixed64(&mut self) -> Result<u64, WireError> {
        let (head, rest) = self.0.split_first_chunk::<8>().ok_or(WireError::Eof)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*head))
    }

    pub(crate) fn skip(&mut self, wire: u8) -> Result<(), WireError> {
        match wire {
            0 => self.varint().map(drop),
            1 => self.fixed64().map(drop),
            2 => self.bytes().map(drop),
            5 => {
                self.0 = self.0.get(4..).ok_or(WireError::Eof)?;
                Ok(())
            }
            other => Err(WireError::WireType(other)),
        }
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_tag(out: &mut Vec<u8>, number: u32, wire: u8) {
    put_varint(out, u64::from(number) << 3 | u64::from(wire));
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number, 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
