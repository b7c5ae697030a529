//! A daemon with an image service of its own, and shorthand for CRI calls.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use flotilla_proto::cri::runtime::v1 as cri;
use flotilla_testkit::{Process, eventually, skip_unless_program, skip_unless_root};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::{image, leaks};

static NUMBER: AtomicU32 = AtomicU32::new(0);
static IMAGES: Mutex<Weak<ImageServer>> = Mutex::new(Weak::new());

/// The image service all tests share: containerd, with the test image loaded.
struct ImageServer {
    socket: PathBuf,
    _process: Process,
    _dir: TempDir,
}

impl ImageServer {
    fn shared() -> Arc<Self> {
        let mut shared = IMAGES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(server) = shared.upgrade() {
            return server;
        }
        // A child ends with the thread that started it, and a test's thread ends with the test.
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let server = Arc::new(Self::start());
            send.send(server.clone()).expect("the test waits");
            loop {
                std::thread::park();
            }
        });
        let server = receive.recv().expect("the image service starts");
        *shared = Arc::downgrade(&server);
        server
    }

    fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("fltimg").tempdir().unwrap();
        let (at, socket) = (dir.path().display(), dir.path().join("c.sock"));
        let config = format!(
            "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\n[grpc]\naddress = \"{at}/c.sock\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{at}/opt\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"{at}/cnibin\"\nconf_dir = \"{at}/cniconf\"\n"
        );
        fs::write(dir.path().join("config.toml"), config).unwrap();
        let mut command = Command::new("containerd");
        end_with_parent(&mut command);
        let process = Process::spawn(command.arg("-c").arg(dir.path().join("config.toml")));
        let archive = dir.path().join("image.tar");
        image::write_archive(&archive);
        let imported = || {
            let mut ctr = Command::new("ctr");
            let done = ctr
                .arg("-a")
                .arg(&socket)
                .args(["-n", "k8s.io", "images", "import"])
                .arg(&archive)
                .output();
            done.is_ok_and(|output| output.status.success())
        };
        eventually("containerd imports the image", Duration::from_secs(60), imported);
        Self { socket, _process: process, _dir: dir }
    }
}

/// The kernel ends the child when the test process ends, however it ends.
fn end_with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let set = || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)
            .map_err(std::io::Error::from)
    };
    // SAFETY: prctl is a plain system call, safe between fork and exec.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(set);
    }
}

/// A daemon and its folders.
pub struct Runtime {
    pub dir: TempDir,
    pub bridge: String,
    pub cgroup: String,
    pub table: String,
    pub number: u32,
    images: Arc<ImageServer>,
    process: Option<Process>,
}

/// Clients of a running daemon.
#[derive(Clone)]
pub struct Client {
    pub runtime: cri::runtime_service_client::RuntimeServiceClient<Channel>,
    pub images: cri::image_service_client::ImageServiceClient<Channel>,
    pub channel: Channel,
}

/// A daemon, or nothing (after saying why) when this machine cannot run one.
pub fn start(test: &str) -> Option<Runtime> {
    let missing = skip_unless_root(test)
        || ["containerd", "ctr", "nft", "ip", "busybox"]
            .iter()
            .any(|p| skip_unless_program(test, p));
    (!missing).then(Runtime::new)
}

impl Runtime {
    fn new() -> Self {
        // Unique beside other runs on this machine: names hold the PID, ranges a part of it.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let unique = format!("{pid:x}{number}");
        let mut runtime = Self {
            dir: tempfile::Builder::new().prefix("fltrt").tempdir().unwrap(),
            bridge: format!("ft{unique}"),
            cgroup: format!("/flt-test-{unique}"),
            table: format!("flt-test-{unique}"),
            number: pid.wrapping_mul(16).wrapping_add(number) % 15_000,
            images: ImageServer::shared(),
            process: None,
        };
        runtime.start_daemon();
        runtime
    }

    /// Second and third byte of the pods' addresses.
    pub fn subnet(&self) -> (u32, u32) {
        (128 + self.number / 256 % 64, self.number % 256)
    }

    pub fn start_daemon(&mut self) {
        let (second, third) = self.subnet();
        let dir = self.dir.path().display();
        let mut command = Command::new(env!("CARGO_BIN_EXE_runtime-svc"));
        end_with_parent(&mut command);
        command
            .args(["--address", &format!("unix://{dir}/rt.sock")])
            .args([
                "--root",
                &format!("{dir}/runtime/root"),
                "--state",
                &format!("{dir}/runtime/state"),
            ])
            .args(["--image-endpoint", &format!("unix://{}", self.images.socket.display())])
            .args([
                "--pod-cidr",
                &format!("10.{second}.{third}.0/24"),
                "--bridge-name",
                &self.bridge,
            ])
            .args([
                "--nft-table",
                &self.table,
                "--cgroup-parent",
                &self.cgroup,
                "--metrics-address",
                "127.0.0.1:0",
            ])
            .args(["--log-level", "runtime_svc=debug"]);
        let mut process = Process::spawn(&mut command);
        process.wait_for_line("serving", Duration::from_secs(30));
        self.process = Some(process);
    }

    /// kill -9 of the daemon alone; shims and containers go on.
    pub fn kill_daemon(&mut self) {
        self.process.take().expect("the daemon runs").kill();
    }

    pub fn client(&self) -> Client {
        let channel =
            flotilla_client::channel(&format!("unix://{}/rt.sock", self.dir.path().display()))
                .unwrap();
        Client {
            runtime: cri::runtime_service_client::RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(64 << 20),
            images: cri::image_service_client::ImageServiceClient::new(channel.clone()),
            channel,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Cgroup files of a container, in the tree of a v1 controller or in the only tree.
    pub fn cgroup_file(
        &self,
        controller: &str,
        sandbox: &str,
        container: &str,
        file: &str,
    ) -> String {
        let relative =
            format!("{}/pod-{}/{container}", self.cgroup.trim_start_matches('/'), &sandbox[..16]);
        let v1 = Path::new("/sys/fs/cgroup").join(controller).join(&relative).join(file);
        let path =
            if v1.exists() { v1 } else { Path::new("/sys/fs/cgroup").join(&relative).join(file) };
        fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .trim()
            .to_owned()
    }

    /// Removes all pods and checks that nothing is left.
    pub async fn finish(mut self) {
        let mut client = self.client();
        for sandbox in client.sandboxes().await {
            client.remove_sandbox(&sandbox.id).await;
        }
        leaks::assert_none(self.dir.path(), &self.cgroup, &self.bridge);
        let left = self.snapshots();
        assert!(left.is_empty(), "snapshots left: {left:?}");
        self.clean();
    }

    /// Writable snapshots of this daemon's containers that still exist.
    fn snapshots(&self) -> Vec<String> {
        // Other daemons share the image service; only keys this one made count.
        let made = fs::read_to_string(self.path("keys")).unwrap_or_default();
        let listed = Command::new("ctr")
            .arg("-a")
            .arg(&self.images.socket)
            .args(["-n", "k8s.io", "snapshots", "ls"])
            .output()
            .unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        made.lines().filter(|key| listed.contains(*key)).map(str::to_owned).collect()
    }

    pub fn note_container(&self, id: &str) {
        use std::io::Write;
        let file = fs::File::options().append(true).create(true).open(self.path("keys"));
        writeln!(file.unwrap(), "{id}").unwrap();
    }

    fn clean(&mut self) {
        self.process = None;
        let quiet = |program: &str, args: &[&str]| {
            // Gone already is as good.
            let _ = Command::new(program).args(args).output();
        };
        quiet("ip", &["link", "del", &self.bridge]);
        quiet("nft", &["delete", "table", "ip", &self.table]);
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join(self.cgroup.trim_start_matches('/')));
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // After a failed test: end the pods of this daemon, found by their state folder.
        if self.process.is_some() {
            let state = self.dir.path().join("runtime/state").display().to_string();
            for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
                let cmdline = fs::read(process.path().join("cmdline")).unwrap_or_default();
                let text = String::from_utf8_lossy(&cmdline);
                let pid = process.file_name().to_string_lossy().parse::<i32>();
                if let (true, Ok(pid)) =
                    (text.starts_with("runtime-svc-shim") && text.contains(&state), pid)
                {
                    let _ = nix::sys::signal::kill(
                        nix::unistd::Pid::from_raw(pid),
                        nix::sys::signal::Signal::SIGKILL,
                    );
                }
            }
            self.clean();
        }
    }
}

/// A sandbox configuration with logs below `dir`.
pub fn sandbox_config(name: &str, dir: &Path) -> cri::PodSandboxConfig {
    let namespaces =
        cri::NamespaceOption { pid: cri::NamespaceMode::Container as i32, ..Default::default() };
    let context = cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces),
        ..Default::default()
    };
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "test".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        log_directory: dir.join("logs").join(name).display().to_string(),
        labels: HashMap::from([("app".to_owned(), name.to_owned())]),
        linux: Some(cri::LinuxPodSandboxConfig {
            security_context: Some(context),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A container configuration that runs `sh -c script`.
pub fn container_config(name: &str, script: &str) -> cri::ContainerConfig {
    let namespaces =
        cri::NamespaceOption { pid: cri::NamespaceMode::Container as i32, ..Default::default() };
    let context = cri::LinuxContainerSecurityContext {
        namespace_options: Some(namespaces),
        ..Default::default()
    };
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(cri::ImageSpec { image: image::NAME.to_owned(), ..Default::default() }),
        command: ["sh", "-c", script].map(str::to_owned).into(),
        log_path: format!("{name}.log"),
        linux: Some(cri::LinuxContainerConfig {
            security_context: Some(context),
            ..Default::default()
        }),
        ..Default::default()
    }
}

impl Client {
    pub async fn run_sandbox(&mut self, config: cri::PodSandboxConfig) -> String {
        self.try_run_sandbox(config).await.unwrap()
    }

    pub async fn try_run_sandbox(
        &mut self,
        config: cri::PodSandboxConfig,
    ) -> Result<String, tonic::Status> {
        let request =
            cri::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        self.runtime.run_pod_sandbox(request).await.map(|answer| answer.into_inner().pod_sandbox_id)
    }

    pub async fn create(
        &mut self,
        runtime: &Runtime,
        sandbox: &str,
        config: cri::ContainerConfig,
    ) -> String {
        let id = self.try_create(sandbox, config).await.unwrap();
        runtime.note_container(&id);
        id
    }

    pub async fn try_create(
        &mut self,
        sandbox: &str,
        config: cri::ContainerConfig,
    ) -> Result<String, tonic::Status> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: None,
        };
        self.runtime.create_container(request).await.map(|answer| answer.into_inner().container_id)
    }

    pub async fn start(&mut self, id: &str) {
        self.try_start(id).await.unwrap();
    }

    pub async fn try_start(&mut self, id: &str) -> Result<(), tonic::Status> {
        self.runtime
            .start_container(cri::StartContainerRequest { container_id: id.to_owned() })
            .await
            .map(drop)
    }

    /// Creates and starts.
    pub async fn run(
        &mut self,
        runtime: &Runtime,
        sandbox: &str,
        config: cri::ContainerConfig,
    ) -> String {
        let id = self.create(runtime, sandbox, config).await;
        self.start(&id).await;
        id
    }

    pub async fn stop(&mut self, id: &str, timeout: i64) {
        self.runtime
            .stop_container(cri::StopContainerRequest { container_id: id.to_owned(), timeout })
            .await
            .unwrap();
    }

    pub async fn remove(&mut self, id: &str) {
        self.runtime
            .remove_container(cri::RemoveContainerRequest { container_id: id.to_owned() })
            .await
            .unwrap();
    }

    pub async fn status(&mut self, id: &str) -> cri::ContainerStatus {
        self.try_status(id).await.unwrap()
    }

    pub async fn try_status(&mut self, id: &str) -> Result<cri::ContainerStatus, tonic::Status> {
        let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        self.runtime
            .container_status(request)
            .await
            .map(|answer| answer.into_inner().status.unwrap())
    }

    pub async fn sandbox_status(&mut self, id: &str) -> cri::PodSandboxStatus {
        let request =
            cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        self.runtime.pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap()
    }

    pub async fn sandboxes(&mut self) -> Vec<cri::PodSandbox> {
        self.runtime
            .list_pod_sandbox(cri::ListPodSandboxRequest { filter: None })
            .await
            .unwrap()
            .into_inner()
            .items
    }

    pub async fn remove_sandbox(&mut self, id: &str) {
        self.runtime
            .stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() })
            .await
            .unwrap();
        self.runtime
            .remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() })
            .await
            .unwrap();
    }

    /// Waits for the end and returns the final status.
    pub async fn wait(&mut self, id: &str) -> cri::ContainerStatus {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let status = self.status(id).await;
            if status.state() == cri::ContainerState::ContainerExited {
                return status;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "container {id} has not ended: {status:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn exec(&mut self, id: &str, command: &[&str]) -> cri::ExecSyncResponse {
        self.try_exec(id, command, 10).await.unwrap()
    }

    pub async fn try_exec(
        &mut self,
        id: &str,
        command: &[&str],
        timeout: i64,
    ) -> Result<cri::ExecSyncResponse, tonic::Status> {
        let cmd = command.iter().map(|word| (*word).to_owned()).collect();
        let request = cri::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout };
        self.runtime.exec_sync(request).await.map(tonic::Response::into_inner)
    }

    /// Stdout of a command that must succeed.
    pub async fn output(&mut self, id: &str, script: &str) -> String {
        let done = self.exec(id, &["sh", "-c", script]).await;
        let (out, err) =
            (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert_eq!(done.exit_code, 0, "{script}: {out}{err}");
        out.trim().to_owned()
    }
}

/// Text of a CRI log without timestamps.
pub fn log_lines(path: &str) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.split_once(' ')).map(|(_, rest)| rest.to_owned()).collect()
}
