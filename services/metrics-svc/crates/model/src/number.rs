//! Numbers as Go writes and reads them.

/// A sample value as the HTTP API writes it: no exponent between 1e-6 and 1e21, `1e-07` beyond.
pub fn format_float(value: f64) -> String {
    let size = value.abs();
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else if size != 0.0 && !(1e-6..1e21).contains(&size) {
        with_exponent(value)
    } else {
        format!("{value}")
    }
}

/// A sample value as exposition text has it: Go's shortest `%g`.
pub fn format_exposition(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() || size == 0.0 {
        return format_float(value);
    }
    let text = format!("{value:e}");
    let exponent: i32 = text.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or_default();
    // Without a precision Go decides as if it were six digits.
    if !(-4..6).contains(&exponent) { with_exponent(value) } else { format!("{value}") }
}

fn with_exponent(value: f64) -> String {
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// Reads what Go's `ParseFloat` reads: decimal, hexadecimal, underscores not allowed, `Inf` and `NaN` in any case.
pub fn parse_go_float(text: &str) -> Option<f64> {
    let (negative, body) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = body.to_ascii_lowercase();
    let value = match lower.as_str() {
        "inf" | "infinity" => f64::INFINITY,
        "nan" => f64::NAN,
        _ if lower.starts_with("0x") => hexadecimal(&lower[2..])?,
        _ if !body.starts_with(|c: char| c.is_ascii_digit() || c == '.') => return None,
        _ => body.parse().ok()?,
    };
    Some(if negative { -value } else { value })
}

fn hexadecimal(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once('p').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value = 0.0;
    for digit in whole.chars().chain(fraction.chars()) {
        value = value * 16.0 + f64::from(digit.to_digit(16)?);
    }
    Some(value * 2f64.powi(exponent - 4 * i32::try_from(fraction.len()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_numbers_read_like_go() {
        for (value, want) in [
            (1.0, "1"),
            (-0.0, "-0"),
            (1e-7, "1e-07"),
            (1.5e21, "1.5e+21"),
            (123_456_789.125, "123456789.125"),
            (1e20, "100000000000000000000"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(format_float(value), want);
        }
    }

    #[test]
    fn go_floats_are_read() {
        assert_eq!(parse_go_float("0x1p-2"), Some(0.25));
        assert_eq!(parse_go_float("-Inf"), Some(f64::NEG_INFINITY));
        assert_eq!(parse_go_float("1e3"), Some(1000.0));
        assert_eq!(parse_go_float("infinite"), None);
        assert_eq!(parse_go_float(""), None);
    }
}
