//! The node's resolv.conf.

use flotilla_proto::cri::runtime::v1::DnsConfig;

const MAX_FILE: usize = 64 << 10;

/// Reads resolv.conf(5); what cannot be read is empty.
pub fn read(path: &std::path::Path) -> DnsConfig {
    let text = std::fs::read(path).unwrap_or_default();
    parse(&String::from_utf8_lossy(&text[..text.len().min(MAX_FILE)]))
}

fn parse(text: &str) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            Some("search") => dns.searches = words.map(str::to_owned).collect(),
            Some("options") => dns.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_searches_and_options_are_read() {
        let got = parse(
            "# x\nnameserver 1.1.1.1\nnameserver fd00::1 ; y\nsearch a b\nsearch c\noptions ndots:2\n",
        );
        assert_eq!(
            (got.servers, got.searches, got.options),
            (vec!["1.1.1.1".into(), "fd00::1".into()], vec!["c".into()], vec!["ndots:2".into()])
        );
    }
}
