//! Controllers that bring the cluster to the desired state.
//!
//! Each controller is one file: it names the kinds it reads, turns changes into keys and brings the object of
//! a key closer to what it asks for. All share one watch and one store per kind ([`cache`]), a queue with
//! back-off per controller ([`queue`]), and one way to write ([`cluster`]) that tells the stores at once what
//! was written: a controller sees its own writes, so none of them counts what it expects. They know only the
//! public API, keep nothing that the API does not have, and may be stopped at any moment.

pub mod cache;
mod claim;
mod cluster;
mod conditions;
mod config;
mod deployment;
mod endpoints;
mod error;
mod gc;
mod hash;
mod metrics;
mod namespace;
mod namespace_content;
mod node;
mod pod_gc;
mod pods;
pub mod queue;
mod replicaset;
mod runner;
mod workloads;

use std::sync::Arc;

use flotilla_kube_client::{Client, EventRecorder, LeaderElection};
use flotilla_server::Shutdown;
use tokio::task::JoinSet;

pub use config::Config;
pub use error::Error;
pub use metrics::register_metrics;

use cache::Informers;
use cluster::Cluster;
use runner::{Controller, start};

/// Runs the controllers until `shutdown` fires.
///
/// # Errors
/// When a flag is wrong, or the leader lease is lost: the caller ends the process, so that nothing of this
/// life is left when another process leads.
pub async fn run(client: Client, config: Config, shutdown: Shutdown) -> Result<(), Error> {
    config.validate()?;
    if !config.leader_elect {
        return control(&client, &config, shutdown.triggered()).await;
    }
    let identity = format!("{}_{}", hostname(), std::process::id());
    let (namespace, name) =
        (&config.leader_elect_resource_namespace, &config.leader_elect_resource_name);
    let mut election = LeaderElection::new(client.clone(), namespace, name, &identity).with_times(
        config.leader_elect_lease_duration,
        config.leader_elect_renew_deadline,
        config.leader_elect_retry_period,
    );
    tokio::select! {
        () = election.acquire() => tracing::info!(lease = %name, identity, "leading"),
        () = shutdown.triggered() => return Ok(()),
    }
    tokio::select! {
        result = control(&client, &config, shutdown.triggered()) => {
            election.release().await;
            result
        }
        () = election.hold() => Err(Error::LeaseLost),
    }
}

async fn control(
    client: &Client,
    config: &Config,
    end: impl Future<Output = ()>,
) -> Result<(), Error> {
    let informers = Arc::new(Informers::new(client.clone()));
    let cluster = Cluster {
        client: client.clone(),
        informers: informers.clone(),
        events: EventRecorder::new(client.clone(), "controllermanager"),
        config: Arc::new(config.clone()),
    };
    // Dropped with this future: no worker outlives it.
    let mut tasks = JoinSet::new();
    let certificate = match &config.root_ca_file {
        Some(path) => {
            let text = tokio::fs::read_to_string(path).await;
            Some(text.map_err(|e| {
                Error::Settings(format!("--root-ca-file: cannot read {}: {e}", path.display()))
            })?)
        }
        None => None,
    };
    let _stop = StopInformers(informers);
    start_all(&mut tasks, &cluster, certificate);
    tokio::select! {
        () = end => {}
        Some(Err(error)) = tasks.join_next() => {
            return Err(Error::Settings(format!("a controller failed: {error}")));
        }
    }
    tasks.shutdown().await;
    Ok(())
}

fn start_all(tasks: &mut JoinSet<()>, cluster: &Cluster, certificate: Option<String>) {
    let config = cluster.config.clone();
    let c = || cluster.clone();
    begin(tasks, deployment::Deployments(c()), config.concurrent_deployment_syncs, cluster);
    begin(tasks, replicaset::ReplicaSets(c()), config.concurrent_replicaset_syncs, cluster);
    begin(tasks, workloads::DaemonSets(c()), config.concurrent_daemonset_syncs, cluster);
    begin(tasks, workloads::StatefulSets(c()), config.concurrent_statefulset_syncs, cluster);
    begin(tasks, workloads::Jobs(c()), config.concurrent_job_syncs, cluster);
    let slices = config.concurrent_service_endpoint_syncs;
    begin(tasks, endpoints::EndpointSlices(c()), slices, cluster);
    begin(tasks, endpoints::Endpoints(c()), config.concurrent_endpoint_syncs, cluster);
    begin(tasks, node::NodeLifecycle::new(c()), 4, cluster);
    begin(tasks, node::TaintEviction(c()), 8, cluster);
    begin(tasks, namespace::Namespaces(c()), config.concurrent_namespace_syncs, cluster);
    begin(tasks, namespace_content::ServiceAccounts(c()), 1, cluster);
    if let Some(certificate) = certificate {
        let publisher = namespace_content::RootCa { cluster: c(), certificate };
        begin(tasks, publisher, 1, cluster);
    }
    begin(tasks, pod_gc::PodGc::new(c()), 1, cluster);
    if config.enabled(gc::NAME) {
        gc::start(tasks, cluster);
    }
}

fn begin<C: Controller>(tasks: &mut JoinSet<()>, controller: C, workers: usize, all: &Cluster) {
    if all.config.enabled(C::NAME) {
        start(tasks, all, controller, workers);
    }
}

/// Ends the watches with the future that uses them.
struct StopInformers(Arc<Informers>);

impl Drop for StopInformers {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "flotilla".to_owned() } else { name.to_owned() }
}
