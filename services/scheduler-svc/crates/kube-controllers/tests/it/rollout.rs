//! Deployments: update within the budget, rollback, scaling, pause, recreate.

use std::collections::HashMap;

use kube_fake::FakeApi;
use serde_json::{Value, json};

use crate::world::*;

/// Replays the history and checks the number of pods and of available pods after every change.
pub fn check_budget(api: &FakeApi, since: u64, app: &str, most: usize, least: usize) {
    let mut pods: HashMap<String, Value> = HashMap::new();
    let mut checked = 0;
    for event in api.history(0) {
        if event.plural != "pods" || event.object["metadata"]["labels"]["app"] != app {
            continue;
        }
        let uid = event.object["metadata"]["uid"].as_str().unwrap().to_owned();
        if event.action == "DELETED" {
            pods.remove(&uid);
        } else {
            pods.insert(uid, event.object.clone());
        }
        if event.version <= since {
            continue;
        }
        checked += 1;
        let alive: Vec<&Value> = pods.values().filter(|p| !deleting(p)).collect();
        let available = alive.iter().filter(|p| condition(p, "Ready")["status"] == "True").count();
        assert!(alive.len() <= most, "{} pods at version {}", alive.len(), event.version);
        assert!(available >= least, "{available} available at version {}", event.version);
    }
    assert!(checked > 0, "nothing happened");
}

fn done(name: &'static str) -> impl FnMut(&FakeApi) -> bool {
    move |api| api.get(&format!("{DEPLOYMENTS}/{name}")).is_some_and(|d| rolled_out(&d))
}

fn set_image(world: &World, name: &str, image: &str) {
    world
        .api
        .edit(&format!("{DEPLOYMENTS}/{name}"), |d| d["spec"]["template"] = template(name, image));
}

fn revisions(api: &FakeApi) -> HashMap<String, (String, i64)> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    api.list(SETS)
        .iter()
        .map(|set| {
            let image = text(&set["spec"]["template"]["spec"]["containers"][0]["image"]);
            let revision =
                text(&set["metadata"]["annotations"]["deployment.kubernetes.io/revision"]);
            (image, (revision, set["spec"]["replicas"].as_i64().unwrap()))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn update_and_rollback_stay_within_budget() {
    let world = World::new(&["n1", "n2"]).await;
    world.api.create(DEPLOYMENTS, deployment("web", 6, json!(2), json!(1)));
    world.until("first rollout", done("web")).await;
    let since = world.api.version();
    set_image(&world, "web", "v2");
    world.until("update", done("web")).await;
    check_budget(&world.api, since, "web", 8, 5);
    let web = world.api.get(&format!("{DEPLOYMENTS}/web")).unwrap();
    assert_eq!(condition(&web, "Progressing")["reason"], "NewReplicaSetAvailable");
    assert_eq!(condition(&web, "Available")["status"], "True");
    assert_eq!(web["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "2");
    assert_eq!(revisions(&world.api)["v1"], ("1".to_owned(), 0));
    assert_eq!(revisions(&world.api)["v2"], ("2".to_owned(), 6));

    let since = world.api.version();
    set_image(&world, "web", "v1");
    world.until("rollback", done("web")).await;
    check_budget(&world.api, since, "web", 8, 5);
    assert_eq!(world.api.list(SETS).len(), 2, "the old replica set is used again");
    assert_eq!(revisions(&world.api)["v1"], ("3".to_owned(), 6));

    world
        .until("events", |api| {
            let events = api.list("/api/v1/namespaces/default/events");
            let reasons: Vec<&str> = events.iter().filter_map(|e| e["reason"].as_str()).collect();
            ["ScalingReplicaSet", "SuccessfulCreate", "SuccessfulDelete"]
                .iter()
                .all(|r| reasons.contains(r))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn percentages_bound_the_update() {
    let world = World::new(&["n1", "n2"]).await;
    world.api.create(DEPLOYMENTS, deployment("pct", 10, json!("25%"), json!("25%")));
    world.until("first rollout", done("pct")).await;
    let since = world.api.version();
    set_image(&world, "pct", "v2");
    world.until("update", done("pct")).await;
    check_budget(&world.api, since, "pct", 13, 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_update_keeps_old_pods_and_scales_in_proportion() {
    let world = World::new(&["n1", "n2"]).await;
    world.api.create(DEPLOYMENTS, deployment("bad", 10, json!(3), json!(2)));
    world.until("first rollout", done("bad")).await;
    let since = world.api.version();
    world.api.edit(&format!("{DEPLOYMENTS}/bad"), |d| {
        d["spec"]["template"]["spec"]["broken"] = json!(true);
        d["spec"]["progressDeadlineSeconds"] = json!(2);
    });
    world
        .until("old and new stand still", |api| {
            let sizes: Vec<i64> =
                api.list(SETS).iter().filter_map(|s| s["spec"]["replicas"].as_i64()).collect();
            sizes.contains(&8) && sizes.contains(&5)
        })
        .await;
    world
        .until("deadline", |api| {
            let bad = api.get(&format!("{DEPLOYMENTS}/bad")).unwrap();
            condition(&bad, "Progressing")["reason"] == "ProgressDeadlineExceeded"
        })
        .await;
    check_budget(&world.api, since, "bad", 13, 8);
    world.api.edit(&format!("{DEPLOYMENTS}/bad"), |d| d["spec"]["replicas"] = json!(15));
    world
        .until("both grow", |api| {
            let mut sizes: Vec<i64> =
                api.list(SETS).iter().filter_map(|s| s["spec"]["replicas"].as_i64()).collect();
            sizes.sort_unstable();
            sizes == [7, 11]
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_deployment_waits_and_scales() {
    let world = World::new(&["n1"]).await;
    world.api.create(DEPLOYMENTS, deployment("still", 2, json!(1), json!(0)));
    world.until("first rollout", done("still")).await;
    world.api.edit(&format!("{DEPLOYMENTS}/still"), |d| {
        d["spec"]["paused"] = json!(true);
        d["spec"]["replicas"] = json!(4);
        d["spec"]["template"] = template("still", "v2");
    });
    world
        .until("scaled", |api| {
            api.list(PODS).iter().filter(|p| condition(p, "Ready")["status"] == "True").count() == 4
        })
        .await;
    world
        .until("condition", |api| {
            condition(&api.get(&format!("{DEPLOYMENTS}/still")).unwrap(), "Progressing")["reason"]
                == "DeploymentPaused"
        })
        .await;
    assert_eq!(world.api.list(SETS).len(), 1);
    world.api.edit(&format!("{DEPLOYMENTS}/still"), |d| d["spec"]["paused"] = json!(false));
    world.until("resumed", done("still")).await;
    assert_eq!(revisions(&world.api)["v2"].1, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recreate_never_mixes_templates_and_history_is_limited() {
    let world = World::new(&["n1"]).await;
    let mut object = deployment("one", 3, json!(1), json!(1));
    object["spec"]["strategy"] = json!({"type": "Recreate"});
    object["spec"]["revisionHistoryLimit"] = json!(1);
    world.api.create(DEPLOYMENTS, object);
    world.until("first rollout", done("one")).await;
    for image in ["v2", "v3", "v4"] {
        set_image(&world, "one", image);
        world.until("update", done("one")).await;
    }
    let mut images: HashMap<String, String> = HashMap::new();
    for event in world.api.history(0).iter().filter(|e| e.plural == "pods") {
        let uid = event.object["metadata"]["uid"].as_str().unwrap().to_owned();
        if event.action == "DELETED" {
            images.remove(&uid);
        } else {
            images.insert(uid, event.object["spec"]["containers"][0]["image"].to_string());
        }
        let mut kinds: Vec<&String> = images.values().collect();
        kinds.sort();
        kinds.dedup();
        assert!(kinds.len() <= 1, "two templates at version {}", event.version);
    }
    world.until("old sets go", |api| api.list(SETS).len() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_are_adopted_and_strangers_released() {
    let world = World::new(&["n1"]).await;
    world.api.create(
        PODS,
        json!({"metadata": {"name": "lonely", "labels": {"app": "ad"}},
        "spec": {"containers": []}}),
    );
    world.api.create(
        SETS,
        json!({"metadata": {"name": "ad"}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"app": "ad"}}, "template": template("ad", "v1")}}),
    );
    let owned = |api: &FakeApi| {
        api.list(PODS)
            .iter()
            .filter(|p| p["metadata"]["ownerReferences"][0]["name"] == "ad")
            .count()
    };
    world.until("adopted", move |api| owned(api) == 2 && api.list(PODS).len() == 2).await;
    world.api.edit(&format!("{PODS}/lonely"), |p| p["metadata"]["labels"] = json!({"app": "gone"}));
    world
        .until("released and replaced", move |api| owned(api) == 2 && api.list(PODS).len() == 3)
        .await;
    world
        .until("status", |api| {
            api.get(&format!("{SETS}/ad")).unwrap()["status"]["availableReplicas"] == 2
        })
        .await;
}
