//! The configuration files that `up` writes for the services, and the objects it puts into the cluster.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use flotilla_kube_client::{Client, Error, KubeConfig};
use serde_json::{Value, json};

use crate::args::UpArgs;
use crate::layout::Ports;
use crate::plan::Plan;

/// The gateway's shipped bootstrap, with the originals' default ports.
const BOOTSTRAP: &str = include_str!("../../gateway/bootstrap/flotilla.yaml");

/// Writes every file anew, so that a changed flag takes effect at the next start.
///
/// # Errors
/// Names the file that cannot be written.
pub fn write(args: &UpArgs, plan: &Plan) -> Result<(), String> {
    let kubeconfig = plan.layout.kubeconfig();
    let bridge = if args.without_runtime { None } else { Plan::bridge_address(args) };
    let files = [
        ("registry.yml", registry(&plan.ports)),
        ("Corefile", corefile(&plan.ports, &kubeconfig, bridge, upstream_exists())),
        ("prometheus.yml", prometheus(args, &plan.ports, &kubeconfig)),
        ("gateway.yaml", gateway(args, plan)),
    ];
    for (name, text) in files {
        let path = plan.layout.config(name);
        fs::write(&path, text)
            .map_err(|error: io::Error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

fn registry(ports: &Ports) -> String {
    format!(
        "version: 0.1\nhttp:\n  addr: 127.0.0.1:{}\nstorage:\n  delete:\n    enabled: true\n",
        ports.registry
    )
}

fn upstream_exists() -> bool {
    fs::read_to_string("/etc/resolv.conf")
        .is_ok_and(|text| text.lines().any(|line| line.starts_with("nameserver")))
}

fn corefile(
    ports: &Ports,
    kubeconfig: &Path,
    bridge: Option<std::net::Ipv4Addr>,
    forward: bool,
) -> String {
    let bridge = bridge.map(|address| format!(" {address}")).unwrap_or_default();
    let forward = if forward { "    forward . /etc/resolv.conf\n" } else { "" };
    format!(
        ".:{} {{\n    bind 127.0.0.1{bridge}\n    errors\n    health 127.0.0.1:{}\n    ready 127.0.0.1:{}\n    \
         admin 127.0.0.1:{}\n    prometheus 127.0.0.1:{}\n    cache 30\n    \
         kubernetes cluster.local in-addr.arpa ip6.arpa {{\n        kubeconfig {}\n        pods insecure\n        \
         fallthrough in-addr.arpa ip6.arpa\n    }}\n{forward}}}\n",
        ports.dns,
        ports.dns_health,
        ports.dns_ready,
        ports.dns_grpc,
        ports.dns_metrics,
        kubeconfig.display()
    )
}

fn prometheus(args: &UpArgs, ports: &Ports, kubeconfig: &Path) -> String {
    let mut jobs = String::new();
    let mut job = |name: &str, port: u16, path: &str| {
        jobs.push_str(&format!(
            "  - job_name: {name}\n    metrics_path: {path}\n    static_configs:\n      - targets: ['127.0.0.1:{port}']\n"
        ));
    };
    if args.kv_endpoints.is_none() {
        job("kv-svc", ports.kv, "/metrics");
    }
    if args.image_endpoint.is_none() {
        job("image-svc", ports.registry, "/metrics");
    }
    if !args.without_runtime {
        job("runtime-svc", ports.runtime_metrics, "/metrics");
    }
    job("scheduler-svc", ports.scheduler, "/metrics");
    job("dns-svc", ports.dns_metrics, "/metrics");
    job("metrics-svc", ports.metrics, "/metrics");
    job("gateway", ports.gateway_admin, "/stats/prometheus");
    format!(
        "global:\n  scrape_interval: 2s\n  scrape_timeout: 2s\nscrape_configs:\n{jobs}  - job_name: pods\n    \
         kubernetes_sd_configs:\n      - role: pod\n        kubeconfig_file: {}\n    relabel_configs:\n      \
         - source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape]\n        action: keep\n        \
         regex: 'true'\n      \
         - source_labels: [__meta_kubernetes_pod_phase]\n        action: keep\n        regex: Running\n      \
         - source_labels: [__meta_kubernetes_pod_ip, __meta_kubernetes_pod_annotation_prometheus_io_port]\n        \
         separator: ':'\n        target_label: __address__\n      \
         - source_labels: [__meta_kubernetes_namespace]\n        target_label: namespace\n      \
         - source_labels: [__meta_kubernetes_pod_name]\n        target_label: pod\n      \
         - source_labels: [__meta_kubernetes_pod_label_app]\n        target_label: app\n",
        kubeconfig.display()
    )
}

fn gateway(args: &UpArgs, plan: &Plan) -> String {
    let (from, to) = (&Ports::ORIGINALS, &plan.ports);
    let mut text = BOOTSTRAP.to_owned();
    if let (false, Some(bridge)) = (args.without_runtime, Plan::bridge_address(args)) {
        // Pods find the Kubernetes API at the bridge, under its usual port.
        let here = format!("address: 127.0.0.1, port_value: {} }}", from.gateway_kube_api);
        text = text.replace(&here, &format!("address: {bridge}, port_value: {} }}", from.kube_api));
    }
    // Two passes: a new port may equal another service's old one.
    let pairs: Vec<(u16, u16)> =
        from.all().iter().zip(to.all()).map(|((_, old), (_, new))| (*old, new)).collect();
    for (index, (old, _)) in pairs.iter().enumerate() {
        text = text.replace(&format!("port_value: {old}\n"), &format!("port_value: @{index}@\n"));
        text = text.replace(&format!("port_value: {old} }}"), &format!("port_value: @{index}@ }}"));
    }
    for (index, (_, new)) in pairs.iter().enumerate() {
        text = text.replace(&format!("@{index}@"), &new.to_string());
    }
    let image = args
        .image_endpoint
        .clone()
        .unwrap_or_else(|| format!("unix://{}", plan.layout.run("image.sock").display()));
    text.replace(
        "/run/flotilla/runtime.sock",
        &plan.layout.run("runtime.sock").display().to_string(),
    )
    .replace("/run/flotilla/image.sock", image.trim_start_matches("unix://"))
}

/// Where the cluster's DNS address leads.
#[derive(Debug, Clone, Copy)]
pub struct DnsService {
    /// Address of Service kube-dns.
    pub service: std::net::Ipv4Addr,
    /// Where the DNS server listens.
    pub endpoint: std::net::SocketAddr,
}

/// Gives the cluster of this plan its DNS Service.
///
/// # Errors
/// What the API says.
pub async fn apply_cluster_objects(args: &UpArgs, plan: &Plan) -> Result<(), String> {
    let (Some(service), Some(bridge)) =
        (Plan::dns_service_address(args), Plan::bridge_address(args))
    else {
        return Err(format!("{} or {} is no IPv4 range", args.service_cidr, args.pod_cidr));
    };
    if args.without_runtime {
        return Ok(());
    }
    let config =
        KubeConfig::from_file(&plan.layout.kubeconfig()).map_err(|error| error.to_string())?;
    let client = Client::new(config, "flotilla").map_err(|error| error.to_string())?;
    apply_dns_service(&client, DnsService { service, endpoint: (bridge, plan.ports.dns).into() })
        .await
}

/// Creates Service kube-dns and the slice that leads it to a server outside of the cluster.
///
/// # Errors
/// What the API says.
pub async fn apply_dns_service(client: &Client, dns: DnsService) -> Result<(), String> {
    let number = dns.endpoint.port();
    let meta = json!({"name": "kube-dns", "namespace": "kube-system",
        "labels": {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS", "kubernetes.io/cluster-service": "true"}});
    let port = |protocol: &str, name: &str| json!({"name": name, "protocol": protocol, "port": 53, "targetPort": number});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": meta,
        "spec": {"clusterIP": dns.service.to_string(), "ports": [port("UDP", "dns"), port("TCP", "dns-tcp")]}});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "kube-dns-host", "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns", "endpointslice.kubernetes.io/managed-by": "flotilla"}},
        "endpoints": [{"addresses": [dns.endpoint.ip().to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "dns", "protocol": "UDP", "port": number}, {"name": "dns-tcp", "protocol": "TCP", "port": number}]});
    ensure(client, "/api/v1/namespaces/kube-system/services", "kube-dns", &service).await?;
    ensure(
        client,
        "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices",
        "kube-dns-host",
        &slice,
    )
    .await
}

/// Brings the object to this state, whether it is there from an earlier start or not.
async fn ensure(
    client: &Client,
    collection: &str,
    name: &str,
    object: &Value,
) -> Result<(), String> {
    const PATIENCE: u32 = 50;
    let path = format!("{collection}/{name}");
    for attempt in 0.. {
        // Looked for first: creating it again would be refused for its address before its name.
        let done = match client.get::<Value>(&path).await {
            Ok(_) => client.patch::<Value>(&path, flotilla_kube_client::Patch::Merge(object)).await,
            Err(error) if error.is_not_found() => client.create::<Value>(collection, object).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(_) => return Ok(()),
            // The namespace appears a moment after the API is ready.
            Err(error)
                if attempt < PATIENCE
                    && (error.is_not_found() || matches!(error, Error::Connection(_))) =>
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(format!("cannot bring {name} up to date: {error}")),
        }
    }
    unreachable!("the loop ends by returning")
}
