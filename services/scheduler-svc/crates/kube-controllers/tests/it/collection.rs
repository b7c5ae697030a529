//! Garbage collection, namespaces and what they contain.

use kube_fake::FakeApi;
use serde_json::json;

use crate::world::*;

fn ready(api: &FakeApi) -> bool {
    api.get(&format!("{DEPLOYMENTS}/web")).is_some_and(|d| rolled_out(&d))
}

async fn with_web() -> World {
    let world = World::new(&["n1"]).await;
    world.api.create(DEPLOYMENTS, deployment("web", 3, json!(1), json!(1)));
    world.until("rollout", ready).await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn background_deletion_takes_dependents_along() {
    let world = with_web().await;
    world.api.delete(&format!("{DEPLOYMENTS}/web"), json!({"propagationPolicy": "Background"}));
    world.until("all gone", |api| api.list(SETS).is_empty() && api.list(PODS).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreground_deletion_ends_with_the_owner() {
    let world = with_web().await;
    let since = world.api.version();
    world.api.delete(&format!("{DEPLOYMENTS}/web"), json!({"propagationPolicy": "Foreground"}));
    world.until("all gone", |api| api.list(DEPLOYMENTS).is_empty()).await;
    let order: Vec<&str> = world
        .api
        .history(since)
        .iter()
        .filter(|e| e.action == "DELETED")
        .map(|e| e.plural)
        .filter(|p| ["pods", "replicasets", "deployments"].contains(p))
        .collect();
    assert_eq!(order, ["pods", "pods", "pods", "replicasets", "deployments"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphaned_dependents_stay() {
    let world = with_web().await;
    world.api.delete(&format!("{DEPLOYMENTS}/web"), json!({"propagationPolicy": "Orphan"}));
    world.until("owner gone", |api| api.list(DEPLOYMENTS).is_empty()).await;
    let sets = world.api.list(SETS);
    assert_eq!(sets.len(), 1);
    assert!(sets[0]["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty));
    assert_eq!(world.api.list(PODS).len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dependents_of_owners_that_never_were_go() {
    let world = World::new(&["n1"]).await;
    let owner =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "ghost", "uid": "no-such-uid"}]);
    let maps = "/api/v1/namespaces/default/configmaps";
    world.api.create(maps, json!({"metadata": {"name": "a", "ownerReferences": owner}}));
    let real = world.api.create(maps, json!({"metadata": {"name": "real"}}));
    let both = json!([owner[0], {"apiVersion": "v1", "kind": "ConfigMap", "name": "real",
        "uid": real["metadata"]["uid"]}]);
    world.api.create(maps, json!({"metadata": {"name": "b", "ownerReferences": both}}));
    world.until("ghost's child goes", |api| api.get(&format!("{maps}/a")).is_none()).await;
    world
        .until("dangling reference goes", |api| {
            let b = api.get(&format!("{maps}/b")).expect("b has a living owner");
            b["metadata"]["ownerReferences"].as_array().unwrap().len() == 1
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespace_goes_with_its_content() {
    let world = World::new(&["n1"]).await;
    world.api.create("/api/v1/namespaces", json!({"metadata": {"name": "shop"}}));
    world
        .until("service account", |api| {
            api.get("/api/v1/namespaces/shop/serviceaccounts/default").is_some()
        })
        .await;
    let mut web = deployment("web", 4, json!(1), json!(1));
    web["metadata"]["namespace"] = json!("shop");
    world.api.create("/apis/apps/v1/namespaces/shop/deployments", web);
    world.api.create("/api/v1/namespaces/shop/configmaps", json!({"metadata": {"name": "c"}}));
    world.until("pods", |api| api.list("/api/v1/namespaces/shop/pods").len() == 4).await;
    world.api.delete("/api/v1/namespaces/shop", json!({}));
    world.until("namespace gone", |api| api.get("/api/v1/namespaces/shop").is_none()).await;
    for kind in [
        "/api/v1/pods",
        "/apis/apps/v1/deployments",
        "/apis/apps/v1/replicasets",
        "/api/v1/configmaps",
    ] {
        let left = world
            .api
            .list(kind)
            .into_iter()
            .filter(|o| o["metadata"]["namespace"] == "shop")
            .count();
        assert_eq!(left, 0, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_namespace_gets_account_and_root_certificate() {
    let mut world = World::idle(&[]).await;
    let file = std::env::temp_dir().join(format!("flotilla-root-{}.pem", std::process::id()));
    std::fs::write(&file, "PEM").unwrap();
    world.config.root_ca_file = Some(file.clone());
    world.start();
    let map = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt";
    world
        .until("published", |api| api.get(map).is_some_and(|m| m["data"]["ca.crt"] == "PEM"))
        .await;
    world.api.edit(map, |m| m["data"] = json!({"ca.crt": "FORGED"}));
    world.until("restored", |api| api.get(map).is_some_and(|m| m["data"]["ca.crt"] == "PEM")).await;
    world.api.delete("/api/v1/namespaces/default/serviceaccounts/default", json!({}));
    world
        .until("account again", |api| {
            api.get("/api/v1/namespaces/default/serviceaccounts/default").is_some()
        })
        .await;
    std::fs::remove_file(file).unwrap();
}
