//! Other faces of stored objects: events of events.k8s.io, and metadata alone.

use std::borrow::Cow;

use kube_spec::Resource;
use serde_json::{Map, Value, json};

const EVENT_FIELDS: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Whether clients of this resource see another form than the stored one.
pub fn differs(resource: &Resource) -> bool {
    resource.group == "events.k8s.io"
}

/// The resource whose kind objects of `resource` have in the store.
pub fn stored_as(resource: &'static Resource) -> &'static Resource {
    if !differs(resource) {
        return resource;
    }
    kube_spec::find("", "v1", "events").unwrap_or(resource)
}

/// The stored form as clients of `resource` see it.
pub fn to_client<'v>(resource: &Resource, object: &'v Value) -> Cow<'v, Value> {
    if !differs(resource) {
        return Cow::Borrowed(object);
    }
    Cow::Owned(renamed(object, "events.k8s.io/v1", |key| {
        EVENT_FIELDS.iter().find(|(_, core)| *core == key).map(|(name, _)| *name)
    }))
}

/// What a client of `resource` sent, in the stored form.
pub fn to_stored(resource: &Resource, object: Value) -> Value {
    if !differs(resource) {
        return object;
    }
    renamed(&object, "v1", |key| {
        EVENT_FIELDS.iter().find(|(name, _)| *name == key).map(|(_, core)| *core)
    })
}

fn renamed(
    object: &Value,
    api_version: &str,
    name: impl Fn(&str) -> Option<&'static str>,
) -> Value {
    let mut output = Map::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        output.insert(name(key).unwrap_or(key).to_owned(), value.clone());
    }
    output.insert("apiVersion".to_owned(), api_version.into());
    Value::Object(output)
}

/// `PartialObjectMetadata` of an object.
pub fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}
