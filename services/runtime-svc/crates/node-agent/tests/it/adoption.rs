//! Crashes of the agent, the API server and the runtime.

use std::time::Duration;

use flotilla_testkit::eventually;
use serde_json::{Value, json};

use crate::rig::{PODS, condition, rig, status};

fn sleeper() -> Value {
    json!({"containers": [{"name": "a", "command": ["sleep", "1000"], "readinessProbe": {"exec": {"command": ["true"]}, "initialDelaySeconds": 0, "periodSeconds": 1}}]})
}

#[test]
fn agent_that_restarts_adopts_what_runs() {
    let Some(mut rig) = rig("agent_that_restarts_adopts_what_runs") else { return };
    rig.start_agent();
    for name in ["stays", "deleted", "vanishes"] {
        rig.create(name, sleeper());
    }
    let before = rig.until_ready("stays");
    rig.until_ready("deleted");
    let gone = rig.until_ready("vanishes");
    let gone = gone["metadata"]["uid"].as_str().unwrap().to_owned();
    rig.kill_agent();
    rig.api.delete(PODS, "deleted", None);
    rig.api.delete(PODS, "vanishes", Some(0));
    let leftover = rig.path("kubelet/pods/no-such-pod/volumes");
    std::fs::create_dir_all(&leftover).unwrap();
    rig.start_agent();
    rig.until("deleted", "what was to end has ended", Value::is_null);
    eventually("what vanished is cleaned up", Duration::from_secs(30), || {
        rig.sandboxes().len() == 1 && !rig.path("kubelet/pods").join(&gone).exists()
    });
    eventually("folders without a pod go", Duration::from_secs(30), || !leftover.exists());
    let after = rig.pod("stays");
    assert_eq!(status(&after, "a")["containerID"], status(&before, "a")["containerID"]);
    assert_eq!(status(&after, "a")["restartCount"], 0);
    let ready = |pod: &Value| {
        pod["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["type"] == "Ready")
            .unwrap()
            .clone()
    };
    assert_eq!(
        ready(&after)["lastTransitionTime"],
        ready(&before)["lastTransitionTime"],
        "readiness did not flap"
    );
    rig.stop_agent();
    assert_eq!(rig.sandboxes().len(), 1, "an agent that ends leaves its pods running");
}

#[test]
fn pods_survive_an_api_server_that_is_down() {
    let Some(mut rig) = rig("pods_survive_an_api_server_that_is_down") else { return };
    rig.start_agent();
    rig.create("a", json!({"containers": [{"name": "a", "command": ["sleep", "1000"]}]}));
    let pod = rig.until_ready("a");
    let id =
        status(&pod, "a")["containerID"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    rig.api.set_down(true);
    let kill = std::process::Command::new("ctr")
        .arg("-a")
        .arg(rig.path("c.sock"))
        .args(["-n", "k8s.io", "task", "kill", "-s", "9", &id])
        .status()
        .unwrap();
    assert!(kill.success());
    eventually(
        "the container is started again without the API server",
        Duration::from_secs(20),
        || {
            rig.path("logs")
                .read_dir()
                .unwrap()
                .flatten()
                .any(|entry| entry.path().join("a/1.log").exists())
        },
    );
    rig.api.set_down(false);
    let pod = rig.until("a", "the restart is reported late", |pod| {
        status(pod, "a")["restartCount"] == 1 && condition(pod, "Ready") == "True"
    });
    assert_eq!(status(&pod, "a")["lastState"]["terminated"]["exitCode"], 137);
}

#[test]
fn pods_survive_a_runtime_that_is_down() {
    let Some(mut rig) = rig("pods_survive_a_runtime_that_is_down") else { return };
    rig.start_agent();
    rig.create("a", json!({"containers": [{"name": "a", "command": ["sleep", "1000"]}]}));
    let before = rig.until_ready("a");
    rig.stop_containerd();
    rig.create("b", json!({"containers": [{"name": "b", "command": ["sleep", "1000"]}]}));
    rig.start_containerd();
    rig.until_ready("b");
    let after = rig.pod("a");
    assert_eq!(status(&after, "a")["containerID"], status(&before, "a")["containerID"]);
}

#[test]
fn static_pod_has_a_mirror() {
    let Some(mut rig) = rig("static_pod_has_a_mirror") else { return };
    let folder = rig.path("manifests");
    std::fs::create_dir_all(&folder).unwrap();
    let manifest = |command: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: a, image: '{}', imagePullPolicy: Never, command: [sleep, '{command}']}}\n",
            crate::image::BUSYBOX
        )
    };
    std::fs::write(folder.join("web.yaml"), manifest("1000")).unwrap();
    rig.extra = vec!["--pod-manifest-path".into(), folder.display().to_string()];
    rig.start_agent();
    let pod = rig.until_ready("web-n1");
    let mirror = |pod: &Value| {
        pod["metadata"]["annotations"]["kubernetes.io/config.mirror"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let first = mirror(&pod);
    assert_eq!(first.len(), 32);
    rig.api.delete(PODS, "web-n1", Some(0));
    rig.until_ready("web-n1");
    assert_eq!(rig.sandboxes().len(), 1, "the mirror was deleted, not the pod");
    std::fs::write(folder.join("web.yaml"), manifest("2000")).unwrap();
    rig.until("web-n1", "a changed manifest replaces the pod", |pod| {
        condition(pod, "Ready") == "True" && mirror(pod) != first
    });
    std::fs::remove_file(folder.join("web.yaml")).unwrap();
    rig.until("web-n1", "the mirror goes with the manifest", Value::is_null);
    eventually("the pod goes with the manifest", Duration::from_secs(20), || {
        rig.sandboxes().is_empty()
    });
}
