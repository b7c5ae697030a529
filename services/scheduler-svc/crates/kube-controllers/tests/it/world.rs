//! An API server, two nodes, a kubelet and a scheduler of a few lines, and the controllers.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_kube_client::{Client, KubeConfig, now_micros, now_rfc3339};
use flotilla_server::Shutdown;
use kube_controllers::Config;
use kube_fake::FakeApi;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

pub struct World {
    pub api: Arc<FakeApi>,
    pub dead: Arc<Mutex<HashSet<String>>>,
    pub config: Config,
    controllers: Option<(Shutdown, JoinHandle<()>)>,
    kubelet: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.kubelet.abort();
        if let Some((_, task)) = self.controllers.take() {
            task.abort();
        }
    }
}

impl World {
    /// A running world with these nodes.
    pub async fn new(nodes: &[&str]) -> Self {
        let mut world = Self::idle(nodes).await;
        world.start();
        world
    }

    /// A world whose controllers do not run yet.
    pub async fn idle(nodes: &[&str]) -> Self {
        let api = Arc::new(FakeApi::start().await);
        api.create("/api/v1/namespaces", json!({"metadata": {"name": "kube-node-lease"}}));
        for node in nodes {
            api.create(
                "/api/v1/nodes",
                json!({"metadata": {"name": node,
                "labels": {"kubernetes.io/hostname": node, "topology.kubernetes.io/zone": "z1"}},
                "status": {"conditions": [{"type": "Ready", "status": "True",
                    "lastHeartbeatTime": now_rfc3339()}]}}),
            );
            let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
            api.create(leases, json!({"metadata": {"name": node}, "spec": {}}));
        }
        let dead: Arc<Mutex<HashSet<String>>> = Arc::default();
        let kubelet = tokio::spawn(kubelet(api.clone(), dead.clone()));
        Self { api, dead, config: Config::default(), controllers: None, kubelet }
    }

    pub fn start(&mut self) {
        let shutdown = Shutdown::new();
        let client = Client::new(KubeConfig::plain(self.api.url()), "test").unwrap();
        let running = kube_controllers::run(client, self.config.clone(), shutdown.clone());
        let task = tokio::spawn(async move { running.await.expect("controllers run") });
        self.controllers = Some((shutdown, task));
    }

    /// Ends the controllers in the middle of whatever they do.
    pub async fn kill(&mut self) {
        if let Some((_, task)) = self.controllers.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// Ends the controllers as a signal does.
    pub async fn stop(&mut self) {
        if let Some((shutdown, task)) = self.controllers.take() {
            shutdown.trigger();
            task.await.expect("the controllers end cleanly");
        }
    }

    /// Waits until `condition` holds, or says what it waited for.
    pub async fn until(&self, what: &str, mut condition: impl FnMut(&FakeApi) -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !condition(&self.api) {
            let ended = self.controllers.as_ref().is_some_and(|(_, task)| task.is_finished());
            assert!(!ended, "the controllers ended while waiting: {what}");
            if Instant::now() > end {
                let brief = |path: &str| {
                    let all = self.api.list(path);
                    let text = all.iter().map(|o| {
                        let meta = &o["metadata"];
                        format!("{}: {} {} {}", path, meta, o["spec"]["replicas"], o["status"])
                    });
                    text.collect::<Vec<_>>().join("\n")
                };
                let state = [
                    "/apis/apps/v1/deployments",
                    "/apis/apps/v1/replicasets",
                    "/api/v1/pods",
                    "/apis/batch/v1/jobs",
                    "/apis/apps/v1/statefulsets",
                    "/api/v1/nodes",
                ]
                .map(brief)
                .join("\n");
                panic!("waited in vain: {what}\n{state}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Gives pods a node, makes them ready after a moment, and lets deleted ones go.
async fn kubelet(api: Arc<FakeApi>, dead: Arc<Mutex<HashSet<String>>>) {
    let mut round = 0_usize;
    loop {
        tokio::time::sleep(Duration::from_millis(4)).await;
        round += 1;
        let dead = dead.lock().clone();
        let nodes = api.list("/api/v1/nodes");
        if round.is_multiple_of(20) {
            for node in &nodes {
                let name = node["metadata"]["name"].as_str().unwrap();
                let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
                if !dead.contains(name) {
                    // A kubelet that was starved for a while reports again.
                    if condition(node, "Ready")["status"] != "True" {
                        api.edit_status(&format!("/api/v1/nodes/{name}"), |n| {
                            n["status"]["conditions"] = json!([{"type": "Ready", "status": "True",
                                "lastHeartbeatTime": now_micros()}]);
                        });
                    }
                    api.edit(&format!("{path}/{name}"), |l| {
                        l["spec"]["renewTime"] = json!(now_micros())
                    });
                }
            }
        }
        let usable = |node: &&Value| node["spec"]["taints"].as_array().is_none_or(Vec::is_empty);
        let usable: Vec<String> = nodes
            .iter()
            .filter(usable)
            .map(|n| n["metadata"]["name"].as_str().unwrap().to_owned())
            .filter(|n| !dead.contains(n))
            .collect();
        for (index, pod) in api.list("/api/v1/pods").iter().enumerate() {
            let path = path_of("/api/v1", "pods", pod);
            let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
            if dead.contains(node) {
                continue;
            }
            if pod["metadata"].get("deletionTimestamp").is_some() {
                api.delete(&path, json!({"gracePeriodSeconds": 0}));
            } else if node.is_empty() {
                let terms = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
                    ["nodeSelectorTerms"];
                let pinned = terms[0]["matchFields"][0]["values"][0].as_str().map(str::to_owned);
                let any = || usable.get(index % usable.len().max(1)).cloned();
                if let Some(node) = pinned.or_else(any) {
                    api.edit(&path, |p| p["spec"]["nodeName"] = json!(node));
                }
            } else if pod["status"]["phase"] == "Pending" && (index + round).is_multiple_of(3) {
                let restart = pod["spec"]["restartPolicy"].as_str().unwrap_or("Always");
                let (phase, ready) = match (restart, pod["spec"]["exit"].as_i64()) {
                    ("Always", _) | (_, None) => ("Running", "True"),
                    (_, Some(0)) => ("Succeeded", "False"),
                    _ => ("Failed", "False"),
                };
                let ready = if pod["spec"]["broken"] == true { "False" } else { ready };
                let ip = format!("10.244.{}.{}", round / 250 % 250, round * 7 % 250 + index % 5);
                api.edit_status(&path, |p| {
                    p["status"] = json!({"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}],
                        "conditions": [{"type": "Ready", "status": ready,
                            "lastTransitionTime": now_rfc3339()}]});
                });
            }
        }
    }
}

pub fn path_of(prefix: &str, plural: &str, object: &Value) -> String {
    let meta = &object["metadata"];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    format!("{prefix}/namespaces/{}/{plural}/{}", text(&meta["namespace"]), text(&meta["name"]))
}

pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
pub const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
pub const PODS: &str = "/api/v1/namespaces/default/pods";

pub fn template(app: &str, image: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": image,
        "ports": [{"name": "web", "containerPort": 8080}]}]}})
}

pub fn deployment(name: &str, replicas: i64, surge: Value, unavailable: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": {"app": name}}, "template": template(name, "v1"),
        "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
        "strategy": {"type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}})
}

/// What `kubectl rollout status` waits for.
pub fn rolled_out(deployment: &Value) -> bool {
    let wanted = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
    let status = &deployment["status"];
    let at = |name: &str| status[name].as_i64().unwrap_or(0);
    at("observedGeneration") >= deployment["metadata"]["generation"].as_i64().unwrap_or(0)
        && at("updatedReplicas") >= wanted
        && at("replicas") <= at("updatedReplicas")
        && at("availableReplicas") >= at("updatedReplicas")
}

pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    object["status"]["conditions"]
        .as_array()
        .and_then(|all| all.iter().find(|c| c["type"] == kind))
        .unwrap_or(&Value::Null)
}

pub fn deleting(object: &Value) -> bool {
    object["metadata"].get("deletionTimestamp").is_some()
}
