//! dns-svc: a DNS server that is configured, named and watched like CoreDNS.
//!
//! A Corefile is parsed (`corefile`), checked and typed (`plan`), then compiled into sites, one per zone and port
//! (`engine`). `api` reads queries from UDP and TCP and hands each to the sites of its port; `remote` asks other
//! servers and follows the Kubernetes API. Messages are read and written by `wire`, which trusts nothing.
//!
//! Invariants: every query gets at most one answer; an answer is never larger than the client takes; while a data
//! source is away, what it said last is served.

mod api;
mod config;
mod corefile;
mod engine;
mod metrics;
mod plan;
mod remote;
mod server;
mod wire;

pub use config::Args;
use config::Command;
use flotilla_config::ExitError;
use flotilla_server::{Shutdown, http_healthcheck};
use plan::Plan;

/// The version of CoreDNS whose behaviour this server has.
const COREDNS_VERSION: &str = "1.14.7";

/// Serves until `shutdown` fires.
///
/// # Errors
/// When the Corefile is wrong, an address cannot be bound, or the API server's settings cannot be read.
pub async fn run(args: Args, shutdown: Shutdown) -> Result<(), ExitError> {
    #[allow(clippy::print_stdout, reason = "answers to the command line")]
    if args.version {
        println!(
            "CoreDNS-{COREDNS_VERSION}\nlinux/{}, dns-svc {}",
            std::env::consts::ARCH,
            flotilla_telemetry::VERSION
        );
        return Ok(());
    } else if args.plugins {
        println!("Server types:\n  dns\n\nOther plugins:");
        plan::PLUGINS.iter().for_each(|plugin| println!("  dns.{plugin}"));
        return Ok(());
    }
    if let Some(Command::Healthcheck { ready_address }) = args.command {
        let limit = std::time::Duration::from_secs(2);
        return http_healthcheck(ready_address, "/ready", limit)
            .await
            .map_err(ExitError::unavailable);
    }
    let (plan, corefile) = load(&args)?;
    if let Some(file) = &args.pidfile {
        std::fs::write(file, format!("{}\n", std::process::id())).map_err(|error| {
            ExitError::unavailable(format!("cannot write {}: {error}", file.display()))
        })?;
    }
    server::serve(plan, &corefile, args.quiet, shutdown).await
}

fn load(args: &Args) -> Result<(Plan, String), ExitError> {
    let default = std::path::Path::new("Corefile");
    let file = match &args.conf {
        Some(file) => file.as_path(),
        None if default.exists() => default,
        None => {
            let plan = Plan::builtin(args.port).map_err(ExitError::config)?;
            return Ok((plan, String::new()));
        }
    };
    let text = std::fs::read_to_string(file)
        .map_err(|error| ExitError::config(format!("cannot read {}: {error}", file.display())))?;
    let dir = file.parent().unwrap_or(std::path::Path::new("."));
    let plan = Plan::parse(&file.display().to_string(), &text, dir, args.port)
        .map_err(ExitError::config)?;
    Ok((plan, text))
}
