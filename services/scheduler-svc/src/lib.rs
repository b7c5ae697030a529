//! Wiring of scheduler-svc: the roles a process has, and its own plaintext port.
//!
//! Roles talk to each other only through the Kubernetes API, so each of them can run in a process of its own or
//! be replaced by the original.

mod api;
mod config;

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
    let mut roles = JoinSet::new();
    if config.roles.contains(&Role::Controllers) {
        kube_controllers::register_metrics(&mut registry);
        start_controllers(
            &mut roles,
            &config,
            &server,
            running.as_ref().map(|r| r.ca.clone()),
            &shutdown,
        )?;
    }
    let (grpc, health) = Grpc::new([kube::FILE_DESCRIPTOR_SET])
        .add(KubeApiServer::new(KubeService::new(server)))
        .into_router()
        .await;
    let admin = Admin {
        registry: Arc::new(registry),
        readiness: readiness.clone(),
        service: "scheduler-svc",
    };
    tokio::spawn(report_health(health, readiness, shutdown.clone()));
    tracing::info!(%address, "serving gRPC, metrics and health");
    let router = admin.router().merge(grpc);
    let served = tokio::spawn(serve(own, router, None, ServeOptions::default(), shutdown.clone()));
    let result = supervise(&mut roles, &shutdown).await;
    shutdown.trigger();
    while roles.join_next().await.is_some() {}
    served.await.map_err(ExitError::runtime)?;
    if let Some(running) = running {
        running.task.await.map_err(ExitError::runtime)?;
    }
    result
}

fn start_controllers(
    roles: &mut JoinSet<Result<(), ExitError>>,
    config: &Config,
    server: &KubeConfig,
    ca: Option<std::path::PathBuf>,
    shutdown: &Shutdown,
) -> Result<(), ExitError> {
    let client =
        Client::new(server.clone(), "kube-controller-manager").map_err(ExitError::config)?;
    let mut settings = config.controllers.clone();
    settings.root_ca_file = settings.root_ca_file.or(ca);
    let shutdown = shutdown.clone();
    roles.spawn(async move {
        kube_controllers::run(client, settings, shutdown).await.map_err(ExitError::runtime)
    });
    Ok(())
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
