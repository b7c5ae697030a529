//! The tracing subscriber: stderr, and OTLP when asked for.

use std::io::IsTerminal;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use thiserror::Error;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One line of text for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the log set-up needs to know.
#[derive(Debug, Clone, Default)]
pub struct Logs {
    /// Name of the service, as traces carry it.
    pub service: &'static str,
    /// Level or filter such as `info` or `kv_svc=debug`; `RUST_LOG` wins over it.
    pub level: String,
    /// How lines are written.
    pub format: LogFormat,
}

/// Why telemetry could not start.
#[derive(Debug, Error)]
pub enum InitError {
    /// The level or filter does not parse.
    #[error("log level {level:?} is not a level or filter (try info or debug)")]
    Level {
        /// The text as given.
        level: String,
    },
    /// The OTLP exporter could not be built.
    #[error("cannot export traces to OTEL_EXPORTER_OTLP_ENDPOINT")]
    Otlp(#[source] opentelemetry_otlp::ExporterBuildError),
    /// A subscriber was installed before.
    #[error("logging is already set up")]
    Twice,
}

/// Keeps the exporter alive; dropping it flushes what is queued.
#[derive(Debug)]
pub struct Guard(Option<SdkTracerProvider>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take() {
            // A collector that went away must not keep the process from ending.
            let _ = provider.shutdown();
        }
    }
}

/// Installs the global subscriber. Call once, first thing in `main`, inside the runtime when OTLP is wanted.
///
/// # Errors
/// When the level does not parse, the exporter cannot be built, or a subscriber is installed already.
pub fn init(logs: &Logs) -> Result<Guard, InitError> {
    let level = std::env::var("RUST_LOG").unwrap_or_else(|_| logs.level.clone());
    let level = if level.is_empty() { "info".to_owned() } else { level };
    let filter = EnvFilter::try_new(&level).map_err(|_| InitError::Level { level })?;
    let json = match logs.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if json {
        lines.json().flatten_event(true).with_current_span(true).boxed()
    } else {
        lines
            .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
            .boxed()
    };
    let provider = tracer_provider(logs.service)?;
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let traces = provider
        .as_ref()
        .map(|p| tracing_opentelemetry::layer().with_tracer(p.tracer(logs.service)));
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .with(traces)
        .try_init()
        .map_err(|_| InitError::Twice)?;
    Ok(Guard(provider))
}

fn tracer_provider(service: &'static str) -> Result<Option<SdkTracerProvider>, InitError> {
    let wanted = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
    let disabled = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|v| v == "true");
    if disabled || !wanted.iter().any(|name| std::env::var_os(name).is_some()) {
        return Ok(None);
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .build()
        .map_err(InitError::Otlp)?;
    let resource = Resource::builder().with_service_name(service).build();
    Ok(Some(
        SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build(),
    ))
}
