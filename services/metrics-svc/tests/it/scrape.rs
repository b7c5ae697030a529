//! Scraping: health, staleness, limits, labels.

use std::time::Duration;

use crate::http::get;
use crate::server::{Server, scraping};
use crate::target::{Page, Target};

#[test]
fn target_is_scraped_with_its_report_series() {
    let target =
        Target::start("# HELP m Help of m\n# TYPE m counter\nm{a=\"1\"} 5\nm{a=\"2\"} 7\n");
    let server = Server::start(&scraping(target.address, ""));
    server.wait_value("sum(m)", 12.0);
    let instance = target.address.to_string();
    let one = &server.query("m{a=\"1\"}")[0]["metric"];
    assert_eq!(
        (&one["job"], &one["zone"], &one["instance"]),
        (&"app".into(), &"z1".into(), &instance.into())
    );
    for (name, want) in [
        ("up", 1.0),
        ("scrape_samples_scraped", 2.0),
        ("scrape_samples_post_metric_relabeling", 2.0),
    ] {
        assert_eq!(server.value(name), Some(want), "{name}");
    }
    server.wait_value("scrape_series_added", 0.0);
    assert!(server.value("scrape_duration_seconds").unwrap() > 0.0);
    let targets = get(server.address, "/api/v1/targets").json();
    let active = &targets["data"]["activeTargets"][0];
    assert_eq!(
        (&active["health"], &active["scrapePool"], &active["scrapeInterval"]),
        (&"up".into(), &"app".into(), &"200ms".into())
    );
    let metadata = get(server.address, "/api/v1/metadata").json();
    assert_eq!(
        metadata["data"]["m"][0],
        serde_json::json!({"type": "counter", "help": "Help of m", "unit": ""})
    );
    let head = &target.requests()[0];
    assert!(head.to_lowercase().contains("accept: application/openmetrics-text"), "{head}");
}

#[test]
fn vanished_series_and_dead_targets_go_stale() {
    let target = Target::start("m 1\ngone 1\n");
    let server = Server::start(&scraping(target.address, ""));
    server.wait_value("gone", 1.0);
    target.set_body("m 1\n");
    crate_eventually_empty(&server, "gone");
    assert_eq!(server.value("m"), Some(1.0));
    target.set(Page { status: 500, ..Page::default() });
    server.wait_value("up", 0.0);
    crate_eventually_empty(&server, "m");
    let targets = get(server.address, "/api/v1/targets").json();
    assert_eq!(
        targets["data"]["activeTargets"][0]["lastError"],
        "server returned HTTP status 500 Internal Server Error"
    );
    let reply = server.reload("scrape_configs: []\n");
    assert_eq!(reply.status, 200, "{}", reply.body);
    crate_eventually_empty(&server, "up");
}

fn crate_eventually_empty(server: &Server, query: &str) {
    flotilla_testkit::eventually(&format!("{query} is gone"), crate::server::LONG, || {
        server.query(query).is_empty()
    });
}

#[test]
fn slow_and_huge_targets_are_down_and_harmless() {
    let target = Target::start("m 1\n");
    let server =
        Server::start(&scraping(target.address, "  body_size_limit: 10KB\n  sample_limit: 3\n"));
    server.wait_value("up", 1.0);
    let last_error = || {
        get(server.address, "/api/v1/targets").json()["data"]["activeTargets"][0]["lastError"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let fails_with = |text: &str| {
        flotilla_testkit::eventually(text, crate::server::LONG, || last_error().contains(text));
        server.wait_value("up", 0.0);
    };
    target.set(Page { body: format!("m{{a=\"{}\"}} 1\n", "x".repeat(20_000)), ..Page::default() });
    fails_with("body size limit exceeded");
    target.set(Page { body: "m 1\n".to_owned(), delay: Duration::from_secs(2), ..Page::default() });
    fails_with("context deadline exceeded");
    target.set_body("a 1\nb 1\nc 1\nd 1\n");
    target.set(Page { body: "a 1\nb 1\nc 1\nd 1\n".to_owned(), ..Page::default() });
    fails_with("sample limit exceeded");
    assert!(server.query("d").is_empty());
    target.set(Page { body: "a{ 1\n".to_owned(), ..Page::default() });
    fails_with("line 1:");
    target.set(Page {
        body: "a 1\n".to_owned(),
        content_type: "text/html".to_owned(),
        ..Page::default()
    });
    fails_with("received unsupported Content-Type");
    target.set(Page {
        body: "a 1\n# EOF\n".to_owned(),
        content_type: "application/openmetrics-text; version=1.0.0".to_owned(),
        ..Page::default()
    });
    server.wait_value("a", 1.0);
}

#[test]
fn relabelling_and_label_conflicts() {
    let target = Target::start("m{job=\"own\",le=\"1\"} 1\nnoise 1\n");
    let config = scraping(
        target.address,
        "  metrics_path: /x\n  params:\n    module: [a b]\n  basic_auth:\n    username: u\n    password: p\n  metric_relabel_configs:\n  - source_labels: [__name__]\n    regex: noise\n    action: drop\n  - regex: le\n    action: labeldrop\n",
    );
    let server = Server::start(&config);
    server.wait_value("m", 1.0);
    let labels = server.query("m")[0]["metric"].clone();
    assert_eq!(
        (&labels["job"], &labels["exported_job"], &labels["le"]),
        (&"app".into(), &"own".into(), &serde_json::Value::Null)
    );
    assert!(server.query("noise").is_empty());
    let head = &target.requests()[0];
    assert!(head.starts_with("GET /x?module=a%20b "), "{head}");
    assert!(head.contains("authorization: Basic dTpw"), "{head}");
}

#[test]
fn files_of_targets_are_followed() {
    let target = Target::start("m 1\n");
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("targets.json");
    std::fs::write(&list, "[]").unwrap();
    let server = Server::start_in(
        dir,
        "global:\n  scrape_interval: 200ms\nscrape_configs:\n- job_name: files\n  file_sd_configs:\n  - files: ['*.json']\n",
    );
    std::fs::write(
        &list,
        format!("[{{\"targets\": [\"{}\"], \"labels\": {{\"x\": \"y\"}}}}]", target.address),
    )
    .unwrap();
    server.wait_value("m{x=\"y\",job=\"files\"}", 1.0);
    std::fs::write(&list, "[]").unwrap();
    crate_eventually_empty(&server, "m");
}
