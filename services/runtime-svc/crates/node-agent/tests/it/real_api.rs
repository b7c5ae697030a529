//! The agent below scheduler-svc and a real etcd, used by the real kubectl.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use flotilla_testkit::{Process, binary, etcd, eventually, free_port, skip_unless_program};
use serde_json::{Value, json};

use crate::image::BUSYBOX;
use crate::rig::{NODE, Rig, rig};

const LIMIT: Duration = Duration::from_secs(30);

struct Cluster {
    _etcd: Process,
    _server: Process,
    kubeconfig: std::path::PathBuf,
}

fn start(rig: &Rig) -> Cluster {
    let url = format!("http://127.0.0.1:{}", free_port());
    let peer = format!("http://127.0.0.1:{}", free_port());
    let mut command = Command::new(etcd().join("etcd"));
    command
        .arg("--data-dir")
        .arg(rig.path("etcd"))
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}"), "--unsafe-no-fsync"]);
    let mut etcd = Process::spawn(&mut command);
    etcd.wait_for_line("ready to serve client requests", LIMIT);
    let mut command = Command::new(binary("scheduler-svc"));
    command
        .args(["--roles", "api,controllers", "--etcd-servers", &url, "--secure-port", "0"])
        .args(["--grpc-address", "127.0.0.1:0", "--kubelet-client-token", "letmein", "--cert-dir"])
        .arg(rig.path("certs"));
    let mut server = Process::spawn(&mut command);
    server.wait_for_line("serving the Kubernetes API", LIMIT);
    Cluster { _etcd: etcd, _server: server, kubeconfig: rig.path("certs/admin.kubeconfig") }
}

impl Cluster {
    fn kubectl(&self, args: &[&str], input: &str) -> (bool, String) {
        let mut kubectl = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        kubectl.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = kubectl.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            println!("kubectl {args:?}: {errors}");
        }
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[test]
fn kubectl_runs_reads_and_enters_a_pod() {
    let test = "kubectl_runs_reads_and_enters_a_pod";
    if skip_unless_program(test, "kubectl") {
        return;
    }
    let Some(mut rig) = rig(test) else { return };
    let cluster = start(&rig);
    rig.kubeconfig = Some(cluster.kubeconfig.clone());
    rig.start_agent();
    let node = || cluster.kubectl(&["get", "node", NODE, "-o", "json"], "");
    eventually("the node is ready", LIMIT, || node().1.contains("kubelet is posting ready status"));
    let command = "echo hello; ls /var/run/secrets/kubernetes.io/serviceaccount; sleep 1000";
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"nodeName": NODE, "terminationGracePeriodSeconds": 1, "containers": [
            {"name": "a", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sh", "-c", command]}
        ]}
    });
    eventually("the pod is taken", LIMIT, || {
        cluster.kubectl(&["apply", "-f", "-"], &pod.to_string()).0
    });
    let (ready, _) =
        cluster.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"], "");
    assert!(ready, "{}", cluster.kubectl(&["describe", "pod", "web"], "").1);
    eventually("kubectl logs", LIMIT, || {
        cluster.kubectl(&["logs", "web"], "").1.starts_with("hello\n")
    });
    let (_, text) = cluster.kubectl(&["get", "pod", "web", "-o", "json"], "");
    let got: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(got["status"]["phase"], "Running");
    if got["spec"]["volumes"].is_array() {
        assert!(cluster.kubectl(&["logs", "web"], "").1.contains("token"));
    }
    let (ok, out) = cluster.kubectl(&["exec", "web", "--", "sh", "-c", "echo inside; exit 0"], "");
    assert_eq!((ok, out.as_str()), (true, "inside\n"));
    let (ok, out) = cluster.kubectl(&["exec", "-i", "web", "--", "cat"], "through\n");
    assert_eq!((ok, out.as_str()), (true, "through\n"));
    eventually("events", LIMIT, || {
        cluster.kubectl(&["events"], "").1.contains("Started container a")
    });
    assert!(cluster.kubectl(&["delete", "pod", "web", "--timeout=60s"], "").0);
    eventually("nothing is left", LIMIT, || rig.sandboxes().is_empty());
}
