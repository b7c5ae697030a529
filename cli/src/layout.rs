//! Names of everything below the root folder, and the ports.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The folders and files of one suite.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Data of one service.
    pub fn data(&self, service: &str) -> PathBuf {
        self.root.join("data").join(service)
    }

    /// Generated configuration files.
    pub fn config(&self, file: &str) -> PathBuf {
        self.root.join("config").join(file)
    }

    /// Certificates, keys and kubeconfigs.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.pki().join("admin.kubeconfig")
    }

    /// Sockets and everything else that does not outlive the machine's uptime.
    pub fn run(&self, file: &str) -> PathBuf {
        self.root.join("run").join(file)
    }

    /// Log of one service.
    pub fn log(&self, service: &str) -> PathBuf {
        self.logs().join(format!("{service}.log"))
    }

    /// All logs.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Which processes run.
    pub fn state(&self) -> PathBuf {
        self.root.join("state.json")
    }
}

/// The TCP ports of a suite, all on loopback but DNS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// etcd clients.
    pub kv: u16,
    /// Other members of the etcd cluster.
    pub kv_peer: u16,
    /// Registry, and image-svc's own gRPC.
    pub registry: u16,
    /// runtime-svc's metrics and readiness.
    pub runtime_metrics: u16,
    /// The node's kubelet API.
    pub kubelet: u16,
    /// Kubernetes API.
    pub kube_api: u16,
    /// scheduler-svc's own gRPC, metrics and readiness.
    pub scheduler: u16,
    /// xDS for proxies.
    pub xds: u16,
    /// DNS over UDP and TCP.
    pub dns: u16,
    /// DNS liveness.
    pub dns_health: u16,
    /// DNS readiness.
    pub dns_ready: u16,
    /// DNS metrics.
    pub dns_metrics: u16,
    /// dns-svc's own gRPC.
    pub dns_grpc: u16,
    /// Prometheus API, and metrics-svc's own gRPC.
    pub metrics: u16,
    /// HTTP entry: every gRPC API of the suite.
    pub gateway: u16,
    /// HTTP entry: hosts of Ingresses.
    pub ingress: u16,
    /// Kubernetes API through the gateway.
    pub gateway_kube_api: u16,
    /// Envoy admin.
    pub gateway_admin: u16,
}

impl Ports {
    /// The originals' default ports. DNS takes 1053, since 53 is often held by the machine's own resolver.
    pub const ORIGINALS: Self = Self {
        kv: 2379,
        kv_peer: 2380,
        registry: 5000,
        runtime_metrics: 10_249,
        kubelet: 10_250,
        kube_api: 6443,
        scheduler: 10_259,
        xds: 18_000,
        dns: 1053,
        dns_health: 8082,
        dns_ready: 8181,
        dns_metrics: 9153,
        dns_grpc: 9154,
        metrics: 9090,
        gateway: 8080,
        ingress: 8000,
        gateway_kube_api: 16_443,
        gateway_admin: 9901,
    };

    /// Consecutive ports from `base`, or the originals' own.
    pub fn choose(base: Option<u16>) -> Self {
        let Some(base) = base else { return Self::ORIGINALS };
        let mut next = (base..).take(18);
        let mut port = || next.next().unwrap_or(u16::MAX);
        Self {
            kv: port(),
            kv_peer: port(),
            registry: port(),
            runtime_metrics: port(),
            kubelet: port(),
            kube_api: port(),
            scheduler: port(),
            xds: port(),
            dns: port(),
            dns_health: port(),
            dns_ready: port(),
            dns_metrics: port(),
            dns_grpc: port(),
            metrics: port(),
            gateway: port(),
            ingress: port(),
            gateway_kube_api: port(),
            gateway_admin: port(),
        }
    }

    /// Every port with the service that binds it.
    pub fn all(&self) -> [(&'static str, u16); 18] {
        [
            ("kv-svc", self.kv),
            ("kv-svc", self.kv_peer),
            ("image-svc", self.registry),
            ("runtime-svc", self.runtime_metrics),
            ("runtime-svc", self.kubelet),
            ("scheduler-svc", self.kube_api),
            ("scheduler-svc", self.scheduler),
            ("scheduler-svc", self.xds),
            ("dns-svc", self.dns),
            ("dns-svc", self.dns_health),
            ("dns-svc", self.dns_ready),
            ("dns-svc", self.dns_metrics),
            ("dns-svc", self.dns_grpc),
            ("metrics-svc", self.metrics),
            ("gateway", self.gateway),
            ("gateway", self.ingress),
            ("gateway", self.gateway_kube_api),
            ("gateway", self.gateway_admin),
        ]
    }
}
