//! Start-up and reload: bad input is one line and the right exit code.

use std::process::Command;

use flotilla_testkit::{Process, binary};
use nix::sys::signal::Signal;

use crate::http::{get, request};
use crate::server::{LONG, Server, command};

fn fails(config: &str) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
    let mut process = Process::spawn(&mut command(dir.path()));
    let code = process.wait_exit(LONG).code().unwrap();
    assert!(!dir.path().join("data").exists(), "a bad start must leave nothing behind");
    (code, process.output().trim().to_owned())
}

#[test]
fn bad_configuration_ends_the_process_with_one_line() {
    let (code, line) = fails("global:\n  scrape_interval: 5s\n  colour: red\n");
    assert_eq!(code, 78);
    assert!(
        line.contains("line 3: field colour not found in type config.plain")
            && !line.contains('\n'),
        "{line}"
    );
    let (code, line) = fails("remote_write:\n- url: http://x/\n");
    assert_eq!(code, 78);
    assert!(line.contains("not supported yet: remote_write"), "{line}");
    let (code, line) = fails("rule_files: [missing.yml]\n");
    assert_eq!(code, 78);
    assert!(line.contains("missing.yml") && !line.contains('\n'), "{line}");
}

#[test]
fn taken_port_and_bad_flags_are_named() {
    let server = Server::start("");
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[String]| {
        let mut process =
            Process::spawn(Command::new(binary("metrics-svc")).current_dir(dir.path()).args(args));
        (process.wait_exit(LONG).code().unwrap(), process.output())
    };
    let (code, text) = run(&[format!("--web.listen-address={}", server.address)]);
    assert_eq!(code, 69, "{text}");
    assert!(
        text.contains(&server.address.port().to_string()) && !dir.path().join("data").exists(),
        "{text}"
    );
    let (code, text) = run(&["--web.config.file=x".to_owned()]);
    assert_eq!(code, 64);
    assert!(text.contains("not supported yet: --web.config.file"), "{text}");
    let (code, text) = run(&["--version".to_owned()]);
    assert_eq!(code, 0);
    assert!(text.starts_with("metrics-svc, version "), "{text}");
    let (code, text) =
        run(&["healthcheck".to_owned(), format!("--web.listen-address={}", server.address)]);
    assert_eq!(code, 0, "{text}");
    let (code, text) =
        run(&[format!("--web.listen-address={}", server.address), "healthcheck".to_owned()]);
    assert_eq!(code, 0, "{text}");
}

#[test]
fn reload_takes_good_files_and_leaves_things_as_they_are_otherwise() {
    let server = Server::start("");
    let pools =
        || get(server.address, "/api/v1/scrape_pools").json()["data"]["scrapePools"].to_string();
    let good = "scrape_configs:\n- job_name: a\n  static_configs:\n  - targets: ['127.0.0.1:1']\n";
    assert_eq!(server.reload(good).status, 200);
    assert_eq!(pools(), "[\"a\"]");
    let reply = server.reload("scrape_configs: [}\n");
    assert_eq!(reply.status, 500);
    assert!(reply.body.contains("failed to reload config"), "{}", reply.body);
    assert_eq!(pools(), "[\"a\"]");
    let info = get(server.address, "/api/v1/status/runtimeinfo").json();
    assert_eq!(info["data"]["reloadConfigSuccess"], false);
    std::fs::write(server.dir.path().join("prometheus.yml"), "").unwrap();
    server.process.signal(Signal::SIGHUP);
    flotilla_testkit::eventually("SIGHUP reloads", LONG, || pools() == "[]");
    assert_eq!(request(server.address, "POST", "/-/quit", "").status, 200);
}
