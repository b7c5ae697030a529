//! Flags of the agent, under kubelet's names.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use flotilla_config::parse_duration;

use crate::engine::eviction;
use crate::error::AgentError;

/// Where runtime-svc listens unless told otherwise.
pub const DEFAULT_RUNTIME_ENDPOINT: &str = "unix:///run/flotilla/runtime.sock";

/// Flags of the role `agent`.
///
/// `--kubelet-address`, `--kubelet-port` and `--agent-root-dir` are kubelet's `--address`, `--port` and
/// `--root-dir`; the process that hosts the agent has flags of those names for other things.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Node agent")]
#[group(skip)]
pub struct Config {
    /// How to reach the API server; without it only static pods run
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Name of the node [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub hostname_override: Option<String>,
    /// Address of the node [default: the first that is not loopback]
    #[arg(long, value_name = "IP")]
    pub node_ip: Option<IpAddr>,
    /// Labels of the Node object, as k=v,...
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    pub node_labels: Vec<String>,
    /// Taints the Node object is registered with, as key=value:Effect,...
    #[arg(long, value_name = "TAINTS", value_delimiter = ',')]
    pub register_with_taints: Vec<String>,
    /// CRI socket of the runtime [default: this process's own, else unix:///run/flotilla/runtime.sock]
    #[arg(long, value_name = "ENDPOINT")]
    pub container_runtime_endpoint: Option<String>,
    /// CRI socket of the image service [default: the runtime's]
    #[arg(long, value_name = "ENDPOINT")]
    pub image_service_endpoint: Option<String>,
    /// Resolvers of pods with dnsPolicy ClusterFirst
    #[arg(long, value_name = "IPS", value_delimiter = ',')]
    pub cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Resolver configuration of pods with dnsPolicy Default
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
    /// Folder of static pods' manifests
    #[arg(long, value_name = "DIR")]
    pub pod_manifest_path: Option<PathBuf>,
    /// Folder of volumes and other pod data
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub agent_root_dir: PathBuf,
    /// Folder of pod logs
    #[arg(long, value_name = "DIR", default_value = "/var/log/pods")]
    pub pod_logs_dir: PathBuf,
    /// Address of the kubelet API
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub kubelet_address: IpAddr,
    /// Port of the kubelet API; 0 lets the kernel choose
    #[arg(long, value_name = "PORT", default_value_t = 10250)]
    pub kubelet_port: u16,
    /// Folder of kubelet.crt and kubelet.key, made self-signed when absent [default: pki below --agent-root-dir]
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// Certificate of the kubelet API, instead of the one in --cert-dir
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Key of --tls-cert-file
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// Authorities whose client certificates the kubelet API accepts
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// File with a bearer token the kubelet API accepts from loopback
    #[arg(long, value_name = "FILE")]
    pub kubelet_token_file: Option<PathBuf>,
    /// Answer kubelet API requests from loopback that carry no credentials
    #[arg(long, value_name = "BOOL", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub anonymous_auth: bool,
    /// Pods the node takes
    #[arg(long, value_name = "N", default_value_t = 110)]
    pub max_pods: u32,
    /// What must stay free, else the node is under pressure: memory.available, nodefs.available, nodefs.inodesFree
    #[arg(long, value_name = "SIGNALS", default_value = eviction::DEFAULT, value_parser = eviction::parse)]
    pub eviction_hard: eviction::EvictionHard,
    /// How often the node's status is looked at
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub node_status_update_frequency: Duration,
    /// How often each pod is looked at without a reason
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
    pub sync_frequency: Duration,
    /// Cgroup below which kubepods lies
    #[arg(long, value_name = "CGROUP", default_value = "/")]
    pub cgroup_root: String,
    /// How the runtime names cgroups when it does not say: cgroupfs or systemd
    #[arg(long, value_name = "DRIVER", default_value = "cgroupfs", value_parser = ["cgroupfs", "systemd"])]
    pub cgroup_driver: String,
    /// Size at which a container's log is rotated
    #[arg(long, value_name = "SIZE", default_value = "10Mi")]
    pub container_log_max_size: String,
    /// Files kept of a container's log
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub container_log_max_files: u32,
    /// Percent of the image disk above which unused images are removed
    #[arg(long, value_name = "PERCENT", default_value_t = 85, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub image_gc_high_threshold: u8,
    /// Percent of the image disk down to which unused images are removed
    #[arg(long, value_name = "PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub image_gc_low_threshold: u8,
    /// Whether Service addresses work on this node
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub service_proxy: bool,
    /// Flags of the service proxy.
    #[command(flatten)]
    pub proxy: svcproxy::Config,
}

impl Config {
    /// `k=v` labels as pairs.
    ///
    /// # Errors
    /// Names the label that is none.
    pub fn labels(&self) -> Result<Vec<(String, String)>, AgentError> {
        let pair = |text: &String| {
            let (key, value) = text.split_once('=')?;
            (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
        };
        let all = self.node_labels.iter().filter(|text| !text.is_empty());
        all.map(|text| {
            pair(text).ok_or_else(|| {
                AgentError::Flag(format!("--node-labels: {text:?} is not key=value"))
            })
        })
        .collect()
    }

    /// Taints as key, value, effect.
    ///
    /// # Errors
    /// Names the taint that is none.
    pub fn taints(&self) -> Result<Vec<(String, String, String)>, AgentError> {
        let taint = |text: &String| {
            let (rest, effect) = text.rsplit_once(':')?;
            let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
            let known = matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute");
            (known && !key.is_empty())
                .then(|| (key.to_owned(), value.to_owned(), effect.to_owned()))
        };
        let all = self.register_with_taints.iter().filter(|text| !text.is_empty());
        all.map(|text| {
            let fail = || {
                AgentError::Flag(format!(
                    "--register-with-taints: {text:?} is not key=value:Effect"
                ))
            };
            taint(text).ok_or_else(fail)
        })
        .collect()
    }

    /// The runtime's endpoint.
    pub fn runtime_endpoint(&self) -> &str {
        self.container_runtime_endpoint.as_deref().unwrap_or(DEFAULT_RUNTIME_ENDPOINT)
    }

    /// The image service's endpoint.
    pub fn image_endpoint(&self) -> &str {
        self.image_service_endpoint.as_deref().unwrap_or(self.runtime_endpoint())
    }
}
