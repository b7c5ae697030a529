//! Durations as Go and Prometheus write them: `300ms`, `1h30m`, `15d`.

use std::time::Duration;

use thiserror::Error;

/// Why a text is no duration.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{text:?} is not a duration: {reason} (write for example 500ms, 15s or 1h30m)")]
pub struct ParseDurationError {
    text: String,
    reason: &'static str,
}

const UNITS: &[(&str, f64)] = &[
    ("ms", 1e-3),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("ns", 1e-9),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
    ("d", 86_400.0),
    ("w", 604_800.0),
    ("y", 31_536_000.0),
];

/// Parses a duration; `0` needs no unit.
///
/// # Errors
/// Names the text and what is wrong with it: empty, no unit, unknown unit, negative or too large.
pub fn parse_duration(text: &str) -> Result<Duration, ParseDurationError> {
    let fail = |reason| ParseDurationError { text: text.to_owned(), reason };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(fail("it is empty"));
    }
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| fail("a number is missing"))?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = &rest[..letters];
        if unit.is_empty() {
            return Err(fail("the unit is missing"));
        }
        let (_, scale) =
            UNITS.iter().find(|(name, _)| *name == unit).ok_or(fail("the unit is unknown"))?;
        seconds += number * scale;
        rest = &rest[letters..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| fail("it is too large"))
}

/// Writes a duration the way Go's `Duration.String` does: `1h30m0s`, `1.5s`, `250ms`.
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    if nanos < 1_000_000 {
        return format!("{}µs", nanos as f64 / 1e3);
    }
    if nanos < 1_000_000_000 {
        return format!("{}ms", nanos as f64 / 1e6);
    }
    let whole = duration.as_secs();
    let seconds = (whole % 60) as f64 + f64::from(duration.subsec_nanos()) / 1e9;
    match (whole / 3600, whole / 60 % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compound_durations_add_up() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("15d"), Ok(Duration::from_secs(15 * 86_400)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn bad_durations_say_why() {
        for text in ["", "5", "s", "1x", "-1s", "1s2", "1e400y"] {
            assert!(parse_duration(text).is_err(), "{text:?} was accepted");
        }
        assert!(parse_duration("5").unwrap_err().to_string().contains("unit is missing"));
    }

    #[test]
    fn formats_like_go() {
        for (text, want) in [
            ("1h30m", "1h30m0s"),
            ("90s", "1m30s"),
            ("1500ms", "1.5s"),
            ("250ms", "250ms"),
            ("0", "0s"),
        ] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), want);
        }
    }
}
