//! What goes wrong: slow and dying upstreams, slow clients, overload, draining.

use std::time::Duration;

use flotilla_testkit::eventually;
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{get, http1, read, request, send};
use crate::gateway::{Gateway, H2, PATIENCE, cluster, http};
use crate::upstream::Upstream;

#[tokio::test(flavor = "multi_thread")]
async fn failures_answer_as_envoy_does() {
    let upstream = Upstream::start("u").await;
    let clusters = format!(
        "[{}, {}, {}]",
        cluster("u", &[upstream.port()], ""),
        cluster("dead", &[1], ""),
        "{name: none}"
    );
    let routes = r"[{match: {prefix: /dead}, route: {cluster: dead}}, {match: {prefix: /none}, route: {cluster: none}},
        {match: {prefix: /sleep}, route: {cluster: u, timeout: 0.1s}}, {match: {prefix: /idle}, route: {cluster: u, timeout: 0s, idle_timeout: 0.1s}},
        {match: {prefix: /u}, route: {cluster: u}}]";
    let gateway = Gateway::with(routes, &clusters);
    let prefix = "upstream connect error or disconnect/reset before headers. reset reason: ";
    for (path, status, body, flags) in [
        ("/dead", 503, format!("{prefix}remote connection failure"), "UF"),
        ("/none", 503, "no healthy upstream".to_owned(), "UH"),
        ("/u/abort", 503, format!("{prefix}connection termination"), "UC"),
        ("/sleep/900", 504, "upstream request timeout".to_owned(), "UT"),
        ("/idle/sleep/900", 408, "stream timeout".to_owned(), "SI"),
        ("/nothing", 404, String::new(), "NR"),
    ] {
        let answer = get(gateway.port, path, &[]).await;
        assert_eq!((answer.status.as_u16(), &answer.body), (status, &body), "{path}");
        eventually(&format!("a log line for {path}"), PATIENCE, || {
            gateway
                .process
                .output()
                .contains(&format!("\"GET {path} HTTP/1.1\" {status} {flags} 0 {} ", body.len()))
        });
    }
    let grpc = get(gateway.port, "/dead", &[("content-type", "application/grpc")]).await;
    assert_eq!((grpc.status.as_u16(), grpc.header("grpc-status")), (200, "14"));
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_that_dies_mid_body_resets_the_client() {
    let upstream = Upstream::start("u").await;
    for options in ["", H2] {
        let gateway = Gateway::with(
            "[{match: {prefix: /}, route: {cluster: u}}]",
            &format!("[{}]", cluster("u", &[upstream.port()], options)),
        );
        let response = http1(gateway.port)
            .await
            .send_request(request("GET", gateway.port, "/half", &[], ""))
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), 200);
        assert!(read(response).await.is_err(), "a response without its end must not look complete");
        eventually("the reset is logged", PATIENCE, || {
            gateway.process.output().contains("\" 200 UC ")
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn overload_answers_503_at_once() {
    let upstream = Upstream::start("u").await;
    let options = "circuit_breakers: {thresholds: [{max_requests: 2}]},";
    let gateway = Gateway::with(
        "[{match: {prefix: /}, route: {cluster: u}}]",
        &format!("[{}]", cluster("u", &[upstream.port()], options)),
    );
    let port = gateway.port;
    let busy: Vec<_> =
        (0..2).map(|_| tokio::spawn(async move { get(port, "/sleep/1000", &[]).await })).collect();
    while gateway.stat("cluster.u.upstream_rq_active").await < 2 {}
    let refused = get(port, "/x", &[]).await;
    assert_eq!((refused.status.as_u16(), refused.header("x-envoy-overloaded")), (503, "true"));
    assert!(refused.body.ends_with("reset reason: overflow"), "{}", refused.body);
    for request in busy {
        assert_eq!(request.await.unwrap().status.as_u16(), 200);
    }
    eventually("the flag is logged", PATIENCE, || gateway.process.output().contains(" 503 UO "));
    assert_eq!(get(port, "/x", &[]).await.status.as_u16(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_requests_are_bounded() {
    let upstream = Upstream::start("u").await;
    let options =
        "circuit_breakers: {thresholds: [{max_connections: 1, max_pending_requests: 1}]},";
    let gateway = Gateway::with(
        "[{match: {prefix: /}, route: {cluster: u}}]",
        &format!("[{}]", cluster("u", &[upstream.port()], options)),
    );
    let port = gateway.port;
    let first = tokio::spawn(async move { get(port, "/sleep/600", &[]).await });
    while gateway.stat("cluster.u.upstream_cx_active").await < 1 {}
    let second = tokio::spawn(async move { get(port, "/sleep/1", &[]).await });
    while gateway.stat("cluster.u.upstream_rq_pending_active").await < 1 {}
    assert_eq!(get(port, "/x", &[]).await.status.as_u16(), 503);
    assert_eq!(first.await.unwrap().status.as_u16(), 200);
    assert_eq!(
        second.await.unwrap().status.as_u16(),
        200,
        "the one that waited gets the connection"
    );
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_do_not_fill_memory() {
    let upstream = Upstream::start("u").await;
    let gateway = Gateway::with(
        "[{match: {prefix: /}, route: {cluster: u, timeout: 0s}}]",
        &format!("[{}]", cluster("u", &[upstream.port()], H2)),
    );
    let before = resident_kib(gateway.process.pid());
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap();
        stream.write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        // Reads a little, then nothing more.
        let mut some = [0; 1024];
        stream.read_exact(&mut some).await.unwrap();
        clients.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    let grown = resident_kib(gateway.process.pid()).saturating_sub(before);
    assert!(grown < 100 << 10, "ten slow clients cost {grown} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn termination_lets_requests_finish() {
    let upstream = Upstream::start("u").await;
    let mut gateway = Gateway::with(
        "[{match: {prefix: /}, route: {cluster: u}}]",
        &format!("[{}]", cluster("u", &[upstream.port()], "")),
    );
    let port = gateway.port;
    let running = tokio::spawn(async move { get(port, "/sleep/700", &[]).await });
    while gateway.stat("cluster.u.upstream_rq_active").await < 1 {}
    gateway.process.signal(Signal::SIGTERM);
    let answer = running.await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_str(), answer.header("connection")),
        (200, "slept", "close")
    );
    assert!(gateway.process.wait_exit(PATIENCE).success());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_heads_are_refused_and_never_forwarded() {
    let upstream = Upstream::start("u").await;
    let options = "normalize_path: true, merge_slashes: true, max_request_headers_kb: 8,";
    let gateway = Gateway::start(&http(
        0,
        options,
        "[{match: {prefix: /}, route: {cluster: u}}]",
        &format!("[{}]", cluster("u", &[upstream.port()], "")),
    ));
    let large = format!("GET / HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n", "x".repeat(20_000));
    let many: String = (0..150).map(|n| format!("x-{n}: 1\r\n")).collect();
    for (head, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.0\r\nhost: x\r\n\r\n", "426"),
        (&large, "431"),
        (&format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n"), "431"),
        ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc", "400"),
        ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: +3\r\n\r\nabc", "400"),
        ("GET / HTTP/1.1\r\nhost : x\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: x\r\n folded: x\r\n\r\n", "400"),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap();
        // The gateway may close before it read everything.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = vec![0; 512];
        let read =
            tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await.unwrap().unwrap_or(0);
        let line =
            String::from_utf8_lossy(&answer[..read]).lines().next().unwrap_or_default().to_owned();
        // Closing with unread bytes may reset the connection before the answer is read.
        let cut = line.is_empty() && head.len() > 8192;
        assert!(
            cut || line.starts_with(&format!("HTTP/1.1 {status}"))
                || line.starts_with(&format!("HTTP/1.0 {status}")),
            "{head:.60}: {line:?}"
        );
    }
    assert_eq!(upstream.seen(), 0);
    assert!(get(gateway.port, "/a/.//b/../c", &[]).await.body.contains("GET /a/c"));
}

#[tokio::test(flavor = "multi_thread")]
async fn seeded_garbage_never_stops_the_gateway() {
    let upstream = Upstream::start("u").await;
    let gateway = Gateway::with(
        "[{match: {prefix: /}, route: {cluster: u}}]",
        &format!("[{}]", cluster("u", &[upstream.port()], "")),
    );
    let seeds: [&[u8]; 3] = [
        b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x01\x01\x05\x00\x00\x00\x01\x82",
        b"GET /x HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..150usize {
        let mut bytes = seeds[round % seeds.len()].to_vec();
        for _ in 0..(random() % 6) {
            let at = usize::try_from(random()).unwrap() % bytes.len();
            bytes[at] = random().to_le_bytes()[0];
        }
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap();
        // Whatever happens to this connection is fine.
        let _ = stream.write_all(&bytes).await;
    }
    assert_eq!(send("POST", gateway.port, "/echo", &[], "alive").await.body, "alive");
}
