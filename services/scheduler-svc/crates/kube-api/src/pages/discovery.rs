//! Discovery: which groups, versions and resources there are, in the legacy and the aggregated form.

use axum::body::Body;
use http::header::ACCEPT;
use http::{HeaderMap, Response};
use kube_spec::{Resource, Subresource, resources};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::output::{Output, respond};
use crate::request::Route;

/// Groups and versions in the order of preference.
pub(super) fn group_versions() -> Vec<(&'static str, &'static str)> {
    let mut list = Vec::new();
    for resource in resources() {
        if !list.contains(&(resource.group, resource.version)) {
            list.push((resource.group, resource.version));
        }
    }
    list
}

/// The root page.
pub fn paths() -> Value {
    let mut paths =
        vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned(), "/apis/".to_owned()];
    for (group, version) in group_versions().into_iter().filter(|(g, _)| !g.is_empty()) {
        paths.extend([format!("/apis/{group}"), format!("/apis/{group}/{version}")]);
    }
    for page in
        ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
    {
        paths.push(page.to_owned());
    }
    json!({"paths": paths})
}

/// Answers a discovery request.
///
/// # Errors
/// 404 for groups and versions there are not.
pub fn discovery(
    route: &Route,
    headers: &HeaderMap,
    output: Output,
) -> Result<Response<Body>, ApiError> {
    if matches!(route, Route::CoreVersions | Route::Groups)
        && let Some(content_type) = aggregated(headers)
    {
        let core = matches!(route, Route::CoreVersions);
        return Ok(respond(200, content_type, aggregate(core).to_string()));
    }
    let output = Output {
        shape: crate::output::Shape::Object,
        encoding: crate::output::Encoding::Json,
        ..output
    };
    match route {
        Route::CoreVersions => Ok(output.respond(
            200,
            &json!({"kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}]}),
        )),
        Route::Groups => {
            let mut names: Vec<&str> =
                group_versions().into_iter().map(|(g, _)| g).filter(|g| !g.is_empty()).collect();
            names.dedup();
            let groups: Vec<Value> = names.into_iter().map(group).collect();
            Ok(output.respond(
                200,
                &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}),
            ))
        }
        Route::Group(name) if crate::request::group_exists(name) && !name.is_empty() => {
            let mut one = group(name);
            one["kind"] = "APIGroup".into();
            one["apiVersion"] = "v1".into();
            Ok(output.respond(200, &one))
        }
        Route::GroupVersion(name, version)
            if group_versions().iter().any(|(g, v)| g == name && v == version) =>
        {
            Ok(output.respond(200, &resource_list(name, version)))
        }
        _ => Err(ApiError::no_such_path()),
    }
}

fn aggregated(headers: &HeaderMap) -> Option<&'static str> {
    let accept = headers.get(ACCEPT)?.to_str().ok()?;
    let wanted = accept.split(',').find(|a| a.contains("as=APIGroupDiscoveryList"))?;
    if wanted.contains("v=v2beta1") {
        return Some("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList");
    }
    Some("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
}

fn group(name: &str) -> Value {
    let versions: Vec<Value> = group_versions()
        .into_iter()
        .filter(|(g, _)| *g == name)
        .map(|(g, v)| json!({"groupVersion": format!("{g}/{v}"), "version": v}))
        .collect();
    json!({"name": name, "preferredVersion": versions.first(), "versions": versions})
}

fn of(group: &str, version: &str) -> impl Iterator<Item = &'static Resource> {
    resources().iter().filter(move |r| r.group == group && r.version == version)
}

fn resource_list(group: &str, version: &str) -> Value {
    let mut list = Vec::new();
    for resource in of(group, version) {
        let mut one = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": resource.verbs,
        });
        if !resource.short.is_empty() {
            one["shortNames"] = resource.short.into();
        }
        if !resource.categories.is_empty() {
            one["categories"] = resource.categories.into();
        }
        list.push(one);
        for sub in resource.subresources {
            let mut one = json!({
                "name": format!("{}/{}", resource.plural, sub.name), "singularName": "",
                "namespaced": resource.namespaced, "kind": sub.kind, "verbs": sub.verbs,
            });
            if !sub.version.is_empty() {
                one["group"] = sub.group.into();
                one["version"] = sub.version.into();
            }
            list.push(one);
        }
    }
    let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": list})
}

fn aggregate(core: bool) -> Value {
    let mut items: Vec<Value> = Vec::new();
    for (group, version) in group_versions().into_iter().filter(|(g, _)| g.is_empty() == core) {
        let list: Vec<Value> = of(group, version).map(discovered).collect();
        let version = json!({"version": version, "resources": list, "freshness": "Current"});
        match items.iter_mut().find(|i| i["metadata"]["name"] == group) {
            Some(item) => {
                if let Some(versions) = item["versions"].as_array_mut() {
                    versions.push(version);
                }
            }
            None => {
                let mut metadata = json!({"creationTimestamp": null});
                if !group.is_empty() {
                    metadata["name"] = group.into();
                }
                items.push(json!({"metadata": metadata, "versions": [version]}));
            }
        }
    }
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn discovered(resource: &'static Resource) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut one = json!({
        "resource": resource.plural,
        "responseKind": kind(resource.group, resource.version, resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": resource.verbs,
    });
    if !resource.short.is_empty() {
        one["shortNames"] = resource.short.into();
    }
    if !resource.categories.is_empty() {
        one["categories"] = resource.categories.into();
    }
    if !resource.subresources.is_empty() {
        let subs: Vec<Value> = resource.subresources.iter().map(|s: &Subresource| {
            let (group, version) = if s.version.is_empty() { (resource.group, resource.version) } else { (s.group, s.version) };
            json!({"subresource": s.name, "responseKind": kind(group, version, s.kind), "verbs": s.verbs})
        }).collect();
        one["subresources"] = subs.into();
    }
    one
}
