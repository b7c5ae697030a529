//! Ends and losses: kill -9 of the server, an etcd that goes away.

use std::time::Duration;

use flotilla_testkit::eventually;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::cluster::{Cluster, LIMIT, skip, spawn_etcd, spawn_server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn acknowledged_writes_survive_kill_9() {
    if skip("acknowledged_writes_survive_kill_9") {
        return;
    }
    let mut c = Cluster::start();
    let mut acknowledged = Vec::new();
    for i in 0..20 {
        let name = format!("m{i}");
        if c.post(MAPS, &json!({"metadata": {"name": name}})).code == 201 {
            acknowledged.push(name);
        }
        if i == 10 {
            c.server.kill();
            let (server, address, own) = spawn_server(c.dir.path(), &c.etcd_url, &[]);
            (c.server, c.address, c.own) = (server, address, own);
        }
    }
    assert_eq!(acknowledged.len(), 20);
    for name in acknowledged {
        assert_eq!(c.get(&format!("{MAPS}/{name}")).code, 200, "{name}");
    }
    // The new life remembers no changes of the last one.
    let old = c.get(&format!("{MAPS}?watch=1&resourceVersion=1&timeoutSeconds=5"));
    assert!(old.body.contains("too old resource version"), "{}", old.body);
    let status = c.server.terminate(Duration::from_secs(20));
    assert!(status.success(), "SIGTERM ends the server with 0, not {status}");
}

#[test]
fn without_etcd_reads_go_on_and_writes_say_503() {
    if skip("without_etcd_reads_go_on_and_writes_say_503") {
        return;
    }
    let mut c = Cluster::start();
    assert_eq!(c.post(MAPS, &json!({"metadata": {"name": "x"}})).code, 201);
    eventually("it is in the cache", LIMIT, || {
        c.get(&format!("{MAPS}?resourceVersion=0")).body.contains("\"x\"")
    });
    c.etcd.signal(Signal::SIGKILL);
    c.etcd.wait_exit(LIMIT);
    assert_eq!(c.get(&format!("{MAPS}/x")).code, 200);
    assert!(c.get(MAPS).body.contains("\"x\""));
    let refused = c.post(MAPS, &json!({"metadata": {"name": "y"}}));
    assert_eq!(
        (refused.code, refused.json()["reason"].as_str()),
        (503, Some("ServiceUnavailable")),
        "{}",
        refused.body
    );
    eventually("readyz says so", LIMIT, || c.get("/readyz").code == 500);
    c.etcd = spawn_etcd(c.dir.path(), c.etcd_port);
    eventually("writes work again", LIMIT, || {
        c.post(MAPS, &json!({"metadata": {"name": "z"}})).code == 201
    });
    eventually("the cache follows again", LIMIT, || {
        c.get(&format!("{MAPS}?resourceVersion=0")).body.contains("\"z\"")
    });
}
