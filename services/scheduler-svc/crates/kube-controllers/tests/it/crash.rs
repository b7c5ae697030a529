//! Controllers that die at any moment and begin anew.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::rollout::check_budget;
use crate::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_controllers_converge_without_breaking_the_budget() {
    let mut random = StdRng::seed_from_u64(7);
    let mut world = World::new(&["n1", "n2"]).await;
    world.api.create(DEPLOYMENTS, deployment("web", 8, json!(2), json!(2)));
    world
        .until("first rollout", |api| {
            api.get(&format!("{DEPLOYMENTS}/web")).is_some_and(|d| rolled_out(&d))
        })
        .await;
    let since = world.api.version();
    for round in 0..12 {
        if round % 3 == 0 {
            let image = format!("v{round}");
            world.api.edit(&format!("{DEPLOYMENTS}/web"), |d| {
                d["spec"]["template"] = template("web", &image)
            });
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..90))).await;
        world.kill().await;
        if round == 5 {
            world.api.compact();
        }
        // What the dead process has sent is still on its way; a lease would keep its successor away longer.
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.start();
    }
    world
        .until("converged", |api| {
            api.get(&format!("{DEPLOYMENTS}/web")).is_some_and(|d| rolled_out(&d))
                && api.list(PODS).len() == 8
        })
        .await;
    check_budget(&world.api, since, "web", 10, 6);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_process_waits_for_the_lease() {
    let mut world = World::idle(&["n1"]).await;
    world.config.leader_elect = true;
    world.config.leader_elect_lease_duration = Duration::from_millis(3500);
    world.config.leader_elect_renew_deadline = Duration::from_millis(3000);
    world.config.leader_elect_retry_period = Duration::from_millis(100);
    let leases =
        "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager";
    world.api.create("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", json!({
        "metadata": {"name": "kube-controller-manager"},
        "spec": {"holderIdentity": "other", "leaseDurationSeconds": 1, "renewTime": "2020-01-01T00:00:00Z"}}));
    let begin = std::time::Instant::now();
    world.start();
    world
        .until("lease taken", |api| api.get(leases).unwrap()["spec"]["holderIdentity"] != "other")
        .await;
    assert!(begin.elapsed() >= Duration::from_millis(900), "a fresh lease must be waited out");
    world
        .until("leader works", |api| {
            api.get("/api/v1/namespaces/default/serviceaccounts/default").is_some()
        })
        .await;
    world.stop().await;
    assert_eq!(
        world.api.get(leases).unwrap()["spec"]["holderIdentity"],
        "",
        "the lease is given up"
    );
}
