//! `metav1.Duration`: Go's duration text, nanoseconds in protobuf.

/// Nanoseconds of a Go duration text.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..letters] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * scale;
        rest = &rest[letters..];
    }
    let total = if negative { -total } else { total };
    (total.abs() < 9.2e18).then_some(total as i64)
}

/// Go's text of a duration.
pub(crate) fn format(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    match n {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{n}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", n as f64 / 1e6),
        _ => {
            let seconds = n / 1_000_000_000;
            let fraction = (seconds % 60) as f64 + (n % 1_000_000_000) as f64 / 1e9;
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => format!("{sign}{fraction}s"),
                (0, m) => format!("{sign}{m}m{fraction}s"),
                (h, m) => format!("{sign}{h}h{m}m{fraction}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_round_trip() {
        for text in ["0s", "1s", "1m30s", "2h0m0s", "1.5s", "250ms", "-5m0s"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
        for bad in ["", "5", "x", "1y", "s"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
