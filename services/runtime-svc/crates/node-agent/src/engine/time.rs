//! Times as the API writes them.

use jiff::Timestamp;

/// RFC 3339 with whole seconds (`meta/v1 Time`); `None` for 0, the runtime's "never".
pub fn rfc3339(nanos: i64) -> Option<String> {
    if nanos <= 0 {
        return None;
    }
    let time = Timestamp::from_nanosecond(i128::from(nanos)).ok()?;
    Some(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// RFC 3339 with microseconds (`meta/v1 MicroTime`).
pub fn micro_time(nanos: i64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Reads RFC 3339 into nanoseconds.
pub fn parse(text: &str) -> Option<i64> {
    let time: Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}

/// Nanoseconds since the epoch, now.
pub fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_api_writes_them() {
        assert_eq!(rfc3339(0), None);
        assert_eq!(rfc3339(1_700_000_000_123_456_789).as_deref(), Some("2023-11-14T22:13:20Z"));
        assert_eq!(micro_time(1_700_000_000_123_456_789), "2023-11-14T22:13:20.123456Z");
        assert_eq!(parse("2023-11-14T22:13:20Z"), Some(1_700_000_000_000_000_000));
    }
}
