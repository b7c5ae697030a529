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
mod store;
mod wire;

pub use config::Args;
use config::{Command, Source};
use flotilla_config::ExitError;
use flotilla_server::{Shutdown, http_healthcheck};

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
    let source = Source { file: args.conf, port: args.port };
    source.load()?;
    if let Some(file) = &args.pidfile {
        std::fs::write(file, format!("{}\n", std::process::id())).map_err(|error| {
            ExitError::unavailable(format!("cannot write {}: {error}", file.display()))
        })?;
    }
    server::serve(source, args.quiet, shutdown).await
}
