//! The `hosts` plugin: addresses from a file in the form of /etc/hosts and from inline lines.

use std::collections::HashMap;
use std::net::IpAddr;

use super::Outcome;
use crate::wire::types::{A, AA, AAAA, PTR};
use crate::wire::{MessageBuilder, Name, Query, Rdata, Record};

/// Static names.
#[derive(Debug)]
pub struct Hosts {
    addresses: HashMap<Name, Vec<IpAddr>>,
    names: HashMap<Name, Vec<Name>>,
    ttl: u32,
    fallthrough: bool,
}

impl Hosts {
    /// Reads lines of `ADDRESS NAME...`; lines that are not are skipped, as in /etc/hosts.
    pub fn new(text: &str, ttl: u32, fallthrough: bool) -> Self {
        let mut hosts = Self { addresses: HashMap::new(), names: HashMap::new(), ttl, fallthrough };
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(Ok(ip)) = words.next().map(str::parse::<IpAddr>) else { continue };
            for name in words.filter_map(|word| Name::parse(word).ok()) {
                hosts.addresses.entry(name.to_lowercase()).or_default().push(ip);
                hosts.names.entry(reverse_name(ip)).or_default().push(name);
            }
        }
        hosts
    }

    /// Answers A, AAAA and PTR of the names it has.
    pub fn serve(&self, query: &Query) -> Outcome {
        let known = self.addresses.get(&query.name);
        let data: Vec<Rdata> = match query.qtype {
            A => known
                .into_iter()
                .flatten()
                .filter(|ip| ip.is_ipv4())
                .map(|ip| Rdata::address(*ip))
                .collect(),
            AAAA => known
                .into_iter()
                .flatten()
                .filter(|ip| ip.is_ipv6())
                .map(|ip| Rdata::address(*ip))
                .collect(),
            PTR => self
                .names
                .get(&query.name)
                .into_iter()
                .flatten()
                .map(|name| Rdata::Ptr(name.clone()))
                .collect(),
            _ => Vec::new(),
        };
        if data.is_empty() && (known.is_none() || self.fallthrough) {
            return Outcome::Pass;
        }
        let mut builder = MessageBuilder::answer(query, AA, 0);
        for data in data {
            builder.push_answer(&Record { name: query.original.clone(), ttl: self.ttl, data });
        }
        Outcome::Answer(builder.build())
    }
}

/// The name under in-addr.arpa or ip6.arpa of an address (RFC 1035 section 3.5, RFC 3596 section 2.5).
pub fn reverse_name(ip: IpAddr) -> Name {
    let text = match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        IpAddr::V6(v6) => {
            let digits = v6.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            let mut text: String = digits.map(|digit| format!("{digit:x}.")).collect();
            text.push_str("ip6.arpa.");
            text
        }
    };
    Name::parse(&text).expect("the form of a reverse name is fixed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_resolve_both_ways() {
        let hosts = Hosts::new("10.0.0.1 Node.example # c\nnonsense\n", 3600, false);
        let ask = |name: &str, qtype| {
            let name = Name::parse(name).unwrap();
            hosts.serve(&Query {
                id: 0,
                flags: 0,
                original: name.clone(),
                name,
                qtype,
                class: 1,
                edns: None,
                size: 0,
            })
        };
        assert!(matches!(ask("node.example.", A), Outcome::Answer(m) if m[7] == 1));
        assert!(matches!(ask("node.example.", AAAA), Outcome::Answer(m) if m[7] == 0));
        assert!(matches!(ask("1.0.0.10.in-addr.arpa.", PTR), Outcome::Answer(m) if m[7] == 1));
        assert!(matches!(ask("other.example.", A), Outcome::Pass));
    }
}
