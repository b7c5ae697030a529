//! The `whoami` plugin: the client's address and port, in the additional section.

use std::net::IpAddr;

use super::Client;
use crate::wire::types::AA;
use crate::wire::{MessageBuilder, Query, Rdata, Record};

/// Answers any query with the client's address, and its port as an SRV record.
pub fn whoami(query: &Query, client: &Client) -> Vec<u8> {
    let mut builder = MessageBuilder::answer(query, AA, 0);
    let data = match client.remote.ip() {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(Rdata::Aaaa(v6), Rdata::A),
        IpAddr::V4(v4) => Rdata::A(v4),
    };
    builder.push_additional(&Record { name: query.original.clone(), ttl: 0, data });
    let proto = if client.tcp { "_tcp" } else { "_udp" };
    if let Ok(name) = query.original.child(proto) {
        let data = Rdata::Srv {
            priority: 0,
            weight: 0,
            port: client.remote.port(),
            target: crate::wire::Name::root(),
        };
        builder.push_additional(&Record { name, ttl: 0, data });
    }
    builder.build()
}
