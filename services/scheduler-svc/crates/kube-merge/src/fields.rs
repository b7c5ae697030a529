//! Sets of fields, as `managedFields` records them.
//!
//! A set is a set of paths; a path is a list of elements in the notation of FieldsV1: `f:NAME` for a field or map
//! key, `k:{...}` for the item of a keyed list, `v:VALUE` for the item of a set.

use std::collections::{BTreeMap, BTreeSet};

use kube_spec::{Field, ListType, Struct, Type};
use serde_json::{Map, Value};

/// Elements from the root to a field.
pub type Path = Vec<String>;
/// Fields.
pub type FieldSet = BTreeSet<Path>;

/// Metadata that nobody owns.
const UNOWNED: &[&str] = &[
    "name",
    "namespace",
    "creationTimestamp",
    "uid",
    "resourceVersion",
    "generation",
    "managedFields",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generateName",
];

/// The fields that an object sets.
pub fn fields_of(spec: &'static Struct, object: &Value) -> FieldSet {
    let mut set = FieldSet::new();
    let Some(object) = object.as_object() else { return set };
    walk_struct(spec, object, &mut Vec::new(), &mut set);
    set.retain(|path| {
        let first = path.first().map(String::as_str);
        let second = path.get(1).and_then(|p| p.strip_prefix("f:"));
        let own_kind =
            path.len() == 1 && matches!(first, Some("f:apiVersion" | "f:kind" | "f:metadata"));
        let unowned = first == Some("f:metadata") && second.is_some_and(|n| UNOWNED.contains(&n));
        !own_kind && !unowned
    });
    set
}

fn walk_struct(
    spec: &'static Struct,
    object: &Map<String, Value>,
    path: &mut Path,
    set: &mut FieldSet,
) {
    for (key, value) in object.iter().filter(|(_, v)| !v.is_null()) {
        let Some((_, field)) = spec.field(key) else { continue };
        path.push(format!("f:{key}"));
        walk(field, &field.ty, value, path, set);
        path.pop();
    }
}

fn walk(
    field: &'static Field,
    ty: &'static Type,
    value: &Value,
    path: &mut Path,
    set: &mut FieldSet,
) {
    match (ty.target(), value) {
        (Type::Struct(id), Value::Object(object))
            if !object.is_empty() && !id.get().atomic && field.list != ListType::Atomic =>
        {
            walk_struct(id.get(), object, path, set);
        }
        (Type::Map(inner), Value::Object(map))
            if !map.is_empty() && field.list != ListType::Atomic =>
        {
            for (key, item) in map {
                path.push(format!("f:{key}"));
                match (inner.as_struct(), item.as_object()) {
                    (Some(spec), Some(item)) if !item.is_empty() => {
                        walk_struct(spec, item, path, set)
                    }
                    _ => {
                        set.insert(path.clone());
                    }
                }
                path.pop();
            }
        }
        (Type::List(inner), Value::Array(list)) if !list.is_empty() => {
            match (&field.list, inner.as_struct()) {
                (ListType::Map(keys), Some(spec)) => {
                    for item in list.iter().filter_map(Value::as_object) {
                        path.push(item_key(spec, keys, item));
                        set.insert(path.clone());
                        walk_struct(spec, item, path, set);
                        path.pop();
                    }
                }
                (ListType::Set, _) => {
                    for item in list {
                        path.push(format!("v:{item}"));
                        set.insert(path.clone());
                        path.pop();
                    }
                }
                _ => {
                    set.insert(path.clone());
                }
            }
        }
        _ => {
            set.insert(path.clone());
        }
    }
}

/// The element of a keyed list's item; keys that are left out have their declared default.
pub(crate) fn item_key(
    spec: &'static Struct,
    keys: &[&'static str],
    item: &Map<String, Value>,
) -> String {
    let mut key = Map::new();
    for name in keys {
        let default = || spec.field(name).and_then(|(_, f)| f.default.clone());
        if let Some(value) = item.get(*name).filter(|v| !v.is_null()).cloned().or_else(default) {
            key.insert((*name).to_owned(), value);
        }
    }
    format!("k:{}", Value::Object(key))
}

#[derive(Default)]
struct Node {
    member: bool,
    children: BTreeMap<String, Node>,
}

/// The FieldsV1 form of a set.
pub fn to_fields_v1(set: &FieldSet) -> Value {
    let mut root = Node::default();
    for path in set {
        let mut node = &mut root;
        for element in path {
            node = node.children.entry(element.clone()).or_default();
        }
        node.member = true;
    }
    node_json(&root)
}

fn node_json(node: &Node) -> Value {
    let mut map = Map::new();
    if node.member && !node.children.is_empty() {
        map.insert(".".to_owned(), Value::Object(Map::new()));
    }
    for (element, child) in &node.children {
        map.insert(element.clone(), node_json(child));
    }
    Value::Object(map)
}

/// The set a FieldsV1 form describes.
pub fn from_fields_v1(tree: &Value) -> FieldSet {
    let mut set = FieldSet::new();
    collect(tree, &mut Vec::new(), &mut set);
    set.remove(&Vec::new());
    set
}

fn collect(tree: &Value, path: &mut Path, set: &mut FieldSet) {
    let Some(map) = tree.as_object().filter(|m| !m.is_empty()) else {
        set.insert(path.clone());
        return;
    };
    for (element, child) in map {
        if element == "." {
            set.insert(path.clone());
            continue;
        }
        path.push(element.clone());
        collect(child, path, set);
        path.pop();
    }
}

/// The value at a path.
pub fn value_at<'v>(object: &'v Value, path: &[String]) -> Option<&'v Value> {
    let mut value = object;
    for element in path {
        value = match element.split_at_checked(2)? {
            ("f:", name) => value.get(name)?,
            ("k:", key) => {
                let key: Map<String, Value> = serde_json::from_str(key).ok()?;
                value.as_array()?.iter().find(|item| is_item(item, &key))?
            }
            ("v:", text) => {
                let wanted: Value = serde_json::from_str(text).ok()?;
                value.as_array()?.iter().find(|item| **item == wanted)?
            }
            _ => return None,
        };
    }
    Some(value)
}

pub(crate) fn is_item(item: &Value, key: &Map<String, Value>) -> bool {
    key.iter().all(|(name, wanted)| item.get(name).is_none_or(|own| own == wanted))
        && key.keys().any(|name| item.get(name).is_some())
}

/// Removes what is at a path.
pub(crate) fn remove_at(object: &mut Value, path: &[String]) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut value = object;
    for element in parents {
        let next = match element.split_at_checked(2) {
            Some(("f:", name)) => value.get_mut(name),
            Some(("k:", key)) => {
                let Ok(key) = serde_json::from_str::<Map<String, Value>>(key) else { return };
                value.as_array_mut().and_then(|l| l.iter_mut().find(|item| is_item(item, &key)))
            }
            _ => None,
        };
        let Some(next) = next else { return };
        value = next;
    }
    match (last.split_at_checked(2), value) {
        (Some(("f:", name)), Value::Object(map)) => {
            map.remove(name);
        }
        (Some(("k:", key)), Value::Array(list)) => {
            if let Ok(key) = serde_json::from_str::<Map<String, Value>>(key) {
                list.retain(|item| !is_item(item, &key));
            }
        }
        (Some(("v:", text)), Value::Array(list)) => {
            if let Ok(wanted) = serde_json::from_str::<Value>(text) {
                list.retain(|item| *item != wanted);
            }
        }
        _ => {}
    }
}

/// A path as messages show it: `.spec.containers[name="c"].image`.
pub fn shown(path: &[String]) -> String {
    let mut text = String::new();
    for element in path {
        match element.split_at_checked(2) {
            Some(("f:", name)) => text.push_str(&format!(".{name}")),
            Some(("k:", key)) => {
                let key: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
                let pairs: Vec<String> = key.iter().map(|(k, v)| format!("{k}={v}")).collect();
                text.push_str(&format!("[{}]", pairs.join(",")));
            }
            Some((_, value)) => text.push_str(&format!("[={value}]")),
            None => {}
        }
    }
    text
}
