//! Resource quantities (`apimachinery/pkg/api/resource`): `500m`, `1.5Gi`, `2e3`.

const NANO: i128 = 1_000_000_000;
const MAX_DIGITS: usize = 30;

const SUFFIXES: &[(&str, i128, i128)] = &[
    ("Ki", 1 << 10, 1),
    ("Mi", 1 << 20, 1),
    ("Gi", 1 << 30, 1),
    ("Ti", 1 << 40, 1),
    ("Pi", 1 << 50, 1),
    ("Ei", 1 << 60, 1),
    ("n", 1, NANO),
    ("u", 1, 1_000_000),
    ("m", 1, 1_000),
    ("k", 1_000, 1),
    ("M", 1_000_000, 1),
    ("G", NANO, 1),
    ("T", 1_000 * NANO, 1),
    ("P", 1_000_000 * NANO, 1),
    ("E", NANO * NANO, 1),
];

/// Parses a quantity into billionths; `None` when it is none or out of range.
pub fn nanos(text: &str) -> Option<i128> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || number.len() > MAX_DIGITS {
        return None;
    }
    let (times, over) = scale(suffix)?;
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let tens = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let value = digits.checked_mul(times)?.checked_mul(NANO)?;
    let below = tens.checked_mul(over)?;
    // Kubernetes rounds what it cannot represent away from zero.
    let value = value / below + i128::from(value % below != 0);
    Some(if negative { -value } else { value })
}

fn scale(suffix: &str) -> Option<(i128, i128)> {
    if suffix.is_empty() {
        return Some((1, 1));
    }
    if let Some((_, times, over)) = SUFFIXES.iter().find(|(name, ..)| *name == suffix) {
        return Some((*times, *over));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
    Some(if exponent < 0 { (1, power) } else { (power, 1) })
}

/// Whole units, rounded up: bytes, pods.
pub fn value(text: &str) -> Option<i64> {
    nanos(text).and_then(|nanos| ceil(nanos, NANO))
}

/// Thousandths, rounded up: CPU.
pub fn milli(text: &str) -> Option<i64> {
    nanos(text).and_then(|nanos| ceil(nanos, NANO / 1000))
}

fn ceil(value: i128, unit: i128) -> Option<i64> {
    i64::try_from(value / unit + i128::from(value % unit > 0)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read() {
        for (text, want) in
            [("1", 1000), ("500m", 500), ("0.1", 100), ("1u", 1), ("2e3", 2_000_000), (".5", 500)]
        {
            assert_eq!(milli(text), Some(want), "{text}");
        }
        for (text, want) in [
            ("1Ki", 1024),
            ("1.5Gi", 1_610_612_736),
            ("100M", 100_000_000),
            ("1m", 1),
            ("128974848", 128_974_848),
        ] {
            assert_eq!(value(text), Some(want), "{text}");
        }
        for text in ["", "x", "1x", "1e", "--1", ".", "1e99", "99999999999999999999999999999999"] {
            assert_eq!(value(text), None, "{text}");
        }
    }
}
