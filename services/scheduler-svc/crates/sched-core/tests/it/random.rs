//! Random clusters and random changes.

use std::sync::Arc;

use sched_core::{Engine, Weights};
use serde_json::{Value, json};

use crate::oracle::World;

/// splitmix64
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }
}

fn node(random: &mut Random, name: &str) -> Value {
    let mut labels = json!({"kubernetes.io/hostname": name, "disk": random.pick(&["ssd", "hdd"])});
    if random.chance(85) {
        labels["zone"] = json!(random.pick(&["a", "b", "c"]));
    }
    let mut taints = vec![];
    if random.chance(20) {
        taints.push(json!({"key": "k", "value": random.pick(&["1", "2"]), "effect": random.pick(&["NoSchedule", "PreferNoSchedule", "NoExecute"])}));
    }
    if random.chance(15) {
        taints.push(json!({"key": "soft", "value": "", "effect": "PreferNoSchedule"}));
    }
    json!({"metadata": {"name": name, "labels": labels},
        "spec": {"taints": taints, "unschedulable": random.chance(8)},
        "status": {"allocatable": {"cpu": format!("{}", 1 + random.below(4)), "memory": format!("{}Gi", 1 + random.below(6)),
            "pods": format!("{}", 2 + random.below(8)), "example.com/gpu": random.below(3).to_string()}}})
}

fn pod(random: &mut Random, number: u64) -> Value {
    let app = random.pick(&["web", "db", "job"]);
    let mut requests = json!({});
    if random.chance(80) {
        requests["cpu"] = json!(format!("{}m", 50 * (1 + random.below(20))));
    }
    if random.chance(70) {
        requests["memory"] = json!(format!("{}Mi", 64 * (1 + random.below(20))));
    }
    if random.chance(15) {
        requests["example.com/gpu"] = json!("1");
    }
    let mut container = json!({"name": "c", "resources": {"requests": requests}});
    if random.chance(15) {
        container["ports"] = json!([{"containerPort": 80, "hostPort": 8000 + random.below(3)}]);
    }
    let mut spec = json!({"containers": [container], "priority": random.below(3)});
    if random.chance(40) {
        spec["tolerations"] =
            json!([{"key": "k", "operator": "Equal", "value": random.pick(&["1", "2"])}]);
    }
    if random.chance(20) {
        spec["nodeSelector"] = json!({"disk": random.pick(&["ssd", "hdd"])});
    }
    let mut affinity = json!({});
    if random.chance(15) {
        affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = json!({"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": random.pick(&["In", "NotIn"]), "values": ["a", "b"]}]}]});
    }
    if random.chance(25) {
        affinity["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] = json!([
            {"weight": 1 + random.below(50), "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}},
            {"weight": 7, "preference": {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}}]);
    }
    let term = |random: &mut Random| {
        json!({"labelSelector": {"matchLabels": {"app": random.pick(&["web", "db", "job"])}},
        "topologyKey": random.pick(&["zone", "kubernetes.io/hostname"])})
    };
    if random.chance(12) {
        affinity["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
            json!([term(random)]);
    }
    if random.chance(12) {
        affinity["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
            json!([term(random)]);
    }
    spec["affinity"] = affinity;
    if random.chance(15) {
        spec["topologySpreadConstraints"] = json!([{"maxSkew": 1 + random.below(2), "topologyKey": random.pick(&["zone", "kubernetes.io/hostname"]),
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": app}}}]);
    }
    json!({"metadata": {"name": format!("p{number}"), "uid": format!("u{number}"), "namespace": random.pick(&["x", "y"]),
        "labels": {"app": app}}, "spec": spec})
}

fn place(engine: &mut Engine, pod: &Value) {
    let info = engine.read(&serde_json::from_value(pod.clone()).unwrap()).unwrap();
    engine.place(Arc::new(info), pod["spec"]["nodeName"].as_str().unwrap());
}

fn set_node(engine: &mut Engine, node: &Value) {
    engine.set_node(&serde_json::from_value(node.clone()).unwrap()).unwrap();
}

fn rebuilt(world: &World, random: &mut Random) -> Engine {
    let mut engine = Engine::new(Weights::default(), 1, 42);
    let mut steps: Vec<&Value> = world.nodes.iter().chain(&world.pods).collect();
    for i in (1..steps.len()).rev() {
        steps.swap(i, random.below(i as u64 + 1) as usize);
    }
    for object in steps {
        if object.get("status").is_some() {
            set_node(&mut engine, object)
        } else {
            place(&mut engine, object)
        }
    }
    engine
}

fn run(seed: u64, steps: u64) -> (u64, u64) {
    let mut random = Random(seed);
    let mut world = World { nodes: vec![], pods: vec![] };
    let mut engine = Engine::new(Weights::default(), 1, 42);
    let (mut placed, mut refused) = (0, 0);
    for step in 0..steps {
        match random.below(100) {
            0..=9 => {
                let name = format!("n{}", random.below(9));
                let new = node(&mut random, &name);
                set_node(&mut engine, &new);
                world.nodes.retain(|n| n["metadata"]["name"] != name.as_str());
                world.nodes.push(new);
            }
            10..=12 if !world.nodes.is_empty() => {
                let gone = world.nodes.remove(random.below(world.nodes.len() as u64) as usize);
                engine.remove_node(gone["metadata"]["name"].as_str().unwrap());
            }
            13..=35 if !world.pods.is_empty() => {
                let gone = world.pods.remove(random.below(world.pods.len() as u64) as usize);
                engine.displace(gone["metadata"]["uid"].as_str().unwrap()).expect("it was placed");
            }
            _ => {
                let mut new = pod(&mut random, step);
                let info = engine.read(&serde_json::from_value(new.clone()).unwrap()).unwrap();
                let best = world.best(&new);
                let choice = engine.schedule(&info, step);
                let again = rebuilt(&world, &mut random).schedule(&info, step);
                assert_eq!(
                    choice.as_ref().ok(),
                    again.as_ref().ok(),
                    "seed {seed} step {step}: the order of changes shows"
                );
                match choice {
                    Ok(choice) => {
                        assert!(
                            best.contains(&choice.node),
                            "seed {seed} step {step}: {} is not among {best:?} for {new}",
                            choice.node
                        );
                        new["spec"]["nodeName"] = json!(choice.node);
                        place(&mut engine, &new);
                        world.pods.push(new);
                        placed += 1;
                    }
                    Err(why) => {
                        assert!(
                            best.is_empty(),
                            "seed {seed} step {step}: refused ({}) but {best:?} fit {new}",
                            why.message()
                        );
                        assert_eq!(why.message(), again.unwrap_err().message());
                        let views = engine.explain(&info);
                        assert!(views.iter().all(|v| v.rejection.is_some()));
                        refused += 1;
                    }
                }
            }
        }
    }
    (placed, refused)
}

#[test]
fn incremental_engine_is_the_oracle_and_the_rebuilt_engine() {
    let (mut placed, mut refused) = (0, 0);
    for seed in 0..60 {
        let (p, r) = run(seed, 150);
        placed += p;
        refused += r;
    }
    assert!(
        placed > 2000 && refused > 500,
        "{placed} placed, {refused} refused: the cases are one-sided"
    );
}

#[test]
fn explanation_agrees_with_the_choice() {
    let mut random = Random(5);
    let mut engine = Engine::new(Weights::default(), 1, 42);
    for n in 0..8 {
        let new = node(&mut random, &format!("n{n}"));
        set_node(&mut engine, &new);
    }
    for number in 0..200 {
        let mut new = pod(&mut random, number);
        let info = engine.read(&serde_json::from_value(new.clone()).unwrap()).unwrap();
        let views = engine.explain(&info);
        let highest = views.iter().filter(|v| v.rejection.is_none()).map(|v| v.total).max();
        match engine.schedule(&info, number) {
            Ok(choice) => {
                assert_eq!(Some(choice.score), highest);
                assert_eq!(views.iter().filter(|v| v.rejection.is_none()).count(), choice.feasible);
                new["spec"]["nodeName"] = json!(choice.node);
                place(&mut engine, &new);
            }
            Err(_) => assert_eq!(highest, None),
        }
    }
}

#[test]
fn preemption_takes_the_fewest_and_leaves_no_trace() {
    let mut cases = 0;
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut world = World { nodes: vec![], pods: vec![] };
        let mut engine = Engine::new(Weights::default(), 1, 42);
        for n in 0..3 {
            let new = node(&mut random, &format!("n{n}"));
            set_node(&mut engine, &new);
            world.nodes.push(new);
        }
        for number in 0..25 {
            let mut new = pod(&mut random, number);
            new["spec"]["priority"] = json!(random.below(2));
            let info = engine.read(&serde_json::from_value(new.clone()).unwrap()).unwrap();
            if let Ok(choice) = engine.schedule(&info, number) {
                new["spec"]["nodeName"] = json!(choice.node);
                place(&mut engine, &new);
                world.pods.push(new);
            }
        }
        let mut new = pod(&mut random, 99);
        new["spec"]["priority"] = json!(10);
        let info = engine.read(&serde_json::from_value(new.clone()).unwrap()).unwrap();
        let Err(mut why) = engine.schedule(&info, 0) else { continue };
        let before: Vec<String> = {
            let mut all: Vec<String> =
                engine.pods().map(|(n, p)| format!("{n} {}", p.uid)).collect();
            all.sort();
            all
        };
        let found = engine.preempt(&info, &mut why);
        let after: Vec<String> = {
            let mut all: Vec<String> =
                engine.pods().map(|(n, p)| format!("{n} {}", p.uid)).collect();
            all.sort();
            all
        };
        assert_eq!(before, after);
        let Some(found) = found else {
            assert!(
                why.message().contains("preemption: 0/3 nodes are available"),
                "{}",
                why.message()
            );
            continue;
        };
        cases += 1;
        let target = world
            .nodes
            .iter()
            .find(|n| n["metadata"]["name"] == found.node.as_str())
            .unwrap()
            .clone();
        let without = |gone: &[String]| World {
            nodes: world.nodes.clone(),
            pods: world
                .pods
                .iter()
                .filter(|p| !gone.iter().any(|u| p["metadata"]["uid"] == u.as_str()))
                .cloned()
                .collect(),
        };
        assert!(without(&found.victims).feasible(&new, &target), "seed {seed}: room is made");
        for keep in 0..found.victims.len() {
            let mut fewer = found.victims.clone();
            fewer.remove(keep);
            assert!(!without(&fewer).feasible(&new, &target), "seed {seed}: a victim too many");
        }
    }
    assert!(cases > 30, "{cases}");
}
