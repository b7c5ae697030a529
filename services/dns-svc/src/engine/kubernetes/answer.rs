//! From a name to records.
//!
//! Shapes of names below the zone: `SVC.NS.svc`, `_PORT._PROTO.SVC.NS.svc`, `ENDPOINT.SVC.NS.svc`,
//! `A-B-C-D.NS.pod`, `dns-version`, and `ns.dns` for the server itself.

use std::net::IpAddr;
use std::sync::Arc;

use super::model::{Endpoint, Service};
use super::store::{Data, Id, Store};
use crate::engine::{Outcome, reverse_name};
use crate::wire::types::{A, AA, AAAA, ANY, CNAME, NOERROR, NS, NXDOMAIN, PTR, SOA, SRV, TXT};
use crate::wire::{MessageBuilder, Name, Query, Rdata, Record};

const VERSION: &str = "1.1.0";
const VERSION_TTL: u32 = 28_800;
const PRIORITY: u16 = 0;

/// Which pod names are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PodsMode {
    /// None.
    #[default]
    Disabled,
    /// Any address that is spelled right.
    Insecure,
    /// Only addresses of pods in that namespace.
    Verified,
}

/// Settings of the plugin.
#[derive(Debug, Clone)]
pub struct Options {
    /// Zones, lower case; the first forward zone is the primary one.
    pub zones: Vec<Name>,
    /// Seconds answers may be kept.
    pub ttl: u32,
    /// Pod names.
    pub pods: PodsMode,
    /// Zones below which unknown names go to the next plugin.
    pub fallthrough: Vec<Name>,
    /// Whether endpoints are named after their pods.
    pub endpoint_pod_names: bool,
    /// Only these namespaces, if any.
    pub namespaces: Vec<String>,
}

/// The plugin.
#[derive(Debug)]
pub struct Kubernetes {
    options: Options,
    store: Arc<Store>,
}

/// What a lookup found.
enum Found {
    Records { answer: Vec<Record>, additional: Vec<Record> },
    NoData,
    NoName,
}

impl Kubernetes {
    /// The plugin over a store.
    pub fn new(options: Options, store: Arc<Store>) -> Self {
        Self { options, store }
    }

    /// Answers a query for one of the zones.
    pub fn serve(&self, query: &Query) -> Outcome {
        let zones = self.options.zones.iter().filter(|zone| query.name.is_within(zone));
        let Some(zone) = zones.max_by_key(|zone| zone.wire().len()) else { return Outcome::Pass };
        let found = match self.store.read(|data| self.find(data, query, zone)) {
            // CoreDNS gives its SOA for any name below the zone, there or not.
            Found::NoName if query.qtype == SOA => Found::NoData,
            found => found,
        };
        let mut builder = MessageBuilder::answer(
            query,
            AA,
            if matches!(found, Found::NoName) { NXDOMAIN } else { NOERROR },
        );
        match found {
            Found::Records { answer, additional } => {
                answer.iter().for_each(|record| builder.push_answer(record));
                additional.iter().for_each(|record| builder.push_additional(record));
            }
            Found::NoName
                if self.options.fallthrough.iter().any(|zone| query.name.is_within(zone)) =>
            {
                return Outcome::Pass;
            }
            Found::NoName | Found::NoData => builder.push_authority(&self.soa(zone)),
        }
        Outcome::Answer(builder.build())
    }

    fn find(&self, data: &Data, query: &Query, zone: &Name) -> Found {
        if zone.to_string().ends_with(".arpa.") {
            return self.find_reverse(data, query, zone);
        }
        let labels: Vec<String> =
            query.name.labels().map(|label| String::from_utf8_lossy(label).into_owned()).collect();
        let below = labels.len() - zone.labels().count();
        let labels: Vec<&str> = labels[..below].iter().map(String::as_str).collect();
        match labels.as_slice() {
            ["dns-version"] if query.qtype == TXT => {
                self.one(query, TXT, VERSION_TTL, Rdata::Txt(VERSION.to_owned()))
            }
            // Levels above a Service hold no records; CoreDNS denies the name itself to TXT queries.
            ["dns-version"] => Found::NoName,
            [] | ["svc" | "pod" | "dns"] | [_, "svc" | "pod"] if query.qtype == TXT => {
                Found::NoName
            }
            [] => self.apex(data, query, zone),
            ["dns" | "svc"] => Found::NoData,
            ["ns", "dns"] => self.addresses(query, &own_addresses(data)),
            ["pod"] if self.options.pods != PodsMode::Disabled => Found::NoData,
            [namespace, "svc" | "pod"] if self.exposes(data, namespace) => Found::NoData,
            [address, namespace, "pod"] if self.exposes(data, namespace) => {
                self.pod(data, query, address, namespace)
            }
            [rest @ .., service, namespace, "svc"] if self.exposes(data, namespace) => self
                .service(
                    data,
                    query,
                    rest,
                    &((*namespace).to_owned(), (*service).to_owned()),
                    zone,
                ),
            _ => Found::NoName,
        }
    }

    fn exposes(&self, data: &Data, namespace: &str) -> bool {
        let allowed = self.options.namespaces.is_empty()
            || self.options.namespaces.iter().any(|name| name == namespace);
        allowed && data.namespaces.contains(namespace)
    }

    fn apex(&self, data: &Data, query: &Query, zone: &Name) -> Found {
        match query.qtype {
            SOA => Found::Records { answer: vec![self.soa(zone)], additional: vec![] },
            NS if !own_addresses(data).is_empty() => {
                self.one(query, NS, self.options.ttl, Rdata::Ns(name_server(zone)))
            }
            _ => Found::NoData,
        }
    }

    fn service(&self, data: &Data, query: &Query, rest: &[&str], id: &Id, zone: &Name) -> Found {
        let Some(service) = data.services.get(id) else { return Found::NoName };
        if service.is_external() {
            return self.alias(query, rest, service);
        }
        let headless = service.is_headless();
        match rest {
            [] if headless && data.endpoints(id).is_empty() => Found::NoName,
            [] if query.qtype == SRV => self.srv(data, query, id, service, zone, None),
            [] if headless => {
                let ips: Vec<IpAddr> = data
                    .endpoints(id)
                    .iter()
                    .filter_map(|(endpoint, _)| endpoint.addresses.first().copied())
                    .collect();
                self.addresses(query, &ips)
            }
            [] => self.addresses(query, &service.addresses()),
            [port, proto] if port.starts_with('_') && proto.starts_with('_') => {
                self.srv(data, query, id, service, zone, Some((&port[1..], &proto[1..])))
            }
            [host] => self.endpoint(data, query, id, host),
            _ => Found::NoName,
        }
    }

    /// One endpoint by its own name: its addresses, or as SRV its ports.
    fn endpoint(&self, data: &Data, query: &Query, id: &Id, host: &str) -> Found {
        let mut same = data.endpoints(id);
        same.retain(|(endpoint, _)| self.endpoint_name(endpoint) == host);
        let ips: Vec<IpAddr> =
            same.iter().filter_map(|(endpoint, _)| endpoint.addresses.first().copied()).collect();
        if ips.is_empty() {
            return Found::NoName;
        }
        if query.qtype != SRV {
            return self.addresses(query, &ips);
        }
        let ports = same.iter().flat_map(|(_, ports)| ports.iter());
        let ports =
            ports.map(|port| (query.name.clone(), ips.clone(), port.port.unwrap_or_default()));
        self.srv_records(query, ports.collect())
    }

    fn alias(&self, query: &Query, rest: &[&str], service: &Service) -> Found {
        match (rest, Name::parse(&service.spec.external_name)) {
            ([], Ok(target)) if matches!(query.qtype, A | AAAA | CNAME) => {
                self.one(query, query.qtype, self.options.ttl, Rdata::Cname(target))
            }
            ([], Ok(_)) => Found::NoData,
            _ => Found::NoName,
        }
    }

    /// SRV records: one per port of a virtual address, one per port and endpoint of a headless Service.
    fn srv(
        &self,
        data: &Data,
        query: &Query,
        id: &Id,
        service: &Service,
        zone: &Name,
        wanted: Option<(&str, &str)>,
    ) -> Found {
        let matches = |name: &Option<String>, proto: &Option<String>| {
            wanted.is_none_or(|(port, wanted_proto)| {
                name.as_deref().unwrap_or_default().eq_ignore_ascii_case(port)
                    && proto.as_deref().unwrap_or("TCP").eq_ignore_ascii_case(wanted_proto)
            })
        };
        let base = service_name(id, zone);
        let mut targets: Vec<(Name, Vec<IpAddr>, u16)> = Vec::new();
        if service.is_headless() {
            for (endpoint, ports) in data.endpoints(id) {
                let Ok(target) = base.child(&self.endpoint_name(endpoint)) else { continue };
                for port in ports.iter().filter(|port| matches(&port.name, &port.protocol)) {
                    let first = endpoint.addresses.first().copied();
                    targets.push((
                        target.clone(),
                        first.into_iter().collect(),
                        port.port.unwrap_or_default(),
                    ));
                }
            }
        } else {
            for port in service.spec.ports.iter().filter(|port| matches(&port.name, &port.protocol))
            {
                targets.push((base.clone(), service.addresses(), port.port.unwrap_or_default()));
            }
        }
        if targets.is_empty() {
            return Found::NoName;
        }
        if query.qtype != SRV {
            let ips: Vec<IpAddr> = targets.into_iter().flat_map(|(_, ips, _)| ips).collect();
            return self.addresses(query, &ips);
        }
        self.srv_records(query, targets)
    }

    /// SRV records to these targets, with their addresses in the additional section.
    fn srv_records(&self, query: &Query, targets: Vec<(Name, Vec<IpAddr>, u16)>) -> Found {
        // CoreDNS shares a weight of 100 among the targets, at least 1 each.
        let weight = u16::try_from(100 / targets.len().min(100)).unwrap_or(1);
        let (mut answer, mut additional) = (Vec::new(), Vec::new());
        for (target, ips, port) in targets {
            let data = Rdata::Srv { priority: PRIORITY, weight, port, target: target.clone() };
            answer.push(self.record(query.original.clone(), data));
            for ip in ips {
                let record = self.record(target.clone(), Rdata::address(ip));
                if !additional.contains(&record) {
                    additional.push(record);
                }
            }
        }
        Found::Records { answer, additional }
    }

    fn pod(&self, data: &Data, query: &Query, address: &str, namespace: &str) -> Found {
        let Some(ip) = dashed_address(address) else { return Found::NoName };
        let known = match self.options.pods {
            PodsMode::Disabled => false,
            PodsMode::Insecure => true,
            PodsMode::Verified => data
                .pods
                .get(&ip)
                .is_some_and(|owners| owners.keys().any(|(own, _)| own == namespace)),
        };
        match (known, query.qtype) {
            (false, _) => Found::NoName,
            (true, SRV) => self.srv_records(query, vec![(query.name.clone(), vec![ip], 0)]),
            (true, _) => self.addresses(query, &[ip]),
        }
    }

    fn find_reverse(&self, data: &Data, query: &Query, zone: &Name) -> Found {
        if query.name == *zone {
            return self.apex(data, query, zone);
        }
        let Some(ip) = address_of(&query.name) else { return Found::NoName };
        let Some(forward) =
            self.options.zones.iter().find(|zone| !zone.to_string().ends_with(".arpa."))
        else {
            return Found::NoName;
        };
        let mut names: Vec<Name> = Vec::new();
        if let Some(id) = data.service_of_ip.get(&ip) {
            names.push(service_name(id, forward));
        }
        for id in data.endpoint_services.get(&ip).into_iter().flatten() {
            for (endpoint, _) in
                data.endpoints(id).iter().filter(|(endpoint, _)| endpoint.addresses.contains(&ip))
            {
                names.extend(service_name(id, forward).child(&self.endpoint_name(endpoint)));
            }
        }
        if names.is_empty() {
            return Found::NoName;
        }
        if query.qtype != PTR {
            return Found::NoData;
        }
        names.dedup();
        let answer = names
            .into_iter()
            .map(|name| self.record(query.original.clone(), Rdata::Ptr(name)))
            .collect();
        Found::Records { answer, additional: vec![] }
    }

    /// Own name of an endpoint: its hostname, its pod's name if asked for, or its address with dashes.
    fn endpoint_name(&self, endpoint: &Endpoint) -> String {
        if let Some(hostname) = endpoint.hostname.as_ref().filter(|hostname| !hostname.is_empty()) {
            return hostname.to_ascii_lowercase();
        }
        match (&endpoint.target_ref, self.options.endpoint_pod_names) {
            (Some(pod), true) if !pod.name.is_empty() && pod.name.len() <= 63 => pod.name.clone(),
            _ => endpoint
                .addresses
                .first()
                .map(|ip| ip.to_string().replace(['.', ':'], "-"))
                .unwrap_or_default(),
        }
    }

    fn addresses(&self, query: &Query, ips: &[IpAddr]) -> Found {
        let wanted = ips.iter().filter(|ip| match query.qtype {
            A => ip.is_ipv4(),
            AAAA => ip.is_ipv6(),
            ANY => false,
            _ => false,
        });
        let answer: Vec<Record> =
            wanted.map(|ip| self.record(query.original.clone(), Rdata::address(*ip))).collect();
        if answer.is_empty() {
            Found::NoData
        } else {
            Found::Records { answer, additional: vec![] }
        }
    }

    fn one(&self, query: &Query, rtype: u16, ttl: u32, data: Rdata) -> Found {
        if query.qtype != rtype {
            return Found::NoData;
        }
        Found::Records {
            answer: vec![Record { name: query.original.clone(), ttl, data }],
            additional: vec![],
        }
    }

    fn record(&self, name: Name, data: Rdata) -> Record {
        Record { name, ttl: self.options.ttl, data }
    }

    /// The zone's SOA, with the numbers CoreDNS gives; its serial is the wall clock as there.
    fn soa(&self, zone: &Name) -> Record {
        let serial = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map(|t| t.as_secs())
            .unwrap_or_default();
        let mailbox = zone.child("hostmaster").unwrap_or_else(|_| zone.clone());
        let numbers =
            [u32::try_from(serial).unwrap_or(u32::MAX), 7200, 1800, 86_400, self.options.ttl];
        self.record(zone.clone(), Rdata::Soa { primary: name_server(zone), mailbox, numbers })
    }
}

fn name_server(zone: &Name) -> Name {
    zone.child("dns").and_then(|name| name.child("ns")).unwrap_or_else(|_| zone.clone())
}

/// `SVC.NS.svc.ZONE`; the parts come from the API, whose names always fit.
fn service_name((namespace, service): &Id, zone: &Name) -> Name {
    let name = zone
        .child("svc")
        .and_then(|name| name.child(namespace))
        .and_then(|name| name.child(service));
    name.unwrap_or_else(|_| zone.clone())
}

/// Where this server is reached in the cluster: the address of Service kube-dns.
fn own_addresses(data: &Data) -> Vec<IpAddr> {
    data.services
        .get(&("kube-system".to_owned(), "kube-dns".to_owned()))
        .map(Service::addresses)
        .unwrap_or_default()
}

/// `10-0-0-1` or `2001-db8--1`.
fn dashed_address(text: &str) -> Option<IpAddr> {
    text.replace('-', ".").parse().or_else(|_| text.replace('-', ":").parse()).ok()
}

/// The address a full name under in-addr.arpa or ip6.arpa stands for.
fn address_of(name: &Name) -> Option<IpAddr> {
    let labels: Vec<String> =
        name.labels().rev().map(|label| String::from_utf8_lossy(label).into_owned()).collect();
    let ip: IpAddr = match labels.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["arpa", "in-addr", octets @ ..] if octets.len() == 4 => octets.join(".").parse().ok()?,
        ["arpa", "ip6", digits @ ..] if digits.len() == 32 => {
            let groups: Vec<String> = digits.chunks(4).map(|group| group.concat()).collect();
            groups.join(":").parse().ok()?
        }
        _ => return None,
    };
    (reverse_name(ip) == *name).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back() {
        for text in ["10.1.2.3", "2001:db8::1"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(address_of(&reverse_name(ip)), Some(ip));
        }
        assert_eq!(dashed_address("10-0-0-1"), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(dashed_address("2001-db8--1"), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(dashed_address("web"), None);
    }
}
