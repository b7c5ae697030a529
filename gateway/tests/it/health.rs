//! Health checks, outlier detection and names as endpoints.

use std::time::{Duration, Instant};

use crate::client::get;
use crate::gateway::{Gateway, H2, PATIENCE, cluster};
use crate::upstream::Upstream;

async fn until_healthy(gateway: &Gateway, cluster: &str, count: i64) {
    let deadline = Instant::now() + PATIENCE;
    let name = format!("cluster.{cluster}.membership_healthy");
    while gateway.stat(&name).await != count {
        assert!(Instant::now() < deadline, "{name} is not {count}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_checks_take_an_endpoint_out() {
    let (good, other) = (Upstream::start("good").await, Upstream::start("other").await);
    let ports = [good.port(), other.port()];
    let check = |kind: &str| {
        format!(
            "common_lb_config: {{healthy_panic_threshold: {{value: 0}}}}, health_checks: [{{timeout: 1s, interval: 0.05s, unhealthy_threshold: 2, healthy_threshold: 1, {kind}}}],"
        )
    };
    let clusters = format!(
        "[{}, {}, {}, {}]",
        cluster("http", &ports, &check("http_health_check: {path: /status/200}")),
        cluster(
            "h2",
            &ports,
            &format!(
                "{H2} {}",
                check(
                    "http_health_check: {path: /status/204, expected_statuses: [{start: 204, end: 205}]}"
                )
            )
        ),
        cluster("bad", &ports, &check("http_health_check: {path: /status/500}")),
        cluster("tcp", &ports, &check("tcp_health_check: {}"))
    );
    let routes = "[{match: {prefix: /bad}, route: {cluster: bad}}, {match: {prefix: /}, route: {cluster: tcp, retry_policy: {retry_on: connect-failure}}}]";
    let gateway = Gateway::with(routes, &clusters);
    for name in ["http", "h2", "tcp"] {
        until_healthy(&gateway, name, 2).await;
    }
    until_healthy(&gateway, "bad", 0).await;
    assert_eq!(get(gateway.port, "/bad", &[]).await.body, "no healthy upstream");
    drop(other);
    for name in ["http", "h2", "tcp"] {
        until_healthy(&gateway, name, 1).await;
    }
    for _ in 0..10 {
        assert_eq!(get(gateway.port, "/", &[]).await.header("x-upstream"), "good");
    }
    assert!(gateway.admin("/clusters").await.contains("::health_flags::/failed_active_hc"));
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoint_without_a_listener_is_ejected() {
    let good = Upstream::start("good").await;
    let options = "outlier_detection: {consecutive_5xx: 2, base_ejection_time: 60s, max_ejection_percent: 50},";
    let gateway = Gateway::with(
        "[{match: {prefix: /}, route: {cluster: u}}]",
        &format!("[{}]", cluster("u", &[good.port(), 1], options)),
    );
    for _ in 0..8 {
        get(gateway.port, "/", &[]).await;
    }
    assert_eq!(gateway.stat("cluster.u.outlier_detection.ejections_active").await, 1);
    for _ in 0..10 {
        assert_eq!(get(gateway.port, "/", &[]).await.status.as_u16(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_resolved() {
    let upstream = Upstream::start("u").await;
    let named = |kind: &str| {
        cluster(
            &kind.to_lowercase(),
            &[upstream.port()],
            &format!("type: {kind}, dns_lookup_family: V4_ONLY, dns_refresh_rate: 0.05s,"),
        )
        .replace("127.0.0.1", "localhost")
    };
    let clusters = format!("[{}, {}]", named("STRICT_DNS"), named("LOGICAL_DNS"));
    let routes = "[{match: {prefix: /s}, route: {cluster: strict_dns}}, {match: {prefix: /l}, route: {cluster: logical_dns}}]";
    let gateway = Gateway::with(routes, &clusters);
    for (path, name) in [("/s", "strict_dns"), ("/l", "logical_dns")] {
        until_healthy(&gateway, name, 1).await;
        assert_eq!(get(gateway.port, path, &[]).await.header("x-upstream"), "u");
        assert!(gateway.stat(&format!("cluster.{name}.update_success")).await >= 1);
    }
}
