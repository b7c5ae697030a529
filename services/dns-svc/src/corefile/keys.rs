//! Keys of a server block: which zones it serves, how, and on which port.

use crate::wire::Name;

/// How a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Plain DNS over UDP and TCP.
    Dns,
}

/// One `SCHEME://ZONE:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerKey {
    /// How it speaks.
    pub scheme: Scheme,
    /// Zone, lower case.
    pub zone: Name,
    /// Port.
    pub port: u16,
}

impl ServerKey {
    /// Parses one key; an IPv4 or IPv6 range stands for its reverse zone.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            None | Some(("dns", _)) => (Scheme::Dns, text.strip_prefix("dns://").unwrap_or(text)),
            Some((other @ ("tls" | "grpc" | "https" | "https3" | "quic"), _)) => {
                return Err(format!("not supported yet: {other}:// in {text:?}"));
            }
            Some((other, _)) => return Err(format!("unknown scheme {other:?} in {text:?}")),
        };
        if let Some(zone) = reverse_zone(rest) {
            return Ok(Self { scheme, zone, port: default_port });
        }
        let (zone, port) = match rest.rsplit_once(':') {
            Some((zone, port)) => {
                let port = port.parse().map_err(|_| format!("{port:?} in {text:?} is no port"))?;
                (zone, port)
            }
            None => (rest, default_port),
        };
        let zone = if zone.is_empty() { "." } else { zone };
        let zone = reverse_zone(zone).map_or_else(|| Name::parse(zone), Ok)?;
        Ok(Self { scheme, zone: zone.to_lowercase(), port })
    }
}

/// The zone under in-addr.arpa or ip6.arpa of a range whose length ends at a label, such as `10.0.0.0/24`.
pub fn reverse_zone(text: &str) -> Option<Name> {
    let (address, bits) = text.split_once('/')?;
    let bits: usize = bits.parse().ok()?;
    let (labels, suffix): (Vec<String>, &str) = match address.parse().ok()? {
        std::net::IpAddr::V4(v4) if bits <= 32 && bits.is_multiple_of(8) => {
            (v4.octets()[..bits / 8].iter().map(u8::to_string).collect(), "in-addr.arpa.")
        }
        std::net::IpAddr::V6(v6) if bits <= 128 && bits.is_multiple_of(4) => {
            let digits = v6
                .octets()
                .into_iter()
                .flat_map(|o| [o >> 4, o & 15])
                .map(|d| format!("{d:x}"))
                .take(bits / 4);
            (digits.collect(), "ip6.arpa.")
        }
        _ => return None,
    };
    let mut name: String = labels.iter().rev().map(|label| format!("{label}.")).collect();
    name.push_str(suffix);
    Name::parse(&name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_defaults() {
        let key =
            |text: &str| ServerKey::parse(text, 1053).map(|k| format!("{}:{}", k.zone, k.port));
        assert_eq!(key(".").unwrap(), ".:1053");
        assert_eq!(key("Example.ORG:54").unwrap(), "example.org.:54");
        assert_eq!(key("dns://.:5").unwrap(), ".:5");
        assert_eq!(key("10.1.0.0/16").unwrap(), "1.10.in-addr.arpa.:1053");
        assert_eq!(key("2001:db8::/32").unwrap(), "8.b.d.0.1.0.0.2.ip6.arpa.:1053");
        assert!(key("tls://.").unwrap_err().contains("not supported yet"));
        assert!(key("foo://.").is_err());
    }
}
