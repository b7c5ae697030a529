//! Workloads.

use serde_json::{Value, json};

use super::{core, map, pod};
use crate::object::{self, default_to, is_set, items_mut, map_mut, text};

/// The kinds of group apps.
pub(super) fn apps(plural: &str, object: &mut Value) {
    if plural == "controllerrevisions" {
        return;
    }
    let spec = map(object, "spec");
    pod::template(&mut spec["template"]);
    match plural {
        "deployments" => deployment(spec),
        "replicasets" => default_to(spec, "replicas", 1),
        "daemonsets" => daemon_set(spec),
        "statefulsets" => stateful_set(spec),
        _ => {}
    }
}

fn deployment(spec: &mut Value) {
    default_to(spec, "replicas", 1);
    default_to(spec, "revisionHistoryLimit", 10);
    default_to(spec, "progressDeadlineSeconds", 600);
    let strategy = map(spec, "strategy");
    default_to(strategy, "type", "RollingUpdate");
    if text(strategy, "/type") == "RollingUpdate" {
        let rolling = map(strategy, "rollingUpdate");
        default_to(rolling, "maxUnavailable", "25%");
        default_to(rolling, "maxSurge", "25%");
    }
}

fn daemon_set(spec: &mut Value) {
    default_to(spec, "revisionHistoryLimit", 10);
    let strategy = map(spec, "updateStrategy");
    default_to(strategy, "type", "RollingUpdate");
    if text(strategy, "/type") == "RollingUpdate" {
        let rolling = map(strategy, "rollingUpdate");
        default_to(rolling, "maxUnavailable", 1);
        default_to(rolling, "maxSurge", 0);
    }
}

fn stateful_set(spec: &mut Value) {
    default_to(spec, "replicas", 1);
    default_to(spec, "podManagementPolicy", "OrderedReady");
    default_to(spec, "revisionHistoryLimit", 10);
    let strategy = map(spec, "updateStrategy");
    default_to(strategy, "type", "RollingUpdate");
    if text(strategy, "/type") == "RollingUpdate" {
        default_to(map(strategy, "rollingUpdate"), "partition", 0);
    }
    let retention = map(spec, "persistentVolumeClaimRetentionPolicy");
    default_to(retention, "whenDeleted", "Retain");
    default_to(retention, "whenScaled", "Retain");
    for claim in items_mut(spec, "volumeClaimTemplates") {
        core::claim(claim);
        default_to(map(claim, "status"), "phase", "Pending");
    }
}

/// ReplicationController: selector and labels out of the template's labels.
pub(super) fn replication_controller(object: &mut Value) {
    let spec = map(object, "spec");
    pod::template(&mut spec["template"]);
    default_to(spec, "replicas", 1);
    let labels = spec.pointer("/template/metadata/labels").cloned().unwrap_or(Value::Null);
    if object::map(spec, "/selector").is_none_or(serde_json::Map::is_empty) && labels.is_object() {
        spec["selector"] = labels.clone();
    }
    if !is_set(object, "/metadata/labels") && labels.is_object() {
        object["metadata"]["labels"] = labels;
    }
}

/// Job: counts, and a selector made of its uid.
pub(super) fn job(object: &mut Value) {
    let (uid, name) = (object::uid(object).to_owned(), object::name(object).to_owned());
    let spec = map(object, "spec");
    if !is_set(spec, "/completions") && !is_set(spec, "/parallelism") {
        spec["completions"] = 1.into();
        spec["parallelism"] = 1.into();
    }
    default_to(spec, "parallelism", 1);
    default_to(spec, "backoffLimit", 6);
    default_to(spec, "completionMode", "NonIndexed");
    default_to(spec, "suspend", false);
    let replacement =
        if is_set(spec, "/podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    default_to(spec, "podReplacementPolicy", replacement);
    if spec["manualSelector"] != true && !is_set(spec, "/selector") && !uid.is_empty() {
        spec["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
        let labels = map_mut(map(map(spec, "template"), "metadata"), "labels");
        for (key, value) in [
            ("batch.kubernetes.io/controller-uid", &uid),
            ("batch.kubernetes.io/job-name", &name),
            ("controller-uid", &uid),
            ("job-name", &name),
        ] {
            labels.insert(key.to_owned(), value.as_str().into());
        }
    }
    pod::template(&mut spec["template"]);
}

/// CronJob.
pub(super) fn cron_job(object: &mut Value) {
    let spec = map(object, "spec");
    default_to(spec, "concurrencyPolicy", "Allow");
    default_to(spec, "suspend", false);
    default_to(spec, "successfulJobsHistoryLimit", 3);
    default_to(spec, "failedJobsHistoryLimit", 1);
    if let Some(template) = spec.pointer_mut("/jobTemplate/spec/template") {
        pod::template(template);
    }
}
