//! scheduler-svc: the Kubernetes cluster API, controllers and scheduler in one binary.

use clap::CommandFactory;
use flotilla_config::{ExitError, exit_with, go_style_args, parse_args};
use flotilla_server::Shutdown;
use flotilla_telemetry::Logs;
use scheduler_svc::{Command, Config};

const PROGRAM: &str = "scheduler-svc";

fn main() {
    if let Err(error) = start() {
        exit_with(PROGRAM, &error);
    }
}

fn start() -> Result<(), ExitError> {
    let config: Config = parse_args(go_style_args(std::env::args()))?;
    debug_assert!(Config::command().get_name() == PROGRAM);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(ExitError::unavailable)?;
    runtime.block_on(async {
        if let Some(Command::Healthcheck { address, path }) = &config.command {
            let limit = std::time::Duration::from_secs(5);
            return flotilla_server::http_healthcheck(*address, path, limit)
                .await
                .map_err(ExitError::runtime);
        }
        let logs = Logs { service: PROGRAM, level: config.log_level.clone(), ..Logs::default() };
        let _guard = flotilla_telemetry::init(&logs).map_err(ExitError::usage)?;
        let shutdown = Shutdown::on_signals().map_err(ExitError::unavailable)?;
        scheduler_svc::run(config, shutdown).await
    })
}
