//! Recording and alerting rules.

use serde_json::json;

use crate::http::get;
use crate::server::{LONG, Server, scraping};
use crate::target::Target;

const RULES: &str = "groups:
- name: g
  rules:
  - record: job:m:sum
    expr: sum by (job) (m)
    labels: {tier: gold}
  - alert: Low
    expr: m < 3
    for: 400ms
    labels: {severity: page}
    annotations: {summary: 'm of {{ $labels.job }} is {{ $value }}'}
";

#[test]
fn rules_record_and_alert() {
    let target = Target::start("m 5\n");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rules.yml"), RULES).unwrap();
    let server = Server::start_in(
        dir,
        &format!("rule_files: [rules.yml]\n{}", scraping(target.address, "")),
    );
    server.wait_value("job:m:sum{tier=\"gold\",job=\"app\"}", 5.0);
    target.set_body("m 2\n");
    server.wait_value("ALERTS{alertname=\"Low\",alertstate=\"firing\",severity=\"page\"}", 1.0);
    let alerts = get(server.address, "/api/v1/alerts").json();
    let alert = &alerts["data"]["alerts"][0];
    assert_eq!((&alert["state"], &alert["value"]), (&json!("firing"), &json!("2e+00")));
    assert_eq!(alert["annotations"]["summary"], "m of app is 2");
    let rules = get(server.address, "/api/v1/rules").json();
    let group = &rules["data"]["groups"][0];
    assert_eq!(
        (&group["name"], &group["rules"][0]["type"], &group["rules"][1]["state"]),
        (&json!("g"), &json!("recording"), &json!("firing"))
    );
    target.set_body("m 9\n");
    flotilla_testkit::eventually("the alert ends", LONG, || server.query("ALERTS").is_empty());
}
