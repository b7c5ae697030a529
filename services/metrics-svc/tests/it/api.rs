//! The HTTP API: shapes, error types, pages.

use serde_json::{Value, json};

use crate::http::{encode, get, request};
use crate::server::{Server, scraping};
use crate::target::Target;

fn server() -> (Server, Target) {
    let target = Target::start("# TYPE m gauge\nm{a=\"1\"} 5\nm{a=\"2\"} 7\n");
    let server = Server::start(&scraping(target.address, ""));
    server.wait_value("sum(m)", 12.0);
    (server, target)
}

#[test]
fn queries_have_the_shapes_of_prometheus() {
    let (server, _target) = server();
    let query = |text: &str| {
        get(server.address, &format!("/api/v1/query?time=1.5&query={}", encode(text))).json()
    };
    assert_eq!(
        query("1"),
        json!({"status": "success", "data": {"resultType": "scalar", "result": [1.5, "1"]}})
    );
    assert_eq!(query("\"x\"")["data"], json!({"resultType": "string", "result": [1.5, "x"]}));
    assert_eq!(
        query("vector(1/0)")["data"],
        json!({"resultType": "vector", "result": [{"metric": {}, "value": [1.5, "+Inf"]}]})
    );
    assert_eq!(query("m[5m]")["data"], json!({"resultType": "matrix", "result": []}));
    let form = format!("query={}&start=0&end=20&step=10", encode("time() * 2"));
    let range = request(server.address, "POST", "/api/v1/query_range", &form).json();
    assert_eq!(
        range["data"],
        json!({"resultType": "matrix", "result": [{"metric": {}, "values": [[0, "0"], [10, "20"], [20, "40"]]}]})
    );
}

#[test]
fn errors_have_type_and_status() {
    let (server, _target) = server();
    for (path, status, kind, text) in [
        (
            "/api/v1/query?query=m%7B",
            400,
            "bad_data",
            "invalid parameter \"query\": 1:3: parse error: unexpected end of input",
        ),
        (
            "/api/v1/query?query=m&time=x",
            400,
            "bad_data",
            "invalid parameter \"time\": cannot parse \"x\" to a valid timestamp",
        ),
        (
            "/api/v1/query_range?query=m&start=0&end=1&step=0",
            400,
            "bad_data",
            "zero or negative query resolution",
        ),
        (
            "/api/v1/query_range?query=m&start=2&end=1&step=1",
            400,
            "bad_data",
            "end timestamp must not be before start time",
        ),
        (
            "/api/v1/query_range?query=m&start=0&end=100000&step=1",
            400,
            "bad_data",
            "exceeded maximum resolution of 11,000 points",
        ),
        (
            "/api/v1/query_range?query=m%5B5m%5D&start=0&end=1&step=1",
            400,
            "bad_data",
            "invalid expression type \"range vector\"",
        ),
        (
            "/api/v1/query?query=m%20%2B%20on()%20m",
            422,
            "execution",
            "found duplicate series for the match group",
        ),
        ("/api/v1/series", 400, "bad_data", "no match[] parameter provided"),
    ] {
        let reply = get(server.address, path);
        let body = reply.json();
        assert_eq!(
            (reply.status, &body["errorType"]),
            (status, &Value::from(kind)),
            "{path}: {body}"
        );
        assert!(body["error"].as_str().unwrap().contains(text), "{path}: {body}");
    }
    assert_eq!(get(server.address, "/nowhere").status, 404);
}

#[test]
fn series_labels_and_values() {
    let (server, target) = server();
    let data = |path: &str| get(server.address, path).json()["data"].clone();
    let series = data("/api/v1/series?match[]=m%7Ba%3D%221%22%7D");
    assert_eq!(
        series,
        json!([{"__name__": "m", "a": "1", "instance": target.address.to_string(), "job": "app", "zone": "z1"}])
    );
    assert_eq!(
        data("/api/v1/labels?match[]=m"),
        json!(["__name__", "a", "instance", "job", "zone"])
    );
    assert_eq!(data("/api/v1/label/a/values"), json!(["1", "2"]));
    assert_eq!(data("/api/v1/label/__name__/values?match[]=m"), json!(["m"]));
    assert!(data("/api/v1/status/flags")["storage.tsdb.path"].as_str().unwrap().ends_with("data"));
    assert!(data("/api/v1/status/config")["yaml"].as_str().unwrap().contains("job_name: app"));
    assert_eq!(data("/api/v1/status/buildinfo")["version"], "3.14.0");
    assert_eq!(data("/api/v1/status/tsdb")["headStats"]["numSeries"], 7);
    assert_eq!(data("/api/v1/alertmanagers")["activeAlertmanagers"], json!([]));
    assert_eq!(data("/api/v1/format_query?query=sum(m)by(a)"), "sum by (a) (m)");
}

#[test]
fn pages_answer() {
    let (server, target) = server();
    let text = |path: &str| get(server.address, path);
    assert_eq!(text("/-/healthy").body, "Prometheus Server is Healthy.\n");
    assert_eq!(text("/-/ready").body, "Prometheus Server is Ready.\n");
    assert_eq!(text("/").status, 303);
    assert!(text("/graph?g0.expr=up").head.contains("location: /query?g0.expr=up"));
    assert!(text("/query").body.contains(&target.address.to_string()));
    let metrics = text("/metrics").body;
    for name in [
        "prometheus_tsdb_head_series 7",
        "prometheus_build_info{",
        "prometheus_http_requests_total{",
        "process_cpu_seconds_total",
    ] {
        assert!(metrics.contains(name), "{name} is missing:\n{metrics}");
    }
    let federated = text("/federate?match[]=m").body;
    assert!(federated.starts_with("# TYPE m untyped\nm{a=\"1\",instance="), "{federated}");
}

#[test]
fn admin_api_deletes_and_snapshots() {
    let (server, _target) = server();
    let post = |path: &str| request(server.address, "POST", path, "");
    assert_eq!(
        post("/api/v1/admin/tsdb/delete_series?match[]=m%7Ba%3D%221%22%7D&end=1").status,
        204
    );
    assert!(server.value("sum(m)").is_some());
    let name =
        post("/api/v1/admin/tsdb/snapshot").json()["data"]["name"].as_str().unwrap().to_owned();
    let blocks = std::fs::read_dir(server.data().join("snapshots").join(name)).unwrap().count();
    assert_eq!(blocks, 1);
    assert_eq!(post("/api/v1/admin/tsdb/clean_tombstones").status, 204);
    assert_eq!(post("/api/v1/admin/tsdb/delete_series").status, 400);
}

#[test]
fn heavy_queries_are_bounded() {
    let (server, _target) = server();
    // Without samples even this query is quick.
    flotilla_testkit::eventually("a scrape", std::time::Duration::from_secs(20), || {
        server.value("sum(m)").is_some()
    });
    let reply = get(
        server.address,
        &format!("/api/v1/query?timeout=10ms&query={}", encode("sum_over_time((m * m)[30d:10ms])")),
    );
    assert!(matches!(reply.status, 503 | 422), "{}", reply.body);
    let deep = "(".repeat(5000);
    assert_eq!(
        request(server.address, "POST", "/api/v1/query", &format!("query={}", encode(&deep)))
            .status,
        400
    );
    assert!(server.value("sum(m)").is_some());
}
