//! The `kubernetes` plugin, beside real CoreDNS on the same API server.

use std::collections::HashMap;
use std::time::Duration;

use flotilla_testkit::eventually;
use serde_json::{Value, json};

use crate::fake_api::FakeApi;
use crate::server::{Server, coredns};

const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop", "uid": name, "resourceVersion": "5"}, "spec": spec})
}

fn slice(service: &str, ips: &[&str], hostname: Option<&str>) -> Value {
    let endpoints: Vec<Value> = ips
        .iter()
        .map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}, "hostname": hostname, "targetRef": {"kind": "Pod", "name": format!("pod-{}", ip.replace('.', "-")), "namespace": "shop"}}))
        .collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{service}-x"), "namespace": "shop", "uid": format!("{service}-x"), "resourceVersion": "6",
            "labels": {"kubernetes.io/service-name": service}},
        "endpoints": endpoints, "ports": [{"name": "http", "protocol": "TCP", "port": 8080}]})
}

fn objects() -> HashMap<String, Vec<Value>> {
    let port = json!([{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}]);
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": name, "resourceVersion": "1"}});
    HashMap::from([
        ("/api/v1/namespaces".to_owned(), vec![namespace("shop"), namespace("empty")]),
        (
            "/api/v1/services".to_owned(),
            vec![
                service(
                    "web",
                    json!({"clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"], "ports": port, "type": "ClusterIP"}),
                ),
                service(
                    "db",
                    json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": port, "type": "ClusterIP"}),
                ),
                service(
                    "alone",
                    json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": port, "type": "ClusterIP"}),
                ),
                service("out", json!({"type": "ExternalName", "externalName": "shop.example.net"})),
            ],
        ),
        (
            SLICES.to_owned(),
            vec![
                slice("web", &["10.244.0.5", "10.244.0.6"], None),
                slice("db", &["10.244.0.7"], Some("primary")),
                slice("alone", &[], None),
            ],
        ),
    ])
}

fn corefile(api: &FakeApi) -> String {
    format!(
        ".:PORT {{\n bind 127.0.0.1\n errors\n kubernetes cluster.local in-addr.arpa {{\n  endpoint http://{}\n  pods insecure\n }}\n}}\n",
        api.address
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_equal_coredns() {
    if flotilla_testkit::skip_unless_program("answers_equal_coredns", "dig") {
        return;
    }
    let Some(original) = coredns() else {
        println!("SKIPPED answers_equal_coredns: needs CoreDNS, or Go to install it");
        return;
    };
    let api = FakeApi::start(objects()).await;
    tokio::task::block_in_place(|| {
        let (ours, theirs) =
            (Server::ours(&corefile(&api)), Server::start(&original, &corefile(&api)));
        let zone = "cluster.local";
        let mut differing = Vec::new();
        let names = [
            "web.shop.svc",
            "db.shop.svc",
            "alone.shop.svc",
            "none.shop.svc",
            "web.none.svc",
            "primary.db.shop.svc",
            "10-244-0-5.web.shop.svc",
            "10-244-0-9.web.shop.svc",
            "_http._tcp.web.shop.svc",
            "_http._tcp.db.shop.svc",
            "_http._udp.web.shop.svc",
            "_none._tcp.web.shop.svc",
            "shop.svc",
            "empty.svc",
            "none.svc",
            "svc",
            "pod",
            "shop.pod",
            "10-1-2-3.shop.pod",
            "10-1-2-3.none.pod",
            "x.shop.pod",
            "dns-version",
            "WEB.Shop.SVC",
            "a.b.c.d",
            "",
        ];
        for name in names {
            for kind in ["A", "AAAA", "SRV", "TXT", "SOA", "NS", "PTR", "MX"] {
                let question = format!(
                    "{}{zone}. {kind}",
                    if name.is_empty() { String::new() } else { format!("{name}.") }
                );
                compare(&ours, &theirs, &question, &mut differing);
            }
        }
        for question in [
            "-x 10.96.1.1",
            "-x 10.244.0.5",
            "-x 10.244.0.7",
            "-x 10.9.9.9",
            "in-addr.arpa. SOA",
            "example.com. A",
            "out.shop.svc.cluster.local. CNAME",
        ] {
            compare(&ours, &theirs, question, &mut differing);
        }
        assert!(
            differing.is_empty(),
            "{} answers differ:\n{}",
            differing.len(),
            differing.join("\n\n")
        );
    });
}

fn compare(ours: &Server, theirs: &Server, question: &str, differing: &mut Vec<String>) {
    let (own, original) = (ours.dig(question), theirs.dig(question));
    if own != original {
        differing.push(format!("=== {question}\n--- ours\n{own}\n--- CoreDNS\n{original}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoint_change_is_visible_without_a_gap() {
    if flotilla_testkit::skip_unless_program("endpoint_change_is_visible_without_a_gap", "dig") {
        return;
    }
    let api = FakeApi::start(objects()).await;
    tokio::task::block_in_place(|| {
        let server = Server::ours(&corefile(&api));
        let question = "db.shop.svc.cluster.local. A";
        assert!(server.dig(question).contains("10.244.0.7"));
        let mut changed = slice("db", &["10.244.0.8"], Some("primary"));
        changed["metadata"]["resourceVersion"] = json!("20");
        api.emit(SLICES, "MODIFIED", &changed);
        eventually("the new address is served", Duration::from_secs(5), || {
            let answer = server.dig(question);
            assert!(
                answer.contains("10.244.0.7") || answer.contains("10.244.0.8"),
                "a gap: {answer}"
            );
            answer.contains("10.244.0.8")
        });
    });
}
