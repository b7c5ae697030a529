//! The kubelet API on its port.

use std::time::Duration;

use flotilla_testkit::eventually;
use serde_json::{Value, json};

use crate::rig::rig;

#[test]
fn kubelet_api_answers_those_who_may_ask() {
    let Some(mut rig) = rig("kubelet_api_answers_those_who_may_ask") else { return };
    rig.start_agent();
    rig.create("a", json!({"containers": [{"name": "a", "command": ["sh", "-c", "for i in 1 2 3 4 5; do echo line $i; done; sleep 1; echo err >&2; sleep 1000"]}]}));
    rig.until_ready("a");
    assert_eq!(rig.kubelet("/healthz", None), (200, "ok".to_owned()));
    assert_eq!(rig.kubelet("/pods", None).0, 401);
    assert_eq!(rig.kubelet("/pods", Some("wrong")).0, 401);
    let ask = |path: &str| rig.kubelet(path, Some("letmein"));
    let pods: Value = serde_json::from_str(&ask("/pods").1).unwrap();
    assert_eq!(pods["items"][0]["metadata"]["name"], "a");
    eventually("the log is written", Duration::from_secs(10), || {
        ask("/containerLogs/default/a/a").1.contains("err")
    });
    assert_eq!(
        ask("/containerLogs/default/a/a?tailLines=3&stream=Stdout").1,
        "line 4\nline 5\n".to_owned()
    );
    assert_eq!(ask("/containerLogs/default/a/a?limitBytes=9&stream=Stdout").1, "line 1\nli");
    assert!(ask("/containerLogs/default/a/a?timestamps=true&tailLines=1").1.starts_with("20"));
    assert_eq!(ask("/containerLogs/default/a/a?tailLines=x").0, 422);
    assert_eq!(ask("/containerLogs/default/a/none").0, 404);
    assert_eq!(ask("/containerLogs/default/none/a").0, 404);
    assert_eq!(ask("/containerLogs/default/a/a?previous=true").0, 400);
    eventually("figures show the container", Duration::from_secs(30), || {
        ask("/metrics/resource").1.contains(
            "container_memory_working_set_bytes{container=\"a\",namespace=\"default\",pod=\"a\"}",
        )
    });
    assert!(
        ask("/metrics/cadvisor").1.contains("container_cpu_usage_seconds_total{container=\"a\"")
    );
    let summary: Value = serde_json::from_str(&ask("/stats/summary").1).unwrap();
    assert_eq!(summary["pods"][0]["podRef"]["name"], "a");
    assert!(ask("/metrics").1.contains("kubelet_running_pods 1"));
    assert!(ask("/configz").1.contains("\"clusterDomain\":\"cluster.local\""));
}

#[test]
fn exec_passes_through_to_the_runtime() {
    let Some(mut rig) = rig("exec_passes_through_to_the_runtime") else { return };
    rig.start_agent();
    rig.create("a", json!({"containers": [{"name": "a", "command": ["sleep", "1000"]}]}));
    rig.until_ready("a");
    let ask = |path: &str| rig.kubelet(path, Some("letmein"));
    assert_eq!(ask("/exec/default/a/a?output=1").0, 400);
    assert_eq!(ask("/exec/default/none/a?output=1&command=ls").0, 404);
    let request = format!(
        "curl -sk --http1.1 --max-time 5 -o - -D - -X POST -H 'Authorization: Bearer letmein' -H 'Connection: Upgrade' -H 'Upgrade: SPDY/3.1' -H 'X-Stream-Protocol-Version: v4.channel.k8s.io' 'https://127.0.0.1:{}/exec/default/a/a?output=1&command=ls'",
        rig.kubelet_port
    );
    let output = std::process::Command::new("sh").args(["-c", &request]).output().unwrap();
    let head = String::from_utf8_lossy(&output.stdout).to_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(head.contains("upgrade: spdy/3.1"), "{head}");
}
