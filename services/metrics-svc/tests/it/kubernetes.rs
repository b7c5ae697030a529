//! Kubernetes discovery against an API made for the test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use flotilla_testkit::eventually;
use serde_json::{Value, json};

use crate::http::get;
use crate::server::{LONG, Server};
use crate::target::Target;

/// Answers lists from fixed objects and watches with events a test sends for one collection.
fn api(
    lists: Vec<(&'static str, Vec<Value>)>,
    watched: &'static str,
    events: Receiver<Value>,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let events = Arc::new(Mutex::new(events));
    let lists = Arc::new(lists);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (lists, events) = (lists.clone(), events.clone());
            std::thread::spawn(move || serve(stream, &lists, watched, &events));
        }
    });
    address
}

fn serve(
    mut stream: TcpStream,
    lists: &[(&'static str, Vec<Value>)],
    watched: &str,
    events: &Mutex<Receiver<Value>>,
) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split(' ').nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    if target.contains("watch=true") {
        let _ = stream.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n",
        );
        if path != watched {
            std::thread::sleep(LONG);
            return;
        }
        let events = events.lock().unwrap();
        while let Ok(event) = events.recv() {
            if stream.write_all(format!("{event}\n").as_bytes()).is_err() {
                return;
            }
        }
        return;
    }
    let items = lists.iter().find(|(p, _)| *p == path).map(|(_, items)| items.clone());
    let (status, body) = match items {
        Some(items) => (
            "200 OK",
            json!({"kind": "List", "metadata": {"resourceVersion": "1"}, "items": items}),
        ),
        None => ("404 Not Found", json!({"kind": "Status", "message": "not found", "code": 404})),
    };
    let body = body.to_string();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}

fn pod(name: &str, address: SocketAddr) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": "2",
            "labels": {"app.kubernetes.io/name": "web"}, "annotations": {"prometheus.io/scrape": "true"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web-1", "controller": true, "apiVersion": "v1", "uid": "r"}]},
        "spec": {"nodeName": "n1", "containers": [{"name": "app", "image": "i:1", "ports": [{"name": "http", "containerPort": address.port(), "protocol": "TCP"}]}]},
        "status": {"podIP": address.ip().to_string(), "hostIP": "10.0.0.1", "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn config(api: SocketAddr, role: &str) -> String {
    format!(
        "global:\n  scrape_interval: 200ms\nscrape_configs:\n- job_name: k8s\n  kubernetes_sd_configs:\n  - role: {role}\n    api_server: http://{api}\n  relabel_configs:\n  - source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape]\n    regex: 'true'\n    action: keep\n  - action: labelmap\n    regex: __meta_kubernetes_pod_label_(.+)\n  - source_labels: [__meta_kubernetes_pod_name]\n    target_label: pod\n  - source_labels: [__meta_kubernetes_pod_controller_name]\n    target_label: owner\n"
    )
}

fn discovered(server: &Server) -> Vec<Value> {
    let reply = get(server.address, "/api/v1/targets").json();
    reply["data"]["activeTargets"].as_array().cloned().unwrap_or_default()
}

#[test]
fn pods_come_and_go() {
    let (one, two) = (Target::start("m 1\n"), Target::start("m 2\n"));
    let (events, received): (Sender<Value>, _) = channel();
    let api =
        api(vec![("/api/v1/pods", vec![pod("web-a", one.address)])], "/api/v1/pods", received);
    let server = Server::start(&config(api, "pod"));
    server.wait_value("m{pod=\"web-a\",app_kubernetes_io_name=\"web\",owner=\"web-1\"}", 1.0);
    events.send(json!({"type": "ADDED", "object": pod("web-b", two.address)})).unwrap();
    server.wait_value("m{pod=\"web-b\"}", 2.0);
    events.send(json!({"type": "DELETED", "object": pod("web-b", two.address)})).unwrap();
    eventually("web-b is gone", LONG, || server.query("m{pod=\"web-b\"}").is_empty());
    assert_eq!(server.value("m{pod=\"web-a\"}"), Some(1.0));
    let labels = &discovered(&server)[0]["discoveredLabels"];
    for (name, want) in [
        ("namespace", "default"),
        ("pod_container_name", "app"),
        ("pod_container_image", "i:1"),
        ("pod_container_port_name", "http"),
        ("pod_container_init", "false"),
        ("pod_controller_kind", "ReplicaSet"),
        ("pod_ready", "true"),
        ("pod_phase", "Running"),
        ("pod_node_name", "n1"),
        ("pod_labelpresent_app_kubernetes_io_name", "true"),
    ] {
        assert_eq!(labels[format!("__meta_kubernetes_{name}")], want, "{name}");
    }
}

#[test]
fn kubeconfig_may_come_later() {
    let target = Target::start("m 1\n");
    let (_events, received) = channel();
    let api = api(vec![("/api/v1/pods", vec![pod("web-a", target.address)])], "/none", received);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.kubeconfig");
    let config = config(api, "pod")
        .replace(&format!("api_server: http://{api}"), "kubeconfig_file: admin.kubeconfig");
    let mut server = Server::start_in(dir, &config);
    server.process.wait_for_line("kubernetes discovery cannot start yet", LONG);
    let kubeconfig = format!(
        "current-context: c\nclusters: [{{name: c, cluster: {{server: 'http://{api}'}}}}]\ncontexts: [{{name: c, context: {{cluster: c}}}}]\n"
    );
    std::fs::write(path, kubeconfig).unwrap();
    server.wait_value("m{pod=\"web-a\"}", 1.0);
}

#[test]
fn endpoints_and_slices_carry_service_and_pod_labels() {
    let target = Target::start("m 1\n");
    let service = json!({"metadata": {"name": "web", "namespace": "default", "labels": {"team": "x"}}, "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}});
    let reference = json!({"kind": "Pod", "name": "web-a", "namespace": "default"});
    let endpoints = json!({"metadata": {"name": "web", "namespace": "default"}, "subsets": [{"addresses": [{"ip": "127.0.0.1", "nodeName": "n1", "targetRef": reference}], "ports": [{"name": "http", "port": target.address.port(), "protocol": "TCP"}]}]});
    let slice = json!({"metadata": {"name": "web-x", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}, "targetRef": reference}], "ports": [{"name": "http", "port": target.address.port(), "protocol": "TCP"}]});
    let node = json!({"metadata": {"name": "n1"}, "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}});
    let ingress = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"tls": [{"hosts": ["a.example"]}], "rules": [{"host": "a.example", "http": {"paths": [{"path": "/x"}]}}]}});
    let lists = vec![
        ("/api/v1/pods", vec![pod("web-a", target.address)]),
        ("/api/v1/services", vec![service]),
        ("/api/v1/endpoints", vec![endpoints]),
        ("/api/v1/nodes", vec![node]),
        ("/apis/discovery.k8s.io/v1/endpointslices", vec![slice]),
        ("/apis/networking.k8s.io/v1/ingresses", vec![ingress]),
    ];
    let (_events, received) = channel();
    let api = api(lists, "/none", received);
    let server = Server::start(&config(api, "endpoints"));
    server.wait_value("m{pod=\"web-a\"}", 1.0);
    let labels = |name: &str| {
        discovered(&server).first().map_or(Value::Null, |t| {
            t["discoveredLabels"][format!("__meta_kubernetes_{name}")].clone()
        })
    };
    assert_eq!(
        (labels("service_name"), labels("service_label_team"), labels("endpoint_ready")),
        (json!("web"), json!("x"), json!("true"))
    );
    assert_eq!(labels("endpoint_address_target_name"), "web-a");
    assert_eq!(server.reload(&config(api, "endpointslice")).status, 200);
    eventually("slices", LONG, || labels("endpointslice_name") == "web-x");
    assert_eq!(
        (labels("endpointslice_endpoint_conditions_ready"), labels("pod_name")),
        (json!("true"), json!("web-a"))
    );
    let plain =
        |role: &str| config(api, role).split("  relabel_configs").next().unwrap().to_owned();
    assert_eq!(server.reload(&plain("node")).status, 200);
    eventually("nodes", LONG, || {
        discovered(&server)
            .first()
            .is_some_and(|t| t["scrapeUrl"] == "http://127.0.0.1:10250/metrics")
    });
    assert_eq!(server.reload(&plain("service")).status, 200);
    eventually("services", LONG, || {
        discovered(&server)
            .first()
            .is_some_and(|t| t["scrapeUrl"] == "http://web.default.svc:80/metrics")
    });
    assert_eq!(server.reload(&plain("ingress")).status, 200);
    eventually("ingresses", LONG, || {
        labels("ingress_scheme") == "https" && labels("ingress_path") == "/x"
    });
}
