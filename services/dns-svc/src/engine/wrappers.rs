//! The small plugins around the backends: any, chaos, acl, header, minimal, loadbalance, bufsize.

use std::net::IpAddr;

use super::Client;
use super::rewrite::{RewriteRule, Rewritten, rewrite};
use crate::wire::types::{A, AAAA, ANY, CH, HINFO, NOERROR, OPT, REFUSED, TXT};
use crate::wire::{MessageBuilder, Name, Query, Rdata, Record, scan};

/// TTL of the answer to ANY; the number is a hint.
const ANY_TTL: u32 = 8482;

/// What `acl` does with a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AclAction {
    /// Goes on.
    Allow,
    /// REFUSED.
    Block,
    /// An empty answer.
    Filter,
    /// Silence.
    Drop,
}

/// One line of `acl`.
#[derive(Debug, Clone)]
pub struct AclPolicy {
    /// What happens.
    pub action: AclAction,
    /// For these types; for all if empty.
    pub types: Vec<u16>,
    /// For clients in these networks (address and prefix length); for all if empty.
    pub nets: Vec<(IpAddr, u8)>,
}

/// The plugins of one block.
#[derive(Debug, Clone, Default)]
pub struct Wrappers {
    /// `any`
    pub any: bool,
    /// `chaos`: version and authors.
    pub chaos: Option<(String, Vec<String>)>,
    /// `rewrite`, in file order.
    pub rewrite: Vec<RewriteRule>,
    /// `acl`: zones, and lines of which the first that fits decides.
    pub acl: Vec<(Vec<Name>, Vec<AclPolicy>)>,
    /// `header response`: bits to clear and to set, in turn.
    pub header: Vec<(u16, u16)>,
    /// `minimal`
    pub minimal: bool,
    /// `loadbalance`
    pub shuffle: bool,
    /// `bufsize`
    pub bufsize: Option<u16>,
}

impl Wrappers {
    /// What is answered before everything else, with the plugin's name.
    pub fn early(&self, query: &Query) -> Option<(Vec<u8>, &'static str)> {
        if self.any && query.qtype == ANY {
            let mut data = Vec::new();
            for text in ["ANY obsoleted", "See RFC 8482"] {
                data.push(text.len() as u8);
                data.extend_from_slice(text.as_bytes());
            }
            let data = Rdata::Raw { rtype: HINFO, data };
            let mut builder = MessageBuilder::answer(query, 0, NOERROR);
            builder.push_answer(&Record { name: query.original.clone(), ttl: ANY_TTL, data });
            return Some((builder.build(), "any"));
        }
        let (version, authors) = self.chaos.as_ref()?;
        if query.class != CH || query.qtype != TXT {
            return None;
        }
        let texts = match query.name.to_string().as_str() {
            "authors.bind." => authors.clone(),
            "version.bind." | "version.server." => vec![version.clone()],
            "hostname.bind." | "id.server." => {
                let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
                vec![name.map_or("localhost".to_owned(), |name| name.trim().to_owned())]
            }
            _ => return None,
        };
        let mut builder = MessageBuilder::answer(query, 0, NOERROR);
        for text in texts {
            let data = Rdata::Txt(text);
            builder.push_answer(&Record { name: query.original.clone(), ttl: 0, data });
        }
        Some((builder.build(), "chaos"))
    }

    /// The query as `rewrite` has it, if a rule fits.
    pub fn rewrite(&self, query: &Query) -> Option<Rewritten> {
        if self.rewrite.is_empty() { None } else { rewrite(&self.rewrite, query) }
    }

    /// What `acl` says.
    pub fn check(&self, query: &Query, client: &Client) -> AclAction {
        let ip = client.remote.ip().to_canonical();
        for (zones, policies) in &self.acl {
            if !zones.iter().any(|zone| query.name.is_within(zone)) {
                continue;
            }
            let fits = policies.iter().find(|policy| {
                (policy.types.is_empty() || policy.types.contains(&query.qtype))
                    && (policy.nets.is_empty() || policy.nets.iter().any(|net| contains(*net, ip)))
            });
            if let Some(policy) = fits {
                return policy.action;
            }
        }
        AclAction::Allow
    }

    /// What is done to an answer before it is kept.
    pub fn shape(&self, mut message: Vec<u8>) -> Vec<u8> {
        if self.minimal
            && let Some(walked) = scan(&message)
        {
            // An answer without records is a denial or a referral, which are left whole.
            if walked.rcode() == NOERROR && walked.answers() > 0 {
                let end = walked.records.iter().filter(|r| r.section == 0).map(|r| r.end).max();
                message.truncate(end.unwrap_or(walked.question_end));
                message[8..12].fill(0);
            }
        }
        for (clear, set) in &self.header {
            let flags = u16::from_be_bytes([message[2], message[3]]) & !clear | set;
            message[2..4].copy_from_slice(&flags.to_be_bytes());
        }
        message
    }

    /// What is done to an answer each time it is sent.
    pub fn mix(&self, answer: &mut [u8]) {
        if self.shuffle
            && answer[3] & 0xF == NOERROR
            && let Some(walked) = scan(answer)
        {
            for rtype in [A, AAAA] {
                for section in 0..3 {
                    let spans =
                        walked.records.iter().filter(|r| r.rtype == rtype && r.section == section);
                    let spans: Vec<(usize, usize, usize)> =
                        spans.map(|r| (r.start, r.ttl_at - 4, r.ttl_at + 6)).collect();
                    shuffle(answer, &spans, if rtype == A { 4 } else { 16 });
                }
            }
        }
    }
}

/// Changes the order of addresses of one owner by exchanging their data, so that no name moves.
fn shuffle(answer: &mut [u8], spans: &[(usize, usize, usize)], length: usize) {
    for index in 1..spans.len() {
        let other = rand::random_range(0..=index);
        let ((start, end, data), (start2, end2, data2)) = (spans[index], spans[other]);
        if answer[start..end] == answer[start2..end2] {
            for offset in 0..length {
                answer.swap(data + offset, data2 + offset);
            }
        }
    }
}

fn contains((net, prefix): (IpAddr, u8), ip: IpAddr) -> bool {
    match (net, ip) {
        (IpAddr::V4(net), IpAddr::V4(ip)) => {
            (u32::from(net) ^ u32::from(ip)).checked_shr(32 - u32::from(prefix)).unwrap_or(0) == 0
        }
        (IpAddr::V6(net), IpAddr::V6(ip)) => {
            (u128::from(net) ^ u128::from(ip)).checked_shr(128 - u32::from(prefix)).unwrap_or(0)
                == 0
        }
        _ => false,
    }
}

/// The answer to a query that `acl` stopped, and its extended error (RFC 8914).
pub fn stopped(query: &Query, action: AclAction) -> (Vec<u8>, u16) {
    match action {
        AclAction::Block => (MessageBuilder::answer(query, 0, REFUSED).build(), 15),
        _ => (MessageBuilder::answer(query, 0, NOERROR).build(), 17),
    }
}

/// Adds an extended error to an answer that ends in an empty OPT; without one the client has no EDNS.
pub fn add_extended_error(answer: &mut Vec<u8>, code: u16) {
    let Some(last) = scan(answer).and_then(|walked| walked.records.last().copied()) else { return };
    if last.rtype == OPT && last.end == answer.len() && last.end - last.start == 11 {
        let at = answer.len() - 2;
        answer[at..].copy_from_slice(&6_u16.to_be_bytes());
        answer.extend_from_slice(&[0, 15, 0, 2]);
        answer.extend_from_slice(&code.to_be_bytes());
    }
}
