//! Patches: RFC 7386, and strategic merge where the merge key is known.

use serde_json::Value;

/// RFC 7386. With `strategic`, lists of conditions merge by type.
pub(crate) fn merge(target: &mut Value, patch: &Value, strategic: bool) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    for (name, change) in changes {
        if change.is_null() {
            if let Some(fields) = target.as_object_mut() {
                fields.remove(name);
            }
        } else if strategic && name == "conditions" && change.is_array() {
            merge_list(&mut target[name], change, "type");
        } else {
            merge(&mut target[name], change, strategic);
        }
    }
}

fn merge_list(target: &mut Value, patch: &Value, key: &str) {
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Some(items) = target.as_array_mut() else { return };
    for change in patch.as_array().into_iter().flatten() {
        match items.iter_mut().find(|item| item[key] == change[key]) {
            Some(item) => merge(item, change, true),
            None => items.push(change.clone()),
        }
    }
}
