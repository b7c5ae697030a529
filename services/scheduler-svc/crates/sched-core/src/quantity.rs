//! Quantities (`resource.Quantity`): `100m`, `1.5Gi`, `2e3`, exactly and in integers.

/// The quantity in units of 10^-`scale_down` rounded up: `parse(text, 0)` in whole units, `parse(text, 3)` in
/// thousandths. `None` when the text is no quantity; values beyond i64 saturate.
pub fn parse(text: &str, scale_down: u32) -> Option<i64> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || number.len() > 60 {
        return None;
    }
    let (power_of_two, exponent) = scale(suffix)?;
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    let exponent = exponent + i64::from(scale_down) - i64::try_from(fraction.len()).ok()?;
    let magnitude = magnitude(digits, power_of_two, exponent, negative);
    Some(if negative { -magnitude } else { magnitude })
}

/// `digits * 2^shift * 10^exponent`, rounded away from zero, or towards it when `down`; at most `i64::MAX`.
fn magnitude(digits: &str, shift: u32, exponent: i64, down: bool) -> i64 {
    // More than 30 digits are beyond i64 unless a fraction follows; its tail only matters for rounding.
    let kept = digits.len().min(18);
    let mut value: i128 = digits[..kept].parse().unwrap_or(i128::MAX >> 64);
    let lost = digits[kept..].bytes().any(|b| b != b'0');
    let exponent = exponent + i64::try_from(digits.len() - kept).unwrap_or(i64::MAX / 2);
    value <<= shift;
    if exponent >= 0 {
        for _ in 0..exponent.min(40) {
            value = value.saturating_mul(10);
            if value > i128::from(i64::MAX) {
                return i64::MAX;
            }
        }
        return i64::try_from(value).unwrap_or(i64::MAX);
    }
    if exponent < -38 {
        return i64::from(!down);
    }
    let divisor = 10_i128.pow(exponent.unsigned_abs().try_into().unwrap_or(38));
    let rest = value % divisor != 0 || lost;
    let rounded = value / divisor + i128::from(rest && !down);
    i64::try_from(rounded).unwrap_or(i64::MAX)
}

/// Power of two and power of ten of a suffix.
fn scale(suffix: &str) -> Option<(u32, i64)> {
    let found = match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => {
            let power = suffix.strip_prefix(['e', 'E'])?;
            (0, power.parse::<i64>().ok()?.clamp(-10_000, 10_000))
        }
    };
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_exact() {
        let cases = [
            ("100m", 3, 100),
            ("1", 3, 1000),
            ("1.5", 3, 1500),
            ("0.0001", 3, 1),
            ("2e3", 0, 2000),
            ("1Ki", 0, 1024),
            ("1.5Gi", 0, 1_610_612_736),
            ("128974848000m", 0, 128_974_848),
            ("1E", 0, 1_000_000_000_000_000_000),
            ("-5Gi", 0, -5_368_709_120),
            (".5", 3, 500),
            ("1u", 3, 1),
            ("0", 0, 0),
            ("1e400", 0, i64::MAX),
            ("1e-400", 0, 1),
            ("9Ei", 0, i64::MAX),
        ];
        for (text, scale, want) in cases {
            assert_eq!(parse(text, scale), Some(want), "{text}");
        }
        for text in ["", "x", "1x", "1.2.3", "1 Gi", "--1", "e3", "1ee3", "Ki"] {
            assert_eq!(parse(text, 0), None, "{text}");
        }
    }

    #[test]
    fn garbage_never_panics() {
        let alphabet = b"0123456789.eEKkMGiTPmun+- ";
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..state % 12 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                text.push(char::from(alphabet[(state >> 33) as usize % alphabet.len()]));
            }
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
            let _ = parse(&text, (state >> 40) as u32 % 4);
        }
    }
}
