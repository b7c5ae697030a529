//! Refuses fields the schema does not have, with their path.

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;

use super::ConfigError;

/// Messages nested deeper than this are refused; the schema needs far fewer levels.
const MAX_DEPTH: usize = 64;

/// Walks `value` beside its descriptor.
pub(super) fn check(
    pool: &DescriptorPool,
    descriptor: &MessageDescriptor,
    value: &Value,
    path: &str,
) -> Result<(), ConfigError> {
    message(pool, descriptor, value, path, 0)
}

fn message(
    pool: &DescriptorPool,
    descriptor: &MessageDescriptor,
    value: &Value,
    path: &str,
    depth: usize,
) -> Result<(), ConfigError> {
    if depth > MAX_DEPTH {
        return Err(ConfigError::invalid(path, "nested too deeply"));
    }
    if descriptor.full_name() == "google.protobuf.Any" {
        return any(pool, value, path, depth);
    }
    if descriptor.parent_file().package_name() == "google.protobuf" {
        // Durations, wrappers and structs have JSON forms of their own.
        return Ok(());
    }
    let Value::Object(fields) = value else {
        return if value.is_null() {
            Ok(())
        } else {
            Err(ConfigError::invalid(path, "a mapping of fields is expected"))
        };
    };
    for (name, value) in fields {
        let here = join(path, name);
        let field =
            descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name));
        let Some(field) = field else {
            return Err(ConfigError::UnknownField {
                path: here,
                message: descriptor.full_name().to_owned(),
            });
        };
        entries(pool, &field, value, &here, depth)?;
    }
    Ok(())
}

fn entries(
    pool: &DescriptorPool,
    field: &FieldDescriptor,
    value: &Value,
    path: &str,
    depth: usize,
) -> Result<(), ConfigError> {
    let Kind::Message(inner) = field.kind() else { return Ok(()) };
    match value {
        Value::Object(map) if field.is_map() => {
            let Kind::Message(inner) = inner.map_entry_value_field().kind() else { return Ok(()) };
            map.iter().try_for_each(|(key, value)| {
                message(pool, &inner, value, &join(path, key), depth + 1)
            })
        }
        Value::Array(list) if field.is_list() => {
            list.iter().enumerate().try_for_each(|(index, value)| {
                message(pool, &inner, value, &format!("{path}[{index}]"), depth + 1)
            })
        }
        value => message(pool, &inner, value, path, depth + 1),
    }
}

fn any(pool: &DescriptorPool, value: &Value, path: &str, depth: usize) -> Result<(), ConfigError> {
    let Some(url) = value.get("@type").and_then(Value::as_str) else {
        return Err(ConfigError::invalid(path, "\"@type\" is missing"));
    };
    let name = url.rsplit('/').next().unwrap_or_default();
    let Some(descriptor) = pool.get_message_by_name(name) else {
        return Err(ConfigError::unsupported(format!("{path} ({name})")));
    };
    let mut inner = value.clone();
    if let Value::Object(fields) = &mut inner {
        fields.remove("@type");
    }
    message(pool, &descriptor, &inner, path, depth + 1)
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
