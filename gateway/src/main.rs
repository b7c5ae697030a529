//! Arguments, runtime, telemetry, then [`gateway::run`].

use std::time::Duration;

use flotilla_config::{ExitError, exit_with, parse_args};
use flotilla_server::{Shutdown, http_healthcheck};
use flotilla_telemetry::{LogFormat, Logs};
use gateway::config::{Cli, Command, Mode, version};

fn main() {
    if let Err(error) = start() {
        exit_with("gateway", &error);
    }
}

#[allow(
    clippy::print_stdout,
    reason = "the version and the verdict of --mode validate are this command's output"
)]
fn start() -> Result<(), ExitError> {
    let cli: Cli = parse_args(std::env::args())?;
    if cli.version {
        println!("\ngateway  version: {}\n", version());
        return Ok(());
    }
    cli.unsupported.refuse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cli.config.workers())
        .enable_all()
        .build()
        .map_err(ExitError::runtime)?;
    if let Some(Command::Healthcheck { address }) = cli.command {
        let check = http_healthcheck(address, "/ready", Duration::from_secs(3));
        return runtime.block_on(check).map_err(ExitError::unavailable);
    }
    let level = cli.config.filter()?;
    let _guard = {
        let _inside = runtime.enter();
        flotilla_telemetry::init(&Logs { service: "gateway", level, format: LogFormat::Auto })
            .map_err(ExitError::runtime)?
    };
    if cli.config.mode == Mode::Validate {
        let name = runtime.block_on(async { gateway::validate(&cli.config) })?;
        println!("configuration '{name}' OK");
        return Ok(());
    }
    runtime.block_on(async {
        let shutdown = Shutdown::on_signals().map_err(ExitError::runtime)?;
        gateway::run(cli.config, shutdown).await
    })
}
