//! Objects as they lie in the store: `k8s\0` and protobuf, without a resource version. JSON is read too.

use bytes::Bytes;
use kube_codec::{MAGIC, proto, typed, unwrap_unknown, wrap_unknown};
use kube_spec::Resource;
use serde_json::Value;

/// Reads a stored value and sets its resource version.
pub fn decode(resource: &'static Resource, value: &[u8], revision: i64) -> Result<Value, String> {
    let spec = resource.type_id().get();
    let mut object = if value.starts_with(MAGIC) {
        let envelope = unwrap_unknown(value).map_err(|e| e.to_string())?;
        proto::decode(spec, envelope.raw).map_err(|e| e.to_string())?
    } else {
        let json: Value = serde_json::from_slice(value).map_err(|e| e.to_string())?;
        typed(spec, json, &mut Vec::new()).map_err(|e| e.to_string())?
    };
    object["apiVersion"] = resource.api_version().into();
    object["kind"] = resource.kind.into();
    object["metadata"]["resourceVersion"] = revision.to_string().into();
    Ok(object)
}

/// The stored form of an object.
pub fn encode(resource: &'static Resource, object: &Value) -> Result<Bytes, String> {
    let spec = resource.type_id().get();
    let mut bare = object.clone();
    if let Some(metadata) = bare.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
        metadata.remove("selfLink");
    }
    let message = proto::encode(spec, &bare).map_err(|e| e.to_string())?;
    Ok(wrap_unknown(&resource.api_version(), resource.kind, &message).into())
}
