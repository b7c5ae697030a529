//! Walking a message without unpacking its data.

use super::Name;
use super::types::{OPT, SOA};

/// Records a message may have; more than fits into 64 KiB of minimal ones never occurs in practice.
const MAX_RECORDS: usize = 4096;

/// Where things are in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// Header flags and response code.
    pub flags: u16,
    /// First byte after the question.
    pub question_end: usize,
    /// Every record of the three sections, in order.
    pub records: Vec<Span>,
}

/// One record of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// 0 answer, 1 authority, 2 additional.
    pub section: usize,
    /// Type.
    pub rtype: u16,
    /// First byte.
    pub start: usize,
    /// Position of the TTL.
    pub ttl_at: usize,
    /// TTL in seconds.
    pub ttl: u32,
    /// First byte after it.
    pub end: usize,
}

impl Scan {
    /// The response code in the header.
    pub fn rcode(&self) -> u8 {
        (self.flags & 0xF) as u8
    }

    /// Smallest TTL of all records but OPT; `None` when there is none.
    pub fn min_ttl(&self) -> Option<u32> {
        self.records.iter().filter(|record| record.rtype != OPT).map(|record| record.ttl).min()
    }

    /// Number of records in the answer section.
    pub fn answers(&self) -> usize {
        self.records.iter().filter(|record| record.section == 0).count()
    }

    /// How long a negative answer may be kept: the smaller of the SOA's TTL and its last field (RFC 2308 section 5).
    pub fn negative_ttl(&self, message: &[u8]) -> Option<u32> {
        let soa = self.records.iter().find(|record| record.section == 1 && record.rtype == SOA)?;
        let minimum = message.get(soa.end - 4..soa.end)?;
        Some(soa.ttl.min(u32::from_be_bytes(minimum.try_into().ok()?)))
    }
}

/// Walks a message; `None` when it is malformed.
pub fn scan(message: &[u8]) -> Option<Scan> {
    let word = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
    let flags = word(2)?;
    let mut at = 12;
    for _ in 0..word(4)? {
        (_, at) = Name::read(message, at)?;
        at += 4;
    }
    let question_end = at;
    message.get(..question_end)?;
    let mut records = Vec::new();
    for section in 0..3 {
        for _ in 0..word(6 + section * 2)? {
            let start = at;
            let (_, after) = Name::read(message, at)?;
            let fixed = message.get(after..after + 10)?;
            let ttl = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
            let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
            at = after + 10 + length;
            message.get(..at)?;
            let rtype = u16::from_be_bytes([fixed[0], fixed[1]]);
            records.push(Span { section, rtype, start, ttl_at: after + 4, ttl, end: at });
            if records.len() > MAX_RECORDS {
                return None;
            }
        }
    }
    Some(Scan { flags, question_end, records })
}
