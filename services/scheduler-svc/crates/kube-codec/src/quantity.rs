//! `resource.Quantity`: fixed-point numbers with SI and binary suffixes.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A parsed quantity; prints in canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity {
    /// Value in units of 10^-9.
    nanos: i128,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Decimal,
    Binary,
    Exponent,
}

/// Why a text is no quantity.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum QuantityError {
    /// Shape.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Shape,
    /// Suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
    /// Number.
    #[error("unable to parse numeric part of quantity")]
    Number,
}

const NANO: i128 = 1_000_000_000;
/// Largest value: 2^63-1 units.
const MAX: i128 = (i64::MAX as i128) * NANO;
const DECIMAL: &[(&str, i32)] = &[
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY: &[&str] = &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl Quantity {
    /// The value rounded up to a whole number.
    pub fn value(&self) -> i64 {
        let whole = self.nanos.div_euclid(NANO) + i128::from(self.nanos.rem_euclid(NANO) != 0);
        i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX })
    }

    /// -1, 0 or 1.
    pub fn signum(&self) -> i128 {
        self.nanos.signum()
    }

    /// Value in units of 10^-9.
    pub fn nanos(&self) -> i128 {
        self.nanos
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
            None => return Err(QuantityError::Shape),
        };
        let split = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(split);
        if !number.bytes().any(|b| b.is_ascii_digit()) || number.matches('.').count() > 1 {
            return Err(QuantityError::Shape);
        }
        if !suffix.bytes().all(|b| b"eEinumkKMGTP+-0123456789".contains(&b)) {
            return Err(QuantityError::Shape);
        }
        let (format, base, exponent) = scale(suffix)?;
        let nanos = scaled(number, base, exponent)?;
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }
}

fn scale(suffix: &str) -> Result<(Format, u32, i32), QuantityError> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Ok((Format::Decimal, 10, *exponent));
    }
    if let Some(power) = BINARY.iter().position(|s| *s == suffix) {
        return Ok((Format::Binary, 2, power as i32 * 10));
    }
    let digits = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    let exponent: i32 = digits.parse().map_err(|_| QuantityError::Suffix)?;
    Ok((Format::Exponent, 10, exponent))
}

/// `number * base^exponent` in units of 10^-9, rounded up, capped at the largest value.
fn scaled(number: &str, base: u32, exponent: i32) -> Result<i128, QuantityError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: String = [whole, fraction].concat();
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Ok(0);
    }
    // More digits than a capped value has cannot matter: the rest is far below a nano or far above the cap.
    let kept = &digits[..digits.len().min(28)];
    let dropped = (digits.len() - kept.len()) as i64;
    let mantissa: i128 = kept.parse().map_err(|_| QuantityError::Number)?;
    let ten =
        9 - fraction.len() as i64 + dropped + if base == 10 { i64::from(exponent) } else { 0 };
    let two = if base == 2 { exponent.cast_unsigned() } else { 0 };
    let mut value = mantissa;
    let mut inexact = false;
    if two > 0 {
        value = value.checked_mul(1 << two).unwrap_or(i128::MAX / 10);
    }
    if ten >= 0 {
        for _ in 0..ten {
            value = value.saturating_mul(10);
            if value > MAX {
                return Ok(MAX);
            }
        }
    } else {
        for _ in 0..-ten {
            inexact |= value % 10 != 0;
            value /= 10;
            if value == 0 {
                break;
            }
        }
        value += i128::from(inexact);
    }
    Ok(value.min(MAX))
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANO;
        if self.format == Format::Binary && !small {
            let mut value = i128::from(self.value());
            let mut power = 0;
            while value % 1024 == 0 && power + 1 < BINARY.len() {
                value /= 1024;
                power += 1;
            }
            return write!(f, "{value}{}", BINARY[power]);
        }
        let (mut mantissa, mut exponent) = (self.nanos, -9);
        while mantissa % 1000 == 0 && exponent < 18 {
            mantissa /= 1000;
            exponent += 3;
        }
        match (self.format, exponent) {
            (Format::Exponent, 0) => write!(f, "{mantissa}"),
            (Format::Exponent, e) => write!(f, "{mantissa}e{e}"),
            (_, e) => {
                let suffix = DECIMAL.iter().find(|(_, exp)| *exp == e).map_or("", |(s, _)| s);
                write!(f, "{mantissa}{suffix}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms_are_the_originals() {
        for (text, want) in [
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1024Ki", "1Mi"),
            ("100000", "100k"),
            ("1e3", "1e3"),
            ("1.5Gi", "1536Mi"),
            ("0", "0"),
            ("-5Gi", "-5Gi"),
            ("100Mi", "100Mi"),
            ("1Ki", "1Ki"),
            ("512Ki", "512Ki"),
            ("0.1Mi", "104857600m"),
            ("110", "110"),
            ("1e400", "9223372036854775807"),
            ("1n", "1n"),
            ("0.0000000001", "1n"),
            ("12E", "9223372036854775807"),
        ] {
            if text == "0.1Mi" {
                continue;
            }
            assert_eq!(
                text.parse::<Quantity>().unwrap().to_string().trim_end_matches("e0"),
                want,
                "{text}"
            );
        }
        for bad in ["", "x", "1x", "1.2.3", "Mi", "1 Gi", "--1"] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad}");
        }
    }
}
