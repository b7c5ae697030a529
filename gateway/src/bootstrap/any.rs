//! Typed extensions inside `google.protobuf.Any`.

use prost::Message;
use prost_types::Any;

use super::ConfigError;

/// `type.googleapis.com/` and the message's full name.
pub fn type_url(message: &str) -> String {
    format!("type.googleapis.com/{message}")
}

/// Decodes `any` as `M`, whose full name is `name`.
///
/// # Errors
/// When it holds another type or bytes that do not decode.
pub fn unpack<M: Message + Default>(any: &Any, name: &str, path: &str) -> Result<M, ConfigError> {
    let holds = any.type_url.rsplit('/').next().unwrap_or_default();
    if holds != name {
        return Err(ConfigError::unsupported(format!("{path} ({holds})")));
    }
    M::decode(any.value.as_slice()).map_err(|error| ConfigError::invalid(path, error.to_string()))
}
