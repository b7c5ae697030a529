//! kv-svc: arguments, logs, run.

use flotilla_config::{ExitError, exit_with};
use flotilla_server::{Shutdown, http_healthcheck};
use flotilla_telemetry::{LogFormat, Logs};
use kv_svc::config::{self, Action, Config};

const PROGRAM: &str = "kv-svc";

fn main() {
    if let Err(error) = start() {
        exit_with(PROGRAM, &error);
    }
}

fn start() -> Result<(), ExitError> {
    let action = config::read(std::env::args(), std::env::vars())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| ExitError::unavailable(format!("cannot start threads: {error}")))?;
    runtime.block_on(async {
        match action {
            Action::Print(text) => {
                use std::io::Write;
                std::io::stdout().write_all(text.as_bytes()).map_err(ExitError::runtime)
            }
            Action::Healthcheck(address) => {
                let limit = std::time::Duration::from_secs(5);
                http_healthcheck(address, "/health", limit).await.map_err(ExitError::unavailable)
            }
            Action::Serve(config) => serve(*config).await,
        }
    })
}

/// The log of the consensus library tells every step; its warnings are enough unless debug is asked for.
fn filter(level: &str) -> String {
    match level {
        "debug" => level.to_owned(),
        "panic" | "fatal" => "error".to_owned(),
        level => format!("{level},openraft=warn"),
    }
}

async fn serve(config: Config) -> Result<(), ExitError> {
    let format = if config.log_console { LogFormat::Text } else { LogFormat::Auto };
    let logs = Logs { service: PROGRAM, level: filter(&config.log_level), format };
    let _telemetry = flotilla_telemetry::init(&logs).map_err(ExitError::usage)?;
    let shutdown = Shutdown::on_signals().map_err(ExitError::unavailable)?;
    kv_svc::run(config, shutdown).await
}
