//! OpenAPI v3, generated from the tables: enough for validation, explain and apply of the original's clients.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Response};
use kube_spec::{Field, ListType, Resource, StructId, Type, resources};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::discovery::group_versions;
use super::openapi_paths::paths_of;
use crate::error::ApiError;
use crate::output::respond;

/// `/openapi/v2` is not served: clients then use v3.
///
/// # Errors
/// Always 404.
pub fn openapi_v2(_headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    Err(ApiError::no_such_path())
}

/// `/openapi/v3` and the documents of the groups.
///
/// # Errors
/// 404 for groups there are not.
pub fn openapi_v3(path: &str) -> Result<Response<Body>, ApiError> {
    let name = path.trim_start_matches("/openapi/v3").trim_matches('/');
    let versions = group_versions();
    let folder = |group: &str, version: &str| {
        if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
    };
    if name.is_empty() {
        let mut paths = Map::new();
        for (group, version) in versions {
            let folder = folder(group, version);
            let url = format!("/openapi/v3/{folder}?hash={}", crate::GIT_VERSION);
            paths.insert(folder, json!({"serverRelativeURL": url}));
        }
        return Ok(respond(200, "application/json", json!({"paths": paths}).to_string()));
    }
    let found = versions
        .into_iter()
        .find(|(g, v)| folder(g, v) == name)
        .ok_or_else(ApiError::no_such_path)?;
    Ok(respond(200, "application/json", encoded(found.0, found.1)))
}

/// A document as text; made once.
fn encoded(group: &'static str, version: &'static str) -> Bytes {
    static MADE: Mutex<BTreeMap<(&str, &str), Bytes>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock();
    made.entry((group, version))
        .or_insert_with(|| document(group, version).to_string().into())
        .clone()
}

fn document(group: &str, version: &str) -> Value {
    let mut paths = Map::new();
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    let mut schemas = Map::new();
    for resource in resources().iter().filter(|r| r.group == group && r.version == version) {
        paths_of(resource, &mut paths);
        collect(resource.type_id(), &mut wanted, &mut schemas);
        if let Some(schema) = schemas.get_mut(&component(resource.type_id().get().name)) {
            as_object(schema, resource);
        }
        if !resource.storage.is_empty() {
            let name = component(&format!("{}.{}List", resource.package, resource.kind));
            let list =
                kube_spec::types().find(&format!("{}.{}List", resource.package, resource.kind));
            if let Some(id) = list {
                collect(id, &mut wanted, &mut schemas);
                if let Some(schema) = schemas.get_mut(&name) {
                    as_list(schema, resource);
                }
            }
        }
    }
    for name in ["meta/v1.DeleteOptions", "meta/v1.Status"] {
        if let Some(id) = kube_spec::types().find(name) {
            collect(id, &mut wanted, &mut schemas);
        }
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": crate::GIT_VERSION},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

/// `io.k8s.api.core.v1.Pod`
pub(super) fn component(name: &str) -> String {
    let (package, kind) = name.rsplit_once('.').unwrap_or(("", name));
    match package {
        "meta/v1" => format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}"),
        _ => format!("io.k8s.api.{}.{kind}", package.replace('/', ".")),
    }
}

fn as_object(schema: &mut Value, resource: &Resource) {
    schema["properties"]["apiVersion"] = json!({"type": "string"});
    schema["properties"]["kind"] = json!({"type": "string"});
    schema["x-kubernetes-group-version-kind"] =
        json!([{"group": resource.group, "version": resource.version, "kind": resource.kind}]);
}

fn as_list(schema: &mut Value, resource: &Resource) {
    as_object(schema, resource);
    schema["x-kubernetes-group-version-kind"][0]["kind"] = format!("{}List", resource.kind).into();
}

fn collect(id: StructId, seen: &mut BTreeSet<String>, schemas: &mut Map<String, Value>) {
    let spec = id.get();
    let name = component(spec.name);
    if !seen.insert(name.clone()) {
        return;
    }
    let (mut properties, mut required) = (Map::new(), Vec::new());
    add_fields(&spec.fields, &mut properties, &mut required, seen, schemas);
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    if spec.atomic {
        schema["x-kubernetes-map-type"] = "atomic".into();
    }
    schemas.insert(name, schema);
}

fn add_fields(
    fields: &'static [Field],
    properties: &mut Map<String, Value>,
    required: &mut Vec<Value>,
    seen: &mut BTreeSet<String>,
    schemas: &mut Map<String, Value>,
) {
    for field in fields {
        if field.inline {
            if let Some(inner) = field.ty.as_struct() {
                add_fields(&inner.fields, properties, &mut Vec::new(), seen, schemas);
            }
            continue;
        }
        let mut schema = schema(&field.ty, seen, schemas);
        decorate(field, &mut schema);
        if field.required && !field.omitempty {
            required.push(field.name.into());
        }
        properties.insert(field.name.to_owned(), schema);
    }
}

fn decorate(field: &Field, schema: &mut Value) {
    if let Some(key) = field.merge_key {
        schema["x-kubernetes-patch-merge-key"] = key.into();
    }
    let strategies: Vec<&str> = [
        (field.patch.merge, "merge"),
        (field.patch.retain_keys, "retainKeys"),
        (field.patch.replace, "replace"),
    ]
    .iter()
    .filter(|(set, _)| *set)
    .map(|(_, name)| *name)
    .collect();
    if !strategies.is_empty() {
        schema["x-kubernetes-patch-strategy"] = strategies.join(",").into();
    }
    match &field.list {
        ListType::Default => {}
        ListType::Atomic if matches!(field.ty.target(), Type::List(_)) => {
            schema["x-kubernetes-list-type"] = "atomic".into();
        }
        ListType::Atomic => schema["x-kubernetes-map-type"] = "atomic".into(),
        ListType::Set => schema["x-kubernetes-list-type"] = "set".into(),
        ListType::Map(keys) => {
            schema["x-kubernetes-list-type"] = "map".into();
            schema["x-kubernetes-list-map-keys"] = keys.clone().into();
        }
    }
    if let Some(default) = &field.default {
        schema["default"] = default.clone();
    }
}

fn schema(
    ty: &'static Type,
    seen: &mut BTreeSet<String>,
    schemas: &mut Map<String, Value>,
) -> Value {
    match ty {
        Type::String | Type::Duration => json!({"type": "string"}),
        Type::Bool => json!({"type": "boolean"}),
        Type::Int32 => json!({"type": "integer", "format": "int32"}),
        Type::Int64 => json!({"type": "integer", "format": "int64"}),
        Type::Double => json!({"type": "number", "format": "double"}),
        Type::Bytes => json!({"type": "string", "format": "byte"}),
        Type::Time | Type::MicroTime => json!({"type": "string", "format": "date-time"}),
        Type::Quantity => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        Type::IntOrString => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        Type::Raw | Type::FieldsV1 => json!({"type": "object"}),
        Type::Struct(id) => {
            collect(*id, seen, schemas);
            let reference = format!("#/components/schemas/{}", component(id.get().name));
            json!({"allOf": [{"$ref": reference}], "default": {}})
        }
        Type::Ptr(inner) => {
            let mut schema = schema(inner, seen, schemas);
            if let Some(fields) = schema.as_object_mut().filter(|f| f.contains_key("allOf")) {
                fields.remove("default");
            }
            schema
        }
        Type::Wrap(inner) => schema(inner, seen, schemas),
        Type::List(inner) => json!({"type": "array", "items": schema(inner, seen, schemas)}),
        Type::Map(inner) => {
            json!({"type": "object", "additionalProperties": schema(inner, seen, schemas)})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        for (group, version) in group_versions() {
            let text = document(group, version).to_string();
            let tree: Value = serde_json::from_str(&text).unwrap();
            for part in text.split("\"#/components/schemas/").skip(1) {
                let name = part.split('"').next().unwrap();
                assert!(
                    tree["components"]["schemas"].get(name).is_some(),
                    "{group}/{version}: {name}"
                );
            }
        }
    }
}
