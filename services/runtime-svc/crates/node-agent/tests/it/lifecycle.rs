//! From creation to deletion.

use base64::Engine;
use serde_json::{Value, json};

use crate::rig::{NODE, PODS, condition, rig, status};

#[test]
fn pod_runs_reports_and_goes() {
    let Some(mut rig) = rig("pod_runs_reports_and_goes") else { return };
    let space = "/api/v1/namespaces/default";
    rig.api.put(&format!("{space}/configmaps"), json!({"metadata": {"name": "cm"}, "data": {"greeting": "hello", "file.txt": "from config"}}));
    let secret = base64::engine::general_purpose::STANDARD.encode("s3cret");
    rig.api.put(
        &format!("{space}/secrets"),
        json!({"metadata": {"name": "sec"}, "data": {"pw": secret}}),
    );
    rig.api.put(&format!("{space}/services"), json!({"metadata": {"name": "kubernetes"}, "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}}));
    rig.start_agent();
    rig.create(
        "full",
        json!({
            "initContainers": [
                {"name": "first", "command": ["sh", "-c", "echo one > /scratch/order"], "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]},
                {"name": "second", "command": ["sh", "-c", "echo two >> /scratch/order"], "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}
            ],
            "containers": [{
                "name": "main",
                "command": ["sh", "-c", "cat /scratch/order /config/file.txt; echo; cat /secret/pw; echo; cat /token/token; echo; env; id -u; cat /etc/hosts; cat /etc/resolv.conf; cat /sub/order; echo '$(WORD)'; sleep 1000"],
                "env": [
                    {"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "greeting"}}},
                    {"name": "WORD", "value": "<$(GREETING)>"},
                    {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "pw"}}},
                    {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}}
                ],
                "securityContext": {"runAsUser": 1234},
                "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "64Mi"}},
                "volumeMounts": [
                    {"name": "scratch", "mountPath": "/scratch"}, {"name": "config", "mountPath": "/config"},
                    {"name": "secret", "mountPath": "/secret"}, {"name": "token", "mountPath": "/token"},
                    {"name": "scratch", "mountPath": "/sub/order", "subPath": "order"}
                ]
            }],
            "volumes": [
                {"name": "scratch", "emptyDir": {}}, {"name": "config", "configMap": {"name": "cm"}},
                {"name": "secret", "secret": {"secretName": "sec"}},
                {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}]}}
            ]
        }),
    );
    let pod = rig.until_ready("full");
    let ip = pod["status"]["podIP"].as_str().unwrap().to_owned();
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["qosClass"], "Burstable");
    assert_eq!(status(&pod, "first")["state"]["terminated"]["reason"], "Completed");
    assert!(status(&pod, "main")["containerID"].as_str().unwrap().starts_with("containerd://"));
    for kind in ["Initialized", "ContainersReady", "PodScheduled", "PodReadyToStartContainers"] {
        assert_eq!(condition(&pod, kind), "True", "{kind}");
    }
    let log = || rig.kubelet("/containerLogs/default/full/main", Some("letmein")).1;
    flotilla_testkit::eventually("the log is complete", std::time::Duration::from_secs(10), || {
        log().contains("<hello>\n")
    });
    let log = log();
    for wanted in [
        "one\ntwo\nfrom config\ns3cret\nthe-token\n",
        "ME=full",
        "PW=s3cret",
        "LIMIT=64",
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
        "\n1234\n",
        "nameserver 10.96.0.10",
        "search default.svc.cluster.local",
        &format!("IP={ip}"),
        &format!("{ip}\tfull"),
    ] {
        assert!(log.contains(wanted), "{wanted:?} is missing in {log}");
    }
    let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
    let cgroup = format!("/sys/fs/cgroup/memory{}/kubepods/burstable/pod{uid}", rig.cgroup());
    if std::path::Path::new("/sys/fs/cgroup/memory").exists() {
        assert_eq!(
            std::fs::read_to_string(format!("{cgroup}/memory.limit_in_bytes")).unwrap().trim(),
            (64 << 20).to_string()
        );
    }
    for reason in ["Pulled", "Created", "Started"] {
        rig.until_event("full", reason);
    }
    let writes = rig.api.writes(&format!("{PODS}/full/status"));
    rig.api.delete(PODS, "full", None);
    rig.until("full", "it is gone", Value::is_null);
    rig.until_event("full", "Killing");
    assert!(writes < 15, "{writes} status writes for one start");
    flotilla_testkit::eventually("nothing is left", std::time::Duration::from_secs(10), || {
        rig.sandboxes().is_empty()
            && !rig.path("kubelet/pods").join(&uid).exists()
            && !rig.path("logs").join(format!("default_full_{uid}")).exists()
            && !std::path::Path::new(&cgroup).exists()
    });
}

#[test]
fn node_is_registered_and_kept_fresh() {
    let Some(mut rig) = rig("node_is_registered_and_kept_fresh") else { return };
    rig.extra = vec!["--register-with-taints".into(), "a=b:NoSchedule".into()];
    rig.start_agent();
    let api = rig.api.clone();
    let node = || api.get("/api/v1/nodes", NODE).unwrap_or_default();
    let ready = |node: &Value| condition(node, "Ready") == "True";
    flotilla_testkit::eventually("the node is ready", std::time::Duration::from_secs(30), || {
        ready(&node())
    });
    let got = node();
    assert_eq!(got["metadata"]["labels"]["zone"], "a");
    assert_eq!(got["metadata"]["labels"]["kubernetes.io/hostname"], NODE);
    assert_eq!(got["spec"]["taints"][0], json!({"key": "a", "value": "b", "effect": "NoSchedule"}));
    assert_eq!(got["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"], rig.kubelet_port);
    assert_eq!(
        got["status"]["addresses"][0],
        json!({"type": "InternalIP", "address": "127.0.0.1"})
    );
    assert_eq!(got["status"]["capacity"]["pods"], "110");
    assert!(
        got["status"]["nodeInfo"]["containerRuntimeVersion"]
            .as_str()
            .unwrap()
            .starts_with("containerd://")
    );
    let lease = || {
        api.get("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", NODE)
            .unwrap_or_default()
    };
    flotilla_testkit::eventually("there is a lease", std::time::Duration::from_secs(10), || {
        lease()["spec"]["holderIdentity"] == NODE
    });
    rig.stop_containerd();
    flotilla_testkit::eventually(
        "a dead runtime shows",
        std::time::Duration::from_secs(30),
        || !ready(&node()),
    );
    rig.start_containerd();
    flotilla_testkit::eventually("the node recovers", std::time::Duration::from_secs(30), || {
        ready(&node())
    });
}

#[test]
fn image_that_cannot_be_had_is_reported() {
    let Some(mut rig) = rig("image_that_cannot_be_had_is_reported") else { return };
    rig.start_agent();
    let refused = format!("127.0.0.1:{}/x:1", flotilla_testkit::free_port());
    rig.create("pull", json!({"containers": [{"name": "a", "image": refused}, {"name": "b", "image": "Bad Name"}, {"name": "c", "image": "flotilla.test/none:1", "imagePullPolicy": "Never"}]}));
    let reason = |pod: &Value, name: &str| {
        status(pod, name)["state"]["waiting"]["reason"].as_str().unwrap_or_default().to_owned()
    };
    rig.until("pull", "the first failure shows", |pod| reason(pod, "a") == "ErrImagePull");
    let pod = rig.until("pull", "it backs off", |pod| reason(pod, "a") == "ImagePullBackOff");
    assert_eq!(reason(&pod, "b"), "InvalidImageName");
    assert_eq!(reason(&pod, "c"), "ErrImageNeverPull");
    assert_eq!(pod["status"]["phase"], "Pending");
    rig.until_event("pull", "Pulling");
    rig.api.delete(PODS, "pull", None);
    rig.until("pull", "a pod that never ran goes too", Value::is_null);
}

#[test]
fn missing_config_is_named_and_waited_for() {
    let Some(mut rig) = rig("missing_config_is_named_and_waited_for") else { return };
    rig.start_agent();
    rig.create("wait", json!({"containers": [{"name": "a", "command": ["sleep", "1000"], "envFrom": [{"configMapRef": {"name": "late"}}]}]}));
    let pod = rig.until("wait", "it says what is missing", |pod| {
        status(pod, "a")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    });
    assert_eq!(status(&pod, "a")["state"]["waiting"]["message"], "configmap \"late\" not found");
    rig.api.put(
        "/api/v1/namespaces/default/configmaps",
        json!({"metadata": {"name": "late"}, "data": {"a": "b"}}),
    );
    rig.until_ready("wait");
    rig.create("mount", json!({"containers": [{"name": "a", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}], "volumes": [{"name": "v", "secret": {"secretName": "no"}}]}));
    let event = rig.until_event("mount", "FailedMount");
    assert!(event["message"].as_str().unwrap().contains("secret \"no\" not found"));
    rig.create("claim", json!({"containers": [{"name": "a"}], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "x"}}]}));
    let event = rig.until_event("claim", "FailedMount");
    assert!(
        event["message"].as_str().unwrap().contains("not supported yet: persistentVolumeClaim")
    );
}

#[test]
fn jobs_end_and_stay_ended() {
    let Some(mut rig) = rig("jobs_end_and_stay_ended") else { return };
    rig.start_agent();
    rig.create("ok", json!({"restartPolicy": "Never", "containers": [{"name": "a", "command": ["sh", "-c", "echo done > /dev/termination-log"]}]}));
    rig.create("bad", json!({"restartPolicy": "Never", "containers": [{"name": "a", "terminationMessagePolicy": "FallbackToLogsOnError", "command": ["sh", "-c", "echo oh no; exit 7"]}]}));
    rig.create("init", json!({"restartPolicy": "Never", "initContainers": [{"name": "i", "command": ["false"]}], "containers": [{"name": "a"}]}));
    rig.create("late", json!({"activeDeadlineSeconds": 2, "containers": [{"name": "a", "command": ["sleep", "1000"]}]}));
    let pod = rig.until("ok", "it succeeds", |pod| pod["status"]["phase"] == "Succeeded");
    assert_eq!(status(&pod, "a")["state"]["terminated"]["message"], "done\n");
    let pod = rig.until("bad", "it fails", |pod| pod["status"]["phase"] == "Failed");
    let ended = &status(&pod, "a")["state"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["message"]), (&json!(7), &json!("oh no\n")));
    rig.until("init", "it fails", |pod| pod["status"]["phase"] == "Failed");
    let pod = rig.until("late", "it is cut off", |pod| pod["status"]["phase"] == "Failed");
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    let (code, log) = rig.kubelet("/containerLogs/default/bad/a", Some("letmein"));
    assert_eq!((code, log.as_str()), (200, "oh no\n"));
    rig.kill_agent();
    rig.start_agent();
    rig.until("ok", "it stays", |pod| pod["status"]["phase"] == "Succeeded");
    rig.api.delete(PODS, "ok", None);
    rig.until("ok", "it goes", Value::is_null);
    assert_eq!(rig.pod("bad")["status"]["phase"], "Failed");
}

#[test]
fn ephemeral_container_joins_a_running_pod() {
    let Some(mut rig) = rig("ephemeral_container_joins_a_running_pod") else { return };
    rig.start_agent();
    rig.create("debug", json!({"containers": [{"name": "a", "command": ["sleep", "1000"]}]}));
    let mut pod = rig.until_ready("debug");
    pod["spec"]["ephemeralContainers"] = json!([{
        "name": "eph", "image": crate::image::BUSYBOX, "imagePullPolicy": "Never",
        "command": ["sh", "-c", "echo looking"], "targetContainerName": "a"
    }]);
    rig.api.put(PODS, pod);
    let pod = rig.until("debug", "the ephemeral container ends", |pod| {
        status(pod, "eph")["state"]["terminated"]["exitCode"] == 0
    });
    assert_eq!(condition(&pod, "Ready"), "True");
    assert_eq!(status(&pod, "a")["restartCount"], 0);
    let (_, log) = rig.kubelet("/containerLogs/default/debug/eph", Some("letmein"));
    assert_eq!(log, "looking\n");
}

#[test]
fn large_log_is_rotated_without_loss() {
    let Some(mut rig) = rig("large_log_is_rotated_without_loss") else { return };
    rig.extra = vec!["--container-log-max-size".into(), "20k".into()];
    rig.start_agent();
    let count = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.005; done";
    rig.create("chatty", json!({"containers": [{"name": "a", "command": ["sh", "-c", count]}]}));
    let pod = rig.until_ready("chatty");
    let folder = rig
        .path("logs")
        .join(format!("default_chatty_{}", pod["metadata"]["uid"].as_str().unwrap()))
        .join("a");
    let files = || -> Vec<std::path::PathBuf> {
        let mut all: Vec<_> =
            folder.read_dir().into_iter().flatten().flatten().map(|e| e.path()).collect();
        all.sort();
        all
    };
    flotilla_testkit::eventually("it is rotated", std::time::Duration::from_secs(60), || {
        let files = files();
        files.len() > 1 && std::fs::metadata(&files[0]).is_ok_and(|meta| meta.len() > 1000)
    });
    let read = |path: &std::path::PathBuf| -> Vec<u64> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect()
    };
    let files = files();
    let (fresh, old) = (read(&files[0]), read(&files[1]));
    assert_eq!(old.last().unwrap() + 1, fresh[0], "no line is lost between the files");
}
