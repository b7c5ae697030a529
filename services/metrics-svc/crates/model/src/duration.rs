//! Durations of PromQL and the configuration: `1h30m`, units from largest to smallest, each at most once.

use thiserror::Error;

/// Why a text is no duration.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseDurationError {
    /// There is nothing.
    #[error("empty duration string")]
    Empty,
    /// It does not follow the grammar.
    #[error("not a valid duration string: {0:?}")]
    Invalid(String),
    /// It does not fit.
    #[error("duration out of range")]
    TooLarge,
}

const UNITS: &[(&str, i64)] = &[
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Parses a duration into milliseconds.
///
/// # Errors
/// When it is empty, not in the grammar or too large.
pub fn parse_millis(text: &str) -> Result<i64, ParseDurationError> {
    let invalid = || ParseDurationError::Invalid(text.to_owned());
    match text {
        "" => return Err(ParseDurationError::Empty),
        "0" => return Ok(0),
        _ => {}
    }
    let (mut rest, mut total, mut next_unit) = (text, 0i64, 0usize);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let letters =
            rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| n + digits);
        let (number, unit) = (&rest[..digits], &rest[digits..letters]);
        if number.is_empty() {
            return Err(invalid());
        }
        let index = UNITS.iter().position(|(name, _)| *name == unit).ok_or_else(invalid)?;
        if index < next_unit {
            return Err(invalid());
        }
        next_unit = index + 1;
        let number: i64 = number.parse().map_err(|_| ParseDurationError::TooLarge)?;
        let part = number.checked_mul(UNITS[index].1).ok_or(ParseDurationError::TooLarge)?;
        total = total.checked_add(part).ok_or(ParseDurationError::TooLarge)?;
        rest = &rest[letters..];
    }
    // Go keeps durations in nanoseconds.
    if total > i64::MAX / 1_000_000 { Err(ParseDurationError::TooLarge) } else { Ok(total) }
}

/// Writes milliseconds the way Prometheus does: `1h30m`, days and weeks only when they divide evenly.
pub fn format_millis(millis: i64) -> String {
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    let mut rest = millis.unsigned_abs();
    if millis < 0 {
        text.push('-');
    }
    for (index, (unit, size)) in UNITS.iter().enumerate() {
        let size = size.unsigned_abs();
        let exact_only = index < 3;
        if exact_only && !rest.is_multiple_of(size) {
            continue;
        }
        let count = rest / size;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
            rest -= count * size;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_trip() {
        for text in ["5m", "1h30m", "15d", "1y", "1w", "250ms", "1m30s500ms", "2h"] {
            assert_eq!(format_millis(parse_millis(text).unwrap()), text);
        }
        assert_eq!(format_millis(36 * 3_600_000), "36h");
    }

    #[test]
    fn bad_durations_are_refused() {
        for text in ["", "1", "m", "1m1h", "1h1h", "1.5h", "-1m", "1x", "99999999999y"] {
            assert!(parse_millis(text).is_err(), "{text:?} was accepted");
        }
    }
}
