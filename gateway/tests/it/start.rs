//! Flags and configuration: what is accepted, what is refused and how.

use std::process::Output;

use crate::gateway::{Gateway, cluster, command, http};

fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command().args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn version_looks_like_envoys() {
    let (code, out, _) = run(&["--version"]);
    assert_eq!(code, 0);
    assert!(
        out.trim().starts_with("gateway  version: ") && out.trim().ends_with("/rustls"),
        "{out}"
    );
}

#[test]
fn shipped_bootstrap_is_valid() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/bootstrap/flotilla.yaml");
    for arguments in [vec!["--mode", "validate"], vec!["-c", path, "--mode", "validate"]] {
        let (code, out, err) = run(&arguments);
        assert_eq!(code, 0, "{err}");
        assert!(out.ends_with("OK\n"), "{out}");
    }
}

#[test]
fn what_cannot_work_is_named_in_one_line() {
    let two = format!(
        "static_resources: {{clusters: [{}, {}]}}",
        cluster("a", &[1], ""),
        cluster("a", &[2], "")
    );
    let unknown = http(0, "", "[{match: {prefix: /}, route: {cluster: nope}}]", "[]");
    let nested = http(0, "", "[{match: {prefix: /, prefixx: /}, route: {cluster: a}}]", "[]");
    let cors = http(0, "", "[{match: {prefix: /}, route: {cluster: a, cors: {}}}]", "[]");
    let ring = format!(
        "static_resources: {{clusters: [{}]}}",
        cluster("a", &[1], "lb_policy: RING_HASH,")
    );
    let filter = http(0, "", "[]", "[]").replace(
        "envoy.extensions.filters.http.router.v3.Router",
        "envoy.extensions.filters.http.lua.v3.Lua",
    );
    for (yaml, message) in [
        ("admin: {adress: {}}", "unknown field: admin.adress"),
        (nested.as_str(), "route_config.virtual_hosts[0].routes[0].match.prefixx"),
        ("overload_manager: {refresh_interval: 1s}", "not supported yet: overload_manager"),
        (
            cors.as_str(),
            "not supported yet: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].route.cors",
        ),
        (ring.as_str(), "not supported yet: clusters[a].lb_policy RING_HASH"),
        (filter.as_str(), "(envoy.extensions.filters.http.lua.v3.Lua)"),
        (two.as_str(), "duplicate cluster 'a'"),
        (unknown.as_str(), "unknown cluster 'nope'"),
        ("[1, 2]", "no mapping"),
        (
            "admin: {address: {socket_address: {address: localhost, port_value: 1}}}",
            "malformed IP address: localhost",
        ),
        ("static_resources: {clusters: [{name: a, connect_timeout: -1s}]}", "must not be negative"),
    ] {
        let (code, _, err) = run(&["--config-yaml", yaml, "--mode", "validate"]);
        assert_eq!((code, err.lines().count()), (78, 1), "{yaml}: {err}");
        assert!(err.contains(message), "{message}: {err}");
    }
    for (flag, code, message) in [
        ("--bogus", 64, "--bogus"),
        ("--log-path=x", 64, "not supported yet: --log-path"),
        ("--log-level=loud", 64, "loud"),
        ("--config-path=/nonexistent", 78, "/nonexistent"),
    ] {
        let (exit, _, err) = run(&[flag]);
        assert_eq!(exit, code, "{err}");
        assert!(err.contains(message), "{err}");
    }
}

#[test]
fn taken_port_is_named_and_healthcheck_tells() {
    let gateway = Gateway::with("[]", "[]");
    let (code, _, err) = run(&["--config-yaml", &http(gateway.port, "", "[]", "[]")]);
    assert_eq!(code, 69, "{err}");
    assert!(err.contains(&format!("127.0.0.1:{} is taken", gateway.port)), "{err}");
    assert_eq!(run(&["--mode", "validate"]).0, 0, "validation binds nothing");
    let check = |port: u16| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gateway"));
        command
            .args(["healthcheck", "--address", &format!("127.0.0.1:{port}")])
            .output()
            .unwrap()
            .status
            .code()
            .unwrap()
    };
    assert_eq!((check(gateway.admin), check(1)), (0, 69));
}
