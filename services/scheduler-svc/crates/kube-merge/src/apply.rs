//! Server-side apply: what a manager says it wants is merged into the live object.

use kube_spec::{Field, ListType, Struct, Type};
use serde_json::{Map, Value};

use crate::fields::{FieldSet, Path, fields_of, item_key, remove_at, value_at};

/// Somebody who owns fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Manager {
    /// Name.
    pub name: String,
    /// Whether the fields came by apply.
    pub applies: bool,
    /// Subresource the fields were written through.
    pub subresource: String,
    /// Group and version the fields were written in.
    pub api_version: String,
    /// RFC 3339.
    pub time: String,
    /// The fields.
    pub fields: FieldSet,
}

/// A field that somebody else owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Who owns it.
    pub manager: String,
    /// In which version.
    pub api_version: String,
    /// Which field.
    pub path: Path,
}

/// Merges `applied` into `live` on behalf of `managers[mine]`, whose fields become those of `applied`; others lose
/// what is taken from them by force.
///
/// # Errors
/// The conflicts, when there are some and `force` is false.
pub fn apply(
    spec: &'static Struct,
    live: &Value,
    applied: &Value,
    managers: &mut [Manager],
    mine: usize,
    force: bool,
) -> Result<Value, Vec<Conflict>> {
    let wanted = fields_of(spec, applied);
    let conflicts = conflicts(live, applied, &wanted, managers, mine);
    if !conflicts.is_empty() && !force {
        return Err(conflicts);
    }
    for conflict in conflicts {
        for manager in managers.iter_mut().filter(|m| m.name == conflict.manager) {
            manager.fields.remove(&conflict.path);
        }
    }
    let before = std::mem::replace(&mut managers[mine].fields, wanted.clone());
    let mut merged = live.as_object().cloned().unwrap_or_default();
    merge_struct(spec, &mut merged, applied.as_object().unwrap_or(&Map::new()));
    let mut merged = Value::Object(merged);
    let kept = |path: &Path| {
        wanted.iter().chain(others(managers, mine)).any(|other| other.starts_with(path))
    };
    let mut gone: Vec<Path> =
        before.difference(&wanted).filter(|path| !kept(path)).cloned().collect();
    // Whole items go before what is in them; the keys of an item that stays are never taken out of it.
    gone.sort_by_key(Vec::len);
    for path in gone.into_iter().filter(|path| !is_key(path)) {
        remove_at(&mut merged, &path);
    }
    Ok(merged)
}

/// Whether a path is a key field of a keyed item.
fn is_key(path: &[String]) -> bool {
    let [.., item, last] = path else { return false };
    let key =
        item.strip_prefix("k:").and_then(|k| serde_json::from_str::<Map<String, Value>>(k).ok());
    key.is_some_and(|key| last.strip_prefix("f:").is_some_and(|name| key.contains_key(name)))
}

fn others(managers: &[Manager], mine: usize) -> impl Iterator<Item = &Path> {
    managers.iter().enumerate().filter(move |(i, _)| *i != mine).flat_map(|(_, m)| m.fields.iter())
}

fn conflicts(
    live: &Value,
    applied: &Value,
    wanted: &FieldSet,
    managers: &[Manager],
    mine: usize,
) -> Vec<Conflict> {
    let mut found = Vec::new();
    for (i, manager) in managers.iter().enumerate().filter(|(i, _)| *i != mine) {
        // Items of keyed lists and sets are owned together without quarrel.
        let disputed = manager
            .fields
            .intersection(wanted)
            .filter(|p| p.last().is_some_and(|e| e.starts_with("f:")));
        for path in disputed.filter(|p| value_at(live, p) != value_at(applied, p)) {
            debug_assert_ne!(i, mine);
            found.push(Conflict {
                manager: manager.name.clone(),
                api_version: manager.api_version.clone(),
                path: path.clone(),
            });
        }
    }
    found
}

fn merge_struct(
    spec: &'static Struct,
    live: &mut Map<String, Value>,
    applied: &Map<String, Value>,
) {
    for (key, value) in applied {
        let Some((_, field)) = spec.field(key) else {
            live.insert(key.clone(), value.clone());
            continue;
        };
        let before = live.remove(key).unwrap_or(Value::Null);
        live.insert(key.clone(), merge_value(field, &field.ty, before, value));
    }
}

fn merge_value(field: &'static Field, ty: &'static Type, live: Value, applied: &Value) -> Value {
    match (ty.target(), live, applied) {
        (Type::Struct(id), Value::Object(mut live), Value::Object(applied))
            if !id.get().atomic && field.list != ListType::Atomic =>
        {
            merge_struct(id.get(), &mut live, applied);
            Value::Object(live)
        }
        (Type::Map(inner), Value::Object(mut live), Value::Object(applied))
            if field.list != ListType::Atomic =>
        {
            for (key, value) in applied {
                let before = live.remove(key);
                let merged = match (inner.as_struct(), before, value) {
                    (Some(spec), Some(Value::Object(mut before)), Value::Object(value)) => {
                        merge_struct(spec, &mut before, value);
                        Value::Object(before)
                    }
                    _ => value.clone(),
                };
                live.insert(key.clone(), merged);
            }
            Value::Object(live)
        }
        (Type::List(inner), Value::Array(mut live), Value::Array(applied)) => {
            match (&field.list, inner.as_struct()) {
                (ListType::Map(keys), Some(spec)) => merge_items(spec, keys, &mut live, applied),
                (ListType::Set, _) => {
                    for item in applied {
                        if !live.contains(item) {
                            live.push(item.clone());
                        }
                    }
                }
                _ => live = applied.clone(),
            }
            Value::Array(live)
        }
        (_, _, applied) => applied.clone(),
    }
}

fn merge_items(
    spec: &'static Struct,
    keys: &[&'static str],
    live: &mut Vec<Value>,
    applied: &[Value],
) {
    for item in applied {
        let Some(changes) = item.as_object() else { continue };
        let key = item_key(spec, keys, changes);
        let found = live
            .iter_mut()
            .filter_map(Value::as_object_mut)
            .find(|own| item_key(spec, keys, own) == key);
        match found {
            Some(own) => merge_struct(spec, own, changes),
            None => live.push(item.clone()),
        }
    }
}

/// Records an update that was no apply: what changed belongs to `managers[mine]`, and to nobody else.
pub fn record_update(
    spec: &'static Struct,
    before: &Value,
    after: &Value,
    managers: &mut [Manager],
    mine: usize,
) {
    let (old, new) = (fields_of(spec, before), fields_of(spec, after));
    let changed: Vec<Path> = new
        .iter()
        .filter(|path| !old.contains(*path) || value_at(before, path) != value_at(after, path))
        .cloned()
        .collect();
    for (i, manager) in managers.iter_mut().enumerate() {
        manager.fields.retain(|path| new.contains(path));
        if i != mine {
            manager.fields.retain(|path| {
                !(changed.contains(path) && path.last().is_some_and(|e| e.starts_with("f:")))
            });
        }
    }
    managers[mine].fields.extend(changed.into_iter().filter(|path| {
        // Members of structs only: a keyed item whose content changed is not new.
        path.last().is_some_and(|e| e.starts_with("f:")) || !old.contains(path)
    }));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fields::{from_fields_v1, shown, to_fields_v1};

    fn spec() -> &'static Struct {
        kube_spec::types().find("apps/v1.Deployment").unwrap().get()
    }

    fn manager(name: &str, object: &Value) -> Manager {
        Manager {
            name: name.to_owned(),
            applies: true,
            subresource: String::new(),
            api_version: "apps/v1".to_owned(),
            time: String::new(),
            fields: fields_of(spec(), object),
        }
    }

    fn deployment(replicas: Option<i64>, containers: Value) -> Value {
        let mut object = json!({"metadata": {"name": "x", "labels": {"a": "b"}}, "spec": {"template": {"spec": {"containers": containers}}}});
        if let Some(replicas) = replicas {
            object["spec"]["replicas"] = replicas.into();
        }
        object
    }

    #[test]
    fn sets_have_the_originals_form() {
        let object = deployment(
            Some(1),
            json!([{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]),
        );
        let set = fields_of(spec(), &object);
        let tree = to_fields_v1(&set);
        let container =
            &tree["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"];
        assert_eq!(container["."], json!({}));
        assert_eq!(container["f:image"], json!({}));
        assert!(
            container["f:ports"].get("k:{\"containerPort\":80,\"protocol\":\"TCP\"}").is_some(),
            "{container}"
        );
        assert_eq!(tree["f:metadata"], json!({"f:labels": {"f:a": {}}}));
        assert_eq!(from_fields_v1(&tree), set);
    }

    #[test]
    fn what_is_no_longer_applied_goes_and_what_others_own_stays() {
        let first =
            deployment(Some(1), json!([{"name": "c", "image": "1"}, {"name": "d", "image": "2"}]));
        let mut managers =
            vec![manager("me", &first), manager("other", &json!({"spec": {"replicas": 1}}))];
        let next = deployment(None, json!([{"name": "c", "image": "3"}]));
        let merged = apply(spec(), &first, &next, &mut managers, 0, false).unwrap();
        assert_eq!(merged["spec"]["replicas"], 1);
        assert_eq!(
            merged["spec"]["template"]["spec"]["containers"],
            json!([{"name": "c", "image": "3"}])
        );
    }

    #[test]
    fn other_values_of_owned_fields_conflict_unless_forced() {
        let live = deployment(Some(1), json!([{"name": "c", "image": "1"}]));
        let mut managers = vec![manager("other", &live), manager("me", &json!({}))];
        let mine = json!({"spec": {"replicas": 5}});
        let conflicts = apply(spec(), &live, &mine, &mut managers, 1, false).unwrap_err();
        assert_eq!(conflicts.len(), 1);
        assert_eq!(shown(&conflicts[0].path), ".spec.replicas");
        let merged = apply(spec(), &live, &mine, &mut managers, 1, true).unwrap();
        assert_eq!(merged["spec"]["replicas"], 5);
        assert!(!managers[0].fields.contains(&conflicts[0].path));
    }

    #[test]
    fn updates_take_fields_over() {
        let before = deployment(Some(1), json!([{"name": "c", "image": "1"}]));
        let mut after = before.clone();
        after["spec"]["replicas"] = 4.into();
        let mut managers = vec![manager("applier", &before), manager("scaler", &json!({}))];
        record_update(spec(), &before, &after, &mut managers, 1);
        let replicas = vec!["f:spec".to_owned(), "f:replicas".to_owned()];
        assert!(managers[1].fields.contains(&replicas) && managers[1].fields.len() == 1);
        assert!(!managers[0].fields.contains(&replicas));
    }
}
