//! Nodes that die.

use std::time::Duration;

use serde_json::json;

use crate::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_a_dead_node_are_replaced() {
    let mut world = World::idle(&["n1", "n2"]).await;
    world.config.node_monitor_grace_period = Duration::from_secs(1);
    world.config.node_monitor_period = Duration::from_millis(100);
    world.config.node_eviction_rate = 100.0;
    world.start();
    let mut web = deployment("web", 4, json!(1), json!(1));
    let seconds = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1});
    web["spec"]["template"]["spec"]["tolerations"] =
        json!([seconds("node.kubernetes.io/not-ready"), seconds("node.kubernetes.io/unreachable")]);
    world.api.create(DEPLOYMENTS, web);
    world
        .until("rollout", |api| {
            api.get(&format!("{DEPLOYMENTS}/web")).is_some_and(|d| rolled_out(&d))
        })
        .await;
    world.dead.lock().insert("n1".to_owned());
    world
        .until("node unknown", |api| {
            condition(&api.get("/api/v1/nodes/n1").unwrap(), "Ready")["status"] == "Unknown"
        })
        .await;
    world
        .until("tainted", |api| {
            let node = api.get("/api/v1/nodes/n1").unwrap();
            let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
            let has = |effect: &str| {
                taints
                    .iter()
                    .any(|t| t["key"] == "node.kubernetes.io/unreachable" && t["effect"] == effect)
            };
            has("NoSchedule") && has("NoExecute")
        })
        .await;
    world
        .until("replaced", |api| {
            let ready = |p: &&serde_json::Value| {
                !deleting(p)
                    && condition(p, "Ready")["status"] == "True"
                    && p["spec"]["nodeName"] == "n2"
            };
            api.list(PODS).iter().filter(ready).count() == 4
        })
        .await;
    // The pods of the dead node wait for its kubelet to confirm that they ended.
    assert!(world.api.list(PODS).iter().filter(|p| p["spec"]["nodeName"] == "n1").all(deleting));
    world.dead.lock().clear();
    world.api.edit_status("/api/v1/nodes/n1", |n| {
        n["status"]["conditions"] =
            json!([{"type": "Ready", "status": "True", "lastHeartbeatTime": "x"}]);
    });
    world
        .until("taints go", |api| {
            api.get("/api/v1/nodes/n1").unwrap()["spec"]["taints"]
                .as_array()
                .is_some_and(Vec::is_empty)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_evicted_when_every_node_is_silent() {
    let mut world = World::idle(&["n1", "n2"]).await;
    world.config.node_monitor_grace_period = Duration::from_millis(500);
    world.config.node_monitor_period = Duration::from_millis(100);
    world.start();
    world.api.create(DEPLOYMENTS, deployment("web", 2, json!(1), json!(1)));
    world
        .until("rollout", |api| {
            api.get(&format!("{DEPLOYMENTS}/web")).is_some_and(|d| rolled_out(&d))
        })
        .await;
    world.dead.lock().extend(["n1".to_owned(), "n2".to_owned()]);
    world
        .until("both unknown", |api| {
            api.list("/api/v1/nodes").iter().all(|n| {
                n["spec"]["taints"]
                    .as_array()
                    .is_some_and(|t| t.iter().any(|t| t["key"] == "node.kubernetes.io/unreachable"))
            })
        })
        .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let no_execute = |n: &serde_json::Value| {
        n["spec"]["taints"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|t| t["effect"] == "NoExecute")
            .count()
    };
    let marked: usize = world.api.list("/api/v1/nodes").iter().map(no_execute).sum();
    assert!(marked <= 1, "at most the node that was seen to be down first");
    assert!(world.api.list(PODS).iter().filter(|p| deleting(p)).count() <= 1);
}
