//! The runtime-svc program: daemon, and `shim`, the process beside every pod.

use std::time::Duration;

use flotilla_config::{ExitError, exit_with, parse_args};
use flotilla_server::{Shutdown, http_healthcheck};
use flotilla_telemetry::{LogFormat, Logs};
use runtime_svc::config::{Command, Config};

fn main() {
    let mut args = std::env::args().skip(1);
    // Before any thread is made: the shim forks.
    if args.next().as_deref() == Some("shim") {
        std::process::exit(rt_shim::applet(args));
    }
    if let Err(error) = start() {
        exit_with("runtime-svc", &error);
    }
}

fn start() -> Result<(), ExitError> {
    let config: Config = parse_args(std::env::args())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(ExitError::unavailable)?;
    runtime.block_on(async {
        if let Some(Command::Healthcheck { address }) = config.command {
            let asked = http_healthcheck(address, "/readyz", Duration::from_secs(5));
            return asked.await.map_err(ExitError::unavailable);
        }
        let logs = Logs {
            service: "runtime-svc",
            level: config.log_level.clone(),
            format: LogFormat::Auto,
        };
        let _guard = flotilla_telemetry::init(&logs).map_err(ExitError::usage)?;
        let shutdown = Shutdown::on_signals().map_err(ExitError::unavailable)?;
        runtime_svc::run(config, shutdown).await
    })
}
