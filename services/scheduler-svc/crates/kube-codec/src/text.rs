//! JSON and YAML text into a tree, with the duplicate keys that Go's decoder would silently merge.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use thiserror::Error;

/// Nesting that a document may have.
const MAX_DEPTH: usize = 100;
/// Nodes that a document may have: a YAML text of aliases must not grow without bound.
const MAX_NODES: usize = 2_000_000;

/// A tree and the paths of keys that came twice.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The tree; of duplicate keys the last one counts.
    pub value: Value,
    /// Paths such as `spec.containers[0].name`.
    pub duplicates: Vec<String>,
}

/// Why a text cannot be read.
#[derive(Debug, Error)]
pub enum TextError {
    /// No JSON.
    #[error("{0}")]
    Json(String),
    /// No YAML.
    #[error("error converting YAML to JSON: yaml: {0}")]
    Yaml(String),
}

/// Reads JSON.
///
/// # Errors
/// When the text is no JSON, or nests too deep.
pub fn parse_json(text: &[u8]) -> Result<Parsed, TextError> {
    let mut state = State::default();
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Seed { state: &mut state, path: String::new(), depth: 0 }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| TextError::Json(go_words(text, &error)))?;
    Ok(Parsed { value, duplicates: state.duplicates })
}

/// Reads one YAML document.
///
/// # Errors
/// When the text is no YAML, nests too deep, or grows too large by aliases.
pub fn parse_yaml(text: &[u8]) -> Result<Parsed, TextError> {
    let mut state = State::default();
    let reader = serde_norway::Deserializer::from_slice(text);
    let value = Seed { state: &mut state, path: String::new(), depth: 0 }
        .deserialize(reader)
        .map_err(|error| TextError::Yaml(error.to_string()))?;
    Ok(Parsed { value, duplicates: state.duplicates })
}

/// Writes YAML.
pub fn yaml(value: &Value) -> String {
    serde_norway::to_string(value).unwrap_or_default()
}

fn go_words(text: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    let before = text
        .split(|b| *b == b'\n')
        .take(error.line().saturating_sub(1))
        .map(|l| l.len() + 1)
        .sum::<usize>();
    let at = before + error.column().saturating_sub(1);
    match text.get(at) {
        Some(byte) if error.is_syntax() => {
            format!("invalid character '{}' looking for beginning of value", char::from(*byte))
        }
        _ => error.to_string(),
    }
}

#[derive(Default)]
struct State {
    duplicates: Vec<String>,
    nodes: usize,
}

struct Seed<'s> {
    state: &'s mut State,
    path: String,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.state.nodes += 1;
        if self.depth > MAX_DEPTH {
            return Err(D::Error::custom("exceeded max depth"));
        }
        if self.state.nodes > MAX_NODES {
            return Err(D::Error::custom("document contains excessive aliasing"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, list.len());
            let seed = Seed { state: &mut *self.state, path, depth: self.depth + 1 };
            match seq.next_element_seed(seed)? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(Key(key)) = map.next_key::<Key>()? {
            let path =
                if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
            if object.contains_key(&key) {
                self.state.duplicates.push(path.clone());
            }
            let seed = Seed { state: &mut *self.state, path, depth: self.depth + 1 };
            let value = map.next_value_seed(seed)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// A map key: YAML's may be numbers and booleans.
struct Key(String);

impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_str<E>(self, v: &str) -> Result<Key, E> {
                Ok(Key(v.to_owned()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Key, E> {
                Ok(Key(v.to_string()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Key, E> {
                Ok(Key(v.to_string()))
            }
            fn visit_bool<E>(self, v: bool) -> Result<Key, E> {
                Ok(Key(v.to_string()))
            }
        }
        deserializer.deserialize_any(KeyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicate_keys_are_reported_with_their_path() {
        let parsed = parse_json(br#"{"spec":{"a":[{"x":1,"x":2}]},"spec":{"b":1}}"#).unwrap();
        assert_eq!(parsed.duplicates, ["spec.a[0].x", "spec"]);
        assert_eq!(parsed.value, json!({"spec": {"b": 1}}));
    }

    #[test]
    fn yaml_and_json_give_the_same_tree() {
        let yaml = parse_yaml(b"a: 1\nb: [x, 'y']\nc: {1: true}\n").unwrap();
        assert_eq!(yaml.value, json!({"a": 1, "b": ["x", "y"], "c": {"1": true}}));
    }

    #[test]
    fn deep_and_bomb_documents_are_refused() {
        let deep = [b"[".repeat(10_000), b"]".repeat(10_000)].concat();
        assert!(parse_json(&deep).is_err());
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            bomb += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(","));
        }
        assert!(parse_yaml(bomb.as_bytes()).is_err());
    }
}
