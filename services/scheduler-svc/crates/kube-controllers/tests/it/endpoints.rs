//! EndpointSlices and Endpoints.

use kube_fake::FakeApi;
use serde_json::{Value, json};

use crate::world::*;

const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"team": "a"}}, "spec": {"selector": {"app": "web"},
        "clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"],
        "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]}})
}

fn ready_endpoints(api: &FakeApi) -> usize {
    let slices = api.list(SLICES);
    let all = slices.iter().flat_map(|s| s["endpoints"].as_array().into_iter().flatten());
    all.filter(|e| e["conditions"]["ready"] == true).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slices_and_endpoints_follow_the_pods() {
    let world = World::new(&["n1", "n2"]).await;
    world.api.create(SERVICES, service("web"));
    world.api.create(DEPLOYMENTS, deployment("web", 3, json!(1), json!(0)));
    world.until("three endpoints", |api| ready_endpoints(api) == 3).await;
    let slice = &world.api.list(SLICES)[0];
    let labels = &slice["metadata"]["labels"];
    assert_eq!(labels["kubernetes.io/service-name"], "web");
    assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], "endpointslice-controller.k8s.io");
    assert_eq!(labels["team"], "a");
    assert_eq!(slice["addressType"], "IPv4");
    assert_eq!(slice["ports"], json!([{"name": "http", "protocol": "TCP", "port": 8080}]));
    assert_eq!(slice["metadata"]["ownerReferences"][0]["kind"], "Service");
    let endpoint = &slice["endpoints"][0];
    assert_eq!(
        endpoint["conditions"],
        json!({"ready": true, "serving": true, "terminating": false})
    );
    assert_eq!(endpoint["targetRef"]["kind"], "Pod");
    assert_eq!(endpoint["zone"], "z1");
    assert!(endpoint["nodeName"].is_string());
    let old = "/api/v1/namespaces/default/endpoints/web";
    world
        .until("endpoints object", |api| {
            api.get(old).is_some_and(|e| {
                e["subsets"][0]["addresses"].as_array().is_some_and(|a| a.len() == 3)
                    && e["subsets"][0]["ports"][0]["port"] == 8080
            })
        })
        .await;
    let pod = world.api.list(PODS)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    world.api.edit_status(&format!("{PODS}/{pod}"), |p| {
        p["status"]["conditions"] = json!([{"type": "Ready", "status": "False"}]);
    });
    world.until("one is not ready", |api| ready_endpoints(api) == 2).await;
    world
        .until("not ready in endpoints", |api| {
            api.get(old).is_some_and(|e| {
                e["subsets"][0]["notReadyAddresses"].as_array().is_some_and(|a| a.len() == 1)
            })
        })
        .await;
    world.api.delete(&format!("{SERVICES}/web"), json!({}));
    world
        .until("gone with the service", |api| api.list(SLICES).is_empty() && api.get(old).is_none())
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn big_service_is_cut_into_slices() {
    let world = World::new(&["n1", "n2"]).await;
    world.api.create(SERVICES, service("web"));
    world.until("placeholder", |api| api.list(SLICES).len() == 1).await;
    world.api.create(DEPLOYMENTS, deployment("web", 130, json!(1), json!(0)));
    world.until("130 endpoints", |api| ready_endpoints(api) == 130).await;
    world.until("two slices", |api| api.list(SLICES).len() == 2).await;
    for event in world.api.history(0).iter().filter(|e| e.plural == "endpointslices") {
        assert!(event.object["endpoints"].as_array().is_none_or(|all| all.len() <= 100));
    }
    let uids = world
        .api
        .list(SLICES)
        .iter()
        .flat_map(|s| s["endpoints"].as_array().unwrap().clone())
        .map(|e| e["targetRef"]["uid"].as_str().unwrap().to_owned())
        .collect::<std::collections::HashSet<_>>();
    assert_eq!(uids.len(), 130, "no pod is listed twice");
}
