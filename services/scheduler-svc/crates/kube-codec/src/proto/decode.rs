//! Message to canonical tree.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube_spec::{Field, Struct, Type};
use serde_json::{Map, Number, Value, json};

use super::wire::{Reader, WireError};
use crate::{canonical, duration, time, unknown};

const MAX_DEPTH: usize = 64;

/// Decodes a message; fields nobody knows are dropped.
///
/// # Errors
/// When the bytes are no message of this type.
pub fn decode(spec: &'static Struct, data: &[u8]) -> Result<Value, WireError> {
    message(spec, data, 0).map(Value::Object)
}

fn message(
    spec: &'static Struct,
    data: &[u8],
    depth: usize,
) -> Result<Map<String, Value>, WireError> {
    let mut object = Map::new();
    fields(spec, data, depth, &mut object)?;
    canonical::fill(spec, &mut object);
    Ok(object)
}

fn fields(
    spec: &'static Struct,
    data: &[u8],
    depth: usize,
    object: &mut Map<String, Value>,
) -> Result<(), WireError> {
    if depth > MAX_DEPTH {
        return Err(WireError::Depth);
    }
    let mut reader = Reader::new(data);
    while let Some((number, wire)) = reader.tag()? {
        let Some(field) = spec.by_number(number) else {
            reader.skip(wire)?;
            continue;
        };
        if field.inline {
            let nested = length_delimited(&mut reader, field, wire)?;
            if let Some(inner) = field.ty.as_struct() {
                fields(inner, nested, depth + 1, object)?;
            }
            continue;
        }
        match field.ty.target() {
            Type::List(inner) => {
                let item = value(&mut reader, field, inner, wire, depth)?;
                let list = object.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = list {
                    list.push(item);
                }
            }
            Type::Map(inner) => {
                let entry = length_delimited(&mut reader, field, wire)?;
                let (key, item) = map_entry(entry, field, inner, depth)?;
                let map = object.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = map {
                    map.insert(key, item);
                }
            }
            ty => {
                let item = value(&mut reader, field, ty, wire, depth)?;
                object.insert(field.name.to_owned(), item);
            }
        }
    }
    Ok(())
}

fn map_entry(
    entry: &[u8],
    field: &'static Field,
    ty: &'static Type,
    depth: usize,
) -> Result<(String, Value), WireError> {
    let (mut key, mut item) = (String::new(), None);
    let mut reader = Reader::new(entry);
    while let Some((number, wire)) = reader.tag()? {
        match (number, wire) {
            (1, 2) => key = reader.text()?,
            (2, wire) => item = Some(value(&mut reader, field, ty, wire, depth)?),
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok((key, item.unwrap_or_else(|| canonical::zero(ty))))
}

fn length_delimited<'a>(
    reader: &mut Reader<'a>,
    field: &'static Field,
    wire: u8,
) -> Result<&'a [u8], WireError> {
    if wire == 2 { reader.bytes() } else { Err(WireError::Mismatch { field: field.name, wire }) }
}

fn value(
    reader: &mut Reader<'_>,
    field: &'static Field,
    ty: &'static Type,
    wire: u8,
    depth: usize,
) -> Result<Value, WireError> {
    let mismatch = WireError::Mismatch { field: field.name, wire };
    match ty {
        Type::Bool | Type::Int32 | Type::Int64 => {
            if wire != 0 {
                return Err(mismatch);
            }
            let n = reader.varint()?;
            Ok(match ty {
                Type::Bool => Value::Bool(n != 0),
                Type::Int32 => json!(n as i32),
                _ => json!(n.cast_signed()),
            })
        }
        Type::Double => {
            if wire != 1 {
                return Err(mismatch);
            }
            let number = f64::from_bits(reader.fixed64()?);
            Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
        }
        Type::Ptr(inner) => value(reader, field, inner, wire, depth),
        _ => {
            let bytes = length_delimited(reader, field, wire)?;
            from_bytes(bytes, field, ty, depth)
        }
    }
}

fn from_bytes(
    bytes: &[u8],
    field: &'static Field,
    ty: &'static Type,
    depth: usize,
) -> Result<Value, WireError> {
    Ok(match ty {
        Type::String => Value::String(String::from_utf8_lossy(bytes).into_owned()),
        Type::Bytes => Value::String(STANDARD.encode(bytes)),
        Type::Struct(id) => Value::Object(message(id.get(), bytes, depth + 1)?),
        Type::Wrap(inner) | Type::List(inner) | Type::Map(inner) => {
            let inner = match &**inner {
                Type::List(item) => item,
                other => other,
            };
            let mut list = Vec::new();
            let mut reader = Reader::new(bytes);
            while let Some((number, wire)) = reader.tag()? {
                if number == 1 {
                    list.push(value(&mut reader, field, inner, wire, depth + 1)?);
                } else {
                    reader.skip(wire)?;
                }
            }
            Value::Array(list)
        }
        _ => special(bytes, ty)?,
    })
}

fn special(bytes: &[u8], ty: &Type) -> Result<Value, WireError> {
    let (mut numbers, mut texts) = ([0i64; 4], [None::<&[u8]>, None, None, None]);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.tag()? {
        match (number as usize, wire) {
            (n @ 1..=3, 0) => numbers[n] = reader.varint()?.cast_signed(),
            (n @ 1..=3, 2) => texts[n] = Some(reader.bytes()?),
            (_, wire) => reader.skip(wire)?,
        }
    }
    let text = |n: usize| String::from_utf8_lossy(texts[n].unwrap_or_default()).into_owned();
    Ok(match ty {
        Type::Time | Type::MicroTime if bytes.is_empty() => Value::Null,
        Type::Time => time::seconds_time(numbers[1]).map_or(Value::Null, Value::String),
        Type::MicroTime => {
            time::micro_time(numbers[1], numbers[2] as i32).map_or(Value::Null, Value::String)
        }
        Type::Duration => Value::String(duration::format(numbers[1])),
        Type::Quantity => Value::String(text(1)),
        Type::IntOrString if numbers[1] == 0 => json!(numbers[2] as i32),
        Type::IntOrString => Value::String(text(3)),
        Type::Raw | Type::FieldsV1 => raw(texts[1]),
        _ => Value::Null,
    })
}

/// The object in a RawExtension: JSON, or protobuf in its envelope.
fn raw(bytes: Option<&[u8]>) -> Value {
    let Some(bytes) = bytes else { return Value::Null };
    if let Ok(envelope) = unknown::unwrap_unknown(bytes) {
        let (group, version) =
            envelope.api_version.split_once('/').unwrap_or(("", &envelope.api_version));
        let spec = kube_spec::by_kind(group, version, &envelope.kind).map(|r| r.type_id().get());
        let object = spec.and_then(|spec| decode(spec, envelope.raw).ok());
        if let Some(Value::Object(mut object)) = object {
            object.insert("apiVersion".to_owned(), Value::String(envelope.api_version));
            object.insert("kind".to_owned(), Value::String(envelope.kind));
            return Value::Object(object);
        }
    }
    serde_json::from_slice(bytes).unwrap_or(Value::Null)
}
