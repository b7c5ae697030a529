//! Addresses of the pods: which of the node's range are free.
//!
//! Nothing is kept here across restarts; the set is rebuilt from the sandbox records, so an address cannot leak.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::str::FromStr;

use thiserror::Error;

/// An IPv4 range in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    base: u32,
    /// Length of the prefix, 0 to 30.
    pub prefix: u8,
}

/// Why a text is no usable range.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{text:?} is not an IPv4 range for pods: write ADDRESS/PREFIX with a prefix from 8 to 29, such as 10.244.0.0/24"
)]
pub struct ParseCidrError {
    text: String,
}

impl FromStr for Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Self, ParseCidrError> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let (address, prefix): (Ipv4Addr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
            (8..=29)
                .contains(&prefix)
                .then(|| Self { base: address.to_bits() & mask(prefix), prefix })
        };
        parse().ok_or_else(|| ParseCidrError { text: text.to_owned() })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.base), self.prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX << (32 - prefix)
}

impl Cidr {
    /// First address: the gateway, on the bridge.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base + 1)
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.base
    }

    /// Last address that is not the broadcast address.
    fn last(&self) -> u32 {
        (self.base | !mask(self.prefix)) - 1
    }
}

/// The free and used addresses of a range.
#[derive(Debug)]
pub struct Ipam {
    range: Cidr,
    used: HashSet<u32>,
    next: u32,
}

impl Ipam {
    /// All of `range` free, but for the gateway.
    pub fn new(range: Cidr) -> Self {
        Self { range, used: HashSet::new(), next: range.base + 2 }
    }

    /// The range.
    pub fn range(&self) -> Cidr {
        self.range
    }

    /// Takes the next free address, round robin so that a freed one rests for a while.
    pub fn allocate(&mut self) -> Option<Ipv4Addr> {
        let (first, last) = (self.range.base + 2, self.range.last());
        let candidates = (self.next..=last).chain(first..self.next);
        let free = candidates.into_iter().find(|address| !self.used.contains(address))?;
        self.used.insert(free);
        self.next = if free == last { first } else { free + 1 };
        Some(Ipv4Addr::from_bits(free))
    }

    /// Marks an address as used; false when it is not in the range or used already.
    pub fn reserve(&mut self, address: Ipv4Addr) -> bool {
        self.range.contains(address) && self.used.insert(address.to_bits())
    }

    /// Frees an address.
    pub fn release(&mut self, address: Ipv4Addr) {
        self.used.remove(&address.to_bits());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_is_used_up_and_freed() {
        let mut ipam = Ipam::new("10.9.8.77/29".parse().unwrap());
        assert_eq!(
            (ipam.range().to_string().as_str(), ipam.range().gateway()),
            ("10.9.8.72/29", Ipv4Addr::new(10, 9, 8, 73))
        );
        assert!(ipam.reserve(Ipv4Addr::new(10, 9, 8, 75)));
        assert!(
            !ipam.reserve(Ipv4Addr::new(10, 9, 8, 75))
                && !ipam.reserve(Ipv4Addr::new(10, 9, 9, 75))
        );
        let given: Vec<u8> =
            std::iter::from_fn(|| ipam.allocate()).map(|ip| ip.octets()[3]).collect();
        assert_eq!(given, [74, 76, 77, 78]);
        ipam.release(Ipv4Addr::new(10, 9, 8, 76));
        assert_eq!(ipam.allocate().unwrap().octets()[3], 76);
        assert_eq!(ipam.allocate(), None);
    }

    #[test]
    fn bad_ranges_are_named() {
        for text in
            ["", "10.0.0.0", "10.0.0.0/30", "10.0.0.0/7", "fd00::/64", "10.0.0.0/x", "300.0.0.0/24"]
        {
            let error = text.parse::<Cidr>().unwrap_err();
            assert!(error.to_string().contains("10.244.0.0/24"), "{error}");
        }
    }
}
