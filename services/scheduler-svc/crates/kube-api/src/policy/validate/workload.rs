//! Deployments, ReplicaSets, DaemonSets, StatefulSets, Jobs, CronJobs.

use kube_spec::Resource;
use serde_json::Value;

use super::{Errors, metadata, pod};
use crate::error::FieldError;
use crate::object::{self, text};
use crate::selector::selects;

pub(super) fn check_apps(resource: &Resource, object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    check_count(spec, "replicas", errors);
    check_count(spec, "revisionHistoryLimit", errors);
    check_selector(spec, errors);
    check_template(spec, errors);
    match resource.plural {
        "deployments" => check_strategy(spec, "strategy", &["Recreate", "RollingUpdate"], errors),
        "daemonsets" => {
            check_strategy(spec, "updateStrategy", &["RollingUpdate", "OnDelete"], errors)
        }
        "statefulsets" => {
            check_strategy(spec, "updateStrategy", &["RollingUpdate", "OnDelete"], errors)
        }
        _ => {}
    }
    let deadline = object::int(spec, "/progressDeadlineSeconds");
    if deadline.is_some_and(|d| d <= object::int(spec, "/minReadySeconds").unwrap_or(0)) {
        let field = "spec.progressDeadlineSeconds";
        errors.push(FieldError::invalid(
            field,
            &spec["progressDeadlineSeconds"],
            "must be greater than minReadySeconds",
        ));
    }
}

fn check_count(spec: &Value, key: &str, errors: &mut Errors) {
    if object::int(spec, &format!("/{key}")).is_some_and(|n| n < 0) {
        errors.push(FieldError::invalid(
            format!("spec.{key}"),
            &spec[key],
            "must be greater than or equal to 0",
        ));
    }
}

fn check_selector(spec: &Value, errors: &mut Errors) {
    let selector = &spec["selector"];
    let empty =
        |pointer: &str| object::map(selector, pointer).is_none_or(serde_json::Map::is_empty);
    if !selector.is_object() {
        errors.push(FieldError::required("spec.selector", ""));
        return;
    }
    if empty("/matchLabels") && object::list(selector, "/matchExpressions").is_empty() {
        errors.push(FieldError::invalid(
            "spec.selector",
            selector,
            "empty selector is invalid for deployment",
        ));
        return;
    }
    metadata::check_labels(selector.get("matchLabels"), "spec.selector.matchLabels", errors);
    let labels = object::map(spec, "/template/metadata/labels");
    if !selects(selector, labels) {
        let shown = spec.pointer("/template/metadata/labels").cloned().unwrap_or(Value::Null);
        let why = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid("spec.template.metadata.labels", &shown, why));
    }
}

fn check_template(spec: &Value, errors: &mut Errors) {
    pod::check_template(&spec["template"], "spec.template", errors);
    let policy = text(spec, "/template/spec/restartPolicy");
    if policy != "Always" {
        errors.push(FieldError::not_supported(
            "spec.template.spec.restartPolicy",
            &policy.into(),
            &["Always"],
        ));
    }
}

fn check_strategy(spec: &Value, key: &str, allowed: &[&str], errors: &mut Errors) {
    let kind = text(spec, &format!("/{key}/type"));
    if !allowed.contains(&kind) {
        errors.push(FieldError::not_supported(format!("spec.{key}.type"), &kind.into(), allowed));
    }
    if kind == "Recreate" && object::is_set(spec, &format!("/{key}/rollingUpdate")) {
        let why = "may not be specified when strategy `type` is 'Recreate'";
        errors.push(FieldError::forbidden(format!("spec.{key}.rollingUpdate"), why));
    }
    let zero = |v: &Value| *v == 0 || *v == "0%" || *v == "0";
    let rolling = &spec[key]["rollingUpdate"];
    if kind == "RollingUpdate" && zero(&rolling["maxUnavailable"]) && zero(&rolling["maxSurge"]) {
        let why = "may not be 0 when `maxSurge` is 0";
        errors.push(FieldError::invalid(
            format!("spec.{key}.rollingUpdate.maxUnavailable"),
            &rolling["maxUnavailable"],
            why,
        ));
    }
}

pub(super) fn check_replication_controller(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    check_count(spec, "replicas", errors);
    match object::map(spec, "/selector") {
        None => errors.push(FieldError::required("spec.selector", "")),
        Some(selector) => {
            let labels = object::map(spec, "/template/metadata/labels");
            if !selector.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v)) {
                let shown =
                    spec.pointer("/template/metadata/labels").cloned().unwrap_or(Value::Null);
                errors.push(FieldError::invalid(
                    "spec.template.metadata.labels",
                    &shown,
                    "`selector` does not match template `labels`",
                ));
            }
        }
    }
    check_template(spec, errors);
}

pub(super) fn check_job(object: &Value, errors: &mut Errors) {
    check_job_spec(&object["spec"], "spec", errors);
    if !object::is_set(object, "/spec/selector") {
        errors.push(FieldError::required("spec.selector", ""));
    }
}

fn check_job_spec(spec: &Value, path: &str, errors: &mut Errors) {
    for key in [
        "parallelism",
        "completions",
        "backoffLimit",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
    ] {
        if object::int(spec, &format!("/{key}")).is_some_and(|n| n < 0) {
            errors.push(FieldError::invalid(
                format!("{path}.{key}"),
                &spec[key],
                "must be greater than or equal to 0",
            ));
        }
    }
    pod::check_template(&spec["template"], &format!("{path}.template"), errors);
    let policy = text(spec, "/template/spec/restartPolicy");
    if !matches!(policy, "OnFailure" | "Never") {
        let field = format!("{path}.template.spec.restartPolicy");
        errors.push(FieldError::required(field, "valid values: \"OnFailure\", \"Never\""));
    }
}

pub(super) fn check_cron_job(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    let schedule = text(spec, "/schedule");
    if schedule.is_empty() {
        errors.push(FieldError::required("spec.schedule", ""));
    } else if !schedule.starts_with('@') && schedule.split_whitespace().count() != 5 {
        let why = format!(
            "expected exactly 5 fields, found {}: [{schedule}]",
            schedule.split_whitespace().count()
        );
        errors.push(FieldError::invalid("spec.schedule", &schedule.into(), &why));
    }
    let policy = text(spec, "/concurrencyPolicy");
    if !matches!(policy, "Allow" | "Forbid" | "Replace") {
        errors.push(FieldError::not_supported(
            "spec.concurrencyPolicy",
            &policy.into(),
            &["Allow", "Forbid", "Replace"],
        ));
    }
    check_job_spec(&spec["jobTemplate"]["spec"], "spec.jobTemplate.spec", errors);
}

pub(super) fn check_update(
    resource: &Resource,
    current: &Value,
    next: &Value,
    errors: &mut Errors,
) {
    let immutable: &[&str] = match resource.plural {
        "deployments" | "replicasets" | "daemonsets" => &["selector"],
        "jobs" => &["selector", "completionMode", "podFailurePolicy"],
        "statefulsets" => {
            check_stateful_update(current, next, errors);
            &[]
        }
        _ => &[],
    };
    for key in immutable {
        if current["spec"].get(*key) != next["spec"].get(*key) {
            errors.push(FieldError::invalid(
                format!("spec.{key}"),
                &next["spec"][*key],
                "field is immutable",
            ));
        }
    }
    let may_change_template = resource.plural != "jobs" || current["spec"]["suspend"] == true;
    if !may_change_template && current["spec"]["template"] != next["spec"]["template"] {
        errors.push(FieldError::invalid(
            "spec.template",
            &next["spec"]["template"],
            "field is immutable",
        ));
    }
}

fn check_stateful_update(current: &Value, next: &Value, errors: &mut Errors) {
    let neutral = |object: &Value| {
        let mut spec = object["spec"].clone();
        if let Some(fields) = spec.as_object_mut() {
            for key in [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "revisionHistoryLimit",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
            ] {
                fields.remove(key);
            }
        }
        spec
    };
    if neutral(current) != neutral(next) {
        let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden("spec", why));
    }
}
