//! Logs, traces and metrics for every binary of the suite.
//!
//! Logs go to stderr: readable on a terminal, one JSON object a line otherwise. Spans go to an OTLP collector
//! when `OTEL_EXPORTER_OTLP_ENDPOINT` is set. Metrics are exposed in Prometheus text format 0.0.4, with the
//! names the originals use.

mod exposition;
mod logs;
mod process;

pub use exposition::{TEXT_FORMAT, encode_text};
pub use logs::{InitError, LogFormat, Logs, init};
pub use process::register_process_metrics;

/// Version of the suite, from the workspace manifest.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
