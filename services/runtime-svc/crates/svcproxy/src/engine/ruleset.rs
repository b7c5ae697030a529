//! The wanted content of one table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use sha2::{Digest, Sha256};

use super::ports::Port;

/// Address family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// nft's name of the family, also of its header in rules.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    fn address_type(self) -> &'static str {
        match self {
            Self::V4 => "ipv4_addr",
            Self::V6 => "ipv6_addr",
        }
    }

    fn loopback(self) -> &'static str {
        match self {
            Self::V4 => "127.0.0.0/8",
            Self::V6 => "::1",
        }
    }

    fn holds(self, ip: &IpAddr) -> bool {
        ip.is_ipv4() == (self == Self::V4)
    }
}

/// What shapes all rules.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Name of the table.
    pub table: String,
    /// Name of the node.
    pub node: String,
    /// Networks of pods.
    pub cluster_cidrs: Vec<String>,
    /// Masquerade everything.
    pub masquerade_all: bool,
    /// Packet mark that asks for masquerading.
    pub mark: u32,
}

/// A chain: where it hooks in, if anywhere, and its rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// `type ... hook ... priority ...;` of a base chain.
    pub hook: Option<&'static str>,
    /// Rules in order.
    pub rules: Vec<String>,
}

/// A set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// `set` or `map`.
    pub kind: &'static str,
    /// Its type and flags.
    pub declaration: String,
    /// Keys, and values of maps. Dynamic sets are filled by the kernel.
    pub elements: BTreeMap<String, String>,
}

/// A UDP flow that may outlive its endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Address the client sends to.
    pub address: IpAddr,
    /// Address of the endpoint.
    pub endpoint: IpAddr,
}

/// Everything in a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
    /// Sets and maps by name.
    pub tables: BTreeMap<String, Table>,
    flows: BTreeSet<Flow>,
}

impl Ruleset {
    /// UDP flows of `old` that lead nowhere now.
    pub fn stale_flows(&self, old: &Self) -> Vec<Flow> {
        old.flows.difference(&self.flows).cloned().collect()
    }

    fn chain(&mut self, name: &str, hook: Option<&'static str>, rules: Vec<String>) {
        self.chains.insert(name.to_owned(), Chain { hook, rules });
    }

    fn table(&mut self, name: &str, kind: &'static str, declaration: String) {
        self.tables.insert(name.to_owned(), Table { kind, declaration, elements: BTreeMap::new() });
    }

    fn add(&mut self, table: &str, key: String, value: &str) {
        if let Some(table) = self.tables.get_mut(table) {
            // Two Services that claim one address: the first, by name, keeps it.
            table.elements.entry(key).or_insert_with(|| value.to_owned());
        }
    }
}

/// The rules of `ports` for one family.
pub fn rules(family: Family, settings: &Settings, ports: &[Port]) -> Ruleset {
    let mut set = frame(family, settings);
    for port in ports {
        Builder { family, settings, port, set: &mut set }.port();
    }
    set
}

fn frame(family: Family, settings: &Settings) -> Ruleset {
    let (ip, address, mark) = (family.name(), family.address_type(), settings.mark);
    let mut set = Ruleset::default();
    set.table("cluster-ips", "set", format!("type {address};"));
    set.table(
        "service-ips",
        "map",
        format!("type {address} . inet_proto . inet_service : verdict;"),
    );
    set.table("service-nodeports", "map", "type inet_proto . inet_service : verdict;".to_owned());
    set.table(
        "no-endpoint-ips",
        "map",
        format!("type {address} . inet_proto . inet_service : verdict;"),
    );
    set.table(
        "no-endpoint-nodeports",
        "map",
        "type inet_proto . inet_service : verdict;".to_owned(),
    );
    set.table(
        "hairpins",
        "set",
        format!("type {address} . {address} . inet_proto . inet_service;"),
    );
    let local = format!(
        "fib daddr type local {ip} daddr != {} meta l4proto . th dport vmap",
        family.loopback()
    );
    let by_address = format!("{ip} daddr . meta l4proto . th dport vmap");
    set.chain(
        "services",
        None,
        vec![format!("{by_address} @service-ips"), format!("{local} @service-nodeports")],
    );
    set.chain(
        "nat-prerouting",
        Some("type nat hook prerouting priority -100;"),
        vec!["jump services".to_owned()],
    );
    set.chain(
        "nat-output",
        Some("type nat hook output priority -100;"),
        vec!["jump services".to_owned()],
    );
    let masquerade = vec![
        format!(
            "meta mark & {mark:#x} != 0 meta mark set meta mark & {:#x} masquerade fully-random",
            !mark
        ),
        format!(
            "ct status dnat {ip} saddr . {ip} daddr . meta l4proto . th dport @hairpins masquerade fully-random"
        ),
    ];
    set.chain("nat-postrouting", Some("type nat hook postrouting priority 100;"), masquerade);
    set.chain("mark-for-masquerade", None, vec![format!("meta mark set meta mark | {mark:#x}")]);
    // Before translation: only a packet that still carries the Service's address is told that nobody is there.
    let check = || vec!["ct state new jump endpoint-check".to_owned()];
    set.chain("filter-input", Some("type filter hook input priority -110;"), check());
    set.chain(
        "endpoint-check",
        None,
        vec![format!("{by_address} @no-endpoint-ips"), format!("{local} @no-endpoint-nodeports")],
    );
    // After it: a packet to a Service's address on a port that the Service does not have must not leave the node.
    let stray = format!("ct state new {ip} daddr @cluster-ips goto reject-chain");
    let forward = [check(), vec![stray.clone()]].concat();
    set.chain("filter-forward", Some("type filter hook forward priority -110;"), forward);
    set.chain("filter-output", Some("type filter hook output priority -110;"), check());
    set.chain("filter-output-late", Some("type filter hook output priority 0;"), vec![stray]);
    // A reset, because the kernel limits how many ICMP errors it sends.
    let reject = ["meta l4proto tcp reject with tcp reset", "reject"];
    set.chain("reject-chain", None, reject.map(str::to_owned).into());
    set
}

struct Builder<'a> {
    family: Family,
    settings: &'a Settings,
    port: &'a Port,
    set: &'a mut Ruleset,
}

impl Builder<'_> {
    fn port(&mut self) {
        let (family, port) = (self.family, self.port);
        let own = |ips: &[IpAddr]| -> Vec<IpAddr> {
            ips.iter().filter(|ip| family.holds(ip)).copied().collect()
        };
        let (cluster, external) = (own(&port.cluster_ips), own(&port.external_ips));
        if cluster.is_empty() && external.is_empty() {
            return;
        }
        for ip in &cluster {
            self.set.add("cluster-ips", ip.to_string(), "");
        }
        let endpoints = |all: &BTreeSet<SocketAddr>| -> Vec<SocketAddr> {
            all.iter().filter(|a| family.holds(&a.ip())).copied().collect()
        };
        let (all, local) = (endpoints(&port.endpoints), endpoints(&port.local));
        for endpoint in &all {
            let ip = endpoint.ip();
            self.set.add(
                "hairpins",
                format!("{ip} . {ip} . {} . {}", port.protocol, endpoint.port()),
                "",
            );
        }
        if port.protocol == "udp" {
            for address in cluster.iter().chain(&external) {
                self.set
                    .flows
                    .extend(all.iter().map(|e| Flow { address: *address, endpoint: e.ip() }));
            }
        }
        let inside = if port.internal_local { &local } else { &all };
        let service = self.id("svc", "");
        let key = |ip: &IpAddr| format!("{ip} . {} . {}", port.protocol, port.port);
        if inside.is_empty() {
            let verdict = if all.is_empty() { "goto reject-chain" } else { "drop" };
            for ip in &cluster {
                self.set.add("no-endpoint-ips", key(ip), verdict);
            }
        } else {
            let rules = [self.masquerade_rules(&cluster), self.choice(inside)].concat();
            self.set.chain(&service, None, rules);
            for ip in &cluster {
                self.set.add("service-ips", key(ip), &format!("goto {service}"));
            }
        }
        self.outside(&external, &all, &local);
    }

    fn outside(&mut self, external: &[IpAddr], all: &[SocketAddr], local: &[SocketAddr]) {
        let port = self.port;
        if external.is_empty() && port.node_port == 0 {
            return;
        }
        let usable = if port.external_local { local } else { all };
        let key = |ip: &IpAddr| format!("{ip} . {} . {}", port.protocol, port.port);
        let node_key = format!("{} . {}", port.protocol, port.node_port);
        if usable.is_empty() {
            let verdict = if all.is_empty() { "goto reject-chain" } else { "drop" };
            for ip in external {
                self.set.add("no-endpoint-ips", key(ip), verdict);
            }
            if port.node_port != 0 {
                self.set.add("no-endpoint-nodeports", node_key, verdict);
            }
            return;
        }
        let name = self.id("ext", "");
        // An endpoint elsewhere must answer through this node; a local one may know the client.
        let mark = if port.external_local {
            Vec::new()
        } else {
            vec!["jump mark-for-masquerade".to_owned()]
        };
        let rules = [mark, self.choice(usable)].concat();
        self.set.chain(&name, None, rules);
        for ip in external {
            self.set.add("service-ips", key(ip), &format!("goto {name}"));
        }
        if port.node_port != 0 {
            self.set.add("service-nodeports", node_key, &format!("goto {name}"));
        }
    }

    fn masquerade_rules(&self, cluster: &[IpAddr]) -> Vec<String> {
        if self.settings.masquerade_all {
            return vec!["jump mark-for-masquerade".to_owned()];
        }
        let ip = self.family.name();
        let inside: Vec<&str> = self
            .settings
            .cluster_cidrs
            .iter()
            .map(String::as_str)
            .filter(|c| c.contains(':') == (self.family == Family::V6))
            .collect();
        if inside.is_empty() || cluster.is_empty() {
            return Vec::new();
        }
        vec![format!("{ip} saddr != {{ {} }} jump mark-for-masquerade", inside.join(", "))]
    }

    /// Rules that pick one endpoint, all with the same chance.
    fn choice(&mut self, endpoints: &[SocketAddr]) -> Vec<String> {
        let (ip, protocol) = (self.family.name(), self.port.protocol);
        if let Some(seconds) = self.port.affinity {
            return self.sticky_choice(endpoints, seconds);
        }
        if let [only] = endpoints {
            return vec![format!("meta l4proto {protocol} dnat to {only}")];
        }
        let all: Vec<String> = endpoints
            .iter()
            .enumerate()
            .map(|(n, e)| format!("{n} : {} . {}", e.ip(), e.port()))
            .collect();
        vec![format!(
            "meta l4proto {protocol} dnat {ip} addr . port to numgen random mod {} map {{ {} }}",
            endpoints.len(),
            all.join(", ")
        )]
    }

    fn sticky_choice(&mut self, endpoints: &[SocketAddr], seconds: u32) -> Vec<String> {
        let (ip, protocol, address) =
            (self.family.name(), self.port.protocol, self.family.address_type());
        let (mut known, mut fresh) = (Vec::new(), Vec::new());
        for (number, endpoint) in endpoints.iter().enumerate() {
            let (chain, clients) =
                (self.id("ep", &endpoint.to_string()), self.id("aff", &endpoint.to_string()));
            self.set.table(
                &clients,
                "set",
                format!("type {address}; flags dynamic,timeout; timeout {seconds}s;"),
            );
            let rules = vec![
                format!("update @{clients} {{ {ip} saddr }}"),
                format!("meta l4proto {protocol} dnat to {endpoint}"),
            ];
            self.set.chain(&chain, None, rules);
            known.push(format!("{ip} saddr @{clients} goto {chain}"));
            fresh.push(format!("{number} : goto {chain}"));
        }
        known.push(format!(
            "numgen random mod {} vmap {{ {} }}",
            endpoints.len(),
            fresh.join(", ")
        ));
        known
    }

    /// A name for a chain or set of this port: readable, and unique by its hash.
    fn id(&self, kind: &str, more: &str) -> String {
        let port = self.port;
        let digest = Sha256::digest(format!(
            "{}\n{}\n{}\n{}\n{more}",
            port.service, port.name, port.protocol, port.port
        ));
        let readable: String = port
            .service
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '-'))
            .take(80)
            .collect();
        format!("{kind}-{}-{readable}", hex::encode(&digest[..6]))
    }
}

#[cfg(test)]
mod tests;
