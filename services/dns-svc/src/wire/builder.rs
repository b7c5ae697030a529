//! Writing answers, with names compressed (RFC 1035 section 4.1.4).

use std::collections::HashMap;

use super::types::{CH, CNAME, IN, MX, NS, OPT, PTR, QR, SOA, TC};
use super::{Edns, Name, Query, Rdata, Record, names_in, scan};

const HEADER: usize = 12;
/// Payload this server accepts over UDP; 1232 avoids fragments (DNS flag day 2020).
const OWN_UDP_SIZE: u16 = 1232;

/// Builds one answer.
#[derive(Debug)]
pub struct MessageBuilder {
    bytes: Vec<u8>,
    /// Where each suffix that was written starts.
    suffixes: HashMap<Vec<u8>, u16>,
    counts: [u16; 3],
    class: u16,
}

impl MessageBuilder {
    /// An answer to `query` with these flags (QR is added) and response code.
    pub fn answer(query: &Query, flags: u16, rcode: u8) -> Self {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&query.id.to_be_bytes());
        bytes.extend_from_slice(
            &(QR | flags | query.echoed_flags() | u16::from(rcode)).to_be_bytes(),
        );
        bytes.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        let mut builder =
            Self { bytes, suffixes: HashMap::new(), counts: [0; 3], class: query.class };
        builder.name(&query.original, true);
        builder.bytes.extend_from_slice(&query.qtype.to_be_bytes());
        builder.bytes.extend_from_slice(&query.class.to_be_bytes());
        builder
    }

    /// A header without question, for messages whose question cannot be read.
    pub fn bare(id: u16, flags: u16, rcode: u8) -> Vec<u8> {
        const OPCODE_AND_RD: u16 = 0x7900;
        let mut bytes = id.to_be_bytes().to_vec();
        bytes.extend_from_slice(&(QR | flags & OPCODE_AND_RD | u16::from(rcode)).to_be_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes
    }

    /// Adds a record to the answer section.
    pub fn push_answer(&mut self, record: &Record) {
        self.record(record, 0);
    }

    /// Adds a record to the authority section. All answers must have been added.
    pub fn push_authority(&mut self, record: &Record) {
        self.record(record, 1);
    }

    /// Adds a record to the additional section. All others must have been added.
    pub fn push_additional(&mut self, record: &Record) {
        self.record(record, 2);
    }

    /// The message, without OPT: [`finish`] adds that for the client at hand.
    pub fn build(mut self) -> Vec<u8> {
        for (index, count) in self.counts.iter().enumerate() {
            let at = 6 + index * 2;
            self.bytes[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
        self.bytes
    }

    fn record(&mut self, record: &Record, section: usize) {
        self.name(&record.name, true);
        self.bytes.extend_from_slice(&record.data.rtype().to_be_bytes());
        let class = if self.class == CH && matches!(record.data, Rdata::Txt(_)) { CH } else { IN };
        self.bytes.extend_from_slice(&class.to_be_bytes());
        self.bytes.extend_from_slice(&record.ttl.to_be_bytes());
        let length_at = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.rdata(&record.data);
        let length = u16::try_from(self.bytes.len() - length_at - 2).unwrap_or(u16::MAX);
        self.bytes[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        self.counts[section] += 1;
    }

    fn rdata(&mut self, data: &Rdata) {
        match data {
            Rdata::A(ip) => self.bytes.extend_from_slice(&ip.octets()),
            Rdata::Aaaa(ip) => self.bytes.extend_from_slice(&ip.octets()),
            Rdata::Cname(name) | Rdata::Ns(name) | Rdata::Ptr(name) => self.name(name, true),
            Rdata::Soa { primary, mailbox, numbers } => {
                self.name(primary, true);
                self.name(mailbox, true);
                numbers
                    .iter()
                    .for_each(|number| self.bytes.extend_from_slice(&number.to_be_bytes()));
            }
            Rdata::Srv { priority, weight, port, target } => {
                [priority, weight, port]
                    .iter()
                    .for_each(|number| self.bytes.extend_from_slice(&number.to_be_bytes()));
                // RFC 2782: the target is not compressed.
                self.name(target, false);
            }
            Rdata::Raw { rtype, data } => self.raw(*rtype, data),
            Rdata::Txt(text) => {
                let text = &text.as_bytes()[..text.len().min(255)];
                self.bytes.push(text.len() as u8);
                self.bytes.extend_from_slice(text);
            }
        }
    }

    /// Data in wire form; names of the types of RFC 1035 are compressed (RFC 3597 section 4).
    fn raw(&mut self, rtype: u16, data: &[u8]) {
        let layout = names_in(rtype).filter(|_| matches!(rtype, NS | CNAME | SOA | PTR | MX));
        let Some((before, names)) = layout.filter(|(before, _)| data.len() >= *before) else {
            return self.bytes.extend_from_slice(data);
        };
        self.bytes.extend_from_slice(&data[..before]);
        let mut at = before;
        for _ in 0..names {
            let Some((name, after)) = Name::read(data, at) else { break };
            self.name(&name, true);
            at = after;
        }
        self.bytes.extend_from_slice(&data[at..]);
    }

    fn name(&mut self, name: &Name, compress: bool) {
        const LAST_POINTER: usize = 0x3FFF;
        let mut rest = name.wire();
        while let [length @ 1..=255, ..] = rest {
            // Keyed by exact spelling: a name keeps its case even if another spelling of it was written before.
            if compress && let Some(at) = self.suffixes.get(rest) {
                self.bytes.extend_from_slice(&(0xC000 | at).to_be_bytes());
                return;
            }
            if self.bytes.len() <= LAST_POINTER {
                self.suffixes.entry(rest.to_vec()).or_insert(self.bytes.len() as u16);
            }
            let label = usize::from(*length) + 1;
            self.bytes.extend_from_slice(&rest[..label]);
            rest = &rest[label..];
        }
        self.bytes.push(0);
    }
}

/// Makes a message fit for one client: its id and spelling, its EDNS, its size limit.
///
/// `message` may stem from a cache or an upstream; its own OPT is dropped (RFC 6891 section 6.1.1: hop by hop).
/// What exceeds `limit` is cut at a record boundary with TC set. Returns `None` for a message that cannot be read.
pub fn finish(message: &[u8], query: &Query, limit: usize) -> Option<Vec<u8>> {
    let walked = scan(message)?;
    let question = HEADER + query.original.wire().len();
    if walked.question_end != question + 4 {
        return None;
    }
    let room = limit.saturating_sub(if query.edns.is_some() { 11 } else { 0 });
    let mut bytes = Vec::with_capacity(message.len() + 11);
    bytes.extend_from_slice(&message[..walked.question_end]);
    bytes[..2].copy_from_slice(&query.id.to_be_bytes());
    bytes[HEADER..question].copy_from_slice(query.original.wire());
    let mut counts = [0_u16; 3];
    let mut truncated = false;
    for record in walked.records.iter().filter(|record| record.rtype != OPT) {
        if record.end - walked.question_end + question + 4 > room {
            // Missing additional records are no truncation (RFC 2181 section 9).
            truncated = record.section < 2;
            break;
        }
        bytes.extend_from_slice(&message[record.start..record.end]);
        counts[record.section] += 1;
    }
    let mut flags = u16::from_be_bytes([bytes[2], bytes[3]]);
    flags = flags & !(super::types::RD | super::types::CD)
        | query.echoed_flags()
        | if truncated { TC } else { 0 };
    bytes[2..4].copy_from_slice(&flags.to_be_bytes());
    if let Some(edns) = query.edns {
        push_opt(&mut bytes, edns, 0);
        counts[2] += 1;
    }
    for (index, count) in counts.iter().enumerate() {
        bytes[6 + index * 2..8 + index * 2].copy_from_slice(&count.to_be_bytes());
    }
    Some(bytes)
}

/// The answer to an EDNS version this server does not know (RFC 6891 section 6.1.3).
pub fn bad_version(query: &Query, edns: Edns) -> Vec<u8> {
    let mut bytes = MessageBuilder::answer(query, 0, 0).build();
    push_opt(&mut bytes, edns, (super::types::BADVERS >> 4) as u8);
    bytes[11] = 1;
    bytes
}

fn push_opt(bytes: &mut Vec<u8>, edns: Edns, extended_rcode: u8) {
    bytes.push(0);
    bytes.extend_from_slice(&OPT.to_be_bytes());
    bytes.extend_from_slice(&OWN_UDP_SIZE.to_be_bytes());
    bytes.extend_from_slice(&[extended_rcode, 0, if edns.dnssec { 0x80 } else { 0 }, 0, 0, 0]);
}
