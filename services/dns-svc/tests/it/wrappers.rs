//! The small plugins, compared with CoreDNS.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::server::{Server, coredns};

const ZONE: &str = "$TTL 300
@ IN SOA ns admin 1 7200 3600 1209600 60
 IN NS ns
 IN MX 10 web
ns IN A 10.0.0.1
web IN A 10.0.0.2
 IN A 10.0.0.3
 IN AAAA 2001:db8::2
 IN TXT hello
a.web IN A 10.0.0.4
alias IN CNAME web
_x._tcp IN SRV 1 2 3 web
";

/// Plugins of the block, and the questions.
const CASES: &[(&str, &[&str])] = &[
    (
        "rewrite name old.example.org web.example.org",
        &[
            "old.example.org. A",
            "web.example.org. A",
            "OLD.example.org. TXT",
            "old.example.org. DS",
        ],
    ),
    (
        "rewrite name suffix .test.org .example.org answer auto",
        &["web.test.org. A", "alias.test.org. A", "_x._tcp.test.org. SRV", "no.test.org. A"],
    ),
    ("rewrite name suffix .test.org .example.org", &["web.test.org. A", "alias.test.org. A"]),
    ("rewrite name prefix foo web answer auto", &["foo.example.org. A", "foo-web.example.org. A"]),
    ("rewrite name substring foo web answer auto", &["foo.example.org. A", "a.foo.example.org. A"]),
    (
        "rewrite name regex (.*)\\.in\\.(.*)\\.org {1}.{2}.org answer auto",
        &["web.in.example.org. A", "alias.in.example.org. A"],
    ),
    (
        "rewrite name regex (.*)-x\\.example\\.org {1}.example.org answer name (.*)\\.example\\.org {1}-y.example.org answer value (.*)\\.example\\.org {1}-z.example.org",
        &["web-x.example.org. A", "alias-x.example.org. A"],
    ),
    (
        "rewrite continue name suffix .test.org .example.org\n rewrite type TXT A",
        &["web.test.org. TXT", "web.example.org. TXT"],
    ),
    (
        "rewrite type AAAA A\n rewrite class CH IN",
        &["web.example.org. AAAA", "web.example.org. CH A"],
    ),
    ("acl {\n  block type A net 127.0.0.0/8\n }", &["web.example.org. A", "web.example.org. AAAA"]),
    (
        "acl web.example.org {\n  filter type TXT\n  allow net 127.0.0.1\n  block\n }",
        &["web.example.org. TXT", "web.example.org. A", "ns.example.org. A"],
    ),
    ("acl {\n  block net 10.0.0.0/8 192.168.1.1\n }", &["web.example.org. A"]),
    ("any", &["example.org. ANY", "web.example.org. A"]),
    (
        "chaos V1 someone",
        &[
            "version.bind. CH TXT",
            "authors.bind. CH TXT",
            "id.server. CH TXT",
            "other.bind. CH TXT",
            "web.example.org. CH A",
        ],
    ),
    (
        "minimal",
        &[
            "web.example.org. A",
            "example.org. MX",
            "no.example.org. A",
            "alias.example.org. A",
            "example.org. NS",
        ],
    ),
    (
        "header {\n  response set ra\n  response clear aa\n }",
        &["web.example.org. A", "no.example.org. A"],
    ),
    ("loadbalance", &["web.example.org. A", "alias.example.org. A", "example.org. MX"]),
    (
        "cache 30\n rewrite name old.example.org web.example.org",
        &["web.example.org. A", "old.example.org. A"],
    ),
    ("log", &["web.example.org. CH A", "web.example.org. CH TXT", "nothing.unserved. A"]),
];

#[test]
fn answers_with_small_plugins_equal_coredns() {
    let Some(original) = coredns() else { return eprintln!("skipped: no CoreDNS here") };
    let dir = tempfile::tempdir().unwrap();
    let zone = dir.path().join("zone");
    fs::write(&zone, ZONE).unwrap();
    let mut different = Vec::new();
    for (plugins, questions) in CASES {
        let corefile = format!(
            ".:PORT {{\n bind 127.0.0.1\n {plugins}\n file {} example.org\n}}\n",
            zone.display()
        );
        let (ours, theirs) = (Server::ours(&corefile), Server::start(&original, &corefile));
        for words in *questions {
            let (ours, theirs) = (ours.dig(words), theirs.dig(words));
            if ours != theirs {
                different.push(format!(
                    "== {plugins}: {words}\n-- CoreDNS\n{theirs}\n-- ours\n{ours}\n"
                ));
            }
        }
    }
    let count = different.len();
    assert!(different.is_empty(), "{count} differ:\n{}", different.join("\n"));
}

#[test]
fn loadbalance_changes_the_order_and_drop_is_silent() {
    let dir = tempfile::tempdir().unwrap();
    let zone = dir.path().join("zone");
    fs::write(&zone, ZONE).unwrap();
    let server = Server::ours(&format!(
        ".:PORT {{\n bind 127.0.0.1\n cache\n loadbalance\n acl ns.example.org {{\n  drop\n }}\n file {} example.org\n}}\n",
        zone.display()
    ));
    let ask = |name: &str| {
        let port = server.port.to_string();
        let words = ["@127.0.0.1", "-p", &port, "+short", "+tries=1", "+time=1", name, "A"];
        Command::new("dig").args(words).output().unwrap()
    };
    let orders: BTreeSet<Vec<u8>> = (0..40).map(|_| ask("web.example.org").stdout).collect();
    assert_eq!(orders.len(), 2, "both orders are seen");
    assert!(String::from_utf8_lossy(&ask("ns.example.org").stdout).contains("timed out"));
}
