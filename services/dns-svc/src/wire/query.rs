//! Reading a query.

use super::types::{CD, FORMERR, NOTIMP, OPT, QR, RD};
use super::{MessageBuilder, Name};

const HEADER: usize = 12;
const QUERY: u16 = 0;
/// Smallest UDP payload every client accepts (RFC 1035 section 2.3.4).
const PLAIN_UDP: u16 = 512;

/// EDNS parameters of a query (RFC 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// UDP payload the client accepts, at least 512.
    pub size: u16,
    /// Version; only 0 exists.
    pub version: u8,
    /// Whether DNSSEC records are wanted.
    pub dnssec: bool,
}

/// A query with exactly one question.
#[derive(Debug, Clone)]
pub struct Query {
    /// Transaction id.
    pub id: u16,
    /// Header flags as sent.
    pub flags: u16,
    /// Name in the client's spelling.
    pub original: Name,
    /// Name in lower case.
    pub name: Name,
    /// Type.
    pub qtype: u16,
    /// Class.
    pub class: u16,
    /// EDNS, if the client speaks it.
    pub edns: Option<Edns>,
    /// Bytes the message had.
    pub size: usize,
}

/// What to do with a message that is no query to answer.
#[derive(Debug, PartialEq, Eq)]
pub enum QueryError {
    /// Say nothing: it is a response, or too short to have an id.
    Drop,
    /// Send this error back.
    Answer(Vec<u8>),
}

impl Query {
    /// Parses a message that came in.
    ///
    /// # Errors
    /// Whether to keep silent or which error to send.
    pub fn parse(message: &[u8]) -> Result<Self, QueryError> {
        if message.len() < HEADER {
            return Err(QueryError::Drop);
        }
        let word = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
        let (id, flags) = (word(0), word(2));
        if flags & QR != 0 {
            return Err(QueryError::Drop);
        }
        let refuse = |rcode| QueryError::Answer(MessageBuilder::bare(id, flags, rcode));
        if flags >> 11 & 0xF != QUERY {
            return Err(refuse(NOTIMP));
        }
        let [questions, answers, authorities, additionals] = [word(4), word(6), word(8), word(10)];
        // Counts are checked against the bytes before anything is believed of them.
        let least = usize::from(questions) * 5
            + (usize::from(answers) + usize::from(authorities) + usize::from(additionals)) * 11;
        if questions != 1 || HEADER + least > message.len() {
            return Err(refuse(FORMERR));
        }
        let (original, at) = Name::read(message, HEADER).ok_or_else(|| refuse(FORMERR))?;
        let fields = message.get(at..at + 4).ok_or_else(|| refuse(FORMERR))?;
        let (qtype, class) = (
            u16::from_be_bytes([fields[0], fields[1]]),
            u16::from_be_bytes([fields[2], fields[3]]),
        );
        let records = usize::from(answers) + usize::from(authorities) + usize::from(additionals);
        let edns = read_edns(message, at + 4, records).ok_or_else(|| refuse(FORMERR))?;
        let name = original.to_lowercase();
        Ok(Self { id, flags, original, name, qtype, class, edns, size: message.len() })
    }

    /// Bytes an answer over UDP may have.
    pub fn udp_limit(&self) -> usize {
        usize::from(self.edns.map_or(PLAIN_UDP, |edns| edns.size))
    }

    /// Flags of an answer that are taken over from the query: RD and CD.
    pub fn echoed_flags(&self) -> u16 {
        self.flags & (RD | CD)
    }

    /// Whether the client wants DNSSEC records.
    pub fn wants_dnssec(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec)
    }
}

/// Walks the records after the question for OPT; `None` when they cannot be read or OPT stands twice.
fn read_edns(message: &[u8], mut at: usize, records: usize) -> Option<Option<Edns>> {
    let mut found = None;
    for _ in 0..records {
        let (owner, after) = Name::read(message, at)?;
        let fixed = message.get(after..after + 10)?;
        let rtype = u16::from_be_bytes([fixed[0], fixed[1]]);
        let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        at = after + 10 + length;
        message.get(..at)?;
        if rtype == OPT {
            if found.is_some() || owner != Name::root() {
                return None;
            }
            let size = u16::from_be_bytes([fixed[2], fixed[3]]).max(PLAIN_UDP);
            found = Some(Edns { size, version: fixed[5], dnssec: fixed[6] & 0x80 != 0 });
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(extra: &[u8], additionals: u8) -> Vec<u8> {
        let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, additionals];
        message.extend_from_slice(Name::parse("WWW.example.org").unwrap().wire());
        message.extend_from_slice(&[0, 1, 0, 1]);
        message.extend_from_slice(extra);
        message
    }

    #[test]
    fn question_and_edns_are_read() {
        let parsed = Query::parse(&query(&[0, 0, 41, 16, 0, 0, 0, 0x80, 0, 0, 0], 1)).unwrap();
        assert_eq!(parsed.name.to_string(), "www.example.org.");
        assert_eq!(parsed.original.to_string(), "WWW.example.org.");
        assert_eq!(parsed.edns, Some(Edns { size: 4096, version: 0, dnssec: true }));
        assert_eq!(Query::parse(&query(&[], 0)).unwrap().udp_limit(), 512);
    }

    #[test]
    fn bad_queries_get_one_error_or_silence() {
        assert_eq!(Query::parse(&[0; 5]).unwrap_err(), QueryError::Drop);
        let mut response = query(&[], 0);
        response[2] |= 0x80;
        assert_eq!(Query::parse(&response).unwrap_err(), QueryError::Drop);
        let mut two = query(&[], 0);
        two[5] = 2;
        let QueryError::Answer(answer) = Query::parse(&two).unwrap_err() else { panic!("silent") };
        assert_eq!(answer[3] & 0xF, FORMERR);
        let huge_counts = query(&[], 255);
        assert!(matches!(Query::parse(&huge_counts), Err(QueryError::Answer(_))));
    }

    #[test]
    fn mutated_queries_never_panic() {
        let seed = query(&[0, 0, 41, 16, 0, 0, 0, 0x80, 0, 0, 4, 1, 2, 3, 4], 1);
        let mut state = 1_u64;
        for _ in 0..50_000 {
            let mut message = seed.clone();
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (state >> 33) as usize % message.len();
                message[at] = (state >> 24) as u8;
            }
            message.truncate((state >> 40) as usize % (message.len() + 1));
            let _ = Query::parse(&message);
            let _ = crate::wire::scan(&message);
            let _ = crate::wire::unpack(&message);
        }
    }
}
