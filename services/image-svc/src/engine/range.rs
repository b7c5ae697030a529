//! `Range` of a download (RFC 9110, 14.1.2) and `Content-Range` of an upload chunk (distribution-spec, end-5).

/// What part of a body of known length a `Range` header asks for.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Wanted {
    /// Everything: no header, one that may be ignored, or several ranges.
    All,
    /// Bytes `start..=end`.
    Part {
        /// First byte.
        start: u64,
        /// Last byte.
        end: u64,
    },
    /// Nothing of it exists: 416.
    Unsatisfiable,
}

/// Reads a `Range` header against a body of `length` bytes.
pub fn wanted(header: Option<&str>, length: u64) -> Wanted {
    let Some(spec) = header.and_then(|h| h.trim().strip_prefix("bytes=")) else {
        return Wanted::All;
    };
    if spec.contains(',') {
        return Wanted::All;
    }
    let Some((first, last)) = spec.trim().split_once('-') else { return Wanted::All };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(first) || !digits(last) || (first.is_empty() && last.is_empty()) {
        return Wanted::All;
    }
    // More digits than u64 holds lie beyond any body.
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    if first.is_empty() {
        let suffix = number(last).min(length);
        return if suffix == 0 {
            Wanted::Unsatisfiable
        } else {
            Wanted::Part { start: length - suffix, end: length - 1 }
        };
    }
    let start = number(first);
    let end = if last.is_empty() { u64::MAX } else { number(last) };
    if start > end || start >= length {
        return Wanted::Unsatisfiable;
    }
    Wanted::Part { start, end: end.min(length - 1) }
}

/// Reads the `Content-Range` of a chunk: `0-99`, also `bytes 0-99/*`. `None` when malformed.
pub fn chunk(header: &str) -> Option<(u64, u64)> {
    let spec = header.trim();
    let spec = spec.strip_prefix("bytes").map_or(spec, |rest| rest.trim_start_matches(['=', ' ']));
    let spec = spec.split('/').next().unwrap_or_default();
    let (first, last) = spec.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_the_rfc() {
        let cases = [
            (None, Wanted::All),
            (Some("bytes=0-0"), Wanted::Part { start: 0, end: 0 }),
            (Some("bytes=5-"), Wanted::Part { start: 5, end: 9 }),
            (Some("bytes=-3"), Wanted::Part { start: 7, end: 9 }),
            (Some("bytes=-99"), Wanted::Part { start: 0, end: 9 }),
            (Some("bytes=2-99"), Wanted::Part { start: 2, end: 9 }),
            (Some("bytes=10-"), Wanted::Unsatisfiable),
            (Some("bytes=5-2"), Wanted::Unsatisfiable),
            (Some("bytes=-0"), Wanted::Unsatisfiable),
            (Some("bytes=99999999999999999999999-"), Wanted::Unsatisfiable),
            (Some("bytes=0-1,3-4"), Wanted::All),
            (Some("bytes=x-1"), Wanted::All),
            (Some("items=0-1"), Wanted::All),
        ];
        for (header, want) in cases {
            assert_eq!(wanted(header, 10), want, "{header:?}");
        }
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn chunk_ranges_are_read() {
        assert_eq!(chunk("0-99"), Some((0, 99)));
        assert_eq!(chunk("bytes 5-9/*"), Some((5, 9)));
        for bad in ["", "5", "9-5", "a-b", "-5", "5-"] {
            assert_eq!(chunk(bad), None, "{bad:?}");
        }
    }
}
