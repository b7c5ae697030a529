//! Scalars of the configuration: durations, sizes, secrets.

use std::fmt;

use metrics_model::{format_millis, parse_millis};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration in milliseconds, written `1m30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Millis(pub i64);

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_millis(&text).map(Self).map_err(D::Error::custom)
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_millis(self.0))
    }
}

/// A number of bytes, written `10MB` (powers of 1024) or `1000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size(pub u64);

impl Size {
    /// Reads `512MB`, `1GiB`, `0`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 = text[..digits].parse().ok()?;
        let shift = match text[digits..].trim_end_matches('B').trim_end_matches('i') {
            "" => 0,
            "K" | "k" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            "P" => 50,
            _ => return None,
        };
        number.checked_mul(1 << shift).map(Self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Text {
            Number(u64),
            Text(String),
        }
        match Text::deserialize(deserializer)? {
            Text::Number(bytes) => Ok(Self(bytes)),
            Text::Text(text) => Self::parse(&text)
                .ok_or_else(|| D::Error::custom(format!("{text:?} is not a size such as 10MB"))),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{}B", self.0))
    }
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("<secret>")
    }
}

/// A field Prometheus knows and this server refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported;

impl<'de> Deserialize<'de> for Unsupported {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The value must be visited: only then does the reader add where it stands.
        deserializer.deserialize_any(Refuse)
    }
}

struct Refuse;

macro_rules! refuse {
    ($($method:ident: $kind:ty),*) => {
        $(fn $method<E: serde::de::Error>(self, _: $kind) -> Result<Unsupported, E> {
            Err(E::custom(NOT_YET))
        })*
    };
}

const NOT_YET: &str = "not supported yet";

impl<'de> serde::de::Visitor<'de> for Refuse {
    type Value = Unsupported;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }

    refuse!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E: serde::de::Error>(self) -> Result<Unsupported, E> {
        Err(E::custom(NOT_YET))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, _: A) -> Result<Unsupported, A::Error> {
        Err(A::Error::custom(NOT_YET))
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, _: A) -> Result<Unsupported, A::Error> {
        Err(A::Error::custom(NOT_YET))
    }
}

impl Serialize for Unsupported {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(Size::parse("10MB"), Some(Size(10 << 20)));
        assert_eq!(Size::parse("1GiB"), Some(Size(1 << 30)));
        assert_eq!(Size::parse("0"), Some(Size(0)));
        assert_eq!(Size::parse("x"), None);
    }
}
