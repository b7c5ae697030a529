//! What every part of metrics-svc shares: labels, matchers, numbers and durations as Prometheus writes them,
//! the exposition text parser and relabelling.
//!
//! Pure code: no files, no sockets, no clock.

mod duration;
mod exposition;
mod labels;
mod matcher;
mod number;
mod pattern;
mod relabel;

pub use duration::{ParseDurationError, format_millis, parse_millis};
pub use exposition::{Entry, ExpositionError, Format, Parser, parse_metric};
pub use labels::{Labels, LabelsBuilder, is_label_name, is_metric_name};
pub use matcher::{MatchOp, Matcher};
pub use number::{format_exposition, format_float, parse_go_float};
pub use pattern::{PatternError, anchored, translate};
pub use relabel::{Action, RelabelRule};

/// Name of the label that holds the metric's name.
pub const METRIC_NAME: &str = "__name__";

/// Bits of the NaN that says a series ended; any other NaN is an ordinary value.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The staleness marker.
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether a value is the staleness marker, bit for bit.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}
