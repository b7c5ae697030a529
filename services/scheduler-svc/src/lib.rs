//! Wiring of scheduler-svc: the roles a process has, and its own plaintext port.

mod config;

pub use config::{Command, Config, Role};
use flotilla_config::ExitError;
use flotilla_server::Shutdown;

/// Runs the roles until `shutdown` fires.
///
/// # Errors
/// When something cannot be started; the message names it.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), ExitError> {
    let _ = config;
    shutdown.triggered().await;
    Ok(())
}
