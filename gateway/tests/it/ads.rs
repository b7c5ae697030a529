//! The control plane's client: warming, updates without loss, NACKs, loss of the control plane.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flotilla_testkit::eventually;
use http_body_util::BodyExt;

use crate::client::{get, http1, request};
use crate::control::{CLUSTER, Control, LISTENER, bootstrap};
use crate::gateway::{Gateway, PATIENCE, port_of};
use crate::upstream::Upstream;

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn wait_port(gateway: &Gateway, listener: &str) -> u16 {
    let marker = format!("\"listener\":\"{listener}\"");
    eventually("the listener of the control plane is bound", PATIENCE, || {
        port_of(&gateway.process.output(), &marker).is_some()
    });
    port_of(&gateway.process.output(), &marker).unwrap()
}

async fn follows(api_type: &str) {
    let control = Control::start("127.0.0.1:0").await;
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    let gateway = Gateway::start(&bootstrap(control.address, api_type));
    control.cluster("one", &[a.port()]);
    control.listener("edge");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(
        !gateway.process.output().contains("\"listener\":\"edge\""),
        "a listener without routes must not serve"
    );
    control.routes("[{match: {prefix: /}, route: {cluster: one}}]");
    let port = wait_port(&gateway, "edge");
    assert_eq!(get(port, "/", &[]).await.header("x-upstream"), "a");
    until("ready", async || gateway.admin("/ready").await == "LIVE\n").await;

    let changed = Instant::now();
    control.endpoints("one", &[b.port()]);
    until("new endpoints are used", async || get(port, "/", &[]).await.header("x-upstream") == "b")
        .await;
    assert!(changed.elapsed() < Duration::from_secs(2));

    // A bad resource is refused by name; the good ones of the same response are taken.
    control.put::<flotilla_proto::envoy::envoy::config::cluster::v3::Cluster>(
        CLUSTER, "two", &format!("{{name: two, load_assignment: {{cluster_name: two, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}}}]}}]}}}}", a.port()));
    use prost::Message;
    let bad = flotilla_proto::envoy::envoy::config::cluster::v3::Cluster {
        name: "bad".to_owned(),
        alt_stat_name: "x".to_owned(),
        ..Default::default()
    };
    control.put_bytes(CLUSTER, "bad", bad.encode_to_vec());
    until("NACK", async || {
        control.nacks.lock().unwrap().iter().any(|m| m.contains("not supported yet: alt_stat_name"))
    })
    .await;
    control.routes("[{match: {prefix: /two}, route: {cluster: two}}, {match: {prefix: /}, route: {cluster: one}}]");
    until("new route", async || get(port, "/two", &[]).await.header("x-upstream") == "a").await;
    control.remove(CLUSTER, "bad");
    control.remove(CLUSTER, "two");
    until("removed cluster", async || get(port, "/two", &[]).await.status.as_u16() == 503).await;

    // Without the control plane everything goes on; its return is noticed.
    let address = control.address.to_string();
    drop(control);
    until("loss is noticed", async || gateway.stat("control_plane.connected_state").await == 0)
        .await;
    assert_eq!(get(port, "/", &[]).await.header("x-upstream"), "b");
    let control = Control::start(&address).await;
    control.cluster("one", &[a.port()]);
    control.listener("edge");
    control.routes("[{match: {prefix: /}, route: {cluster: one}}]");
    until("the new control plane is followed", async || {
        get(port, "/", &[]).await.header("x-upstream") == "a"
    })
    .await;
    control.remove(LISTENER, "edge");
    until("the listener is gone", async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn state_of_the_world_is_followed() {
    follows("GRPC").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delta_is_followed() {
    follows("DELTA_GRPC").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_endpoints_lose_no_request() {
    let control = Control::start("127.0.0.1:0").await;
    let gateway = Gateway::start(&bootstrap(control.address, "GRPC"));
    let mut old = Upstream::start("0").await;
    control.cluster("app", &[old.port()]);
    control.routes("[{match: {prefix: /}, route: {cluster: app, retry_policy: {retry_on: connect-failure, num_retries: 3}}}]");
    control.listener("edge");
    let port = wait_port(&gateway, "edge");
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..6)
        .map(|client| {
            let (stop, done) = (stop.clone(), done.clone());
            tokio::spawn(async move {
                let mut sender = http1(port).await;
                while !stop.load(Ordering::Relaxed) {
                    let path = if client % 2 == 0 { "/x" } else { "/sleep/5" };
                    sender.ready().await.unwrap();
                    let response =
                        sender.send_request(request("GET", port, path, &[], "")).await.unwrap();
                    assert_eq!(response.status().as_u16(), 200);
                    response.into_body().collect().await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..12 {
        let new = Upstream::start("n").await;
        control.endpoints("app", &[old.port(), new.port()]);
        let before = new.seen();
        until("the new endpoint is used", async || new.seen() > before).await;
        control.endpoints("app", &[new.port()]);
        let marker = format!("app::127.0.0.1:{}::", old.port());
        until("the old endpoint is gone", async || {
            !gateway.admin("/clusters").await.contains(&marker)
        })
        .await;
        // Drops the old one: it stops accepting and ends what it has.
        old = new;
        assert!(
            clients.iter().all(|client| !client.is_finished()),
            "a client failed in round {round}"
        );
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert!(done.load(Ordering::Relaxed) > 200);
    assert_eq!(gateway.stat("http.edge.downstream_rq_5xx").await, 0);
}
