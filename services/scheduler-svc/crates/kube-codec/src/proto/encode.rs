//! Canonical tree to message.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube_spec::{Field, Struct, Type};
use serde_json::{Map, Value};
use thiserror::Error;

use super::wire::{put_bytes, put_tag, put_varint};
use crate::{duration, time};

/// A tree that is not canonical; the text names the field.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("field {field} does not hold a {expected}")]
pub struct EncodeError {
    field: &'static str,
    expected: &'static str,
}

/// Encodes a message.
///
/// # Errors
/// When a value does not have the type of its field.
pub fn encode(spec: &'static Struct, object: &Value) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(256);
    let empty = Map::new();
    put_struct(&mut out, spec, object.as_object().unwrap_or(&empty))?;
    Ok(out)
}

fn put_struct(
    out: &mut Vec<u8>,
    spec: &'static Struct,
    object: &Map<String, Value>,
) -> Result<(), EncodeError> {
    for field in spec.numbered() {
        if field.inline {
            put_inline(out, field, object)?;
            continue;
        }
        let value = object.get(field.name).unwrap_or(&Value::Null);
        put_field(out, field, &field.ty, value)?;
    }
    Ok(())
}

fn put_inline(
    out: &mut Vec<u8>,
    field: &'static Field,
    object: &Map<String, Value>,
) -> Result<(), EncodeError> {
    let Some(inner) = field.ty.as_struct() else { return Ok(()) };
    let set = inner.fields.iter().any(|f| object.get(f.name).is_some_and(|v| !v.is_null()));
    if field.ty.is_ptr() && !set {
        return Ok(());
    }
    let mut nested = Vec::new();
    put_struct(&mut nested, inner, object)?;
    put_bytes(out, field.number, &nested);
    Ok(())
}

fn put_field(
    out: &mut Vec<u8>,
    field: &'static Field,
    ty: &'static Type,
    value: &Value,
) -> Result<(), EncodeError> {
    match ty {
        Type::Ptr(inner) => {
            if value.is_null() {
                return Ok(());
            }
            put_field(out, field, inner, value)
        }
        Type::List(inner) => {
            let Some(list) = list_of(field, value)? else { return Ok(()) };
            for item in list {
                put_item(out, field, field.number, inner, item)?;
            }
            Ok(())
        }
        Type::Map(inner) => {
            let Some(map) = map_of(field, value)? else { return Ok(()) };
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            for key in keys {
                let mut entry = Vec::new();
                put_bytes(&mut entry, 1, key.as_bytes());
                put_item(&mut entry, field, 2, inner, &map[key])?;
                put_bytes(out, field.number, &entry);
            }
            Ok(())
        }
        Type::Bytes if value.is_null() => Ok(()),
        _ => put_item(out, field, field.number, ty, value),
    }
}

fn list_of<'v>(
    field: &'static Field,
    value: &'v Value,
) -> Result<Option<&'v Vec<Value>>, EncodeError> {
    match value {
        Value::Null => Ok(None),
        Value::Array(list) => Ok(Some(list)),
        _ => Err(EncodeError { field: field.name, expected: "list" }),
    }
}

fn map_of<'v>(
    field: &'static Field,
    value: &'v Value,
) -> Result<Option<&'v Map<String, Value>>, EncodeError> {
    match value {
        Value::Null => Ok(None),
        Value::Object(map) => Ok(Some(map)),
        _ => Err(EncodeError { field: field.name, expected: "map" }),
    }
}

/// One value with its tag; null is the zero value.
fn put_item(
    out: &mut Vec<u8>,
    field: &'static Field,
    number: u32,
    ty: &'static Type,
    value: &Value,
) -> Result<(), EncodeError> {
    let wrong = |expected| EncodeError { field: field.name, expected };
    match ty {
        Type::Bool => {
            put_tag(out, number, 0);
            out.push(u8::from(value.as_bool().unwrap_or(false)));
        }
        Type::Int32 | Type::Int64 => {
            let n =
                if value.is_null() { 0 } else { value.as_i64().ok_or_else(|| wrong("integer"))? };
            put_tag(out, number, 0);
            put_varint(out, n.cast_unsigned());
        }
        Type::Double => {
            put_tag(out, number, 1);
            out.extend_from_slice(&value.as_f64().unwrap_or(0.0).to_le_bytes());
        }
        Type::String => {
            let text =
                if value.is_null() { "" } else { value.as_str().ok_or_else(|| wrong("string"))? };
            put_bytes(out, number, text.as_bytes());
        }
        Type::Bytes => {
            let bytes = STANDARD
                .decode(value.as_str().unwrap_or_default())
                .map_err(|_| wrong("base64 text"))?;
            put_bytes(out, number, &bytes);
        }
        Type::Ptr(inner) => put_item(out, field, number, inner, value)?,
        Type::Struct(id) => {
            let mut nested = Vec::new();
            if let Some(object) = value.as_object() {
                put_struct(&mut nested, id.get(), object)?;
            } else {
                put_struct(&mut nested, id.get(), &Map::new())?;
            }
            put_bytes(out, number, &nested);
        }
        Type::Wrap(inner) | Type::List(inner) | Type::Map(inner) => {
            let mut nested = Vec::new();
            let inner = match &**inner {
                Type::List(item) => item,
                other => other,
            };
            for item in value.as_array().map(Vec::as_slice).unwrap_or_default() {
                put_item(&mut nested, field, 1, inner, item)?;
            }
            put_bytes(out, number, &nested);
        }
        _ => put_bytes(out, number, &special(ty, value).ok_or_else(|| wrong("value of its type"))?),
    }
    Ok(())
}

/// The messages of the special types.
fn special(ty: &Type, value: &Value) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match ty {
        Type::Time | Type::MicroTime => {
            if let Some(text) = value.as_str() {
                let (seconds, nanos) = time::parse_time(text)?;
                let nanos = if *ty == Type::Time { 0 } else { nanos / 1000 * 1000 };
                put_tag(&mut out, 1, 0);
                put_varint(&mut out, seconds.cast_unsigned());
                put_tag(&mut out, 2, 0);
                put_varint(&mut out, i64::from(nanos).cast_unsigned());
            }
        }
        Type::Duration => {
            put_tag(&mut out, 1, 0);
            put_varint(&mut out, duration::parse(value.as_str().unwrap_or("0s"))?.cast_unsigned());
        }
        Type::Quantity => put_bytes(&mut out, 1, value.as_str().unwrap_or("0").as_bytes()),
        Type::IntOrString => {
            let text = value.as_str();
            put_tag(&mut out, 1, 0);
            put_varint(&mut out, u64::from(text.is_some()));
            put_tag(&mut out, 2, 0);
            put_varint(&mut out, value.as_i64().unwrap_or(0).cast_unsigned());
            put_bytes(&mut out, 3, text.unwrap_or_default().as_bytes());
        }
        Type::Raw | Type::FieldsV1 => {
            if !value.is_null() {
                put_bytes(&mut out, 1, value.to_string().as_bytes());
            }
        }
        _ => return None,
    }
    Some(out)
}
