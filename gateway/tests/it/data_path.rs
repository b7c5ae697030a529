//! Requests through the gateway: routing, headers, protocols, upgrades, retries, balancing.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::wrappers::ReceiverStream;

use crate::client::{get, http1, http2, request, send, send2};
use crate::gateway::{Gateway, H2, cluster, http};
use crate::upstream::Upstream;

#[tokio::test(flavor = "multi_thread")]
async fn routes_rewrite_redirect_and_answer() {
    let a = Upstream::start("a").await;
    let b = Upstream::start("b").await;
    let routes = r#"[
      {match: {path: /exact}, direct_response: {status: 200, body: {inline_string: exact}}},
      {match: {safe_regex: {regex: "/v[0-9]+/x"}}, direct_response: {status: 200, body: {inline_string: regex}}},
      {match: {prefix: /header, headers: [{name: x-who, string_match: {prefix: b}}]}, route: {cluster: b}},
      {match: {prefix: /query, query_parameters: [{name: to, string_match: {exact: b}}]}, route: {cluster: b}},
      {match: {path_separated_prefix: /seg}, route: {cluster: b, prefix_rewrite: /other, host_rewrite_literal: example.org}},
      {match: {prefix: /regex/}, route: {cluster: b, regex_rewrite: {pattern: {regex: "^/regex/([a-z]+)$"}, substitution: '/\1/$'}}},
      {match: {prefix: /old/}, redirect: {path_redirect: /new, response_code: FOUND, host_redirect: example.org}},
      {match: {prefix: /}, route: {cluster: a}, request_headers_to_add: [{header: {key: x-added, value: "100%%"}}],
       response_headers_to_add: [{header: {key: x-resp, value: "1"}}], request_headers_to_remove: [x-gone]}]"#;
    let clusters =
        format!("[{}, {}]", cluster("a", &[a.port()], ""), cluster("b", &[b.port()], ""));
    let gateway = Gateway::with(routes, &clusters);
    let port = gateway.port;
    assert_eq!(get(port, "/exact?q=1", &[]).await.body, "exact");
    assert_eq!(get(port, "/v12/x", &[]).await.body, "regex");
    assert_eq!(get(port, "/v12/xy", &[]).await.header("x-upstream"), "a");
    assert_eq!(get(port, "/header", &[("x-who", "bob")]).await.header("x-upstream"), "b");
    assert_eq!(get(port, "/header", &[("x-who", "al")]).await.header("x-upstream"), "a");
    assert_eq!(get(port, "/query?to=b", &[]).await.header("x-upstream"), "b");
    assert_eq!(get(port, "/segment", &[]).await.header("x-upstream"), "a");
    let seg = get(port, "/seg/x?y", &[]).await.body;
    assert!(
        seg.contains("GET /other/x?y")
            && seg.contains("host: example.org")
            && seg.contains("x-envoy-original-path: /seg/x?y"),
        "{seg}"
    );
    assert!(get(port, "/regex/abc", &[]).await.body.contains("GET /abc/$"));
    let redirect = get(port, "/old/1?q", &[]).await;
    assert_eq!(
        (redirect.status.as_u16(), redirect.header("location")),
        (302, format!("http://example.org:{port}/new?q").as_str())
    );
    let plain = get(port, "/plain", &[("x-gone", "1"), ("x-envoy-retry-on", "5xx")]).await;
    assert!(
        plain.body.contains("x-added: 100%")
            && !plain.body.contains("x-gone")
            && !plain.body.contains("retry-on"),
        "{}",
        plain.body
    );
    assert_eq!((plain.header("x-resp"), plain.header("server")), ("1", "envoy"));
    assert!(
        plain.headers.contains_key("x-envoy-upstream-service-time")
            && plain.headers.contains_key("date")
    );
    assert!(!plain.headers.contains_key("connection"), "hop-by-hop headers end here");
}

#[tokio::test(flavor = "multi_thread")]
async fn protocols_bridge_with_trailers() {
    let upstream = Upstream::start("u").await;
    let routes = "[{match: {prefix: /h2}, route: {cluster: h2}}, {match: {prefix: /}, route: {cluster: h1}}]";
    let clusters = format!(
        "[{}, {}]",
        cluster("h1", &[upstream.port()], ""),
        cluster("h2", &[upstream.port()], H2)
    );
    let gateway = Gateway::with(routes, &clusters);
    for path in ["/h1/x", "/h2/x"] {
        assert!(send("GET", gateway.port, path, &[], "").await.body.contains(path));
        let answer = send2("POST", gateway.port, &format!("{path}/echo"), &[], "hello").await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "hello"));
    }
    let answer = send2(
        "POST",
        gateway.port,
        "/h2/trailers",
        &[("te", "trailers"), ("content-type", "application/grpc")],
        "",
    )
    .await;
    assert_eq!(answer.trailers.unwrap().get("grpc-status").unwrap(), "0");
    assert_eq!(
        gateway.stat("cluster.h2.upstream_cx_http2_total").await.min(2),
        2.min(gateway.stat("cluster.h2.upstream_cx_total").await)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_flow_both_ways_at_once() {
    let upstream = Upstream::start("u").await;
    let gateway = Gateway::with(
        "[{match: {prefix: /}, route: {cluster: u, timeout: 0s}}]",
        &format!("[{}]", cluster("u", &[upstream.port()], H2)),
    );
    let (sender, receiver) =
        tokio::sync::mpsc::channel::<Result<Frame<Bytes>, std::convert::Infallible>>(4);
    let request = Request::post(format!("http://127.0.0.1:{}/echo", gateway.port))
        .header("content-type", "application/grpc")
        .body(StreamBody::new(ReceiverStream::new(receiver)))
        .unwrap();
    let response = http2(gateway.port).await.send_request(request).await.unwrap();
    let mut body = response.into_body();
    for round in 0..50u32 {
        let text = Bytes::from(format!("message {round}"));
        sender.send(Ok(Frame::data(text.clone()))).await.unwrap();
        // The answer comes while the request goes on.
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), text);
    }
    drop(sender);
    assert!(
        body.frame()
            .await
            .is_none_or(|frame| frame.unwrap().data_ref().is_none_or(|data| data.is_empty()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_pass_when_turned_on() {
    let upstream = Upstream::start("u").await;
    let routes = "[{match: {prefix: /off}, route: {cluster: u, upgrade_configs: [{upgrade_type: websocket, enabled: false}]}}, {match: {prefix: /}, route: {cluster: u}}]";
    let options = "upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: SPDY/3.1}],";
    let gateway = Gateway::start(&http(
        0,
        options,
        routes,
        &format!("[{}]", cluster("u", &[upstream.port()], "")),
    ));
    for kind in ["websocket", "SPDY/3.1"] {
        let mut sender = http1(gateway.port).await;
        let ask = request(
            "GET",
            gateway.port,
            "/upgrade",
            &[("connection", "Upgrade"), ("upgrade", kind)],
            "",
        );
        let response = sender.send_request(ask).await.unwrap();
        assert_eq!(response.status().as_u16(), 101);
        assert_eq!(response.headers()["upgrade"], kind);
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        stream.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ping");
    }
    let refused =
        get(gateway.port, "/off/upgrade", &[("connection", "upgrade"), ("upgrade", "websocket")])
            .await;
    assert_eq!(refused.status.as_u16(), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn balancing_spreads_by_policy() {
    let a = Upstream::start("a").await;
    let b = Upstream::start("b").await;
    let ports = [a.port(), b.port()];
    let clusters = format!(
        "[{}, {}, {}]",
        cluster("rr", &ports, ""),
        cluster("lr", &ports, "lb_policy: LEAST_REQUEST,"),
        cluster("random", &ports, "lb_policy: RANDOM,")
    );
    let routes = r"[{match: {prefix: /rr}, route: {cluster: rr}}, {match: {prefix: /lr}, route: {cluster: lr}}, {match: {prefix: /r}, route: {cluster: random}},
        {match: {prefix: /w}, route: {weighted_clusters: {clusters: [{name: rr, weight: 0}, {name: lr, weight: 100}]}}}]";
    let gateway = Gateway::with(routes, &clusters);
    for path in ["/rr", "/lr", "/r"] {
        let before = (a.seen(), b.seen());
        for _ in 0..60 {
            get(gateway.port, path, &[]).await;
        }
        let (from_a, from_b) = (a.seen() - before.0, b.seen() - before.1);
        assert_eq!(from_a + from_b, 60);
        assert!(from_a >= 10 && from_b >= 10, "{path}: {from_a} {from_b}");
        assert!(path != "/rr" || from_a == 30, "round robin is even");
    }
    get(gateway.port, "/w", &[]).await;
    assert_eq!(gateway.stat("cluster.rr.upstream_rq_total").await, 60);
    assert_eq!(gateway.stat("cluster.lr.upstream_rq_total").await, 61);
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_follow_the_policy() {
    let good = Upstream::start("good").await;
    let routes = r"[{match: {prefix: /flaky/on}, route: {cluster: good, retry_policy: {retry_on: 5xx, num_retries: 2}}},
        {match: {prefix: /flaky/off}, route: {cluster: good}},
        {match: {prefix: /dead}, route: {cluster: half, retry_policy: {retry_on: connect-failure, num_retries: 3}}},
        {match: {prefix: /sleep}, route: {cluster: good, retry_policy: {retry_on: 5xx, num_retries: 1, per_try_timeout: 0.05s}}}]";
    let clusters = format!(
        "[{}, {}]",
        cluster("good", &[good.port()], ""),
        cluster("half", &[good.port(), 1], "")
    );
    let gateway = Gateway::with(routes, &clusters);
    let answer = send("POST", gateway.port, "/flaky/on", &[], "body to send twice").await;
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_str(), good.seen()),
        (200, "body to send twice", 2)
    );
    assert_eq!(get(gateway.port, "/flaky/off", &[]).await.status.as_u16(), 503);
    for _ in 0..6 {
        assert_eq!(get(gateway.port, "/dead", &[]).await.status.as_u16(), 200);
    }
    let late = get(gateway.port, "/sleep/500", &[]).await;
    assert_eq!((late.status.as_u16(), late.body.as_str()), (504, "upstream request timeout"));
    assert_eq!(gateway.stat("cluster.good.upstream_rq_per_try_timeout").await, 2);
    assert!(gateway.stat("cluster.half.upstream_rq_retry_success").await >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_reused() {
    let upstream = Upstream::start("u").await;
    let clusters = format!(
        "[{}, {}]",
        cluster("h1", &[upstream.port()], ""),
        cluster("h2", &[upstream.port()], H2)
    );
    let gateway = Gateway::with(
        "[{match: {prefix: /h2}, route: {cluster: h2}}, {match: {prefix: /}, route: {cluster: h1}}]",
        &clusters,
    );
    let mut sender = http1(gateway.port).await;
    for path in ["/h1", "/h2"] {
        for _ in 0..20 {
            sender.ready().await.unwrap();
            let response =
                sender.send_request(request("GET", gateway.port, path, &[], "")).await.unwrap();
            response.into_body().collect().await.unwrap();
        }
    }
    assert!(gateway.stat("cluster.h1.upstream_cx_total").await <= 2);
    assert_eq!(gateway.stat("cluster.h2.upstream_cx_total").await, 1);
    tokio::time::timeout(Duration::from_secs(5), async {
        while gateway.stat("http.main.downstream_rq_active").await > 0 {}
    })
    .await
    .unwrap();
}
