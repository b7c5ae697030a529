//! `/api/v1/rules`, `alerts`, `alertmanagers`.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use metrics_model::format_float;
use serde_json::{Value, json};

use super::envelope;
use super::params::Params;
use super::status::rfc3339;
use super::targets::labels_json;
use crate::app::App;
use crate::engine::{AlertState, AlertView, RuleView};
use crate::error::ApiError;

fn alert_json(alert: &AlertView) -> Value {
    let mantissa = format!("{:e}", alert.value);
    let value = match mantissa.split_once('e') {
        Some((digits, exponent)) if alert.value.is_finite() => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        _ => format_float(alert.value),
    };
    json!({
        "labels": labels_json(&alert.labels),
        "annotations": alert.annotations,
        "state": alert.state.word(),
        "activeAt": rfc3339(alert.active_at),
        "value": value,
    })
}

fn rule_json(view: &RuleView) -> Value {
    let rule = &view.rule;
    let mut out = json!({
        "query": rule.parsed.to_string(),
        "labels": view.labels,
        "health": view.health,
        "evaluationTime": view.evaluation_time,
        "lastEvaluation": rfc3339(view.last_evaluation),
    });
    if !view.last_error.is_empty() {
        out["lastError"] = view.last_error.as_str().into();
    }
    if rule.alert.is_empty() {
        out["name"] = rule.record.as_str().into();
        out["type"] = "recording".into();
        return out;
    }
    let state = view.alerts.iter().map(|a| a.state).max().unwrap_or(AlertState::Inactive);
    out["name"] = rule.alert.as_str().into();
    out["type"] = "alerting".into();
    out["state"] = state.word().into();
    out["duration"] = (rule.hold.0 as f64 / 1000.0).into();
    out["keepFiringFor"] = (rule.keep_firing_for.0 as f64 / 1000.0).into();
    out["annotations"] = json!(rule.annotations);
    out["alerts"] = view.alerts.iter().map(alert_json).collect();
    out
}

pub(super) async fn rules(
    State(app): State<Arc<App>>,
    query: RawQuery,
) -> Result<Response, ApiError> {
    let params = Params::from_query(&query);
    let kind = params.get("type");
    if !["", "alert", "record"].contains(&kind) {
        return Err(ApiError::parameter("type", format!("not supported value {kind:?}")));
    }
    let keeps = |name: &str, value: &str| {
        let wanted = params.all(name);
        wanted.is_empty() || wanted.contains(&value)
    };
    let mut groups = Vec::new();
    for group in app.rules.views() {
        if !keeps("rule_group[]", &group.name) || !keeps("file[]", &group.file) {
            continue;
        }
        let wanted = |rule: &&RuleView| {
            let alerting = !rule.rule.alert.is_empty();
            let name = if alerting { &rule.rule.alert } else { &rule.rule.record };
            (kind.is_empty() || (kind == "alert") == alerting) && keeps("rule_name[]", name)
        };
        let rules: Vec<Value> = group.rules.iter().filter(wanted).map(rule_json).collect();
        groups.push(json!({
            "name": group.name,
            "file": group.file,
            "rules": rules,
            "interval": group.interval,
            "limit": group.limit,
            "evaluationTime": group.evaluation_time,
            "lastEvaluation": rfc3339(group.last_evaluation),
        }));
    }
    Ok(envelope::success(&json!({"groups": groups})))
}

pub(super) async fn alerts(State(app): State<Arc<App>>) -> Response {
    let views = app.rules.views();
    let alerts: Vec<Value> =
        views.iter().flat_map(|g| &g.rules).flat_map(|r| &r.alerts).map(alert_json).collect();
    envelope::success(&json!({"alerts": alerts}))
}

pub(super) async fn alertmanagers() -> Response {
    envelope::success(&json!({"activeAlertmanagers": [], "droppedAlertmanagers": []}))
}
