//! What `up` starts: binaries, arguments, order and how to see that each is ready.

use std::path::Path;

use crate::args::UpArgs;
use crate::layout::{Layout, Ports};
use crate::pki::KubeletClient;

/// One service to start.
#[derive(Debug, Clone)]
pub struct Service {
    /// Name of the binary.
    pub name: &'static str,
    /// Its arguments.
    pub args: Vec<String>,
    /// Answers 200 (or 401) when the service is ready.
    pub ready_url: String,
    /// Addresses for people: what it is, and where.
    pub endpoints: Vec<(String, String)>,
    /// Services that must be ready before this one is started.
    pub after: Vec<&'static str>,
}

/// Everything that is decided before anything is started.
#[derive(Debug)]
pub struct Plan {
    /// Files and folders.
    pub layout: Layout,
    /// Ports.
    pub ports: Ports,
    /// The services in start order.
    pub services: Vec<Service>,
}

const LOOPBACK: &str = "127.0.0.1";
/// Where the DNS Service answers inside the cluster; the tenth address of the default Service range.
const CLUSTER_DOMAIN: &str = "cluster.local";

impl Plan {
    /// Decides what runs where.
    pub fn new(args: &UpArgs) -> Self {
        let layout = Layout::new(&args.root.root);
        let ports = Ports::choose(args.port_base);
        let builder = Builder { args, layout: &layout, ports: &ports };
        let mut services = Vec::new();
        if args.kv_endpoints.is_none() {
            services.push(builder.kv());
        }
        if args.image_endpoint.is_none() {
            services.push(builder.image());
        }
        services.push(builder.scheduler());
        if !args.without_runtime {
            services.push(builder.runtime());
        }
        services.extend([builder.dns(), builder.metrics(), builder.gateway()]);
        let started: Vec<&str> = services.iter().map(|service| service.name).collect();
        for service in &mut services {
            service.after.retain(|name| started.contains(name));
        }
        Self { layout, ports, services }
    }

    /// Address of the bridge: the first of the pod range.
    pub fn bridge_address(args: &UpArgs) -> Option<std::net::Ipv4Addr> {
        nth_address(&args.pod_cidr, 1)
    }

    /// Address of the cluster's DNS Service.
    pub fn dns_service_address(args: &UpArgs) -> Option<std::net::Ipv4Addr> {
        nth_address(&args.service_cidr, 10)
    }
}

/// The `n`th address of an IPv4 range such as `10.244.0.0/24`.
pub fn nth_address(cidr: &str, n: u32) -> Option<std::net::Ipv4Addr> {
    let (address, bits) = cidr.split_once('/')?;
    let (address, bits): (std::net::Ipv4Addr, u32) = (address.parse().ok()?, bits.parse().ok()?);
    let size = 1u64.checked_shl(32u32.checked_sub(bits)?)?;
    let base = u64::from(u32::from(address)) & !(size - 1);
    (u64::from(n) < size).then(|| u32::try_from(base + u64::from(n)).ok()).flatten().map(Into::into)
}

struct Builder<'a> {
    args: &'a UpArgs,
    layout: &'a Layout,
    ports: &'a Ports,
}

impl Builder<'_> {
    fn kv_url(&self) -> String {
        self.args
            .kv_endpoints
            .clone()
            .unwrap_or_else(|| format!("http://{LOOPBACK}:{}", self.ports.kv))
    }

    fn image_socket(&self) -> String {
        self.args.image_endpoint.clone().unwrap_or_else(|| unix(&self.layout.run("image.sock")))
    }

    fn data(&self, service: &str) -> String {
        self.layout.data(service).display().to_string()
    }

    fn kv(&self) -> Service {
        let client = format!("http://{LOOPBACK}:{}", self.ports.kv);
        let peer = format!("http://{LOOPBACK}:{}", self.ports.kv_peer);
        Service {
            name: "kv-svc",
            args: flags(&[
                ("--name", "default"),
                ("--data-dir", &self.data("kv-svc")),
                ("--listen-client-urls", &client),
                ("--advertise-client-urls", &client),
                ("--listen-peer-urls", &peer),
                ("--initial-advertise-peer-urls", &peer),
                ("--initial-cluster", &format!("default={peer}")),
            ]),
            ready_url: format!("{client}/health"),
            endpoints: vec![("etcd".to_owned(), client)],
            after: vec![],
        }
    }

    fn image(&self) -> Service {
        let registry = format!("{LOOPBACK}:{}", self.ports.registry);
        let mut args =
            vec!["serve".to_owned(), self.layout.config("registry.yml").display().to_string()];
        args.extend(flags(&[
            ("--root", &self.data("image-svc")),
            ("--cri-address", &self.image_socket()),
        ]));
        Service {
            name: "image-svc",
            args,
            ready_url: format!("http://{registry}/v2/"),
            endpoints: vec![
                ("registry".to_owned(), registry),
                ("CRI images".to_owned(), self.image_socket()),
            ],
            after: vec![],
        }
    }

    fn scheduler(&self) -> Service {
        let own = format!("{LOOPBACK}:{}", self.ports.scheduler);
        let kubelet = KubeletClient::paths(&self.layout.pki());
        let mut args = Vec::new();
        if let (false, Some(bridge)) = (self.args.without_runtime, Plan::bridge_address(self.args))
        {
            // Pods reach the API at the bridge's address, where the gateway passes them on.
            args = flags(&[
                ("--advertise-address", &bridge.to_string()),
                ("--tls-sans", &bridge.to_string()),
            ]);
        }
        args.extend(flags(&[
            ("--etcd-servers", &self.kv_url()),
            ("--bind-address", LOOPBACK),
            ("--secure-port", &self.ports.kube_api.to_string()),
            ("--cert-dir", &self.layout.pki().display().to_string()),
            ("--service-cluster-ip-range", &self.args.service_cidr),
            ("--authorization-mode", "RBAC"),
            ("--roles", "api,controllers,scheduler"),
            ("--grpc-address", &own),
            ("--xds-address", &format!("{LOOPBACK}:{}", self.ports.xds)),
            ("--ingress-port", &self.ports.ingress.to_string()),
            ("--kubelet-client-certificate", &kubelet.cert.display().to_string()),
            ("--kubelet-client-key", &kubelet.key.display().to_string()),
        ]));
        Service {
            name: "scheduler-svc",
            args,
            ready_url: format!("http://{own}/readyz"),
            endpoints: vec![
                (
                    "Kubernetes API".to_owned(),
                    format!("https://{LOOPBACK}:{}", self.ports.kube_api),
                ),
                ("xDS".to_owned(), format!("{LOOPBACK}:{}", self.ports.xds)),
            ],
            after: vec!["kv-svc"],
        }
    }

    fn runtime(&self) -> Service {
        let socket = unix(&self.layout.run("runtime.sock"));
        let metrics = format!("{LOOPBACK}:{}", self.ports.runtime_metrics);
        let node_ip = Plan::bridge_address(self.args).map(|ip| ip.to_string()).unwrap_or_default();
        let dns = Plan::dns_service_address(self.args).map(|ip| ip.to_string()).unwrap_or_default();
        let mut args = vec!["--proxy-cleanup-on-exit".to_owned()];
        args.extend(flags(&[
            ("--address", &socket),
            ("--root", &self.data("runtime-svc")),
            ("--state", &self.layout.run("runtime").display().to_string()),
            ("--image-endpoint", &self.image_socket()),
            ("--roles", "runtime,agent"),
            ("--bridge-name", &self.args.bridge_name),
            ("--pod-cidr", &self.args.pod_cidr),
            ("--nft-table", &format!("{}-host", self.args.bridge_name)),
            ("--proxy-nft-table", &format!("{}-svc", self.args.bridge_name)),
            ("--cluster-cidr", &self.args.pod_cidr),
            // The disk of a workstation is often nearly full; kubelet's tenth would leave every pod Pending.
            ("--eviction-hard", "memory.available<50Mi,nodefs.available<1%,nodefs.inodesFree<1%"),
            ("--metrics-address", &metrics),
            ("--kubeconfig", &self.layout.kubeconfig().display().to_string()),
            ("--hostname-override", &self.args.node_name),
            ("--node-ip", &node_ip),
            ("--kubelet-address", &node_ip),
            ("--kubelet-port", &self.ports.kubelet.to_string()),
            ("--agent-root-dir", &self.data("agent")),
            ("--pod-logs-dir", &self.layout.logs().join("pods").display().to_string()),
            ("--cert-dir", &self.layout.pki().join("kubelet").display().to_string()),
            (
                "--client-ca-file",
                &KubeletClient::paths(&self.layout.pki()).ca.display().to_string(),
            ),
            ("--cluster-dns", &dns),
            ("--cluster-domain", CLUSTER_DOMAIN),
        ]));
        Service {
            name: "runtime-svc",
            args,
            ready_url: format!("http://{metrics}/readyz"),
            endpoints: vec![
                ("CRI runtime".to_owned(), socket),
                ("kubelet".to_owned(), format!("https://{node_ip}:{}", self.ports.kubelet)),
            ],
            after: vec!["image-svc", "scheduler-svc"],
        }
    }

    fn dns(&self) -> Service {
        Service {
            name: "dns-svc",
            args: flags(&[
                ("-conf", &self.layout.config("Corefile").display().to_string()),
                ("-dns.port", &self.ports.dns.to_string()),
            ]),
            ready_url: format!("http://{LOOPBACK}:{}/ready", self.ports.dns_ready),
            endpoints: vec![(
                "DNS".to_owned(),
                format!("{LOOPBACK}:{} (udp, tcp)", self.ports.dns),
            )],
            after: vec!["scheduler-svc", "runtime-svc"],
        }
    }

    fn metrics(&self) -> Service {
        let address = format!("{LOOPBACK}:{}", self.ports.metrics);
        Service {
            name: "metrics-svc",
            args: flags(&[
                ("--config.file", &self.layout.config("prometheus.yml").display().to_string()),
                ("--storage.tsdb.path", &self.data("metrics-svc")),
                ("--web.listen-address", &address),
            ]),
            ready_url: format!("http://{address}/-/ready"),
            endpoints: vec![("Prometheus API".to_owned(), format!("http://{address}"))],
            after: vec!["scheduler-svc"],
        }
    }

    fn gateway(&self) -> Service {
        let admin = format!("{LOOPBACK}:{}", self.ports.gateway_admin);
        Service {
            name: "gateway",
            args: flags(&[
                ("-c", &self.layout.config("gateway.yaml").display().to_string()),
                ("--concurrency", "2"),
            ]),
            ready_url: format!("http://{admin}/ready"),
            endpoints: vec![
                ("all gRPC APIs".to_owned(), format!("{LOOPBACK}:{}", self.ports.gateway)),
                ("Ingress hosts".to_owned(), format!("http://{LOOPBACK}:{}", self.ports.ingress)),
                ("Envoy admin".to_owned(), format!("http://{admin}")),
            ],
            after: vec!["scheduler-svc", "runtime-svc"],
        }
    }
}

fn flags(pairs: &[(&str, &str)]) -> Vec<String> {
    pairs.iter().flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]).collect()
}

fn unix(path: &Path) -> String {
    format!("unix://{}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_count_from_the_network() {
        assert_eq!(nth_address("10.244.3.7/24", 1).unwrap().to_string(), "10.244.3.1");
        assert_eq!(nth_address("10.96.0.0/16", 10).unwrap().to_string(), "10.96.0.10");
        assert_eq!(nth_address("10.96.0.0/30", 10), None);
        assert_eq!(nth_address("10.96.0.0/33", 1), None);
    }
}
