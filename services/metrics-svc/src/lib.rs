//! metrics-svc: Prometheus as one small process.
//!
//! `remote` finds and scrapes targets, `store` keeps their samples in Prometheus' directory format, `engine`
//! evaluates queries and rules, `api` answers HTTP and gRPC on one port. [`run`] is where they are put together.
//!
//! A configuration is checked whole before any part of it is applied: a bad file at the start ends the process,
//! a bad file at a reload leaves everything as it is.

mod api;
mod app;
mod config;
mod engine;
mod error;
mod flags;
mod metrics;
mod remote;
mod store;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flotilla_config::{ExitError, ListenAddr};
use flotilla_server::{Listener, ServeOptions, Shutdown, http_healthcheck, on_hangup, serve};

use app::App;
pub use flags::{Command, Flags};

/// How often the database is looked after.
const UPKEEP: Duration = Duration::from_secs(60);

/// Milliseconds since the epoch.
pub(crate) fn now_millis() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// Asks the server the flags describe whether it is ready.
///
/// # Errors
/// When it is not.
pub async fn healthcheck(flags: &Flags) -> Result<(), ExitError> {
    let Some(ListenAddr::Tcp(address)) = flags.listen.first() else {
        return Err(ExitError::Usage("healthcheck needs a TCP --web.listen-address".to_owned()));
    };
    http_healthcheck(*address, "/-/ready", Duration::from_secs(5))
        .await
        .map_err(ExitError::unavailable)
}

/// Checks the configuration the flags name.
///
/// # Errors
/// What is wrong with it.
pub fn check(flags: &Flags) -> Result<(), ExitError> {
    app::read_config(flags).map(drop).map_err(ExitError::Config)
}

/// Serves until `shutdown` fires.
///
/// # Errors
/// When the configuration, the directory or an address cannot be used.
pub async fn run(flags: Flags, shutdown: Shutdown) -> Result<(), ExitError> {
    let loaded = app::read_config(&flags).map_err(ExitError::Config)?;
    let mut listeners = Vec::new();
    for address in &flags.listen {
        listeners.push(Listener::bind(address).await.map_err(ExitError::unavailable)?);
    }
    let first = listeners
        .first()
        .and_then(|l| l.local_addr().ok())
        .map(|a| a.to_string())
        .unwrap_or_default();
    let loaded = loaded.unwrap_or_else(|| app::scrape_self(&first));
    let app = App::start(flags, loaded, &first, shutdown.clone())?;
    let reloading = app.clone();
    on_hangup(shutdown.clone(), move || drop(reloading.reload())).map_err(ExitError::runtime)?;
    let (router, health) = api::router(app.clone()).await;
    let mut served = Vec::new();
    for listener in listeners {
        let address = listener.local_addr().map_err(ExitError::runtime)?;
        tracing::info!(%address, "listening");
        served.push(tokio::spawn(serve(
            listener,
            router.clone(),
            None,
            ServeOptions::default(),
            shutdown.clone(),
        )));
    }
    app.ready.set(true);
    health.set_serving(true).await;
    tracing::info!("server is ready to receive web requests");
    let upkeep = tokio::spawn(upkeep(app.clone(), shutdown.clone()));
    shutdown.triggered().await;
    app.ready.set(false);
    app.stop();
    for task in served {
        // A panicked connection task was reported where it happened.
        let _ = task.await;
    }
    let _ = upkeep.await;
    app.db.close().map_err(ExitError::runtime)
}

async fn upkeep(app: Arc<App>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.triggered() => return,
            () = tokio::time::sleep(UPKEEP) => {}
        }
        let db = app.db.clone();
        let done = tokio::task::spawn_blocking(move || db.maintain(now_millis())).await;
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "compaction failed"),
            Err(error) => tracing::error!(%error, "compaction panicked"),
        }
    }
}
