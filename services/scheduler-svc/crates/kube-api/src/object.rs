//! Short ways into object trees.

use serde_json::{Map, Value};

/// Text at `pointer`, or empty.
pub fn text<'v>(object: &'v Value, pointer: &str) -> &'v str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// `metadata.name`
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// `metadata.namespace`
pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// `metadata.uid`
pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// `metadata.resourceVersion`
pub fn version(object: &Value) -> &str {
    text(object, "/metadata/resourceVersion")
}

/// List at `pointer`, or empty.
pub fn list<'v>(object: &'v Value, pointer: &str) -> &'v [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Map at `pointer`.
pub fn map<'v>(object: &'v Value, pointer: &str) -> Option<&'v Map<String, Value>> {
    object.pointer(pointer).and_then(Value::as_object)
}

/// Whole number at `pointer`.
pub fn int(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// Whether there is something at `pointer`.
pub fn is_set(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer).is_some_and(|v| !v.is_null())
}

/// The map at `key` of `object`, made when it is absent.
pub fn map_mut<'v>(object: &'v mut Value, key: &str) -> &'v mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Value::Object(fields) = object else { unreachable!("made an object above") };
    let slot = fields.entry(key.to_owned()).or_insert_with(|| Value::Object(Map::new()));
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    let Value::Object(map) = slot else { unreachable!("made an object above") };
    map
}

/// `metadata`, made when it is absent.
pub fn meta_mut(object: &mut Value) -> &mut Map<String, Value> {
    map_mut(object, "metadata")
}

/// Sets `key` in `object` when it is absent, null or (for texts) empty.
pub fn default_to(object: &mut Value, key: &str, value: impl Into<Value>) {
    let Some(fields) = object.as_object_mut() else { return };
    match fields.get(key) {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(_) => return,
    }
    fields.insert(key.to_owned(), value.into());
}

/// Removes `key` from `metadata`.
pub fn remove_meta(object: &mut Value, key: &str) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove(key);
    }
}

/// Items of the list `key`, to be changed.
pub fn items_mut<'v>(object: &'v mut Value, key: &str) -> impl Iterator<Item = &'v mut Value> {
    object.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Copies `key` from `from`, or removes it when `from` has none.
pub fn copy(object: &mut Value, from: &Value, key: &str) {
    let Some(fields) = object.as_object_mut() else { return };
    match from.get(key) {
        Some(value) => {
            fields.insert(key.to_owned(), value.clone());
        }
        None => {
            fields.remove(key);
        }
    }
}
