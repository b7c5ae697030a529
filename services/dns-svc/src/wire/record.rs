//! Records that our own data sources produce.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Name;
use super::types::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};

/// One resource record of class IN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Owner.
    pub name: Name,
    /// Seconds it may be kept.
    pub ttl: u32,
    /// Typed data.
    pub data: Rdata,
}

/// Data of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rdata {
    /// IPv4 address.
    A(Ipv4Addr),
    /// IPv6 address.
    Aaaa(Ipv6Addr),
    /// Alias.
    Cname(Name),
    /// Name server.
    Ns(Name),
    /// Pointer.
    Ptr(Name),
    /// Start of authority.
    Soa {
        /// Primary server.
        primary: Name,
        /// Mailbox.
        mailbox: Name,
        /// Serial, refresh, retry, expire, minimum.
        numbers: [u32; 5],
    },
    /// Service.
    Srv {
        /// Lower is tried first.
        priority: u16,
        /// Share among equals.
        weight: u16,
        /// Port.
        port: u16,
        /// Host.
        target: Name,
    },
    /// Text, one string of at most 255 bytes.
    Txt(String),
    /// Any type, in wire form without compression.
    Raw {
        /// Type.
        rtype: u16,
        /// Data.
        data: Vec<u8>,
    },
}

impl Rdata {
    /// The record type.
    pub fn rtype(&self) -> u16 {
        match self {
            Self::A(_) => A,
            Self::Aaaa(_) => AAAA,
            Self::Cname(_) => CNAME,
            Self::Ns(_) => NS,
            Self::Ptr(_) => PTR,
            Self::Soa { .. } => SOA,
            Self::Srv { .. } => SRV,
            Self::Txt(_) => TXT,
            Self::Raw { rtype, .. } => *rtype,
        }
    }

    /// Bytes of raw data; 0 for typed data.
    pub fn raw_len(&self) -> usize {
        if let Self::Raw { data, .. } = self { data.len() } else { 0 }
    }

    /// An address of either family.
    pub fn address(ip: std::net::IpAddr) -> Self {
        match ip {
            std::net::IpAddr::V4(v4) => Self::A(v4),
            std::net::IpAddr::V6(v6) => Self::Aaaa(v6),
        }
    }
}
