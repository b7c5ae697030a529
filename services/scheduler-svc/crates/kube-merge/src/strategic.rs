//! Strategic merge: lists of objects merge by a key that the type names, with `$patch` directives.

use kube_spec::{Field, Struct, Type};
use serde_json::{Map, Value};

use crate::PatchError;

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Applies a strategic merge patch to an object of type `spec`.
///
/// # Errors
/// When a list item lacks its key or a directive is unknown.
pub fn strategic_merge(
    spec: &'static Struct,
    target: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::Malformed("invalid JSON document".to_owned()));
    };
    let target = target.as_object().cloned().unwrap_or_default();
    merge_object(Some(spec), target, patch).map(Value::Object)
}

fn merge_object(
    spec: Option<&'static Struct>,
    mut target: Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<Map<String, Value>, PatchError> {
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        None => {}
        Some("replace") => return Ok(without_directives(patch)),
        Some("delete") => return Ok(Map::new()),
        Some("merge") => {}
        Some(other) => {
            return Err(PatchError::Malformed(format!("unrecognized patch type: {other}")));
        }
    }
    if let Some(retain) = patch.get(RETAIN).and_then(Value::as_array) {
        target.retain(|key, _| retain.iter().any(|k| k.as_str() == Some(key)));
    }
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_PRIMITIVES) {
            delete_primitives(&mut target, list, value);
        }
    }
    for (key, value) in patch.iter().filter(|(key, _)| !key.starts_with('$')) {
        let field = spec.and_then(|s| s.field(key)).map(|(_, field)| field);
        if value.is_null() {
            target.remove(key);
            continue;
        }
        let before = target.remove(key);
        let order = patch.get(&format!("{ORDER}{key}"));
        let merged = merge_value(field, before, value, order)?;
        target.insert(key.clone(), merged);
    }
    for (key, order) in patch.iter().filter_map(|(k, v)| Some((k.strip_prefix(ORDER)?, v))) {
        // A list that only gets a new order.
        if !patch.contains_key(key) {
            let field = spec.and_then(|s| s.field(key)).map(|(_, field)| field);
            if let (Some(Value::Array(list)), Some(order)) = (target.get_mut(key), order.as_array())
            {
                reorder(list, order, field.and_then(|f| f.merge_key));
            }
        }
    }
    Ok(target)
}

fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    patch.iter().filter(|(k, _)| !k.starts_with('$')).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn delete_primitives(target: &mut Map<String, Value>, list: &str, gone: &Value) {
    if let (Some(Value::Array(items)), Some(gone)) = (target.get_mut(list), gone.as_array()) {
        items.retain(|item| !gone.contains(item));
    }
}

fn merge_value(
    field: Option<&'static Field>,
    before: Option<Value>,
    patch: &Value,
    order: Option<&Value>,
) -> Result<Value, PatchError> {
    match patch {
        Value::Object(patch) => {
            let replace = field.is_some_and(|f| f.patch.replace);
            let target = match before {
                Some(Value::Object(map)) if !replace => map,
                _ => Map::new(),
            };
            let spec = field.and_then(|f| f.ty.as_struct());
            match field.map(|f| f.ty.target()) {
                Some(Type::Map(inner)) => {
                    merge_map(inner.as_struct(), target, patch).map(Value::Object)
                }
                _ => merge_object(spec, target, patch).map(Value::Object),
            }
        }
        Value::Array(patch) => {
            let Some(field) = field.filter(|f| f.patch.merge) else {
                return Ok(Value::Array(patch.clone()));
            };
            let target = match before {
                Some(Value::Array(list)) => list,
                _ => Vec::new(),
            };
            let mut merged = merge_list(field, target, patch)?;
            if let Some(order) = order.and_then(Value::as_array) {
                reorder(&mut merged, order, field.merge_key);
            }
            Ok(Value::Array(merged))
        }
        scalar => Ok(scalar.clone()),
    }
}

fn merge_map(
    spec: Option<&'static Struct>,
    mut target: Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<Map<String, Value>, PatchError> {
    if patch.get(DIRECTIVE).and_then(Value::as_str) == Some("replace") {
        return Ok(without_directives(patch));
    }
    for (key, value) in patch.iter().filter(|(k, _)| *k != DIRECTIVE && *k != RETAIN) {
        match value {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(nested) => {
                let before = match target.remove(key) {
                    Some(Value::Object(map)) => map,
                    _ => Map::new(),
                };
                target.insert(key.clone(), Value::Object(merge_object(spec, before, nested)?));
            }
            other => {
                target.insert(key.clone(), other.clone());
            }
        }
    }
    Ok(target)
}

fn merge_list(
    field: &'static Field,
    mut target: Vec<Value>,
    patch: &[Value],
) -> Result<Vec<Value>, PatchError> {
    let directive =
        |item: &Value, name: &str| item.get(DIRECTIVE).and_then(Value::as_str) == Some(name);
    if patch.iter().any(|item| directive(item, "replace")) {
        return Ok(patch.iter().filter(|i| i.get(DIRECTIVE).is_none()).cloned().collect());
    }
    let item_spec = match field.ty.target() {
        Type::List(inner) => inner.as_struct(),
        _ => None,
    };
    let Some(key) = field.merge_key else {
        for item in patch {
            if !target.contains(item) {
                target.push(item.clone());
            }
        }
        return Ok(target);
    };
    for item in patch {
        let Some(own) = item.get(key) else {
            return Err(PatchError::Malformed(format!(
                "map: {item} does not contain declared merge key: {key}"
            )));
        };
        let at = target.iter().position(|t| t.get(key) == Some(own));
        if directive(item, "delete") {
            target.retain(|t| t.get(key) != Some(own));
            continue;
        }
        let Some(changes) = item.as_object() else {
            return Err(PatchError::Malformed(format!("{item} is no object")));
        };
        match at {
            Some(at) => {
                let before = target[at].as_object().cloned().unwrap_or_default();
                target[at] = Value::Object(merge_object(item_spec, before, changes)?);
            }
            None => target.push(Value::Object(merge_object(item_spec, Map::new(), changes)?)),
        }
    }
    Ok(target)
}

/// Puts the items the order names in that order; the others keep their place relative to their predecessor.
fn reorder(list: &mut Vec<Value>, order: &[Value], key: Option<&str>) {
    let rank = |item: &Value| {
        order.iter().position(|wanted| match key {
            Some(key) => wanted.get(key).is_some() && wanted.get(key) == item.get(key),
            None => wanted == item,
        })
    };
    let mut last = 0;
    let mut ranked: Vec<(usize, usize, Value)> = Vec::with_capacity(list.len());
    for (i, item) in list.drain(..).enumerate() {
        let at = rank(&item).map(|r| r + 1).unwrap_or(last);
        last = at;
        ranked.push((at, i, item));
    }
    ranked.sort_by_key(|(at, i, _)| (*at, *i));
    list.extend(ranked.into_iter().map(|(_, _, item)| item));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merge(target: Value, patch: Value) -> Value {
        let spec = kube_spec::types().find("core/v1.Pod").unwrap().get();
        strategic_merge(spec, &target, &patch).unwrap()
    }

    #[test]
    fn containers_merge_by_name() {
        let target = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}});
        let patch = json!({"spec": {"containers": [{"name": "b", "image": "3"}, {"name": "c", "image": "4"}]}});
        let want = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "3"}, {"name": "c", "image": "4"}]}});
        assert_eq!(merge(target, patch), want);
    }

    #[test]
    fn directives_delete_replace_and_order() {
        let target = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "tolerations": [{"key": "x"}]}});
        let patch = json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}], "tolerations": [{"key": "y"}]}});
        assert_eq!(
            merge(target.clone(), patch),
            json!({"spec": {"containers": [{"name": "b"}], "tolerations": [{"key": "y"}]}})
        );
        let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}], "containers": [{"name": "c"}]}});
        let merged = merge(target, patch);
        let names: Vec<&str> = merged["spec"]["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["c", "b", "a"]);
    }

    #[test]
    fn finalizers_are_a_set_and_primitives_can_be_deleted() {
        let target = json!({"metadata": {"finalizers": ["a", "b"]}});
        assert_eq!(
            merge(target.clone(), json!({"metadata": {"finalizers": ["b", "c"]}}))["metadata"]["finalizers"],
            json!(["a", "b", "c"])
        );
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}});
        assert_eq!(merge(target, patch)["metadata"]["finalizers"], json!(["b"]));
    }

    #[test]
    fn retain_keys_drops_the_other_source() {
        let target = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
        let patch = json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}});
        assert_eq!(
            merge(target, patch),
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}})
        );
    }
}
