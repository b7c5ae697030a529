//! Reads the flags, sets up logs, runs the server.

use std::process::ExitCode;

use flotilla_config::{ExitError, exit_with};
use flotilla_server::Shutdown;
use flotilla_telemetry::{LogFormat, Logs};
use metrics_svc::{Command, Flags};

const NAME: &str = "metrics-svc";

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit_with(NAME, &error),
    }
}

fn start() -> Result<(), ExitError> {
    let flags = Flags::read(std::env::args())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(ExitError::runtime)?;
    runtime.block_on(async {
        match flags.command {
            Some(Command::Healthcheck) => metrics_svc::healthcheck(&flags).await,
            None if flags.check => metrics_svc::check(&flags),
            None => serve(flags).await,
        }
    })
}

async fn serve(flags: Flags) -> Result<(), ExitError> {
    let format = match flags.log_format.as_str() {
        "json" => LogFormat::Json,
        "logfmt" => LogFormat::Text,
        _ => LogFormat::Auto,
    };
    let logs = Logs { service: NAME, level: flags.log_level.clone(), format };
    let _guard = flotilla_telemetry::init(&logs).map_err(ExitError::usage)?;
    let shutdown = Shutdown::on_signals().map_err(ExitError::runtime)?;
    metrics_svc::run(flags, shutdown).await
}
