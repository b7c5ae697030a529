//! The admin port.

use flotilla_testkit::eventually;

use crate::client::{get, send};
use crate::gateway::{Gateway, PATIENCE, cluster};
use crate::upstream::Upstream;

#[tokio::test(flavor = "multi_thread")]
async fn pages_tell_and_change() {
    let upstream = Upstream::start("u").await;
    let mut gateway = Gateway::with(
        "[{match: {prefix: /}, route: {cluster: u}}]",
        &format!("[{}]", cluster("u", &[upstream.port()], "")),
    );
    get(gateway.port, "/", &[]).await;
    let admin = gateway.admin;
    assert_eq!(gateway.admin("/ready").await, "LIVE\n");
    assert_eq!(gateway.admin("/listeners").await, format!("main::127.0.0.1:{}\n", gateway.port));
    let clusters = gateway.admin("/clusters").await;
    for line in [
        format!("u::127.0.0.1:{}::rq_success::1", upstream.port()),
        format!("u::127.0.0.1:{}::health_flags::healthy", upstream.port()),
    ] {
        assert!(clusters.contains(&line), "{line} in {clusters}");
    }
    let metrics = gateway.admin("/stats/prometheus").await;
    for line in [
        "# TYPE envoy_cluster_upstream_rq_total counter",
        "envoy_cluster_upstream_rq_total{envoy_cluster_name=\"u\"} 1",
        "envoy_http_downstream_rq_xx{envoy_response_code_class=\"2\",envoy_http_conn_manager_prefix=\"main\"} 1",
        "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"u\",le=\"+Inf\"} 1",
        "envoy_server_live{} 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let dump = gateway.admin("/config_dump").await;
    assert!(
        dump.contains("envoy.admin.v3.ClustersConfigDump")
            && dump.contains("\"stat_prefix\": \"main\"")
    );
    assert!(gateway.admin("/server_info").await.contains("\"state\": \"LIVE\""));
    assert!(gateway.admin("/stats?filter=upstream_rq_total").await.lines().count() == 1);
    let missing = get(admin, "/nothing", &[]).await;
    assert!(missing.status.as_u16() == 404 && missing.body.starts_with("invalid path."));
    assert_eq!(get(admin, "/healthcheck/fail", &[]).await.status.as_u16(), 405);
    assert_eq!(send("POST", admin, "/healthcheck/fail", &[], "").await.body, "OK\n");
    assert_eq!(get(admin, "/ready", &[]).await.status.as_u16(), 503);
    send("POST", admin, "/healthcheck/ok", &[], "").await;
    assert_eq!(get(admin, "/ready", &[]).await.status.as_u16(), 200);
    send("POST", admin, "/drain_listeners", &[], "").await;
    let port = gateway.port;
    eventually("the listener is closed", PATIENCE, || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_err()
    });
    send("POST", admin, "/quitquitquit", &[], "").await;
    assert!(gateway.process.wait_exit(PATIENCE).success());
}
