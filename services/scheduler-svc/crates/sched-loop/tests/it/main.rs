//! Black-box tests of the scheduler against an in-memory API server.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop here")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_kube_client::{Client, KubeConfig};
use flotilla_proto::scheduler::flotilla::scheduler::v1 as wire;
use flotilla_server::Shutdown;
use kube_fake::FakeApi;
use sched_loop::{Config, Handle};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use wire::scheduler_client::SchedulerClient;

const PODS: &str = "/api/v1/namespaces/default/pods";

struct World {
    api: Arc<FakeApi>,
    handle: Handle,
    task: Option<(Shutdown, JoinHandle<()>)>,
    config: Config,
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some((_, task)) = self.task.take() {
            task.abort();
        }
    }
}

impl World {
    async fn new() -> Self {
        let mut world = Self {
            api: Arc::new(FakeApi::start().await),
            handle: Handle::default(),
            task: None,
            config: Config::default(),
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let shutdown = Shutdown::new();
        let client = Client::new(KubeConfig::plain(self.api.url()), "test").unwrap();
        let running = sched_loop::run_with(
            client,
            self.config.clone(),
            self.handle.clone(),
            shutdown.clone(),
        );
        let task = tokio::spawn(async move { running.await.expect("the scheduler runs") });
        self.task = Some((shutdown, task));
    }

    async fn kill(&mut self) {
        let (_, task) = self.task.take().unwrap();
        task.abort();
        let _ = task.await;
    }

    async fn until(&self, what: &str, mut condition: impl FnMut(&FakeApi) -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !condition(&self.api) {
            assert!(Instant::now() < end, "waited in vain: {what}\n{:#?}", self.api.list(PODS));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn node(&self, name: &str, cpu: &str) {
        self.api.create(
            "/api/v1/nodes",
            json!({"metadata": {"name": name,
            "labels": {"kubernetes.io/hostname": name}},
            "status": {"allocatable": {"cpu": cpu, "memory": "64Gi", "pods": "110"}}}),
        );
    }

    fn pod(&self, name: &str, cpu: &str, priority: i64) {
        self.api.create(PODS, json!({"metadata": {"name": name}, "spec": {"schedulerName": "default-scheduler",
            "priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}));
    }
}

fn bound(api: &FakeApi) -> usize {
    api.list(PODS).iter().filter(|p| p["spec"]["nodeName"].is_string()).count()
}

/// No node ever has more than its CPUs, no pod ever changes its node.
fn check_history(api: &FakeApi, most: i64) {
    let mut pods: HashMap<String, (String, i64)> = HashMap::new();
    for event in api.history(0).iter().filter(|e| e.plural == "pods") {
        let uid = event.object["metadata"]["uid"].as_str().unwrap().to_owned();
        let node = event.object["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
        if event.action == "DELETED" {
            pods.remove(&uid);
            continue;
        }
        let cpu: i64 = event.object["spec"]["containers"][0]["resources"]["requests"]["cpu"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let old = pods.insert(uid, (node.clone(), cpu));
        assert!(old.is_none_or(|(was, _)| was.is_empty() || was == node), "bound twice");
        let mut used: HashMap<&str, i64> = HashMap::new();
        for (node, cpu) in pods.values().filter(|(node, _)| !node.is_empty()) {
            *used.entry(node).or_default() += cpu;
        }
        assert!(used.values().all(|cpu| *cpu <= most), "{used:?} at version {}", event.version);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_fill_nodes_without_overcommit() {
    let world = World::new().await;
    for n in 0..10 {
        world.node(&format!("n{n}"), "20");
    }
    for n in 0..205 {
        world.pod(&format!("p{n}"), "1", 0);
    }
    world.until("200 bound", |api| bound(api) == 200).await;
    world
        .until("five refused", |api| {
            let refused = |p: &&Value| p["status"]["conditions"][0]["reason"] == "Unschedulable";
            api.list(PODS).iter().filter(refused).count() == 5
        })
        .await;
    let refused =
        world.api.list(PODS).into_iter().find(|p| p["spec"]["nodeName"].is_null()).unwrap();
    let condition = &refused["status"]["conditions"][0];
    assert_eq!(
        (condition["type"].as_str(), condition["status"].as_str()),
        (Some("PodScheduled"), Some("False"))
    );
    assert_eq!(
        condition["message"],
        "0/10 nodes are available: 10 Insufficient cpu. preemption: 0/10 nodes are \
        available: 10 No preemption victims found for incoming pod."
    );
    world.node("late", "20");
    world.until("the rest", |api| bound(api) == 205).await;
    check_history(&world.api, 20);
    world
        .until("events", |api| {
            let events = api.list("/api/v1/namespaces/default/events");
            let has = |reason: &str| events.iter().any(|e| e["reason"] == reason);
            has("FailedScheduling") && has("Scheduled")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_scheduler_binds_each_pod_once() {
    let mut world = World::new().await;
    for n in 0..5 {
        world.node(&format!("n{n}"), "30");
    }
    for round in 0..10 {
        for n in 0..15 {
            world.pod(&format!("p{round}-{n}"), "1", 0);
        }
        tokio::time::sleep(Duration::from_millis(round * 7 % 40)).await;
        world.kill().await;
        if round == 4 {
            world.api.compact();
        }
        world.start();
    }
    world.until("all bound", |api| bound(api) == 150).await;
    check_history(&world.api, 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn important_pod_takes_the_place_of_others() {
    let world = World::new().await;
    world.node("n1", "4");
    for n in 0..4 {
        world.pod(&format!("low{n}"), "1", 0);
    }
    world.until("full", |api| bound(api) == 4).await;
    world.pod("high", "2", 100);
    world
        .until("two leave", |api| {
            api.list(PODS)
                .iter()
                .filter(|p| p["metadata"].get("deletionTimestamp").is_some())
                .count()
                == 2
        })
        .await;
    world
        .until("nominated", |api| {
            api.get(&format!("{PODS}/high")).unwrap()["status"]["nominatedNodeName"] == "n1"
        })
        .await;
    for pod in world.api.list(PODS) {
        if pod["metadata"].get("deletionTimestamp").is_some() {
            let name = pod["metadata"]["name"].as_str().unwrap();
            world.api.delete(&format!("{PODS}/{name}"), json!({"gracePeriodSeconds": 0}));
        }
    }
    world
        .until("placed", |api| {
            api.get(&format!("{PODS}/high")).unwrap()["spec"]["nodeName"] == "n1"
        })
        .await;
    assert_eq!(bound(&world.api), 3, "no more victims than needed");
    check_history(&world.api, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gated_and_foreign_pods_are_left_alone() {
    let world = World::new().await;
    world.node("n1", "4");
    world.api.create(PODS, json!({"metadata": {"name": "gated"}, "spec": {"schedulingGates": [{"name": "g"}], "containers": []}}));
    world.api.create(PODS, json!({"metadata": {"name": "foreign"}, "spec": {"schedulerName": "other", "containers": []}}));
    world.pod("own", "1", 0);
    world.until("own bound", |api| bound(api) == 1).await;
    world
        .until("gate reported", |api| {
            api.get(&format!("{PODS}/gated")).unwrap()["status"]["conditions"][0]["reason"]
                == "SchedulingGated"
        })
        .await;
    world.api.edit(&format!("{PODS}/gated"), |p| p["spec"]["schedulingGates"] = json!([]));
    world.until("ungated", |api| bound(api) == 2).await;
    assert!(world.api.get(&format!("{PODS}/foreign")).unwrap()["spec"]["nodeName"].is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_answered() {
    let world = World::new().await;
    world.node("n1", "4");
    world.node("n2", "2");
    world.pod("big", "8", 0);
    world
        .until("refused", |api| {
            api.get(&format!("{PODS}/big")).unwrap()["status"]["conditions"].is_array()
        })
        .await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_service(world.handle.grpc_service());
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = tokio::spawn(server.serve_with_incoming(incoming));
    let mut client = SchedulerClient::connect(format!("http://{addr}")).await.unwrap();
    let pod = wire::explain_request::Pod::Name("default/big".to_owned());
    let answer =
        client.explain(wire::ExplainRequest { pod: Some(pod) }).await.unwrap().into_inner();
    assert_eq!(answer.chosen, "");
    assert!(
        answer.message.starts_with("0/2 nodes are available: 2 Insufficient cpu."),
        "{}",
        answer.message
    );
    assert_eq!(answer.nodes[1].reasons, ["Insufficient cpu"]);
    let small =
        json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}]}}).to_string();
    let request = wire::SimulateRequest { pod_json: small.clone(), count: 10 };
    let answer = client.simulate(request).await.unwrap().into_inner();
    assert_eq!((answer.nodes.len(), answer.placements["n1"], answer.placements["n2"]), (6, 4, 2));
    assert!(answer.message.contains("2 Insufficient cpu"));
    let pod = wire::explain_request::Pod::Json(small);
    let answer =
        client.explain(wire::ExplainRequest { pod: Some(pod) }).await.unwrap().into_inner();
    assert_eq!(answer.chosen, "n1");
    assert!(
        answer.nodes[0].scores["NodeResourcesFit"] > answer.nodes[1].scores["NodeResourcesFit"]
    );
    assert_eq!(bound(&world.api), 0, "questions change nothing");
    let wrong = wire::SimulateRequest { pod_json: "{".to_owned(), count: 1 };
    assert_eq!(client.simulate(wrong).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    let (shutdown, task) = {
        let mut world = world;
        world.task.take().unwrap()
    };
    shutdown.trigger();
    task.await.unwrap();
    let gone =
        wire::ExplainRequest { pod: Some(wire::explain_request::Pod::Name("a/b".to_owned())) };
    assert_eq!(client.explain(gone).await.unwrap_err().code(), tonic::Code::Unavailable);
    server.abort();
}
