//! The words of events and the arithmetic of scores.

use std::sync::Arc;

use sched_core::Engine;
use serde_json::{Value, json};

fn engine(nodes: &[Value]) -> Engine {
    let mut engine = Engine::default();
    for node in nodes {
        engine.set_node(&serde_json::from_value(node.clone()).unwrap()).unwrap();
    }
    engine
}

fn node(name: &str, cpu: &str, taints: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"taints": taints},
        "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "110"}}})
}

fn refusal(engine: &mut Engine, spec: Value) -> String {
    let pod = json!({"metadata": {"name": "p", "uid": "u", "namespace": "default"}, "spec": spec});
    let info = engine.read(&serde_json::from_value(pod).unwrap()).unwrap();
    let mut why = engine.schedule(&info, 0).expect_err("no node fits");
    engine.preempt(&info, &mut why);
    why.message()
}

#[test]
fn refusal_reads_as_upstream() {
    let taint = json!([{"key": "dedicated", "value": "db", "effect": "NoSchedule"}]);
    let mut engine = engine(&[
        node("a", "1", json!([])),
        node("b", "1", json!([])),
        node("c", "1", json!([])),
        node("d", "8", taint.clone()),
        node("e", "8", taint),
    ]);
    let big = json!({"containers": [{"resources": {"requests": {"cpu": "2"}}}]});
    assert_eq!(
        refusal(&mut engine, big),
        "0/5 nodes are available: 2 node(s) had untolerated taint {dedicated: db}, 3 Insufficient cpu. \
         preemption: 0/5 nodes are available: 5 Preemption is not helpful for scheduling."
    );
    let never = json!({"preemptionPolicy": "Never", "nodeSelector": {"x": "y"}, "containers": []});
    assert_eq!(
        refusal(&mut engine, never),
        "0/5 nodes are available: 2 node(s) had untolerated taint {dedicated: db}, \
         3 node(s) didn't match Pod's node affinity/selector. \
         preemption: not eligible due to preemptionPolicy=Never."
    );
    assert_eq!(
        refusal(&mut Engine::default(), json!({"containers": []})),
        "no nodes available to schedule pods"
    );
}

#[test]
fn unknown_demands_are_refused_by_name() {
    let mut engine = engine(&[node("a", "1", json!([]))]);
    let claim = json!({"containers": [], "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]});
    assert_eq!(
        refusal(&mut engine, claim),
        "0/1 nodes are available: not supported yet: persistentVolumeClaim of volume \"data\"."
    );
    let device = json!({"containers": [], "resourceClaims": [{"name": "gpu"}]});
    assert_eq!(
        refusal(&mut engine, device),
        "0/1 nodes are available: not supported yet: resourceClaims."
    );
}

#[test]
fn sidecars_and_init_containers_count_as_upstream() {
    let mut engine = engine(&[node("a", "1", json!([]))]);
    let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
    let mut sidecar = container("300m");
    sidecar["restartPolicy"] = json!("Always");
    let spec = |init: &str| {
        json!({"containers": [container("400m")], "initContainers": [sidecar, container(init)],
        "overhead": {"cpu": "100m"}})
    };
    // 300m + 400m + 100m while running; 300m + 600m + 100m while starting.
    let pod = json!({"metadata": {"uid": "u"}, "spec": spec("600m")});
    let info = engine.read(&serde_json::from_value(pod).unwrap()).unwrap();
    assert!(engine.schedule(&info, 0).is_ok());
    assert!(refusal(&mut engine, spec("601m")).contains("1 Insufficient cpu"));
}

#[test]
fn sums_out_of_range_never_overcommit() {
    let mut engine = engine(&[node("a", "1", json!([]))]);
    for number in 0..4 {
        let pod = json!({"metadata": {"uid": number.to_string()}, "spec": {"containers": [
            {"resources": {"requests": {"memory": "9Ei", "cpu": "1e400"}}}]}});
        let info = engine.read(&serde_json::from_value(pod).unwrap()).unwrap();
        engine.place(Arc::new(info), "a");
        let text = refusal(
            &mut engine,
            json!({"containers": [{"resources": {"requests": {"memory": "1"}}}]}),
        );
        assert!(text.contains("1 Insufficient memory"), "{text}");
    }
    for number in 0..4 {
        engine.displace(&number.to_string()).unwrap();
    }
    let pod = json!({"metadata": {"uid": "x"}, "spec": {"containers": [{"resources": {"requests": {"memory": "4Gi"}}}]}});
    let info = engine.read(&serde_json::from_value(pod).unwrap()).unwrap();
    assert!(engine.schedule(&info, 0).is_ok(), "what was added is taken off exactly");
}

#[test]
fn images_on_the_node_count() {
    let mut with = node("b", "4", json!([]));
    with["status"]["images"] =
        json!([{"names": ["docker.io/big:latest"], "sizeBytes": 900_000_000}]);
    let mut engine = engine(&[node("a", "4", json!([])), with]);
    let pod =
        json!({"metadata": {"uid": "u"}, "spec": {"containers": [{"image": "docker.io/big"}]}});
    let info = engine.read(&serde_json::from_value(pod).unwrap()).unwrap();
    let views = engine.explain(&info);
    // (450000000 - 23 Mi) * 100 / (1000 Mi - 23 Mi)
    assert_eq!((views[0].scores["ImageLocality"], views[1].scores["ImageLocality"]), (0, 41));
    assert_eq!(engine.schedule(&info, 0).unwrap().node, "b");
}
