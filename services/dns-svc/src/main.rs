//! The dns-svc binary: arguments, logs, then [`dns_svc::run`].

use dns_svc::Args;
use flotilla_config::{ExitError, exit_with, go_style_args, parse_args};
use flotilla_server::Shutdown;
use flotilla_telemetry::{Logs, init};

fn main() {
    if let Err(error) = start() {
        exit_with("dns-svc", &error);
    }
}

fn start() -> Result<(), ExitError> {
    let args: Args = parse_args(go_style_args(std::env::args()))?;
    let runtime = tokio::runtime::Runtime::new().map_err(ExitError::runtime)?;
    runtime.block_on(async {
        let logs = Logs { service: "dns-svc", ..Logs::default() };
        let _guard = init(&logs).map_err(ExitError::usage)?;
        let shutdown = Shutdown::on_signals().map_err(ExitError::runtime)?;
        dns_svc::run(args, shutdown).await
    })
}
