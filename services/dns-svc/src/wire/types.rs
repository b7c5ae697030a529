//! Numbers of the protocol: types, classes, response codes, header flags (IANA DNS parameters).

/// IPv4 address (RFC 1035).
pub const A: u16 = 1;
/// Name server (RFC 1035).
pub const NS: u16 = 2;
/// Alias (RFC 1035).
pub const CNAME: u16 = 5;
/// Start of authority (RFC 1035).
pub const SOA: u16 = 6;
/// Pointer (RFC 1035).
pub const PTR: u16 = 12;
/// Host information (RFC 1035).
pub const HINFO: u16 = 13;
/// Mail exchanger (RFC 1035).
pub const MX: u16 = 15;
/// Text (RFC 1035).
pub const TXT: u16 = 16;
/// IPv6 address (RFC 3596).
pub const AAAA: u16 = 28;
/// Service location (RFC 2782).
pub const SRV: u16 = 33;
/// Alias of a whole subtree (RFC 6672).
pub const DNAME: u16 = 39;
/// Delegation signer (RFC 4034).
pub const DS: u16 = 43;
/// EDNS pseudo record (RFC 6891).
pub const OPT: u16 = 41;
/// Incremental transfer (RFC 1995).
pub const IXFR: u16 = 251;
/// Full transfer (RFC 5936).
pub const AXFR: u16 = 252;
/// Any type (RFC 8482).
pub const ANY: u16 = 255;

/// The Internet.
pub const IN: u16 = 1;
/// Chaos, where servers tell about themselves (RFC 4892).
pub const CH: u16 = 3;

/// No error.
pub const NOERROR: u8 = 0;
/// The query cannot be read.
pub const FORMERR: u8 = 1;
/// The server failed.
pub const SERVFAIL: u8 = 2;
/// The name does not exist.
pub const NXDOMAIN: u8 = 3;
/// The operation is not implemented.
pub const NOTIMP: u8 = 4;
/// The server does not serve this.
pub const REFUSED: u8 = 5;
/// Unknown EDNS version; the upper bits travel in OPT (RFC 6891 section 6.1.3).
pub const BADVERS: u16 = 16;

/// Response.
pub const QR: u16 = 0x8000;
/// Authoritative answer.
pub const AA: u16 = 0x0400;
/// Truncated.
pub const TC: u16 = 0x0200;
/// Recursion desired.
pub const RD: u16 = 0x0100;
/// Checking disabled.
pub const CD: u16 = 0x0010;

/// Text of a response code, as metrics and logs show it.
pub fn rcode_text(rcode: u8) -> &'static str {
    match rcode {
        NOERROR => "NOERROR",
        FORMERR => "FORMERR",
        SERVFAIL => "SERVFAIL",
        NXDOMAIN => "NXDOMAIN",
        NOTIMP => "NOTIMP",
        REFUSED => "REFUSED",
        6 => "YXDOMAIN",
        7 => "YXRRSET",
        8 => "NXRRSET",
        9 => "NOTAUTH",
        10 => "NOTZONE",
        _ => "RESERVED",
    }
}

/// The number of a type by its text, also as `TYPE65280`.
pub fn type_number(text: &str) -> Option<u16> {
    let text = text.to_ascii_uppercase();
    if let Some(number) = text.strip_prefix("TYPE") {
        return number.parse().ok();
    }
    (1..=ANY).find(|number| type_text(*number) == text)
}

/// Text of a type, `other` for what metrics do not tell apart.
pub fn type_text(rtype: u16) -> &'static str {
    match rtype {
        A => "A",
        AAAA => "AAAA",
        CNAME => "CNAME",
        HINFO => "HINFO",
        MX => "MX",
        NS => "NS",
        PTR => "PTR",
        SOA => "SOA",
        SRV => "SRV",
        TXT => "TXT",
        35 => "NAPTR",
        DS => "DS",
        48 => "DNSKEY",
        46 => "RRSIG",
        47 => "NSEC",
        50 => "NSEC3",
        65 => "HTTPS",
        AXFR => "AXFR",
        IXFR => "IXFR",
        ANY => "ANY",
        _ => "other",
    }
}
