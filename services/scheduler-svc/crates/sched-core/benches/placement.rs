//! Decisions per CPU second: `cargo bench -p sched-core`.
//!
//! 5,000 nodes, all of them looked at for every pod; time is the CPU time of this thread.

use std::sync::Arc;

use sched_core::{Engine, Weights};
use serde_json::{Value, json};

fn cpu_seconds() -> f64 {
    // Fields 14 and 15 of proc(5) stat, in ticks of a hundredth second, counted after the name's bracket.
    let stat = std::fs::read_to_string("/proc/self/stat").expect("proc is mounted");
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}

fn cluster(nodes: usize) -> Engine {
    let mut engine = Engine::new(Weights::default(), 1, 7);
    for n in 0..nodes {
        let node = json!({"metadata": {"name": format!("node-{n}"), "labels": {
                "kubernetes.io/hostname": format!("node-{n}"), "topology.kubernetes.io/zone": format!("z{}", n % 3)}},
            "status": {"allocatable": {"cpu": "32", "memory": "256Gi", "pods": "110"}}});
        engine.set_node(&serde_json::from_value(node).expect("a node")).expect("good amounts");
    }
    engine
}

fn run(name: &str, pods: usize, spec: impl Fn(usize) -> Value) {
    let mut engine = cluster(5_000);
    let parsed: Vec<_> = (0..pods)
        .map(|n| {
            let pod = json!({"metadata": {"name": format!("p{n}"), "uid": format!("u{n}"), "namespace": "default",
                "labels": {"app": format!("a{}", n % 10)}}, "spec": spec(n)});
            Arc::new(engine.read(&serde_json::from_value(pod).expect("a pod")).expect("good amounts"))
        })
        .collect();
    let start = cpu_seconds();
    let mut placed = 0;
    for (turn, pod) in parsed.into_iter().enumerate() {
        if let Ok(choice) = engine.schedule(&pod, turn as u64) {
            engine.place(pod, &choice.node);
            placed += 1;
        }
    }
    let seconds = cpu_seconds() - start;
    println!(
        "{name:<28} {placed:>6} placed  {:>9.0} pods/CPU-s",
        placed as f64 / seconds.max(0.01)
    );
}

fn requests(cpu: usize) -> Value {
    json!([{"name": "c", "resources": {"requests": {"cpu": format!("{cpu}m"), "memory": "128Mi"}}}])
}

fn main() {
    run("basic, 1 class", 30_000, |_| json!({"containers": requests(100)}));
    run("basic, 64 classes", 30_000, |n| json!({"containers": requests(50 + n % 64)}));
    run("basic, all classes differ", 3_000, |n| json!({"containers": requests(1 + n)}));
    run("node affinity, preferred", 20_000, |n| {
        json!({"containers": requests(100), "affinity": {"nodeAffinity":
        {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 5, "preference": {"matchExpressions": [
            {"key": "topology.kubernetes.io/zone", "operator": "In", "values": [format!("z{}", n % 3)]}]}}]}}})
    });
    let term = |key: &str, n: usize| json!([{"topologyKey": key, "labelSelector": {"matchLabels": {"app": format!("a{}", n % 10)}}}]);
    run("anti-affinity, host", 3_000, |n| {
        json!({"containers": requests(100), "affinity": {"podAntiAffinity":
        {"requiredDuringSchedulingIgnoredDuringExecution": term("kubernetes.io/hostname", n)}}})
    });
    run("affinity, zone", 3_000, |n| {
        json!({"containers": requests(100), "affinity": {"podAffinity":
        {"requiredDuringSchedulingIgnoredDuringExecution": term("topology.kubernetes.io/zone", n)}}})
    });
    run("spread, zone", 3_000, |n| {
        json!({"containers": requests(100), "topologySpreadConstraints": [{"maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": format!("a{}", n % 10)}}}]})
    });
}
