//! Text and bytes to messages, always through the checks of this room.

use std::sync::LazyLock;
use std::time::Duration;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;

use super::{ConfigError, pb, strict, supported};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(flotilla_proto::envoy::FILE_DESCRIPTOR_SET)
        .expect("the committed descriptors are valid")
});

/// Bytes a configuration text may have.
const MAX_TEXT: usize = 64 << 20;

fn descriptor(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(name).expect("callers name messages of the committed schema")
}

/// Parses YAML (JSON is a part of it) as message `name`. `overlay` is merged over it, field by field.
///
/// # Errors
/// When the text does not parse, names a field that does not exist, or uses one that is not implemented.
pub fn from_text<M: Message + Default>(
    name: &str,
    text: &str,
    overlay: Option<&str>,
) -> Result<M, ConfigError> {
    let mut value = parse(text)?;
    if let Some(overlay) = overlay {
        merge(&mut value, parse(overlay)?);
    }
    let descriptor = descriptor(name);
    strict::check(&POOL, &descriptor, &value, "")?;
    let text = value.to_string();
    let mut reader = serde_json::Deserializer::from_str(&text);
    let message = DynamicMessage::deserialize(descriptor, &mut reader)
        .map_err(|error| ConfigError::Syntax(strip_position(&error.to_string())))?;
    supported::check(&POOL, &message, "")?;
    decode(&message)
}

/// Decodes a resource of a control plane.
///
/// # Errors
/// When the bytes do not decode or use a part of the API that is not implemented.
pub fn from_bytes<M: Message + Default>(name: &str, bytes: &[u8]) -> Result<M, ConfigError> {
    let message = DynamicMessage::decode(descriptor(name), bytes)
        .map_err(|error| ConfigError::Syntax(format!("{name}: {error}")))?;
    supported::check(&POOL, &message, "")?;
    decode(&message)
}

fn decode<M: Message + Default>(message: &DynamicMessage) -> Result<M, ConfigError> {
    M::decode(message.encode_to_vec().as_slice())
        .map_err(|error| ConfigError::Syntax(error.to_string()))
}

/// The message as JSON with the schema's field names, as `/config_dump` shows it.
pub fn to_json(name: &str, message: &impl Message) -> Value {
    let options = SerializeOptions::new().use_proto_field_name(true);
    DynamicMessage::decode(descriptor(name), message.encode_to_vec().as_slice())
        .ok()
        .and_then(|dynamic| {
            dynamic.serialize_with_options(serde_json::value::Serializer, &options).ok()
        })
        .unwrap_or(Value::Null)
}

fn parse(text: &str) -> Result<Value, ConfigError> {
    if text.len() > MAX_TEXT {
        return Err(ConfigError::Syntax(format!("the configuration exceeds {MAX_TEXT} bytes")));
    }
    match serde_norway::from_str(text) {
        Ok(Value::Null) => Ok(Value::Object(serde_json::Map::new())),
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(ConfigError::Syntax("the configuration is no mapping of fields".to_owned())),
        Err(error) => Err(ConfigError::Syntax(error.to_string())),
    }
}

/// Protobuf merge of JSON forms: objects field by field, lists appended, the rest replaced.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(base), Value::Array(over)) => base.extend(over),
        (base, over) => *base = over,
    }
}

/// The position refers to the JSON form, which nobody wrote.
fn strip_position(text: &str) -> String {
    text.split(" at line ").next().unwrap_or(text).to_owned()
}

/// A duration that is not negative.
///
/// # Errors
/// When it is negative.
pub fn duration(value: &prost_types::Duration, path: &str) -> Result<Duration, ConfigError> {
    Duration::try_from(*value)
        .map_err(|_| ConfigError::invalid(path, "a duration must not be negative"))
}

/// The bytes a data source names: inline, or a file read now.
///
/// # Errors
/// When the file cannot be read or the source is empty.
pub fn data_source(source: &pb::core::DataSource, path: &str) -> Result<Vec<u8>, ConfigError> {
    use pb::core::data_source::Specifier;
    match &source.specifier {
        Some(Specifier::Filename(file)) => std::fs::read(file)
            .map_err(|error| ConfigError::invalid(path, format!("cannot read {file}: {error}"))),
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes.to_vec()),
        Some(Specifier::InlineString(text)) => Ok(text.clone().into_bytes()),
        Some(Specifier::EnvironmentVariable(_)) => {
            Err(ConfigError::unsupported(format!("{path}.environment_variable")))
        }
        None => {
            Err(ConfigError::invalid(path, "a filename, inline_bytes or inline_string is needed"))
        }
    }
}
