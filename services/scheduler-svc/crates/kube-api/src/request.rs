//! What a request asks for: paths and query texts of the Kubernetes API.

use std::collections::HashMap;

use http::Method;
use kube_spec::{Resource, Subresource, find, resources};
use percent_encoding::percent_decode_str;

/// The verb of a request, as authorization and metrics name it.
pub type Verb = &'static str;

/// A resource request, taken apart.
#[derive(Debug, Clone)]
pub struct Target {
    /// What.
    pub resource: &'static Resource,
    /// Empty for cluster scope and for all namespaces.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
    /// Part of the object.
    pub subresource: Option<&'static Subresource>,
    /// Path behind the subresource (`proxy/...`).
    pub rest: String,
}

impl Target {
    /// Name of the subresource, or empty.
    pub fn sub(&self) -> &'static str {
        self.subresource.map_or("", |s| s.name)
    }
}

/// Query of a request, decoded.
#[derive(Debug, Clone, Default)]
pub struct Query(HashMap<String, Vec<String>>);

impl Query {
    /// Reads `a=b&c=d`.
    pub fn parse(text: &str) -> Self {
        let mut map: HashMap<String, Vec<String>> = HashMap::new();
        for pair in text.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            map.entry(decode(key)).or_default().push(decode(value));
        }
        Self(map)
    }

    /// First value of `key`, or empty.
    pub fn get(&self, key: &str) -> &str {
        self.0.get(key).and_then(|v| v.first()).map(String::as_str).unwrap_or_default()
    }

    /// All values of `key`.
    pub fn all(&self, key: &str) -> &[String] {
        self.0.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether `key` is there at all.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Go's boolean.
    pub fn flag(&self, key: &str) -> bool {
        matches!(self.get(key), "1" | "true" | "True" | "TRUE" | "t" | "T")
    }
}

fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

/// What a path is.
#[derive(Debug, Clone)]
pub enum Route {
    /// A resource.
    Resource(Box<Target>),
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`
    GroupVersion(String, String),
    /// A page that is no resource.
    Page,
    /// A path of the API that does not exist.
    Unknown,
}

/// Takes a path apart. Segments are decoded one by one, so `%2F` never becomes a separator.
pub fn route(path: &str) -> Route {
    let segments: Vec<String> = path
        .trim_matches('/')
        .split('/')
        .map(|s| percent_decode_str(s).decode_utf8_lossy().into_owned())
        .collect();
    if segments.iter().any(|s| s == ".." || s == "." || s.contains('/')) || path.contains("//") {
        return Route::Unknown;
    }
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["api"] => Route::CoreVersions,
        ["apis"] => Route::Groups,
        ["apis", group] => Route::Group((*group).to_owned()),
        ["api", version] => Route::GroupVersion(String::new(), (*version).to_owned()),
        ["apis", group, version] => Route::GroupVersion((*group).to_owned(), (*version).to_owned()),
        ["api", version, rest @ ..] => resource("", version, rest),
        ["apis", group, version, rest @ ..] => resource(group, version, rest),
        _ => Route::Page,
    }
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Route {
    let target = |resource, namespace: &str, tail: &[&str]| {
        let name = tail.first().copied().unwrap_or_default();
        let sub = tail.get(1).copied().unwrap_or_default();
        let mut target = Target {
            resource,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: None,
            rest: tail.get(2..).unwrap_or_default().join("/"),
        };
        if !sub.is_empty() {
            target.subresource = resource.subresource(sub);
            if target.subresource.is_none() || (tail.len() > 2 && sub != "proxy") {
                return Route::Unknown;
            }
        }
        if !tail.is_empty() && name.is_empty() {
            return Route::Unknown;
        }
        Route::Resource(Box::new(target))
    };
    match rest {
        ["namespaces", name, sub @ ("status" | "finalize")] => {
            match find(group, version, "namespaces") {
                Some(resource) => target(resource, name, &[name, sub]),
                None => Route::Unknown,
            }
        }
        ["namespaces", namespace, plural, tail @ ..] if !plural.is_empty() => {
            match find(group, version, plural) {
                Some(resource) if resource.namespaced && !namespace.is_empty() => {
                    target(resource, namespace, tail)
                }
                _ => Route::Unknown,
            }
        }
        [plural, tail @ ..] => match find(group, version, plural) {
            // Objects of namespaced kinds are only reached through their namespace.
            Some(resource) if resource.namespaced && !tail.is_empty() => Route::Unknown,
            Some(resource) if resource.plural == "namespaces" => {
                target(resource, tail.first().copied().unwrap_or_default(), tail)
            }
            Some(resource) => target(resource, "", tail),
            None => Route::Unknown,
        },
        [] => Route::Unknown,
    }
}

/// The verb of a request to a resource.
pub fn verb(method: &Method, target: &Target, query: &Query) -> Option<Verb> {
    let one = !target.name.is_empty();
    let watch = query.flag("watch");
    Some(match (method.as_str(), one) {
        ("GET" | "HEAD", true) => "get",
        ("GET" | "HEAD", false) if watch => "watch",
        ("GET" | "HEAD", false) => "list",
        ("POST", _) => "create",
        ("PUT", true) => "update",
        ("PATCH", true) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => return None,
    })
}

/// Whether a group has any resource here.
pub fn group_exists(group: &str) -> bool {
    resources().iter().any(|r| r.group == group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Option<(String, String, String, String)> {
        match route(path) {
            Route::Resource(t) => Some((
                t.resource.plural.to_owned(),
                t.namespace.clone(),
                t.name.clone(),
                t.sub().to_owned(),
            )),
            _ => None,
        }
    }

    #[test]
    fn paths_are_taken_apart() {
        let s = |a: &str, b: &str, c: &str, d: &str| Some((a.into(), b.into(), c.into(), d.into()));
        assert_eq!(target("/api/v1/pods"), s("pods", "", "", ""));
        assert_eq!(target("/api/v1/namespaces/d/pods/a/log"), s("pods", "d", "a", "log"));
        assert_eq!(target("/api/v1/namespaces/d"), s("namespaces", "d", "d", ""));
        assert_eq!(target("/api/v1/namespaces/d/finalize"), s("namespaces", "d", "d", "finalize"));
        assert_eq!(
            target("/apis/apps/v1/namespaces/d/deployments/x/scale"),
            s("deployments", "d", "x", "scale")
        );
        assert_eq!(target("/api/v1/nodes/n"), s("nodes", "", "n", ""));
    }

    #[test]
    fn crooked_paths_lead_nowhere() {
        for path in [
            "/api/v1/namespaces/d/pods/..%2f..%2fx",
            "/api/v1/namespaces/../pods",
            "/api/v1//pods",
            "/api/v1/pods/x",
            "/api/v1/namespaces/d/nodes",
            "/api/v1/namespaces/d/pods/a/nonsense",
            "/apis/apps/v1/nonsense",
            "/api/v1/namespaces/d/pods/a/log/x",
        ] {
            assert!(matches!(route(path), Route::Unknown), "{path}");
        }
    }
}
