//! Addresses and node ports of Services.
//!
//! A ClusterIP is taken by creating its IPAddress object in the same transaction as the Service, so two servers
//! cannot give out one address twice.

use std::net::Ipv4Addr;

use bytes::Bytes;
use kube_codec::{now, seconds_time};
use kube_spec::{Resource, find};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::error::{ApiError, FieldError};
use crate::object::{self, items_mut, text};
use crate::server::Api;
use crate::stored;

/// Keys that must not exist yet, with their values.
type Guards = Vec<(String, Bytes)>;

/// Gives out addresses and ports.
#[derive(Debug)]
pub struct Addresses {
    network: u32,
    size: u32,
    ports: std::ops::RangeInclusive<i64>,
    recent_ports: Mutex<Vec<i64>>,
}

impl Addresses {
    /// An allocator for a range (CIDR) and ports (`30000-32767`).
    ///
    /// # Errors
    /// Says which flag is wrong.
    pub fn new(range: &str, ports: &str) -> Result<Self, String> {
        let wrong = || {
            format!("--service-cluster-ip-range: {range:?} is no IPv4 CIDR such as 10.96.0.0/16")
        };
        let (ip, bits) = range.split_once('/').ok_or_else(wrong)?;
        let ip: Ipv4Addr = ip.parse().map_err(|_| wrong())?;
        let bits: u32 = bits.parse().ok().filter(|b| (8..=30).contains(b)).ok_or_else(wrong)?;
        let size = 1u32 << (32 - bits);
        let network = u32::from(ip) & !(size - 1);
        let wrong =
            || format!("--service-node-port-range: {ports:?} is no range such as 30000-32767");
        let (low, high) = ports.split_once('-').ok_or_else(wrong)?;
        let low: u16 = low.parse().map_err(|_| wrong())?;
        let high: u16 = high.parse().ok().filter(|h| *h >= low).ok_or_else(wrong)?;
        Ok(Self {
            network,
            size,
            ports: i64::from(low)..=i64::from(high),
            recent_ports: Mutex::default(),
        })
    }

    /// The first address: that of the Service `kubernetes`.
    pub fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.network + 1)
    }

    fn contains(&self, ip: Ipv4Addr) -> bool {
        let at = u32::from(ip);
        at > self.network && at < self.network + self.size - 1
    }

    /// Gives a Service its address and ports; for other kinds nothing happens.
    ///
    /// # Errors
    /// 422 when an asked-for address or port is taken or outside of the range.
    pub fn allocate(
        &self,
        api: &Api,
        resource: &Resource,
        current: Option<&Value>,
        service: &mut Value,
    ) -> Result<Guards, ApiError> {
        if resource.plural != "services" || !resource.group.is_empty() {
            return Ok(Vec::new());
        }
        let mut guards = Vec::new();
        if text(service, "/spec/type") == "ExternalName" {
            if let Some(spec) = service["spec"].as_object_mut() {
                spec.remove("clusterIP");
                spec.remove("clusterIPs");
            }
            return Ok(guards);
        }
        let old = current.map(|c| text(c, "/spec/clusterIP")).unwrap_or_default().to_owned();
        let asked = [text(service, "/spec/clusterIP"), text(service, "/spec/clusterIPs/0")];
        let asked = asked.into_iter().find(|a| !a.is_empty()).unwrap_or_default().to_owned();
        let ip = match (asked.as_str(), old.as_str()) {
            ("", "") => self.free(api)?.to_string(),
            ("", old) => old.to_owned(),
            (asked, old) if asked == old || asked == "None" => asked.to_owned(),
            (asked, "") => self.wanted(api, service, asked)?.to_string(),
            (asked, _) => asked.to_owned(),
        };
        if ip != "None" && old.is_empty() {
            guards.push(self.guard(api, &ip, service)?);
        }
        service["spec"]["clusterIP"] = ip.as_str().into();
        service["spec"]["clusterIPs"] = json!([ip]);
        self.node_ports(api, current, service)?;
        Ok(guards)
    }

    /// Keys that go with a Service when it is deleted.
    pub fn keys_of(&self, api: &Api, resource: &Resource, object: &Value) -> Vec<String> {
        let ip = text(object, "/spec/clusterIP");
        let ours = resource.plural == "services"
            && resource.group.is_empty()
            && ip.parse::<Ipv4Addr>().is_ok();
        match addresses() {
            Some(addresses) if ours => vec![api.store_key(addresses, ip)],
            _ => Vec::new(),
        }
    }

    fn taken(&self, api: &Api, ip: Ipv4Addr) -> bool {
        let shown = ip.to_string();
        let address = addresses().and_then(|r| api.cache.of(r)?.get(&shown)).is_some();
        address || services(api).iter().any(|s| text(&s.object, "/spec/clusterIP") == shown)
    }

    fn free(&self, api: &Api) -> Result<Ipv4Addr, ApiError> {
        // The lower part of the range is left for asked-for addresses, as upstream.
        let low = (self.size / 16).clamp(16.min(self.size / 4), 256);
        for attempt in 0..256 {
            let span = if attempt < 192 { low..self.size - 1 } else { 1..self.size - 1 };
            let ip = Ipv4Addr::from(self.network + rand::random_range(span));
            if !self.taken(api, ip) {
                return Ok(ip);
            }
        }
        let scan = (1..self.size - 1)
            .map(|i| Ipv4Addr::from(self.network + i))
            .find(|ip| !self.taken(api, *ip));
        scan.ok_or_else(|| ApiError::internal("failed to allocate a serviceIP: range is full"))
    }

    fn wanted(&self, api: &Api, service: &Value, asked: &str) -> Result<Ipv4Addr, ApiError> {
        let resource = find("", "v1", "services").ok_or_else(ApiError::no_such_path)?;
        let shown = json!([asked]);
        let refuse = |field: &str, value: &Value, why: &str| {
            Err(ApiError::invalid(
                resource,
                object::name(service),
                &[FieldError::invalid(field, value, why)],
            ))
        };
        let Ok(ip) = asked.parse::<Ipv4Addr>() else {
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            return refuse("spec.clusterIPs[0]", &asked.into(), why);
        };
        if !self.contains(ip) {
            let bits = 32 - self.size.trailing_zeros();
            let range = format!("{}/{bits}", Ipv4Addr::from(self.network));
            let why = format!(
                "failed to allocate IP {asked}: the provided IP ({asked}) is not in the valid range. The range of valid IPs is {range}"
            );
            return refuse("spec.clusterIPs", &shown, &why);
        }
        if self.taken(api, ip) {
            let why = format!("failed to allocate IP {asked}: provided IP is already allocated");
            return refuse("spec.clusterIPs", &shown, &why);
        }
        Ok(ip)
    }

    fn guard(&self, api: &Api, ip: &str, service: &Value) -> Result<(String, Bytes), ApiError> {
        let addresses = addresses().ok_or_else(ApiError::no_such_path)?;
        let object = json!({
            "metadata": {
                "name": ip, "uid": uuid::Uuid::new_v4().to_string(),
                "creationTimestamp": seconds_time(now()).unwrap_or_default(),
                "labels": {"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"},
            },
            "spec": {"parentRef": {"resource": "services", "namespace": object::namespace(service), "name": object::name(service)}},
        });
        let value = stored::encode(addresses, &object).map_err(ApiError::internal)?;
        Ok((api.store_key(addresses, ip), value))
    }

    fn node_ports(
        &self,
        api: &Api,
        current: Option<&Value>,
        service: &mut Value,
    ) -> Result<(), ApiError> {
        let kind = text(service, "/spec/type").to_owned();
        let wants = kind == "NodePort"
            || (kind == "LoadBalancer"
                && service["spec"]["allocateLoadBalancerNodePorts"] != false);
        let name = object::name(service).to_owned();
        let own = object::uid(service).to_owned();
        let mut used: Vec<i64> = services(api)
            .iter()
            .filter(|s| object::uid(&s.object) != own)
            .flat_map(|s| {
                object::list(&s.object, "/spec/ports")
                    .iter()
                    .filter_map(|p| object::int(p, "/nodePort"))
                    .collect::<Vec<_>>()
            })
            .collect();
        let old: Vec<Value> =
            current.map(|c| object::list(c, "/spec/ports").to_vec()).unwrap_or_default();
        for (i, port) in items_mut(&mut service["spec"], "ports").enumerate() {
            if !wants {
                if let Some(fields) = port.as_object_mut() {
                    fields.remove("nodePort");
                }
                continue;
            }
            let kept =
                old.iter().find(|o| o["port"] == port["port"] && o["protocol"] == port["protocol"]);
            let kept = kept.and_then(|o| object::int(o, "/nodePort")).filter(|n| *n > 0);
            match object::int(port, "/nodePort").filter(|n| *n > 0) {
                Some(asked) => {
                    let why = if !self.ports.contains(&asked) {
                        format!(
                            "provided port is not in the valid range. The range of valid ports is {}-{}",
                            self.ports.start(),
                            self.ports.end()
                        )
                    } else if used.contains(&asked) {
                        "provided port is already allocated".to_owned()
                    } else {
                        used.push(asked);
                        continue;
                    };
                    let resource = find("", "v1", "services").ok_or_else(ApiError::no_such_path)?;
                    let error = FieldError::invalid(
                        format!("spec.ports[{i}].nodePort"),
                        &asked.into(),
                        &why,
                    );
                    return Err(ApiError::invalid(resource, &name, &[error]));
                }
                None => {
                    let chosen = match kept {
                        Some(port) => port,
                        None => self.free_port(&used)?,
                    };
                    used.push(chosen);
                    port["nodePort"] = chosen.into();
                }
            }
        }
        Ok(())
    }

    fn free_port(&self, used: &[i64]) -> Result<i64, ApiError> {
        // Ports given out a moment ago may not be in the cache yet.
        let mut recent = self.recent_ports.lock();
        let start = rand::random_range(self.ports.clone());
        let order = (start..=*self.ports.end()).chain(*self.ports.start()..start);
        let chosen = order.into_iter().find(|p| !used.contains(p) && !recent.contains(p));
        let chosen = chosen
            .ok_or_else(|| ApiError::internal("failed to allocate a nodePort: range is full"))?;
        recent.push(chosen);
        let longest = (self.ports.end() - self.ports.start()) as usize / 4;
        if recent.len() > longest.min(256) {
            recent.remove(0);
        }
        Ok(chosen)
    }
}

fn addresses() -> Option<&'static Resource> {
    find("networking.k8s.io", "v1", "ipaddresses")
}

fn services(api: &Api) -> Vec<std::sync::Arc<crate::store::Entry>> {
    find("", "v1", "services").and_then(|r| api.cache.of(r)).map(|c| c.list("")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked() {
        let addresses = Addresses::new("10.96.0.0/16", "30000-32767").unwrap();
        assert_eq!(addresses.first().to_string(), "10.96.0.1");
        assert!(addresses.contains("10.96.0.10".parse().unwrap()));
        assert!(!addresses.contains("10.97.0.1".parse().unwrap()));
        assert!(!addresses.contains("10.96.0.0".parse().unwrap()));
        for (range, ports) in
            [("x", "1-2"), ("10.0.0.0/33", "1-2"), ("10.0.0.0/16", "5-2"), ("10.0.0.0/16", "5")]
        {
            assert!(Addresses::new(range, ports).is_err(), "{range} {ports}");
        }
    }
}
