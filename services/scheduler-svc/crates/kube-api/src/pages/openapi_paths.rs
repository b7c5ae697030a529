//! The paths of OpenAPI documents.

use kube_spec::Resource;
use serde_json::{Map, Value, json};

use super::openapi::component;

/// Adds the paths of a resource.
pub(super) fn paths_of(resource: &Resource, paths: &mut Map<String, Value>) {
    let root = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    let base = if resource.namespaced {
        format!("{root}/namespaces/{{namespace}}/{}", resource.plural)
    } else {
        format!("{root}/{}", resource.plural)
    };
    if resource.storage.is_empty() {
        paths.insert(base, json!({"post": operation(resource, "post", true)}));
        return;
    }
    if resource.namespaced {
        let all = format!("{root}/{}", resource.plural);
        paths.insert(all, json!({"get": operation(resource, "list", false)}));
    }
    paths.insert(
        base.clone(),
        json!({
            "get": operation(resource, "list", false),
            "post": operation(resource, "post", true),
            "delete": operation(resource, "deletecollection", false),
        }),
    );
    let one = json!({
        "get": operation(resource, "get", false),
        "put": operation(resource, "put", true),
        "patch": operation(resource, "patch", true),
        "delete": operation(resource, "delete", false),
    });
    paths.insert(format!("{base}/{{name}}"), one);
    if resource.has_status() {
        let status = json!({
            "get": operation(resource, "get", false),
            "put": operation(resource, "put", true),
            "patch": operation(resource, "patch", true),
        });
        paths.insert(format!("{base}/{{name}}/status"), status);
    }
}

fn operation(resource: &Resource, action: &str, writes: bool) -> Value {
    let mut parameters = vec![query("pretty")];
    if writes {
        parameters.extend(["dryRun", "fieldManager", "fieldValidation"].map(query));
    }
    if action == "patch" {
        parameters.push(json!({"name": "force", "in": "query", "schema": {"type": "boolean", "uniqueItems": true}}));
    }
    if action == "list" {
        let names = [
            "allowWatchBookmarks",
            "continue",
            "fieldSelector",
            "labelSelector",
            "limit",
            "resourceVersion",
            "watch",
        ];
        parameters.extend(names.map(query));
    }
    let name = component(&format!("{}.{}", resource.package, resource.kind));
    let schema = json!({"$ref": format!("#/components/schemas/{name}")});
    let mut operation = json!({
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind":
            {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "parameters": parameters,
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}},
    });
    if writes {
        let media = if action == "patch" {
            "application/strategic-merge-patch+json"
        } else {
            "application/json"
        };
        operation["requestBody"] = json!({"content": {media: {"schema": schema}}});
    }
    operation
}

fn query(name: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}})
}
