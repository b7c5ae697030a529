//! Times: RFC 3339 in JSON, seconds and nanoseconds in protobuf.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Seconds and nanoseconds since 1970 of an RFC 3339 text.
pub fn parse_time(text: &str) -> Option<(i64, i32)> {
    // Go's layout wants a capital T and a zone.
    if text.len() < 20 || text.as_bytes().get(10) != Some(&b'T') {
        return None;
    }
    let at: Timestamp = text.parse().ok()?;
    Some((at.as_second(), at.subsec_nanosecond()))
}

/// `2006-01-02T15:04:05Z`; `None` outside of the years a timestamp can hold.
pub fn seconds_time(seconds: i64) -> Option<String> {
    let at = Timestamp::from_second(seconds).ok()?.to_zoned(TimeZone::UTC);
    Some(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// `2006-01-02T15:04:05.000000Z`
pub fn micro_time(seconds: i64, nanos: i32) -> Option<String> {
    let at = Timestamp::new(seconds, nanos).ok()?.to_zoned(TimeZone::UTC);
    Some(format!("{}.{:06}Z", at.strftime("%Y-%m-%dT%H:%M:%S"), at.subsec_nanosecond() / 1000))
}

/// The present, in seconds since 1970.
pub fn now() -> i64 {
    Timestamp::now().as_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_brought_to_utc() {
        let (seconds, _) = parse_time("2024-05-01T12:00:00+02:00").unwrap();
        assert_eq!(seconds_time(seconds).unwrap(), "2024-05-01T10:00:00Z");
        let (seconds, nanos) = parse_time("2024-05-01T12:00:00.123456789Z").unwrap();
        assert_eq!(micro_time(seconds, nanos).unwrap(), "2024-05-01T12:00:00.123456Z");
        for bad in ["", "yesterday", "2024-05-01", "2024-05-01 12:00:00Z", "2024-13-01T00:00:00Z"] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }
}
