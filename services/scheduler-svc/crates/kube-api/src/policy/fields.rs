//! Bookkeeping of `managedFields`.
//!
//! Books are kept for objects that somebody applies: until the first server-side apply an object has none, and the
//! first one records everything that is there already as `before-first-apply`.

use kube_codec::{now, seconds_time};
use kube_merge::{Manager, fields_of, from_fields_v1, record_update, to_fields_v1};
use kube_spec::Resource;
use serde_json::{Value, json};

use super::Phase;
use crate::object::{self, list, text};

/// Fields of a new object have no recorded managers.
pub fn track_create(created: &mut Value, _manager: &str) {
    object::remove_meta(created, "managedFields");
}

/// An update takes the fields it changes over, when books are kept.
pub fn track_update(
    resource: &'static Resource,
    current: &Value,
    next: &mut Value,
    manager: &str,
    phase: Phase,
) {
    let mut managers = managers_of(current);
    if managers.is_empty() {
        object::remove_meta(next, "managedFields");
        return;
    }
    let subresource = if phase == Phase::Status { "status" } else { "" };
    let mine = position(&mut managers, manager, false, subresource, &resource.api_version());
    // Only what this kind of write can change counts.
    let mut seen = next.clone();
    match phase {
        Phase::Status => object::copy(&mut seen, current, "spec"),
        _ if resource.has_status() => object::copy(&mut seen, current, "status"),
        _ => {}
    }
    let before = managers[mine].fields.clone();
    record_update(resource.type_id().get(), current, &seen, &mut managers, mine);
    if managers[mine].fields != before {
        managers[mine].time = seconds_time(now()).unwrap_or_default();
    }
    write(next, &managers);
}

/// The managers an object records.
pub(crate) fn managers_of(object: &Value) -> Vec<Manager> {
    list(object, "/metadata/managedFields")
        .iter()
        .map(|entry| Manager {
            name: text(entry, "/manager").to_owned(),
            applies: text(entry, "/operation") == "Apply",
            subresource: text(entry, "/subresource").to_owned(),
            api_version: text(entry, "/apiVersion").to_owned(),
            time: text(entry, "/time").to_owned(),
            fields: from_fields_v1(&entry["fieldsV1"]),
        })
        .collect()
}

/// Writes the managers that own something into an object.
pub(crate) fn write(object: &mut Value, managers: &[Manager]) {
    let entries: Vec<Value> = managers
        .iter()
        .filter(|m| !m.fields.is_empty())
        .map(|m| {
            let mut entry = json!({
                "manager": m.name, "operation": if m.applies { "Apply" } else { "Update" },
                "apiVersion": m.api_version, "time": m.time, "fieldsType": "FieldsV1",
                "fieldsV1": to_fields_v1(&m.fields),
            });
            if !m.subresource.is_empty() {
                entry["subresource"] = m.subresource.as_str().into();
            }
            entry
        })
        .collect();
    object::meta_mut(object).insert("managedFields".to_owned(), Value::Array(entries));
}

/// Place of a manager in the list; made when it is new.
pub(crate) fn position(
    managers: &mut Vec<Manager>,
    name: &str,
    applies: bool,
    subresource: &str,
    api_version: &str,
) -> usize {
    let found = managers
        .iter()
        .position(|m| m.name == name && m.applies == applies && m.subresource == subresource);
    found.unwrap_or_else(|| {
        managers.push(Manager {
            name: name.to_owned(),
            applies,
            subresource: subresource.to_owned(),
            api_version: api_version.to_owned(),
            time: seconds_time(now()).unwrap_or_default(),
            fields: std::collections::BTreeSet::new(),
        });
        managers.len() - 1
    })
}

/// The manager of everything that was there before the first apply.
pub(crate) fn before_first_apply(resource: &'static Resource, live: &Value) -> Manager {
    let mut object = live.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    Manager {
        name: "before-first-apply".to_owned(),
        applies: false,
        subresource: String::new(),
        api_version: resource.api_version(),
        time: seconds_time(now()).unwrap_or_default(),
        fields: fields_of(resource.type_id().get(), &object),
    }
}
