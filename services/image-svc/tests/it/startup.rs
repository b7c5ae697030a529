//! Start, stop and what is said when it does not work.

use std::process::Command;
use std::time::Duration;

use super::server::Server;

fn failing(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

#[test]
fn errors_are_one_line_with_the_fix() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let storage = "storage:\n  filesystem:\n    rootdirectory: /x\n";
    for (name, text, code, want) in [
        ("a.yml", "version: 0.1\nhttp:\n  adr: :5000\n", 78, "unknown field `adr`"),
        ("b.yml", "version: 0.2\n", 78, "version must be 0.1"),
        ("c.yml", "version: 0.1\nredis:\n  addrs: [x]\n", 78, "not supported yet: redis"),
        ("d.yml", "version: 0.1\n : [\n", 78, "d.yml"),
        ("e.yml", &format!("version: 0.1\n{storage}http:\n  addr: nowhere\n"), 78, "http.addr"),
    ] {
        let path = write(name, text);
        let (status, message) =
            failing(Command::new(flotilla_testkit::binary("image-svc")).args(["serve", &path]));
        assert_eq!((status, message.trim().lines().count()), (code, 1), "{name}: {message}");
        assert!(message.contains(want), "{name}: {message}");
    }
    let binary = flotilla_testkit::binary("image-svc");
    let (status, message) = failing(Command::new(&binary).args(["serve", "/nowhere.yml"]));
    assert!(status == 78 && message.contains("cannot read /nowhere.yml"), "{message}");
    let (status, message) = failing(Command::new(&binary).arg("--colour"));
    assert!(status == 64 && message.contains("--colour"), "{message}");
}

#[test]
fn a_taken_port_or_root_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let other = tempfile::tempdir().unwrap();
    let start = |address: &str, root: &std::path::Path| {
        let mut command = Command::new(flotilla_testkit::binary("image-svc"));
        failing(
            command
                .args(["--log-level", "warn", "--cri-address=", "--http-addr", address])
                .arg("--root")
                .arg(root),
        )
    };
    let (status, message) = start(&server.address, other.path());
    assert_eq!((status, message.trim().lines().count()), (69, 1), "{message}");
    assert!(message.contains(&server.address) && message.contains("is taken"), "{message}");
    let (status, message) = start("127.0.0.1:0", &dir.path().join("root"));
    assert_eq!((status, message.trim().lines().count()), (69, 1), "{message}");
    assert!(message.contains("--root"), "{message}");
}

#[tokio::test]
async fn configuration_file_and_environment_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("data");
    let text = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n  headers:\n    X-Content-Type-Options: [nosniff]\n",
        root.display()
    );
    let path = dir.path().join("config.yml");
    std::fs::write(&path, text).unwrap();
    let mut command = Command::new(flotilla_testkit::binary("image-svc"));
    command
        .args(["--log-format", "json", "serve"])
        .arg(&path)
        .env("REGISTRY_STORAGE_DELETE_ENABLED", "false");
    let mut process = flotilla_testkit::Process::spawn(&mut command);
    let line = process.wait_for_line("registry listening", Duration::from_secs(30));
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = line["address"].as_str().unwrap().to_owned();
    let curl = |args: &[&str]| {
        String::from_utf8(Command::new("curl").args(["-si"]).args(args).output().unwrap().stdout)
            .unwrap()
    };
    assert!(curl(&[&format!("http://{address}/v2/")]).contains("x-content-type-options: nosniff"));
    let digest = image_svc::engine::Digest::sha256(b"x");
    let answer = curl(&["-X", "DELETE", &format!("http://{address}/v2/a/blobs/{digest}")]);
    assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("UNSUPPORTED"), "{answer}");
    assert!(root.join("blobs/sha256").is_dir());
    assert!(process.terminate(Duration::from_secs(15)).success());
}

#[tokio::test]
async fn admin_pages_and_healthcheck_answer() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    server.push_blob("a", b"x").await;
    let metrics = server.get("/metrics").await.body;
    let metrics = std::str::from_utf8(&metrics).unwrap();
    for name in [
        "registry_http_requests_total{",
        "registry_http_in_flight_requests{",
        "process_resident_memory_bytes",
    ] {
        assert!(metrics.contains(name), "{name} is missing");
    }
    assert_eq!(server.get("/readyz").await.status, 200);
    let status = Command::new(flotilla_testkit::binary("image-svc"))
        .args(["healthcheck", "--http-addr", &server.address])
        .status();
    assert!(status.unwrap().success());
    assert!(server.process.terminate(Duration::from_secs(15)).success());
}

#[tokio::test]
async fn htpasswd_lets_in_who_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let hash = bcrypt::hash("secret", 4).unwrap();
    std::fs::write(dir.path().join("htpasswd"), format!("# users\nann:{hash}\n")).unwrap();
    let text = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {0}/data}}}}\nhttp: {{addr: '127.0.0.1:0'}}\nauth: {{htpasswd: {{realm: here, path: {0}/htpasswd}}}}\n",
        dir.path().display()
    );
    let path = dir.path().join("config.yml");
    std::fs::write(&path, text).unwrap();
    let mut command = Command::new(flotilla_testkit::binary("image-svc"));
    let mut process = flotilla_testkit::Process::spawn(
        command.args(["--log-format", "json", "serve"]).arg(&path),
    );
    let line = process.wait_for_line("registry listening", Duration::from_secs(30));
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let url = format!("http://{}/v2/", line["address"].as_str().unwrap());
    let curl = |args: &[&str]| {
        let output = Command::new("curl").args(["-si", &url]).args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let refused = curl(&[]);
    assert!(
        refused.starts_with("HTTP/1.1 401")
            && refused.contains("www-authenticate: Basic realm=\"here\""),
        "{refused}"
    );
    for (user, status) in
        [("ann:secret", "200"), ("ann:secret", "200"), ("ann:wrong", "401"), ("bob:secret", "401")]
    {
        assert!(curl(&["-u", user]).starts_with(&format!("HTTP/1.1 {status}")), "{user}");
    }
    std::fs::write(dir.path().join("htpasswd"), format!("bob:{hash}\n")).unwrap();
    flotilla_testkit::eventually("the file is read again", Duration::from_secs(5), || {
        curl(&["-u", "bob:secret"]).starts_with("HTTP/1.1 200")
            && curl(&["-u", "ann:secret"]).starts_with("HTTP/1.1 401")
    });
    assert!(process.terminate(Duration::from_secs(15)).success());
    std::fs::write(dir.path().join("htpasswd"), "ann:plain\n").unwrap();
    let (status, message) =
        failing(Command::new(flotilla_testkit::binary("image-svc")).arg("serve").arg(&path));
    assert!(status == 78 && message.contains("htpasswd -B"), "{message}");
}
