//! Deployments, ReplicaSets, DaemonSets, StatefulSets, Jobs, CronJobs.

use kube_codec::{now, parse_time};
use kube_spec::Resource;
use serde_json::Value;

use super::{Column, age, col, human, labels, num, selector, wide};
use crate::object::{int, list, map, text};

fn n(object: &Value, pointer: &str) -> i64 {
    int(object, pointer).unwrap_or(0)
}

fn containers(template: &Value, key: &str) -> Value {
    let all: Vec<&str> = list(template, "/spec/containers")
        .iter()
        .map(|c| c[key].as_str().unwrap_or_default())
        .collect();
    all.join(",").into()
}

pub(super) fn columns(resource: &Resource) -> Vec<Column> {
    let mut columns = match resource.plural {
        "deployments" => vec![
            col("Ready", |o| {
                format!("{}/{}", n(o, "/status/readyReplicas"), n(o, "/spec/replicas")).into()
            }),
            num("Up-to-date", |o| n(o, "/status/updatedReplicas").into()),
            num("Available", |o| n(o, "/status/availableReplicas").into()),
        ],
        "replicasets" | "replicationcontrollers" => vec![
            num("Desired", |o| n(o, "/spec/replicas").into()),
            num("Current", |o| n(o, "/status/replicas").into()),
            num("Ready", |o| n(o, "/status/readyReplicas").into()),
        ],
        "daemonsets" => vec![
            num("Desired", |o| n(o, "/status/desiredNumberScheduled").into()),
            num("Current", |o| n(o, "/status/currentNumberScheduled").into()),
            num("Ready", |o| n(o, "/status/numberReady").into()),
            num("Up-to-date", |o| n(o, "/status/updatedNumberScheduled").into()),
            num("Available", |o| n(o, "/status/numberAvailable").into()),
            col("Node Selector", |o| labels(map(o, "/spec/template/spec/nodeSelector")).into()),
        ],
        "statefulsets" => {
            vec![col("Ready", |o| {
                format!("{}/{}", n(o, "/status/readyReplicas"), n(o, "/spec/replicas")).into()
            })]
        }
        "jobs" => vec![
            col("Status", |o| job_status(o).into()),
            col("Completions", |o| {
                let done = n(o, "/status/succeeded");
                match int(o, "/spec/completions") {
                    Some(wanted) => format!("{done}/{wanted}").into(),
                    None => format!("{done}/1 of {}", n(o, "/spec/parallelism")).into(),
                }
            }),
            col("Duration", |o| duration(o).into()),
        ],
        "cronjobs" => vec![
            col("Schedule", |o| text(o, "/spec/schedule").into()),
            col("Timezone", |o| {
                let zone = text(o, "/spec/timeZone");
                if zone.is_empty() { "<none>".into() } else { zone.into() }
            }),
            col("Suspend", |o| {
                if o["spec"]["suspend"] == true { "True".into() } else { "False".into() }
            }),
            num("Active", |o| list(o, "/status/active").len().into()),
            col("Last Schedule", |o| {
                let at = text(o, "/status/lastScheduleTime");
                if at.is_empty() { "<none>".into() } else { age(at).into() }
            }),
        ],
        _ => vec![
            col("Controller", |o| {
                let owner =
                    list(o, "/metadata/ownerReferences").iter().find(|r| r["controller"] == true);
                owner.map_or_else(
                    || "<none>".into(),
                    |r| {
                        format!(
                            "{}.{}/{}",
                            text(r, "/kind").to_lowercase(),
                            text(r, "/apiVersion").split('/').next().unwrap_or_default(),
                            text(r, "/name")
                        )
                        .into()
                    },
                )
            }),
            num("Revision", |o| n(o, "/revision").into()),
        ],
    };
    columns.push(col("Age", |o| age(text(o, "/metadata/creationTimestamp")).into()));
    match resource.plural {
        "controllerrevisions" => {}
        "cronjobs" => {
            columns.push(wide("Containers", |o| {
                containers(&o["spec"]["jobTemplate"]["spec"]["template"], "name")
            }));
            columns.push(wide("Images", |o| {
                containers(&o["spec"]["jobTemplate"]["spec"]["template"], "image")
            }));
        }
        _ => {
            columns.push(wide("Containers", |o| containers(&o["spec"]["template"], "name")));
            columns.push(wide("Images", |o| containers(&o["spec"]["template"], "image")));
        }
    }
    match resource.plural {
        "replicationcontrollers" => {
            columns.push(wide("Selector", |o| labels(map(o, "/spec/selector")).into()))
        }
        "deployments" | "replicasets" | "daemonsets" | "jobs" => {
            columns.push(wide("Selector", |o| selector(&o["spec"]["selector"]).into()));
        }
        _ => {}
    }
    columns
}

fn job_status(job: &Value) -> &'static str {
    let has = |kind: &str| {
        list(job, "/status/conditions")
            .iter()
            .any(|c| text(c, "/type") == kind && c["status"] == "True")
    };
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if crate::object::is_set(job, "/metadata/deletionTimestamp") {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn duration(job: &Value) -> String {
    let Some((start, _)) = parse_time(text(job, "/status/startTime")) else { return String::new() };
    let end = parse_time(text(job, "/status/completionTime")).map_or_else(now, |(at, _)| at);
    human(end - start)
}
