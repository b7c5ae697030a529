//! Taking a message apart into records whose data holds no compressed names.

use super::types::OPT;
use super::{Name, Rdata, Record, scan};

/// Records of a message, without OPT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Header flags and response code.
    pub flags: u16,
    /// Answer, authority, additional.
    pub sections: [Vec<Record>; 3],
}

/// Where names stand in the data of the types whose names may be compressed (RFC 3597 section 4):
/// bytes before the first name, and how many names follow.
pub fn names_in(rtype: u16) -> Option<(usize, usize)> {
    match rtype {
        2..=5 | 7..=9 | 12 | 39 => Some((0, 1)),
        6 | 14 | 17 => Some((0, 2)),
        15 | 18 | 21 | 36 => Some((2, 1)),
        33 => Some((6, 1)),
        _ => None,
    }
}

/// Takes a message apart; `None` when it is malformed.
pub fn unpack(message: &[u8]) -> Option<Message> {
    let walked = scan(message)?;
    let mut unpacked = Message { flags: walked.flags, ..Message::default() };
    for span in walked.records.iter().filter(|span| span.rtype != OPT) {
        let (name, _) = Name::read(message, span.start)?;
        let data = expand(message, span.rtype, span.ttl_at + 6, span.end)?;
        let record = Record { name, ttl: span.ttl, data: Rdata::Raw { rtype: span.rtype, data } };
        unpacked.sections[span.section].push(record);
    }
    Some(unpacked)
}

fn expand(message: &[u8], rtype: u16, start: usize, end: usize) -> Option<Vec<u8>> {
    let bytes = message.get(start..end)?;
    let Some((before, names)) = names_in(rtype) else { return Some(bytes.to_vec()) };
    let mut data = bytes.get(..before)?.to_vec();
    let mut at = start + before;
    for _ in 0..names {
        let (name, after) = Name::read(message, at)?;
        data.extend_from_slice(name.wire());
        at = after;
    }
    data.extend_from_slice(message.get(at..end)?);
    Some(data)
}
