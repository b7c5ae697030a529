//! A containerd, an API server and an agent of one test, in folders of their own.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use flotilla_proto::cri::runtime::v1::runtime_service_client::RuntimeServiceClient;
use flotilla_proto::cri::runtime::v1::{
    ListPodSandboxRequest, RemovePodSandboxRequest, StopPodSandboxRequest,
};
use flotilla_server::Shutdown;
use flotilla_testkit::{Process, skip_unless_program, skip_unless_root};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::fake_api::FakeApi;
use crate::image;

pub const PODS: &str = "/api/v1/namespaces/default/pods";
pub const NODE: &str = "n1";
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    agent: node_agent::Config,
}

pub struct Rig {
    pub runtime: Runtime,
    pub api: Arc<FakeApi>,
    pub dir: TempDir,
    containerd: Option<Process>,
    agent: Option<(JoinHandle<Result<(), node_agent::AgentError>>, Shutdown)>,
    pub kubelet_port: u16,
    id: u32,
    pub extra: Vec<String>,
    pub kubeconfig: Option<PathBuf>,
}

/// A rig, unless this machine lacks what it needs.
pub fn rig(test: &str) -> Option<Rig> {
    if skip_unless_root(test)
        || ["containerd", "runc", "ctr", "busybox"].iter().any(|p| skip_unless_program(test, p))
    {
        return None;
    }
    if !std::path::Path::new("/usr/lib/cni/ptp").exists() {
        println!("SKIPPED {test}: needs containernetworking-plugins; `make setup` installs it");
        return None;
    }
    show_log();
    let runtime = Runtime::new().unwrap();
    let api = Arc::new(runtime.block_on(FakeApi::start()));
    let mut rig = Rig {
        runtime,
        api,
        dir: tempfile::Builder::new().prefix("flt").tempdir_in("/var/tmp").unwrap(),
        containerd: None,
        agent: None,
        kubelet_port: flotilla_testkit::free_port(),
        id: rand::random::<u32>() % 0xff_ffff,
        extra: Vec::new(),
        kubeconfig: None,
    };
    rig.start_containerd();
    let archive = rig.path("images.tar");
    image::write_archive(&archive);
    let import = Command::new("ctr")
        .args(["-a"])
        .arg(rig.path("c.sock"))
        .args(["-n", "k8s.io", "images", "import"])
        .arg(&archive)
        .output()
        .unwrap();
    assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
    Some(rig)
}

impl Rig {
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn cgroup(&self) -> String {
        format!("/flt-test-{:x}", self.id)
    }

    pub fn start_containerd(&mut self) {
        let dir = self.dir.path().display();
        let octets = (self.id >> 8 & 0x3f, self.id & 0xff);
        let cni = json!({
            "cniVersion": "0.4.0", "name": "flt-test", "plugins": [{
                "type": "ptp", "ipMasq": false,
                "ipam": {"type": "host-local", "dataDir": self.path("ipam"), "ranges": [[{"subnet": format!("10.{}.{}.0/24", 128 + octets.0, octets.1)}]], "routes": [{"dst": "0.0.0.0/0"}]}
            }]
        });
        std::fs::create_dir_all(self.path("cni")).unwrap();
        std::fs::write(self.path("cni/10-flt.conflist"), cni.to_string()).unwrap();
        let config = format!(
            r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
[grpc]
  address = "{dir}/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{dir}/cni"
"#,
            image::PAUSE
        );
        std::fs::write(self.path("config.toml"), config).unwrap();
        let mut containerd =
            Process::spawn(Command::new("containerd").arg("-c").arg(self.path("config.toml")));
        containerd.wait_until("it boots", PATIENCE, |output| {
            output.contains("containerd successfully booted")
        });
        self.containerd = Some(containerd);
    }

    pub fn stop_containerd(&mut self) {
        if let Some(mut containerd) = self.containerd.take() {
            containerd.terminate(Duration::from_secs(10));
        }
    }

    pub fn start_agent(&mut self) {
        let kubeconfig = self.path("kubeconfig");
        let text = format!(
            "current-context: a\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\nclusters: [{{name: a, cluster: {{server: 'http://{}'}}}}]\nusers: [{{name: a}}]\n",
            self.api.address
        );
        std::fs::write(&kubeconfig, text).unwrap();
        std::fs::write(self.path("token"), "letmein").unwrap();
        let socket = format!("unix://{}", self.path("c.sock").display());
        let mut args: Vec<String> = vec!["agent".into()];
        let mut flag = |name: &str, value: String| args.extend([format!("--{name}"), value]);
        flag("kubeconfig", self.kubeconfig.clone().unwrap_or(kubeconfig).display().to_string());
        flag("hostname-override", NODE.into());
        flag("node-ip", "127.0.0.1".into());
        flag("node-labels", "zone=a".into());
        flag("container-runtime-endpoint", socket);
        flag("agent-root-dir", self.path("kubelet").display().to_string());
        flag("pod-logs-dir", self.path("logs").display().to_string());
        flag("kubelet-address", "127.0.0.1".into());
        flag("kubelet-port", self.kubelet_port.to_string());
        flag("kubelet-token-file", self.path("token").display().to_string());
        flag("cluster-dns", "10.96.0.10".into());
        flag("cgroup-root", self.cgroup());
        flag("service-proxy", "false".into());
        args.extend(self.extra.iter().cloned());
        let config = Cli::try_parse_from(args).unwrap().agent;
        let shutdown = Shutdown::new();
        let task = self.runtime.spawn(node_agent::run(config, shutdown.clone()));
        self.agent = Some((task, shutdown));
    }

    /// Ends the agent as a crash would.
    pub fn kill_agent(&mut self) {
        if let Some((task, _)) = self.agent.take() {
            task.abort();
            let _ = self.runtime.block_on(task);
        }
    }

    /// Ends the agent in order.
    pub fn stop_agent(&mut self) {
        if let Some((task, shutdown)) = self.agent.take() {
            shutdown.trigger();
            self.runtime.block_on(task).unwrap().unwrap();
        }
    }

    /// Creates a pod bound to the node. `spec` lacks what every pod has.
    pub fn create(&self, name: &str, mut spec: Value) {
        spec["nodeName"] = NODE.into();
        spec.as_object_mut().unwrap().entry("terminationGracePeriodSeconds").or_insert(1.into());
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
            {
                let fields = container.as_object_mut().unwrap();
                fields.entry("image").or_insert(image::BUSYBOX.into());
                fields.entry("imagePullPolicy").or_insert("IfNotPresent".into());
            }
        }
        self.api.put(PODS, json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}));
    }

    pub fn pod(&self, name: &str) -> Value {
        self.api.get(PODS, name).unwrap_or_default()
    }

    /// Waits until `check` says yes to the pod.
    #[track_caller]
    pub fn until(&self, name: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let pod = self.pod(name);
            if check(&pod) {
                return pod;
            }
            if Instant::now() > deadline {
                let events: Vec<String> = self
                    .events(name)
                    .iter()
                    .map(|e| format!("{} {}", e["reason"], e["message"]))
                    .collect();
                panic!(
                    "{name}: {what}: not within {PATIENCE:?}\nstatus: {:#}\nevents: {events:#?}",
                    pod["status"]
                );
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    #[track_caller]
    pub fn until_ready(&self, name: &str) -> Value {
        self.until(name, "it is ready", |pod| condition(pod, "Ready") == "True")
    }

    pub fn events(&self, name: &str) -> Vec<Value> {
        let all = self.api.all("/api/v1/namespaces/default/events");
        all.into_iter().filter(|event| event["involvedObject"]["name"] == name).collect()
    }

    #[track_caller]
    pub fn until_event(&self, name: &str, reason: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(event) =
                self.events(name).into_iter().find(|event| event["reason"] == reason)
            {
                return event;
            }
            assert!(
                Instant::now() < deadline,
                "{name}: no event {reason}: {:#?}",
                self.events(name)
            );
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// A request to the kubelet API, by curl; status and body.
    pub fn kubelet(&self, path: &str, token: Option<&str>) -> (u16, String) {
        let mut curl = Command::new("curl");
        curl.args(["-sk", "-g", "--max-time", "30", "-w", "\n%{http_code}"]);
        if let Some(token) = token {
            curl.args(["-H", &format!("Authorization: Bearer {token}")]);
        }
        let output =
            curl.arg(format!("https://127.0.0.1:{}{path}", self.kubelet_port)).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').unwrap_or(("", "0"));
        (code.parse().unwrap_or(0), body.to_owned())
    }

    fn client(&self) -> RuntimeServiceClient<tonic::transport::Channel> {
        let _inside = self.runtime.enter();
        RuntimeServiceClient::new(
            flotilla_client::channel(&format!("unix://{}", self.path("c.sock").display())).unwrap(),
        )
    }

    /// Ids of the sandboxes containerd knows.
    pub fn sandboxes(&self) -> Vec<String> {
        let mut client = self.client();
        let listed =
            self.runtime.block_on(client.list_pod_sandbox(ListPodSandboxRequest::default()));
        listed
            .map(|listed| listed.into_inner().items.into_iter().map(|s| s.id).collect())
            .unwrap_or_default()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.kill_agent();
        if self.containerd.is_none() {
            self.start_containerd();
        }
        let mut client = self.client();
        for id in self.sandboxes() {
            let _ = self.runtime.block_on(
                client.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id.clone() }),
            );
            let _ = self.runtime.block_on(
                client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id }),
            );
        }
        self.stop_containerd();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut mounts: Vec<&str> = table
            .lines()
            .filter_map(|l| l.split(' ').nth(4))
            .filter(|m| PathBuf::from(m).starts_with(self.dir.path()))
            .collect();
        mounts.sort_by_key(|m| std::cmp::Reverse(m.len()));
        for mount in mounts {
            let _ = nix::mount::umount2(mount, nix::mount::MntFlags::MNT_DETACH);
        }
        for tree in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let top = tree.path().join(self.cgroup().trim_start_matches('/'));
            remove_cgroup(&top);
        }
    }
}

fn remove_cgroup(path: &std::path::Path) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(path);
}

pub fn condition(pod: &Value, kind: &str) -> String {
    let all = pod["status"]["conditions"].as_array().into_iter().flatten();
    all.filter(|c| c["type"] == kind)
        .filter_map(|c| c["status"].as_str())
        .next()
        .unwrap_or_default()
        .to_owned()
}

pub fn status<'a>(pod: &'a Value, container: &str) -> &'a Value {
    static NONE: Value = Value::Null;
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let all = lists.iter().filter_map(|list| pod["status"][list].as_array()).flatten();
    all.into_iter().find(|s| s["name"] == container).unwrap_or(&NONE)
}

/// Shows the agent's log when the environment asks for it.
fn show_log() {
    if std::env::var_os("FLT_LOG").is_some() {
        let _ = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_test_writer()
            .try_init();
    }
}
