//! What survives: kill -9, torn logs, two servers on one folder.

use std::fs;
use std::time::Duration;

use flotilla_testkit::{Process, eventually};

use crate::http::{encode, get};
use crate::server::{LONG, Server, command, scraping};
use crate::target::Target;

fn samples(server: &Server, query: &str) -> Vec<(String, String)> {
    let path = format!("/api/v1/query?query={}", encode(query));
    let reply = get(server.address, &path).json();
    let series = reply["data"]["result"].as_array().cloned().unwrap_or_default();
    let values = series.first().and_then(|s| s["values"].as_array().cloned()).unwrap_or_default();
    values.iter().map(|v| (v[0].to_string(), v[1].to_string())).collect()
}

#[test]
fn visible_samples_survive_kill_9() {
    let target = Target::start("m 1\n");
    let mut server = Server::start(&scraping(target.address, ""));
    for round in 0..4 {
        let before = samples(&server, "m[1h]").len();
        eventually("new samples", LONG, || samples(&server, "m[1h]").len() >= before + 3);
        target.set_body(&format!("m {round}\n"));
        let seen = samples(&server, "m[1h]");
        server = server.crash();
        let after = samples(&server, "m[1h]");
        assert_eq!(after[..seen.len()], seen[..], "round {round}");
    }
}

#[test]
fn torn_log_is_cut_and_the_rest_is_served() {
    let target = Target::start("m 1\n");
    let mut server = Server::start(&scraping(target.address, ""));
    eventually("some samples", LONG, || samples(&server, "m[1h]").len() >= 5);
    server.process.kill();
    let segment = server.data().join("wal/00000000");
    let bytes = fs::read(&segment).unwrap();
    fs::write(&segment, [&bytes[..bytes.len() - 3], &[0xff; 40]].concat()).unwrap();
    let server = server.crash();
    assert!(samples(&server, "m[1h]").len() >= 4);
    assert!(server.process.output().contains("cutting the write-ahead log here"));
    assert!(server.data().join("wal/00000000.corrupt").exists());
    let metrics = get(server.address, "/metrics").body;
    assert!(metrics.contains("prometheus_tsdb_wal_corruptions_total 1"), "{metrics}");
}

#[test]
fn second_server_on_the_folder_is_refused() {
    let server = Server::start("");
    let mut second = Process::spawn(&mut command(server.dir.path()));
    assert_eq!(second.wait_exit(LONG).code(), Some(69));
    assert!(second.output().contains("is in use by another process"), "{}", second.output());
}

#[test]
fn sigterm_drains_and_exits_0() {
    let mut server = Server::start("");
    assert_eq!(server.process.terminate(Duration::from_secs(15)).code(), Some(0));
}
