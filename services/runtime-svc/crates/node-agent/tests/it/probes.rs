//! Probes, restarts and hooks.

use std::time::Duration;

use flotilla_testkit::eventually;
use serde_json::{Value, json};

use crate::rig::{PODS, condition, rig, status};

#[test]
fn probes_decide_about_readiness_and_life() {
    let Some(mut rig) = rig("probes_decide_about_readiness_and_life") else { return };
    rig.start_agent();
    let serve = "echo ok > /www/index.html; httpd -p 8080 -h /www; exec sleep 1000";
    rig.create(
        "web",
        json!({"containers": [{
            "name": "a", "command": ["sh", "-c", serve], "ports": [{"name": "http", "containerPort": 8080}],
            "startupProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1},
            "readinessProbe": {"httpGet": {"path": "/index.html", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1},
            "livenessProbe": {"exec": {"command": ["ls", "/www/index.html", "/tmp"]}, "periodSeconds": 1, "failureThreshold": 3}
        }]}),
    );
    let pod = rig.until_ready("web");
    assert_eq!(status(&pod, "a")["restartCount"], 0);
    let exec = |command: &[&str]| {
        let id = status(&rig.pod("web"), "a")["containerID"]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned();
        let mut ctr = std::process::Command::new("ctr");
        ctr.arg("-a")
            .arg(rig.path("c.sock"))
            .args([
                "-n",
                "k8s.io",
                "task",
                "exec",
                "--exec-id",
                &format!("x{}", rand::random::<u16>()),
                &id,
            ])
            .args(command);
        assert!(ctr.status().unwrap().success());
    };
    exec(&["sh", "-c", "rm /www/index.html"]);
    rig.until("web", "it is no longer ready", |pod| condition(pod, "Ready") == "False");
    rig.until_event("web", "Unhealthy");
    let pod = rig.until("web", "liveness restarts it", |pod| {
        status(pod, "a")["restartCount"] == 1 && condition(pod, "Ready") == "True"
    });
    assert_eq!(status(&pod, "a")["lastState"]["terminated"]["exitCode"], 137);
    let event = rig.until_event("web", "Killing");
    assert_eq!(event["message"], "Container a failed liveness probe, will be restarted");
}

#[test]
fn crash_loop_restarts_at_once_and_then_pauses() {
    let Some(mut rig) = rig("crash_loop_restarts_at_once_and_then_pauses") else { return };
    rig.start_agent();
    rig.create("crash", json!({"containers": [{"name": "a", "command": ["sh", "-c", "echo run; exit 3"]}, {"name": "b", "command": ["sleep", "1000"]}]}));
    let pod = rig.until("crash", "it pauses after one restart", |pod| {
        status(pod, "a")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    assert_eq!(status(&pod, "a")["restartCount"], 1);
    assert_eq!(status(&pod, "a")["lastState"]["terminated"]["exitCode"], 3);
    assert!(
        status(&pod, "a")["state"]["waiting"]["message"]
            .as_str()
            .unwrap()
            .starts_with("back-off 10s restarting failed container=a pod=crash_default(")
    );
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(status(&pod, "b")["ready"], true);
    rig.until_event("crash", "BackOff");
    rig.until("crash", "it is tried again", |pod| status(pod, "a")["restartCount"] == 2);
    let (code, log) = rig.kubelet("/containerLogs/default/crash/a?previous=true", Some("letmein"));
    assert_eq!((code, log.as_str()), (200, "run\n"));
}

#[test]
fn hooks_and_grace_are_kept() {
    let Some(mut rig) = rig("hooks_and_grace_are_kept") else { return };
    rig.start_agent();
    let share = rig.path("share");
    std::fs::create_dir_all(&share).unwrap();
    rig.create(
        "hooks",
        json!({
            "terminationGracePeriodSeconds": 10,
            "initContainers": [{"name": "side", "restartPolicy": "Always", "command": ["sh", "-c", "trap 'date +%s%N > /share/side; exit 0' TERM; while true; do sleep 0.05; done"], "volumeMounts": [{"name": "s", "mountPath": "/share"}]}],
            "containers": [{
                "name": "a",
                "command": ["sh", "-c", "trap 'date +%s%N > /share/term; exit 0' TERM; while true; do sleep 0.05; done"],
                "lifecycle": {"postStart": {"exec": {"command": ["touch", "/share/started"]}}, "preStop": {"exec": {"command": ["touch", "/share/stopping"]}}},
                "volumeMounts": [{"name": "s", "mountPath": "/share"}]
            }],
            "volumes": [{"name": "s", "hostPath": {"path": share, "type": "Directory"}}]
        }),
    );
    let pod = rig.until_ready("hooks");
    assert!(share.join("started").exists());
    assert_eq!(status(&pod, "side")["started"], true);
    rig.api.delete(PODS, "hooks", None);
    rig.until("hooks", "it is gone", Value::is_null);
    for file in ["stopping", "term", "side"] {
        eventually(file, Duration::from_secs(5), || share.join(file).exists());
    }
    assert!(share.join("started").exists(), "a host folder is left alone");
}

#[test]
fn force_deletion_cuts_a_long_grace_short() {
    let Some(mut rig) = rig("force_deletion_cuts_a_long_grace_short") else { return };
    rig.start_agent();
    rig.create("slow", json!({"terminationGracePeriodSeconds": 600, "containers": [{"name": "a", "command": ["sh", "-c", "trap '' TERM; while true; do sleep 0.1; done"]}]}));
    rig.until_ready("slow");
    rig.api.delete(PODS, "slow", None);
    rig.until_event("slow", "Killing");
    rig.api.delete(PODS, "slow", Some(0));
    eventually("it is cleaned up", Duration::from_secs(20), || rig.sandboxes().is_empty());
}
