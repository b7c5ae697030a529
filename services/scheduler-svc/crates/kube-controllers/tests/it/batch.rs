//! Jobs, daemon sets and stateful sets.

use kube_fake::FakeApi;
use serde_json::{Value, json};

use crate::world::*;

const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const DAEMONS: &str = "/apis/apps/v1/namespaces/default/daemonsets";
const STATEFUL: &str = "/apis/apps/v1/namespaces/default/statefulsets";

fn job(name: &str, exit: i64, spec: Value) -> Value {
    let mut job = json!({"metadata": {"name": name}, "spec": {"template": {"metadata": {"labels": {"job": name}},
        "spec": {"restartPolicy": "Never", "exit": exit, "containers": [{"name": "c"}]}}}});
    job["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    job
}

fn ended(api: &FakeApi, name: &str, kind: &str) -> Option<Value> {
    let job = api.get(&format!("{JOBS}/{name}"))?;
    (condition(&job, kind)["status"] == "True").then_some(job)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_counts_each_pod_once() {
    let mut world = World::new(&["n1"]).await;
    world.api.create(JOBS, job("sum", 0, json!({"completions": 7, "parallelism": 3})));
    for _ in 0..4 {
        tokio::time::sleep(std::time::Duration::from_millis(40)).await;
        world.kill().await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        world.start();
    }
    world.until("complete", |api| ended(api, "sum", "Complete").is_some()).await;
    let done = ended(&world.api, "sum", "Complete").unwrap();
    let status = &done["status"];
    assert_eq!(
        (status["succeeded"].as_i64(), status["failed"].as_i64().unwrap_or(0)),
        (Some(7), 0)
    );
    assert!(status["startTime"].is_string() && status["completionTime"].is_string());
    let pods = world.api.list(PODS);
    assert_eq!(pods.len(), 7);
    assert!(pods.iter().all(|p| p["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)));
    world.api.delete(&format!("{JOBS}/sum"), json!({"propagationPolicy": "Background"}));
    world.until("pods go with the job", |api| api.list(PODS).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_job_ends_at_its_limit() {
    let world = World::new(&["n1"]).await;
    world.api.create(JOBS, job("bad", 1, json!({"backoffLimit": 0})));
    world.until("failed", |api| ended(api, "bad", "Failed").is_some()).await;
    let failed = ended(&world.api, "bad", "Failed").unwrap();
    assert_eq!(condition(&failed, "Failed")["reason"], "BackoffLimitExceeded");
    assert_eq!(failed["status"]["failed"], 1);
    world.api.create(
        JOBS,
        job(
            "late",
            0,
            json!({"activeDeadlineSeconds": 1, "suspend": false,
        "template": {"metadata": {"labels": {}}, "spec": {"containers": []}}}),
        ),
    );
    world.until("too late", |api| ended(api, "late", "Failed").is_some()).await;
    assert_eq!(
        condition(&ended(&world.api, "late", "Failed").unwrap(), "Failed")["reason"],
        "DeadlineExceeded"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indexed_job_runs_every_index() {
    let world = World::new(&["n1"]).await;
    let spec = json!({"completions": 5, "parallelism": 2, "completionMode": "Indexed", "ttlSecondsAfterFinished": 1});
    world.api.create(JOBS, job("idx", 0, spec));
    world.until("complete", |api| ended(api, "idx", "Complete").is_some()).await;
    assert_eq!(ended(&world.api, "idx", "Complete").unwrap()["status"]["completedIndexes"], "0-4");
    let names: Vec<String> = world
        .api
        .list(PODS)
        .iter()
        .map(|p| p["spec"]["hostname"].as_str().unwrap().to_owned())
        .collect();
    for index in 0..5 {
        assert!(names.contains(&format!("idx-{index}")), "{names:?}");
    }
    world
        .until("gone after its time", |api| api.list(JOBS).is_empty() && api.list(PODS).is_empty())
        .await;
}

fn daemon(image: &str) -> Value {
    let mut template = template("agent", image);
    template["spec"]["nodeSelector"] = json!({"topology.kubernetes.io/zone": "z1"});
    json!({"metadata": {"name": "agent"}, "spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": template,
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}}})
}

/// What `kubectl rollout status` waits for.
fn daemon_ready(api: &FakeApi, nodes: i64) -> bool {
    let Some(set) = api.get(&format!("{DAEMONS}/agent")) else { return false };
    let at = |name: &str| set["status"][name].as_i64().unwrap_or(0);
    at("desiredNumberScheduled") == nodes
        && at("updatedNumberScheduled") == nodes
        && at("numberAvailable") == nodes
        && at("observedGeneration") == set["metadata"]["generation"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemon_runs_once_on_every_node() {
    let world = World::new(&["n1", "n2", "n3"]).await;
    world.api.create(DAEMONS, daemon("v1"));
    // The pretended scheduler ignores affinity; each pod names its node there.
    world.until("pinned", |api| api.list(PODS).len() == 3).await;
    let names: std::collections::BTreeSet<String> = world
        .api
        .list(PODS)
        .iter()
        .map(|p| {
            p["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
                ["nodeSelectorTerms"][0]["matchFields"][0]["values"][0]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["n1", "n2", "n3"]);
    world.until("ready", |api| daemon_ready(api, 3)).await;
    let since = world.api.version();
    world.api.edit(&format!("{DAEMONS}/agent"), |d| {
        d["spec"]["template"]["spec"]["containers"][0]["image"] = json!("v2")
    });
    world.until("updated", |api| daemon_ready(api, 3)).await;
    crate::rollout::check_budget(&world.api, since, "agent", 3, 2);
    world.api.edit("/api/v1/nodes/n3", |n| {
        n["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!("z2")
    });
    world.until("off the node", |api| daemon_ready(api, 2) && api.list(PODS).len() == 2).await;
    let revisions = world.api.list("/apis/apps/v1/namespaces/default/controllerrevisions");
    assert_eq!(revisions.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stateful_pods_come_and_go_in_order() {
    let world = World::new(&["n1"]).await;
    world.api.create(
        STATEFUL,
        json!({"metadata": {"name": "db"}, "spec": {"replicas": 3, "serviceName": "db",
        "selector": {"matchLabels": {"app": "db"}}, "template": template("db", "v1"),
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}}}),
    );
    let settled = |api: &FakeApi, replicas: i64| {
        let set = api.get(&format!("{STATEFUL}/db")).unwrap();
        let at = |name: &str| set["status"][name].as_i64().unwrap_or(0);
        at("readyReplicas") == replicas
            && at("replicas") == replicas
            && at("updatedReplicas") == replicas
            && at("observedGeneration") == set["metadata"]["generation"].as_i64().unwrap()
            && set["status"]["currentRevision"] == set["status"]["updateRevision"]
    };
    world.until("three", |api| settled(api, 3)).await;
    let names = |since: u64, action: &str| -> Vec<String> {
        let pods = world
            .api
            .history(since)
            .into_iter()
            .filter(|e| e.plural == "pods" && e.action == action);
        pods.map(|e| e.object["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(0, "ADDED"), ["db-0", "db-1", "db-2"]);
    let pod = world.api.get(&format!("{PODS}/db-1")).unwrap();
    assert_eq!(
        (&pod["spec"]["hostname"], &pod["spec"]["subdomain"]),
        (&json!("db-1"), &json!("db"))
    );
    assert_eq!(pod["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"], "db-1");
    let since = world.api.version();
    world.api.edit(&format!("{STATEFUL}/db"), |d| d["spec"]["template"] = template("db", "v2"));
    world.until("updated", |api| settled(api, 3)).await;
    assert_eq!(names(since, "DELETED"), ["db-2", "db-1", "db-0"]);
    let since = world.api.version();
    world.api.edit(&format!("{STATEFUL}/db"), |d| d["spec"]["replicas"] = json!(1));
    world.until("scaled down", |api| settled(api, 1)).await;
    assert_eq!(names(since, "DELETED"), ["db-2", "db-1"]);
    let since = world.api.version();
    world.api.edit(&format!("{STATEFUL}/db"), |d| {
        d["spec"]["replicas"] = json!(3);
        d["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = json!(2);
        d["spec"]["template"] = template("db", "v3");
    });
    world
        .until("held at the partition", |api| {
            let image = |n: usize| {
                api.get(&format!("{PODS}/db-{n}"))
                    .map(|p| p["spec"]["containers"][0]["image"].clone())
            };
            let ready =
                api.list(PODS).iter().filter(|p| condition(p, "Ready")["status"] == "True").count()
                    == 3;
            ready
                && image(0) == Some(json!("v2"))
                && image(1) == Some(json!("v2"))
                && image(2) == Some(json!("v3"))
        })
        .await;
    assert!(!names(since, "DELETED").contains(&"db-0".to_owned()));
}
