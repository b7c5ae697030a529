//! The image-svc program: arguments, telemetry, run.

use std::time::Duration;

use flotilla_config::{ExitError, ListenAddr, exit_with, parse_args};
use flotilla_server::{Shutdown, http_healthcheck};
use flotilla_telemetry::{LogFormat, Logs};
use image_svc::{Args, Command, Config};

fn main() {
    if let Err(error) = start() {
        exit_with("image-svc", &error);
    }
}

fn start() -> Result<(), ExitError> {
    let args: Args = parse_args(std::env::args())?;
    let config = Config::load(&args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(ExitError::unavailable)?;
    runtime.block_on(async {
        if matches!(args.command, Some(Command::Healthcheck)) {
            return healthcheck(&config).await;
        }
        let format = match args.log_format {
            image_svc::config::LogFormat::Auto => LogFormat::Auto,
            image_svc::config::LogFormat::Text => LogFormat::Text,
            image_svc::config::LogFormat::Json => LogFormat::Json,
        };
        let level = args.log_level.clone().or_else(|| config.log_level.clone()).unwrap_or_default();
        let _guard = flotilla_telemetry::init(&Logs { service: "image-svc", level, format })
            .map_err(ExitError::config)?;
        let shutdown = Shutdown::on_signals().map_err(ExitError::unavailable)?;
        Ok(image_svc::run(config, shutdown).await?)
    })
}

async fn healthcheck(config: &Config) -> Result<(), ExitError> {
    let ListenAddr::Tcp(mut address) = config.http.clone() else {
        return Err(ExitError::Usage("healthcheck needs a TCP address".to_owned()));
    };
    if address.ip().is_unspecified() {
        address.set_ip([127, 0, 0, 1].into());
    }
    http_healthcheck(address, "/readyz", Duration::from_secs(5))
        .await
        .map_err(ExitError::unavailable)
}
