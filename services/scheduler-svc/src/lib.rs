//! Wiring of scheduler-svc: the roles a process has, and its own plaintext port.
//!
//! Roles talk to each other only through the Kubernetes API, so each of them can run in a process of its own or
//! be replaced by the original.

mod api;
mod config;

use std::path::PathBuf;
use std::sync::Arc;

use api::KubeService;
pub use config::{Command, Config, Role};
use flotilla_config::{ExitError, ListenAddr};
use flotilla_kube_client::{Client, KubeConfig};
use flotilla_proto::kube;
use flotilla_server::{
    Admin, Grpc, HealthHandle, Listener, Readiness, ServeOptions, Shutdown, serve,
};
use kube::flotilla::kube::v1::kube_api_server::KubeApiServer;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;

/// Runs the roles until `shutdown` fires.
///
/// # Errors
/// When something cannot be started or a role ends; the message names it.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), ExitError> {
    let own: ListenAddr = config.grpc_address.parse().map_err(ExitError::usage)?;
    let own = Listener::bind(&own).await.map_err(ExitError::unavailable)?;
    let address = own.local_addr().map_err(ExitError::unavailable)?;
    let running = match config.roles.contains(&Role::Api) {
        true => Some(kube_api::start(config.api.clone(), shutdown.clone()).await?),
        false => None,
    };
    let server = match (&running, &config.kubeconfig) {
        (Some(running), _) => running.client.clone(),
        (None, Some(path)) => KubeConfig::from_file(path).map_err(ExitError::config)?,
        (None, None) => {
            return Err(ExitError::Usage(
                "--kubeconfig is needed when --roles lacks api".to_owned(),
            ));
        }
    };
    let readiness = running.as_ref().map_or_else(Readiness::new, |r| r.readiness.clone());
    if running.is_none() {
        readiness.set(true);
    }
    let mut registry = Registry::default();
    flotilla_telemetry::register_process_metrics(&mut registry);
    let mut roles =
        Roles { set: JoinSet::new(), server: server.clone(), shutdown: shutdown.clone() };
    let mut grpc = Grpc::new([kube::FILE_DESCRIPTOR_SET, sched_loop::Handle::descriptors()])
        .add(KubeApiServer::new(KubeService::new(server)));
    if config.roles.contains(&Role::Controllers) {
        kube_controllers::register_metrics(&mut registry);
        roles.controllers(&config, running.as_ref().map(|r| r.ca.clone()))?;
    }
    if config.roles.contains(&Role::Scheduler) {
        sched_loop::register_metrics(&mut registry);
        grpc = grpc.add(roles.scheduler(&config)?.grpc_service());
    }
    let (grpc, health) = grpc.into_router().await;
    let admin = Admin {
        registry: Arc::new(registry),
        readiness: readiness.clone(),
        service: "scheduler-svc",
    };
    tokio::spawn(report_health(health, readiness, shutdown.clone()));
    tracing::info!(%address, "serving gRPC, metrics and health");
    let router = admin.router().merge(grpc);
    let served = tokio::spawn(serve(own, router, None, ServeOptions::default(), shutdown.clone()));
    let result = supervise(&mut roles.set, &shutdown).await;
    shutdown.trigger();
    while roles.set.join_next().await.is_some() {}
    served.await.map_err(ExitError::runtime)?;
    if let Some(running) = running {
        running.task.await.map_err(ExitError::runtime)?;
    }
    result
}

/// The roles that are clients of the API.
struct Roles {
    set: JoinSet<Result<(), ExitError>>,
    server: KubeConfig,
    shutdown: Shutdown,
}

impl Roles {
    fn client(&self, name: &str) -> Result<Client, ExitError> {
        Client::new(self.server.clone(), name).map_err(ExitError::config)
    }

    fn controllers(&mut self, config: &Config, ca: Option<PathBuf>) -> Result<(), ExitError> {
        let (client, shutdown) = (self.client("kube-controller-manager")?, self.shutdown.clone());
        let mut settings = config.controllers.clone();
        settings.root_ca_file = settings.root_ca_file.or(ca);
        self.set.spawn(async move {
            kube_controllers::run(client, settings, shutdown).await.map_err(ExitError::runtime)
        });
        let (client, shutdown) = (self.client("flotilla-xds")?, self.shutdown.clone());
        let settings = config.xds.clone();
        self.set.spawn(async move {
            xds_server::run(client, settings, shutdown).await.map_err(ExitError::unavailable)
        });
        Ok(())
    }

    fn scheduler(&mut self, config: &Config) -> Result<sched_loop::Handle, ExitError> {
        let (client, shutdown) = (self.client("kube-scheduler")?, self.shutdown.clone());
        let mut settings = config.scheduler.clone();
        settings.leader_elect = config.controllers.leader_elect;
        let handle = sched_loop::Handle::default();
        let own = handle.clone();
        self.set.spawn(async move {
            sched_loop::run_with(client, settings, own, shutdown).await.map_err(ExitError::runtime)
        });
        Ok(handle)
    }
}

/// Waits for the end, or for a role that ends before it.
async fn supervise(
    roles: &mut JoinSet<Result<(), ExitError>>,
    shutdown: &Shutdown,
) -> Result<(), ExitError> {
    loop {
        tokio::select! {
            () = shutdown.triggered() => return Ok(()),
            Some(ended) = roles.join_next() => ended.map_err(ExitError::runtime)??,
        }
    }
}

/// gRPC health follows the readiness of the process.
async fn report_health(health: HealthHandle, readiness: Readiness, shutdown: Shutdown) {
    let mut serving = false;
    loop {
        if readiness.is_ready() != serving {
            serving = !serving;
            health.set_serving(serving).await;
        }
        tokio::select! {
            () = shutdown.triggered() => return health.set_serving(false).await,
            () = tokio::time::sleep(std::time::Duration::from_millis(200)) => {}
        }
    }
}
