use std::io::Write;
use std::process::{Command, Stdio};

use super::*;

fn port(name: &str, endpoints: &[&str]) -> Port {
    Port {
        service: format!("ns/{name}"),
        name: String::new(),
        protocol: "tcp",
        port: 80,
        node_port: 0,
        cluster_ips: vec!["10.96.0.9".parse().unwrap(), "fd96::9".parse().unwrap()],
        external_ips: vec![],
        affinity: None,
        internal_local: false,
        external_local: false,
        endpoints: endpoints.iter().map(|e| e.parse().unwrap()).collect(),
        local: BTreeSet::new(),
    }
}

fn settings() -> Settings {
    Settings {
        table: "t".into(),
        mark: 0x4000,
        cluster_cidrs: vec!["10.244.0.0/16".into()],
        ..Settings::default()
    }
}

fn get<'a>(set: &'a Ruleset, table: &str) -> Vec<(&'a str, &'a str)> {
    set.tables[table].elements.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
}

#[test]
fn service_leads_to_its_endpoints() {
    let set =
        rules(Family::V4, &settings(), &[port("web", &["10.244.0.5:8080", "10.244.0.6:8080"])]);
    let (key, verdict) = get(&set, "service-ips")[0];
    assert_eq!(key, "10.96.0.9 . tcp . 80");
    let chain = &set.chains[verdict.strip_prefix("goto ").unwrap()];
    assert_eq!(chain.rules[0], "ip saddr != { 10.244.0.0/16 } jump mark-for-masquerade");
    assert_eq!(
        chain.rules[1],
        "meta l4proto tcp dnat ip addr . port to numgen random mod 2 map { 0 : 10.244.0.5 . 8080, 1 : 10.244.0.6 . 8080 }"
    );
    assert_eq!(get(&set, "hairpins").len(), 2);
    assert_eq!(get(&set, "cluster-ips"), [("10.96.0.9", "")]);
}

#[test]
fn service_without_endpoints_is_rejected() {
    let set = rules(Family::V6, &settings(), &[port("web", &["10.244.0.5:8080"])]);
    assert_eq!(get(&set, "no-endpoint-ips"), [("fd96::9 . tcp . 80", "goto reject-chain")]);
    assert!(get(&set, "service-ips").is_empty());
    let mut local = port("web", &["10.244.0.5:8080"]);
    (local.external_local, local.node_port) = (true, 30080);
    let set = rules(Family::V4, &settings(), &[local]);
    assert_eq!(get(&set, "no-endpoint-nodeports"), [("tcp . 30080", "drop")]);
}

#[test]
fn node_port_masquerades_unless_local() {
    let mut one = port("web", &["10.244.0.5:8080"]);
    one.node_port = 30080;
    let set = rules(Family::V4, &settings(), &[one.clone()]);
    let (key, verdict) = get(&set, "service-nodeports")[0];
    assert_eq!(key, "tcp . 30080");
    assert_eq!(
        set.chains[&verdict[5..]].rules,
        ["jump mark-for-masquerade", "meta l4proto tcp dnat to 10.244.0.5:8080"]
    );
    (one.external_local, one.local) = (true, one.endpoints.clone());
    let set = rules(Family::V4, &settings(), &[one]);
    let (_, verdict) = get(&set, "service-nodeports")[0];
    assert_eq!(set.chains[&verdict[5..]].rules, ["meta l4proto tcp dnat to 10.244.0.5:8080"]);
}

#[test]
fn stale_udp_flows_are_found() {
    let mut one = port("dns", &["10.244.0.5:53", "10.244.0.6:53"]);
    one.protocol = "udp";
    let old = rules(Family::V4, &settings(), &[one.clone()]);
    one.endpoints.pop_last();
    let new = rules(Family::V4, &settings(), &[one]);
    let stale = new.stale_flows(&old);
    assert_eq!(
        stale,
        [Flow { address: "10.96.0.9".parse().unwrap(), endpoint: "10.244.0.6".parse().unwrap() }]
    );
}

#[test]
fn difference_touches_only_what_changed() {
    let (a, b) = (port("a", &["10.244.0.5:80"]), port("b", &["10.244.0.6:80"]));
    let b = Port { cluster_ips: vec!["10.96.0.10".parse().unwrap()], ..b };
    let old = rules(Family::V4, &settings(), &[a.clone(), b.clone()]);
    assert_eq!(old.difference(&old, Family::V4, "t"), "");
    let new = rules(
        Family::V4,
        &settings(),
        &[a, Port { endpoints: ["10.244.0.7:80".parse().unwrap()].into(), ..b }],
    );
    let text = new.difference(&old, Family::V4, "t");
    assert_eq!(text.lines().filter(|l| l.starts_with("flush chain")).count(), 1, "{text}");
    assert!(!text.contains("ns/a") && !text.contains("10.96.0"), "{text}");
}

/// nft itself checks the texts (`-c`: nothing is applied), and that each difference leads to the next state.
#[test]
fn nft_accepts_every_text() {
    if flotilla_testkit::skip_unless_root("nft_accepts_every_text")
        || flotilla_testkit::skip_unless_program("nft_accepts_every_text", "nft")
    {
        return;
    }
    let mut sticky = port("sticky", &["10.244.0.5:80", "10.244.0.6:80", "[fd00::5]:80"]);
    (sticky.affinity, sticky.node_port, sticky.cluster_ips) =
        (Some(60), 30081, vec!["10.96.0.10".parse().unwrap(), "fd96::a".parse().unwrap()]);
    let mut udp = port("dns", &["10.244.0.7:53", "[fd00::7]:53", "[fd00::8]:53"]);
    (udp.protocol, udp.cluster_ips, udp.external_ips) = (
        "udp",
        vec!["10.96.0.11".parse().unwrap(), "fd96::b".parse().unwrap()],
        vec!["192.0.2.9".parse().unwrap()],
    );
    let web = port("web", &["10.244.0.5:8080", "10.244.0.6:8080"]);
    let states = [
        vec![],
        vec![web.clone(), sticky.clone(), udp.clone()],
        vec![udp.clone(), Port { endpoints: BTreeSet::new(), ..web }],
        vec![sticky, Port { protocol: "tcp", ..udp }],
        vec![],
    ];
    for family in Family::ALL {
        let mut text = String::new();
        let mut old: Option<Ruleset> = None;
        for state in &states {
            let new = rules(family, &settings(), state);
            text.push_str(&match &old {
                Some(old) => new.difference(old, family, "flt-check"),
                None => new.whole(family, "flt-check"),
            });
            old = Some(new);
        }
        let mut nft = Command::new("nft")
            .args(["-c", "-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        nft.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = nft.wait_with_output().unwrap();
        assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    }
}
