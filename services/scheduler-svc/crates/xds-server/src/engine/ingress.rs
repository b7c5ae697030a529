//! Ingresses to routes.
//!
//! Rules of all Ingresses for one host become one virtual host. Within it exact paths come first, then longer prefixes
//! before shorter ones, then the default backend (networking.k8s.io/v1: path precedence). When two Ingresses claim the
//! same host and path, the older one wins.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_proto::envoy::envoy::config::core::v3 as core;
use flotilla_proto::envoy::envoy::config::route::v3 as route;
use flotilla_proto::envoy::envoy::r#type::matcher::v3 as matcher;
use route::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route_match::PathSpecifier,
};

use super::kube::{Backend, HttpPath, Ingress, ServicePort};
use super::world::World;
use crate::Config;

/// Name of the route configuration.
pub(super) const ROUTES: &str = "ingress";

/// A Service port that a path leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResolvedBackend {
    /// Namespace of Ingress and Service.
    pub namespace: String,
    /// Name of the Service.
    pub service: String,
    /// Number of its port.
    pub port: u16,
    /// Name of its port, as EndpointSlices know it.
    pub port_name: String,
    /// Speak HTTP/2.
    pub http2: bool,
}

impl ResolvedBackend {
    /// Name of its cluster.
    pub fn cluster_name(&self) -> String {
        format!("{}/{}/{}", self.namespace, self.service, self.port)
    }
}

/// How a path is compared; the order is the order of precedence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Exact(String),
    Prefix(std::cmp::Reverse<usize>, String),
    Rest,
}

type Places = BTreeMap<Place, Option<ResolvedBackend>>;

/// Whether the Ingress is ours: its class is the configured one, or it has none.
pub fn is_ours(ingress: &Ingress, config: &Config) -> bool {
    let annotation = ingress.metadata.annotations.get("kubernetes.io/ingress.class");
    let class = ingress.spec.ingress_class_name.as_ref().or(annotation);
    class.is_none_or(|class| *class == config.ingress_class)
}

/// The routes, and every backend they lead to.
pub(super) fn build(
    world: &World,
    config: &Config,
) -> (RouteConfiguration, BTreeSet<ResolvedBackend>) {
    let mut ours: Vec<&Ingress> =
        world.ingresses.values().filter(|ingress| is_ours(ingress, config)).collect();
    ours.sort_by_key(|ingress| {
        (ingress.metadata.creation_timestamp.clone(), super::kube::key(&ingress.metadata))
    });
    let mut hosts: BTreeMap<String, Places> = BTreeMap::new();
    for ingress in ours {
        add(ingress, world, &mut hosts);
    }
    let backends = hosts.values().flat_map(BTreeMap::values).flatten().cloned().collect();
    let virtual_hosts =
        hosts.into_iter().map(|(host, places)| virtual_host(host, places)).collect();
    let routes = RouteConfiguration {
        name: ROUTES.to_owned(),
        virtual_hosts,
        ignore_port_in_host_matching: true,
        validate_clusters: Some(false),
        ..RouteConfiguration::default()
    };
    (routes, backends)
}

fn add(ingress: &Ingress, world: &World, hosts: &mut BTreeMap<String, Places>) {
    let namespace = &ingress.metadata.namespace;
    let default =
        ingress.spec.default_backend.as_ref().map(|backend| resolve(namespace, backend, world));
    for rule in ingress.spec.rules.iter().flatten() {
        let host =
            if rule.host.is_empty() { "*".to_owned() } else { rule.host.to_ascii_lowercase() };
        let places = hosts.entry(host).or_default();
        for path in rule.http.iter().flat_map(|http| &http.paths) {
            places.entry(place(path)).or_insert_with(|| resolve(namespace, &path.backend, world));
        }
        if let Some(default) = &default {
            places.entry(Place::Rest).or_insert_with(|| default.clone());
        }
    }
    if let Some(default) = default {
        hosts.entry("*".to_owned()).or_default().entry(Place::Rest).or_insert(default);
    }
}

fn place(path: &HttpPath) -> Place {
    let text = if path.path.is_empty() { "/" } else { &path.path };
    if path.path_type == "Exact" {
        return Place::Exact(text.to_owned());
    }
    // A trailing slash is ignored: /foo and /foo/ are the same prefix.
    let text = text.trim_end_matches('/');
    Place::Prefix(std::cmp::Reverse(text.len()), text.to_owned())
}

/// The Service port a backend names; `None` when there is no such Service or port, or it is another resource.
fn resolve(namespace: &str, backend: &Backend, world: &World) -> Option<ResolvedBackend> {
    let named = backend.service.as_ref()?;
    let service = world.services.get(&(namespace.to_owned(), named.name.clone()))?;
    let wanted = |port: &&ServicePort| match named.port.name.as_str() {
        "" => port.port == named.port.number,
        name => port.name == name,
    };
    let port = service.spec.ports.iter().find(wanted)?;
    Some(ResolvedBackend {
        namespace: namespace.to_owned(),
        service: named.name.clone(),
        port: port.port,
        port_name: port.name.clone(),
        http2: matches!(
            port.app_protocol.as_deref(),
            Some("kubernetes.io/h2c" | "grpc" | "http2" | "h2c")
        ),
    })
}

fn virtual_host(host: String, places: Places) -> VirtualHost {
    let only = one_label(&host);
    let routes = places
        .into_iter()
        .map(|(place, backend)| self::route(place, backend, only.clone()))
        .collect();
    VirtualHost { name: host.clone(), domains: vec![host], routes, ..VirtualHost::default() }
}

/// A wildcard host stands for exactly one label; Envoy's domain wildcard for any number.
fn one_label(host: &str) -> Option<route::HeaderMatcher> {
    let suffix = host.strip_prefix("*.")?;
    let regex = format!("[^.]+\\.{}(:[0-9]+)?", suffix.replace('.', "\\."));
    let pattern = matcher::string_matcher::MatchPattern::SafeRegex(matcher::RegexMatcher {
        regex,
        ..Default::default()
    });
    Some(route::HeaderMatcher {
        name: ":authority".to_owned(),
        header_match_specifier: Some(route::header_matcher::HeaderMatchSpecifier::StringMatch(
            matcher::StringMatcher {
                match_pattern: Some(pattern),
                ..matcher::StringMatcher::default()
            },
        )),
        ..route::HeaderMatcher::default()
    })
}

fn route(
    place: Place,
    backend: Option<ResolvedBackend>,
    only: Option<route::HeaderMatcher>,
) -> Route {
    let path = match place {
        Place::Exact(path) => PathSpecifier::Path(path),
        Place::Prefix(_, prefix) if prefix.is_empty() => PathSpecifier::Prefix("/".to_owned()),
        Place::Prefix(_, prefix) => PathSpecifier::PathSeparatedPrefix(prefix),
        Place::Rest => PathSpecifier::Prefix("/".to_owned()),
    };
    let action = match backend {
        Some(backend) => route::route::Action::Route(forward(&backend)),
        None => route::route::Action::DirectResponse(route::DirectResponseAction {
            status: 503,
            body: Some(core::DataSource {
                specifier: Some(core::data_source::Specifier::InlineString(
                    "no such service\n".to_owned(),
                )),
                ..core::DataSource::default()
            }),
            ..route::DirectResponseAction::default()
        }),
    };
    let rule = RouteMatch {
        path_specifier: Some(path),
        headers: only.into_iter().collect(),
        ..RouteMatch::default()
    };
    Route { r#match: Some(rule), action: Some(action), ..Route::default() }
}

fn forward(backend: &ResolvedBackend) -> RouteAction {
    RouteAction {
        cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(
            backend.cluster_name(),
        )),
        // Streams may take as long as they take; the connection manager ends idle ones.
        timeout: Some(prost_types::Duration { seconds: 0, nanos: 0 }),
        retry_policy: Some(route::RetryPolicy {
            retry_on: "connect-failure,refused-stream".to_owned(),
            num_retries: Some(3),
            ..route::RetryPolicy::default()
        }),
        ..RouteAction::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::world::WorldChange;
    use flotilla_kube_client::Change;
    use serde_json::{Value, json};

    fn world(ingresses: Vec<Value>) -> World {
        let mut world = World::default();
        let service = json!({"metadata": {"namespace": "d", "name": "web"}, "spec": {"ports": [{"name": "http", "port": 80}]}});
        world.apply(WorldChange::Service(Change::Replaced(vec![
            serde_json::from_value(service).unwrap(),
        ])));
        let ingresses = ingresses.into_iter().map(|i| serde_json::from_value(i).unwrap()).collect();
        world.apply(WorldChange::Ingress(Change::Replaced(ingresses)));
        world
    }

    fn path(path: &str, kind: &str, port: Value) -> Value {
        json!({"path": path, "pathType": kind, "backend": {"service": {"name": "web", "port": port}}})
    }

    fn order(routes: &RouteConfiguration, host: &str) -> Vec<String> {
        let host = routes.virtual_hosts.iter().find(|h| h.name == host).unwrap();
        let specifier =
            |r: &Route| match r.r#match.as_ref().unwrap().path_specifier.as_ref().unwrap() {
                PathSpecifier::Path(p) => format!("={p}"),
                PathSpecifier::Prefix(p) => format!("{p}*"),
                PathSpecifier::PathSeparatedPrefix(p) => format!("{p}/*"),
                other => format!("{other:?}"),
            };
        host.routes.iter().map(specifier).collect()
    }

    #[test]
    fn paths_are_ordered_by_precedence() {
        let world = world(vec![json!({
            "metadata": {"namespace": "d", "name": "i"},
            "spec": {
                "defaultBackend": {"service": {"name": "web", "port": {"name": "http"}}},
                "rules": [{"host": "A.example.com", "http": {"paths": [
                    path("/", "Prefix", json!({"number": 80})),
                    path("/a/", "Prefix", json!({"number": 80})),
                    path("/a/bcd", "ImplementationSpecific", json!({"number": 80})),
                    path("/a", "Exact", json!({"number": 80})),
                ]}}]
            }
        })]);
        let (routes, backends) = build(&world, &Config::default());
        assert_eq!(order(&routes, "a.example.com"), ["=/a", "/a/bcd/*", "/a/*", "/*", "/*"]);
        assert_eq!(order(&routes, "*"), ["/*"]);
        assert_eq!(backends.len(), 1);
    }

    #[test]
    fn other_classes_are_left_alone_and_missing_services_answer_503() {
        let rule = |name: &str| {
            json!([{"host": format!("{name}.com"), "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "nope", "port": {"number": 1}}}}]}}])
        };
        let world = world(vec![
            json!({"metadata": {"namespace": "d", "name": "x"}, "spec": {"ingressClassName": "nginx", "rules": rule("x")}}),
            json!({"metadata": {"namespace": "d", "name": "y"}, "spec": {"ingressClassName": "flotilla", "rules": rule("y")}}),
        ]);
        let (routes, backends) = build(&world, &Config::default());
        assert_eq!(routes.virtual_hosts.len(), 1);
        assert!(matches!(
            routes.virtual_hosts[0].routes[0].action,
            Some(route::route::Action::DirectResponse(_))
        ));
        assert!(backends.is_empty());
    }

    #[test]
    fn wildcard_host_is_one_label() {
        assert_eq!(one_label("a.com"), None);
        let Some(route::header_matcher::HeaderMatchSpecifier::StringMatch(m)) =
            one_label("*.a.com").unwrap().header_match_specifier
        else {
            panic!("no string match")
        };
        let Some(matcher::string_matcher::MatchPattern::SafeRegex(regex)) = m.match_pattern else {
            panic!("no regex")
        };
        assert_eq!(regex.regex, "[^.]+\\.a\\.com(:[0-9]+)?");
    }
}
