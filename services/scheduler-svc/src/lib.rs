//! Wiring of scheduler-svc: the roles a process has, and its own plaintext port.
//!
//! Roles talk to each other only through the Kubernetes API, so each of them can run in a process of its own or
//! be replaced by the original.

mod config;

use std::sync::Arc;

pub use config::{Command, Config, Role};
use flotilla_config::{ExitError, ListenAddr};
use flotilla_kube_client::KubeConfig;
use flotilla_server::{Admin, Listener, Readiness, ServeOptions, Shutdown, serve};
use prometheus_client::registry::Registry;

/// Runs the roles until `shutdown` fires.
///
/// # Errors
/// When something cannot be started; the message names it.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), ExitError> {
    let own: ListenAddr = config.grpc_address.parse().map_err(ExitError::usage)?;
    let has = |role| config.roles.contains(&role);
    let own = Listener::bind(&own).await.map_err(ExitError::unavailable)?;
    let address = own.local_addr().map_err(ExitError::unavailable)?;
    let mut readiness = Readiness::new();
    let mut api = None;
    if has(Role::Api) {
        let running = kube_api::start(config.api.clone(), shutdown.clone()).await?;
        readiness = running.readiness.clone();
        api = Some(running);
    } else {
        readiness.set(true);
    }
    let client = match (&api, &config.kubeconfig) {
        (Some(running), _) => Some(running.client.clone()),
        (None, Some(path)) => Some(KubeConfig::from_file(path).map_err(ExitError::config)?),
        (None, None) if has(Role::Controllers) || has(Role::Scheduler) => {
            return Err(ExitError::Usage("--kubeconfig is needed when --roles lacks api".to_owned()));
        }
        (None, None) => None,
    };
    drop(client);
    let mut registry = Registry::default();
    flotilla_telemetry::register_process_metrics(&mut registry);
    let admin = Admin { registry: Arc::new(registry), readiness, service: "scheduler-svc" };
    tracing::info!(%address, "serving metrics and health");
    serve(own, admin.router(), None, ServeOptions::default(), shutdown).await;
    if let Some(running) = api {
        running.task.await.map_err(ExitError::runtime)?;
    }
    Ok(())
}
