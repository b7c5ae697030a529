//! Flags, under kube-controller-manager's names.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use flotilla_config::parse_duration;

use crate::Error;

/// Settings of all controllers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Controllers")]
#[group(skip)]
pub struct Config {
    /// Controllers to run: `*` all, `name` this one, `-name` not this one.
    #[arg(long, value_delimiter = ',', default_value = "*", allow_hyphen_values = true)]
    pub controllers: Vec<String>,

    /// Time a node may go without a sign of life before it counts as unhealthy.
    #[arg(long, value_parser = parse_duration, default_value = "50s")]
    pub node_monitor_grace_period: Duration,

    /// Time between looks at the nodes.
    #[arg(long, value_parser = parse_duration, default_value = "5s")]
    pub node_monitor_period: Duration,

    /// Time a new node may take to report for the first time.
    #[arg(long, value_parser = parse_duration, default_value = "60s")]
    pub node_startup_grace_period: Duration,

    /// Nodes a second that may be tainted NoExecute because they are unhealthy.
    #[arg(long, default_value_t = 0.1)]
    pub node_eviction_rate: f64,

    /// Deployments worked on at the same time.
    #[arg(long, default_value_t = 5)]
    pub concurrent_deployment_syncs: usize,

    /// ReplicaSets worked on at the same time.
    #[arg(long, default_value_t = 5)]
    pub concurrent_replicaset_syncs: usize,

    /// StatefulSets worked on at the same time.
    #[arg(long, default_value_t = 5)]
    pub concurrent_statefulset_syncs: usize,

    /// DaemonSets worked on at the same time.
    #[arg(long, default_value_t = 2)]
    pub concurrent_daemonset_syncs: usize,

    /// Jobs worked on at the same time.
    #[arg(long, default_value_t = 5)]
    pub concurrent_job_syncs: usize,

    /// Endpoints worked on at the same time.
    #[arg(long, default_value_t = 5)]
    pub concurrent_endpoint_syncs: usize,

    /// Services whose slices are worked on at the same time.
    #[arg(long, default_value_t = 5)]
    pub concurrent_service_endpoint_syncs: usize,

    /// Endpoints one slice may have, 1 to 1000.
    #[arg(long, default_value_t = 100)]
    pub max_endpoints_per_slice: usize,

    /// Namespaces worked on at the same time.
    #[arg(long, default_value_t = 10)]
    pub concurrent_namespace_syncs: usize,

    /// Objects the garbage collector works on at the same time.
    #[arg(long, default_value_t = 20)]
    pub concurrent_gc_syncs: usize,

    /// Finished pods that may exist before the oldest are deleted; 0 keeps them all.
    #[arg(long, default_value_t = 12500)]
    pub terminated_pod_gc_threshold: i64,

    /// PEM file published in each namespace as ConfigMap kube-root-ca.crt.
    #[arg(long, value_name = "FILE")]
    pub root_ca_file: Option<PathBuf>,

    /// Run only while holding a lease, so that replicas may stand by.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pub leader_elect: bool,

    /// Time a lease that is not renewed stays valid.
    #[arg(long, value_parser = parse_duration, default_value = "15s")]
    pub leader_elect_lease_duration: Duration,

    /// Time the holder tries to renew before it gives up.
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    pub leader_elect_renew_deadline: Duration,

    /// Time between attempts.
    #[arg(long, value_parser = parse_duration, default_value = "2s")]
    pub leader_elect_retry_period: Duration,

    /// Name of the controllers' lease.
    #[arg(long, default_value = "kube-controller-manager")]
    pub leader_elect_resource_name: String,

    /// Namespace of the lease.
    #[arg(long, default_value = "kube-system")]
    pub leader_elect_resource_namespace: String,
}

#[derive(clap::Parser)]
struct Alone {
    #[command(flatten)]
    config: Config,
}

impl Default for Config {
    fn default() -> Self {
        let alone = <Alone as clap::Parser>::try_parse_from(["controllers"]);
        alone.map(|a| a.config).unwrap_or_else(|e| unreachable!("every flag has a default: {e}"))
    }
}

/// Our controllers by kube-controller-manager's names and their short aliases.
const NAMES: &[(&str, &str)] = &[
    ("daemonset-controller", "daemonset"),
    ("deployment-controller", "deployment"),
    ("endpoints-controller", "endpoint"),
    ("endpointslice-controller", "endpointslice"),
    ("garbage-collector-controller", "garbagecollector"),
    ("job-controller", "job"),
    ("namespace-controller", "namespace"),
    ("node-lifecycle-controller", "nodelifecycle"),
    ("pod-garbage-collector-controller", "podgc"),
    ("replicaset-controller", "replicaset"),
    ("root-ca-certificate-publisher-controller", "root-ca-cert-publisher"),
    ("serviceaccount-controller", "serviceaccount"),
    ("statefulset-controller", "statefulset"),
    ("taint-eviction-controller", "taint-eviction-controller"),
];

/// Controllers of kube-controller-manager that do not exist here.
const OTHERS: &[&str] = &[
    "bootstrap-signer-controller",
    "certificatesigningrequest-approving-controller",
    "certificatesigningrequest-cleaner-controller",
    "certificatesigningrequest-signing-controller",
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "disruption-controller",
    "endpointslice-mirroring-controller",
    "ephemeral-volume-controller",
    "horizontal-pod-autoscaler-controller",
    "node-ipam-controller",
    "persistentvolume-attach-detach-controller",
    "persistentvolume-binder-controller",
    "persistentvolume-expander-controller",
    "persistentvolume-protection-controller",
    "persistentvolumeclaim-protection-controller",
    "replicationcontroller-controller",
    "resourceclaim-controller",
    "resourcequota-controller",
    "token-cleaner-controller",
    "ttl-after-finished-controller",
    "ttl-controller",
    "validatingadmissionpolicy-status-controller",
];

impl Config {
    /// Whether `--controllers` asks for the controller with this full name.
    pub fn enabled(&self, name: &str) -> bool {
        let alias = NAMES.iter().find(|(full, _)| *full == name).map_or(name, |(_, alias)| alias);
        let mut all = false;
        for word in &self.controllers {
            if word == name || word == alias {
                return true;
            }
            if word.strip_prefix('-').is_some_and(|w| w == name || w == alias) {
                return false;
            }
            all |= word == "*";
        }
        all
    }

    /// Refuses names nobody knows and values out of range.
    ///
    /// # Errors
    /// Names the flag and the word.
    pub fn validate(&self) -> Result<(), Error> {
        for word in &self.controllers {
            let name = word.strip_prefix('-').unwrap_or(word);
            if word == "*" || NAMES.iter().any(|(full, alias)| name == *full || name == *alias) {
                continue;
            }
            if OTHERS.contains(&name) {
                if word.starts_with('-') {
                    continue;
                }
                return Err(Error::Settings(format!("--controllers: not supported yet: {name}")));
            }
            return Err(Error::Settings(format!("--controllers: {name:?} is no controller")));
        }
        if !(1..=1000).contains(&self.max_endpoints_per_slice) {
            let reason = "--max-endpoints-per-slice must be 1 to 1000";
            return Err(Error::Settings(reason.to_owned()));
        }
        if !self.node_eviction_rate.is_finite() || self.node_eviction_rate < 0.0 {
            return Err(Error::Settings("--node-eviction-rate must not be negative".to_owned()));
        }
        let (lease, renew) = (self.leader_elect_lease_duration, self.leader_elect_renew_deadline);
        if lease <= renew || renew <= self.leader_elect_retry_period {
            let reason = "--leader-elect-lease-duration must exceed --leader-elect-renew-deadline, \
                and that --leader-elect-retry-period";
            return Err(Error::Settings(reason.to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(words: &[&str]) -> Config {
        Config { controllers: words.iter().map(|w| (*w).to_owned()).collect(), ..Config::default() }
    }

    #[test]
    fn controllers_are_chosen_by_name_or_alias() {
        assert!(Config::default().enabled("job-controller"));
        assert!(!config(&["*", "-job"]).enabled("job-controller"));
        assert!(config(&["deployment"]).enabled("deployment-controller"));
        assert!(!config(&["deployment"]).enabled("job-controller"));
    }

    #[test]
    fn unknown_controllers_are_refused_by_name() {
        let error = config(&["*", "colour"]).validate().unwrap_err().to_string();
        assert!(error.contains("\"colour\" is no controller"), "{error}");
        let error = config(&["ttl-controller"]).validate().unwrap_err().to_string();
        assert_eq!(error, "--controllers: not supported yet: ttl-controller");
        assert!(config(&["*", "-ttl-controller"]).validate().is_ok());
    }
}
