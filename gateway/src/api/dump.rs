//! `/config_dump` and `/clusters`.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::bootstrap::{pb, to_json};
use crate::engine::balance::Candidate;
use crate::manager::Manager;

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";
const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
const LISTENER: &str = "envoy.config.listener.v3.Listener";
const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";

fn dump_type(name: &str) -> String {
    format!("type.googleapis.com/envoy.admin.v3.{name}")
}

fn typed(name: &str, mut value: Value) -> Value {
    if let Value::Object(map) = &mut value {
        map.insert("@type".to_owned(), json!(format!("type.googleapis.com/{name}")));
    }
    value
}

/// The configuration in force, shaped like `envoy.admin.v3.ConfigDump`.
pub async fn config_dump(manager: &Manager, bootstrap: &pb::bootstrap::Bootstrap) -> Value {
    let clusters = |api: bool| -> Vec<Value> {
        let list = manager.clusters.configs().into_iter().filter(|(_, via_api)| *via_api == api);
        list.map(|(config, _)| json!({ "cluster": typed(CLUSTER, to_json(CLUSTER, &config)) }))
            .collect()
    };
    let (mut fixed, mut dynamic) = (Vec::new(), Vec::new());
    for (name, _, config, via_api) in manager.listeners.list().await {
        let listener = typed(LISTENER, to_json(LISTENER, &config));
        if via_api {
            dynamic.push(json!({ "name": name, "active_state": { "listener": listener } }));
        } else {
            fixed.push(json!({ "listener": listener }));
        }
    }
    let routes: Vec<Value> = manager
        .routes
        .lock()
        .values()
        .map(|config| json!({ "route_config": typed(ROUTES, to_json(ROUTES, config)) }))
        .collect();
    json!({ "configs": [
        { "@type": dump_type("BootstrapConfigDump"), "bootstrap": to_json(BOOTSTRAP, bootstrap) },
        { "@type": dump_type("ClustersConfigDump"), "static_clusters": clusters(false), "dynamic_active_clusters": clusters(true) },
        { "@type": dump_type("ListenersConfigDump"), "static_listeners": fixed, "dynamic_listeners": dynamic },
        { "@type": dump_type("RoutesConfigDump"), "dynamic_route_configs": routes },
    ] })
}

/// The text form of `/clusters`.
pub fn clusters(manager: &Manager) -> String {
    let all = manager.state.clusters.all();
    let mut names: Vec<&String> = all.keys().collect();
    names.sort();
    let via_api = manager.clusters.api_names();
    let mut out = String::new();
    for name in names {
        let cluster = &all[name];
        let config = &cluster.config;
        let mut line = |text: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{name}::{text}");
        };
        line(format!("observability_name::{name}"));
        for (limit, value) in [
            ("max_connections", config.max_connections),
            ("max_pending_requests", config.max_pending),
            ("max_requests", config.max_requests),
            ("max_retries", config.max_retries),
        ] {
            line(format!("default_priority::{limit}::{value}"));
        }
        line(format!("added_via_api::{}", via_api.contains(name)));
        for host in &cluster.hosts().all {
            let stats = &host.stats;
            for (key, value) in [
                ("cx_active", stats.cx_active.get().to_string()),
                ("cx_connect_fail", stats.cx_connect_fail.get().to_string()),
                ("cx_total", stats.cx_total.get().to_string()),
                ("rq_active", host.active().to_string()),
                ("rq_error", stats.rq_error.get().to_string()),
                ("rq_success", stats.rq_success.get().to_string()),
                ("rq_timeout", stats.rq_timeout.get().to_string()),
                ("rq_total", stats.rq_total.get().to_string()),
                ("hostname", host.hostname.clone()),
                ("health_flags", host.health_flags()),
                ("weight", host.weight().to_string()),
                ("priority", host.priority().to_string()),
            ] {
                line(format!("{}::{key}::{value}", host.name));
            }
        }
    }
    out
}
