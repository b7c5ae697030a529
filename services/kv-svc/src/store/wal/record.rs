//! What frames carry.

use bytes::{Buf, BufMut, Bytes};

/// Place of an entry: its leader's term, and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPlace {
    /// Term.
    pub term: u64,
    /// Number.
    pub index: u64,
}

/// A vote this member gave, or a leader it accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    /// Term.
    pub term: u64,
    /// Candidate.
    pub node: u64,
    /// Whether a majority granted it.
    pub committed: bool,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Nothing.
    Blank,
    /// A request, encoded.
    Request(Bytes),
    /// Voters and learners, encoded.
    Membership(Bytes),
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it stands.
    pub place: LogPlace,
    /// What it says.
    pub payload: Payload,
}

/// One record of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// An entry was appended; one with the same number before is void.
    Entry(LogEntry),
    /// A vote was given.
    Vote(Vote),
    /// Entries from this number on are void.
    Truncate(u64),
    /// Entries up to here are no longer needed.
    Purge(LogPlace),
    /// Entries up to here are committed. Only a hint: it is written along, never waited for.
    Committed(LogPlace),
}

impl Record {
    /// Writes the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Entry(entry) => {
                let (kind, data): (u8, &[u8]) = match &entry.payload {
                    Payload::Blank => (1, b""),
                    Payload::Request(data) => (2, data),
                    Payload::Membership(data) => (3, data),
                };
                out.put_u8(kind);
                put_place(out, entry.place);
                out.put_u32_le(data.len() as u32);
                out.put_slice(data);
            }
            Self::Vote(vote) => {
                out.put_u8(4);
                out.put_u64_le(vote.term);
                out.put_u64_le(vote.node);
                out.put_u8(u8::from(vote.committed));
            }
            Self::Truncate(from) => {
                out.put_u8(5);
                out.put_u64_le(*from);
            }
            Self::Purge(place) => {
                out.put_u8(6);
                put_place(out, *place);
            }
            Self::Committed(place) => {
                out.put_u8(7);
                put_place(out, *place);
            }
        }
    }

    /// Reads the records of a frame. `None` when the bytes are none.
    pub fn decode_all(mut content: Bytes) -> Option<Vec<Self>> {
        let mut records = Vec::new();
        while content.has_remaining() {
            records.push(Self::decode(&mut content)?);
        }
        Some(records)
    }

    fn decode(content: &mut Bytes) -> Option<Self> {
        let kind = content.try_get_u8().ok()?;
        Some(match kind {
            1..=3 => {
                let place = get_place(content)?;
                let length = content.try_get_u32_le().ok()? as usize;
                if length > content.remaining() {
                    return None;
                }
                // A copy, so that an entry does not keep its whole segment in memory.
                let data = Bytes::copy_from_slice(&content.split_to(length));
                let payload = match kind {
                    1 => Payload::Blank,
                    2 => Payload::Request(data),
                    _ => Payload::Membership(data),
                };
                Self::Entry(LogEntry { place, payload })
            }
            4 => Self::Vote(Vote {
                term: content.try_get_u64_le().ok()?,
                node: content.try_get_u64_le().ok()?,
                committed: content.try_get_u8().ok()? == 1,
            }),
            5 => Self::Truncate(content.try_get_u64_le().ok()?),
            6 => Self::Purge(get_place(content)?),
            7 => Self::Committed(get_place(content)?),
            _ => return None,
        })
    }
}

fn put_place(out: &mut Vec<u8>, place: LogPlace) {
    out.put_u64_le(place.term);
    out.put_u64_le(place.index);
}

fn get_place(content: &mut Bytes) -> Option<LogPlace> {
    Some(LogPlace { term: content.try_get_u64_le().ok()?, index: content.try_get_u64_le().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Record> {
        let place = LogPlace { term: 3, index: 9 };
        let data = Bytes::from_static(b"data");
        vec![
            Record::Entry(LogEntry { place, payload: Payload::Blank }),
            Record::Entry(LogEntry { place, payload: Payload::Request(data.clone()) }),
            Record::Entry(LogEntry { place, payload: Payload::Membership(data) }),
            Record::Vote(Vote { term: 4, node: u64::MAX, committed: true }),
            Record::Truncate(7),
            Record::Purge(place),
            Record::Committed(place),
        ]
    }

    #[test]
    fn records_read_back() {
        let mut bytes = Vec::new();
        samples().iter().for_each(|record| record.encode(&mut bytes));
        assert_eq!(Record::decode_all(bytes.into()), Some(samples()));
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut bytes = Vec::new();
        samples().iter().for_each(|record| record.encode(&mut bytes));
        for cut in 0..bytes.len() {
            let _ = Record::decode_all(Bytes::copy_from_slice(&bytes[..cut]));
            for value in [0, 3, 0x80, 0xff] {
                let mut mutated = bytes.clone();
                mutated[cut] = value;
                let _ = Record::decode_all(mutated.into());
            }
        }
    }
}
