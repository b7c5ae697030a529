//! The semantics below kubectl.

use serde_json::{Value, json};

use crate::cluster::{Cluster, LIMIT, skip};
use flotilla_testkit::{Process, eventually};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

#[test]
fn versions_guard_writes() {
    if skip("versions_guard_writes") {
        return;
    }
    let c = Cluster::start();
    let first = c.post(MAPS, &map("x"));
    assert_eq!(first.code, 201);
    assert_eq!(c.post(MAPS, &map("x")).json()["reason"], "AlreadyExists");
    let mut object = first.json();
    object["data"]["a"] = "2".into();
    let second = c.put(&format!("{MAPS}/x"), &object);
    assert_eq!(second.code, 200, "{}", second.body);
    object["data"]["a"] = "3".into();
    let stale = c.put(&format!("{MAPS}/x"), &object);
    assert_eq!(
        (stale.code, stale.json()["reason"].as_str()),
        (409, Some("Conflict")),
        "{}",
        stale.body
    );
    assert!(
        stale.message().contains(
            "the object has been modified; please apply your changes to the latest version"
        )
    );
    let same = c.put(&format!("{MAPS}/x"), &second.json());
    assert_eq!(
        same.json()["metadata"]["resourceVersion"],
        second.json()["metadata"]["resourceVersion"]
    );
    let options = json!({"preconditions": {"uid": "other"}}).to_string();
    let wrong =
        c.call("DELETE", &format!("{MAPS}/x"), &["Content-Type: application/json"], &options);
    assert_eq!(wrong.code, 409);
    let gone = c.call("DELETE", &format!("{MAPS}/x"), &[], "");
    assert_eq!((gone.code, gone.json()["status"].as_str()), (200, Some("Success")));
    assert_eq!(c.get(&format!("{MAPS}/x")).code, 404);
}

#[test]
fn lists_page_at_one_version_and_old_tokens_expire() {
    if skip("lists_page_at_one_version_and_old_tokens_expire") {
        return;
    }
    let c = Cluster::start();
    for i in 0..5 {
        assert_eq!(c.post(MAPS, &map(&format!("m{i}"))).code, 201);
    }
    let first = c.get(&format!("{MAPS}?limit=2")).json();
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    let token = first["metadata"]["continue"].as_str().unwrap();
    // What comes later is not in the pages of an earlier version.
    c.post(MAPS, &map("m9"));
    let rest = c.get(&format!("{MAPS}?limit=10&continue={token}")).json();
    assert_eq!(rest["items"].as_array().unwrap().len(), 3);
    assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let now = c.get(MAPS).json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let compacted = std::process::Command::new(flotilla_testkit::etcd().join("etcdctl"))
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &c.etcd_url, "compact", &now])
        .output()
        .unwrap();
    assert!(compacted.status.success());
    let old = c.get(&format!("{MAPS}?limit=2&continue={token}"));
    assert_eq!((old.code, old.json()["reason"].as_str()), (410, Some("Expired")), "{}", old.body);
    let fresh = old.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    assert_eq!(c.get(&format!("{MAPS}?limit=9&continue={fresh}")).code, 200);
    assert_eq!(c.get(&format!("{MAPS}?continue=nonsense")).code, 400);
    assert_eq!(c.get(&format!("{MAPS}?resourceVersion=999999999")).code, 504);
    assert_eq!(c.get(&format!("{MAPS}?labelSelector=a%20b%20c")).code, 400);
    assert_eq!(
        c.get(&format!("{MAPS}?fieldSelector=metadata.name%3Dm1")).json()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn watches_tell_everything_in_order() {
    if skip("watches_tell_everything_in_order") {
        return;
    }
    let c = Cluster::start();
    let start = c.get(MAPS).json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let watch = |query: &str| {
        let mut command = std::process::Command::new("curl");
        command.args(["-s", "-N", "-k", "-H", &format!("Authorization: Bearer {}", c.token)]);
        command.arg(format!("https://{}{MAPS}?watch=1&{query}", c.address));
        Process::spawn(&mut command)
    };
    let mut all = watch(&format!("resourceVersion={start}&allowWatchBookmarks=true"));
    let mut chosen = watch(&format!("resourceVersion={start}&labelSelector=on%3Dyes"));
    let mut initial =
        watch("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    initial.wait_for_line("k8s.io/initial-events-end", LIMIT);
    c.post(MAPS, &map("x"));
    let label = |value: Value| {
        let patch = json!({"metadata": {"labels": {"on": value}}}).to_string();
        let answer = c.call(
            "PATCH",
            &format!("{MAPS}/x"),
            &["Content-Type: application/merge-patch+json"],
            &patch,
        );
        assert_eq!(answer.code, 200, "{}", answer.body);
    };
    label("yes".into());
    label(Value::Null);
    c.call("DELETE", &format!("{MAPS}/x"), &[], "");
    all.wait_for_line("DELETED", LIMIT);
    chosen.wait_for_line("DELETED", LIMIT);
    let kinds = |process: &Process| -> Vec<String> {
        let lines: Vec<Value> =
            process.output().lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
        let mine = lines.iter().filter(|e: &&Value| e["object"]["metadata"]["name"] == "x");
        mine.map(|e| e["type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(kinds(&all), ["ADDED", "MODIFIED", "MODIFIED", "DELETED"]);
    // It began to match, ceased to match, and its deletion is nobody's news.
    assert_eq!(kinds(&chosen), ["ADDED", "DELETED"]);
}

#[test]
fn unknown_and_duplicate_fields_follow_the_mode() {
    if skip("unknown_and_duplicate_fields_follow_the_mode") {
        return;
    }
    let c = Cluster::start();
    let body = r#"{"metadata":{"name":"x"},"data":{"a":"1"},"data":{"a":"2"},"nope":1}"#;
    let post = |mode: &str| {
        c.call(
            "POST",
            &format!("{MAPS}?dryRun=All&fieldValidation={mode}"),
            &["Content-Type: application/json"],
            body,
        )
    };
    let strict = post("Strict");
    assert_eq!(strict.code, 400);
    assert!(
        strict
            .message()
            .contains("strict decoding error: duplicate field \"data\", unknown field \"nope\""),
        "{}",
        strict.body
    );
    let warned = post("Warn");
    assert_eq!(warned.code, 201, "{}", warned.body);
    assert!(warned.headers.contains("299 - \"unknown field \\\"nope\\\"\""), "{}", warned.headers);
    assert!(!post("Ignore").headers.contains("299"));
    assert_eq!(post("Sometimes").code, 400);
    assert_eq!(c.get(&format!("{MAPS}/x")).code, 404, "a dry run writes nothing");
}

#[test]
fn what_cannot_be_served_is_refused() {
    if skip("what_cannot_be_served_is_refused") {
        return;
    }
    let c = Cluster::start();
    let json = ["Content-Type: application/json"];
    let large = format!(r#"{{"data":{{"a":"{}"}}}}"#, "x".repeat(4 << 20));
    assert_eq!(c.call("POST", MAPS, &json, &large).code, 413);
    assert_eq!(c.call("POST", MAPS, &json, &"[".repeat(100_000)).code, 400);
    assert_eq!(c.call("POST", MAPS, &["Content-Type: text/plain"], "x").code, 415);
    assert_eq!(c.call("GET", MAPS, &["Accept: image/png"], "").code, 406);
    assert_eq!(
        c.call("POST", MAPS, &["Content-Type: application/vnd.kubernetes.protobuf"], "garbage")
            .code,
        400
    );
    assert_eq!(
        c.call(
            "PATCH",
            &format!("{MAPS}/kube-root-ca.crt"),
            &["Content-Type: application/apply-patch+yaml"],
            "x"
        )
        .code,
        422
    );
    assert_eq!(c.call("PUT", MAPS, &json, "{}").code, 405);
    assert_eq!(c.get("/api/v1/nonsense").code, 404);
    assert_eq!(c.get("/api/v1/namespaces/default/pods/..%2f..%2fx").code, 404);
    let bomb = format!(
        "a: &a [x,x,x,x,x,x,x,x,x]\n{}",
        (0..9).fold(String::new(), |text, i| {
            let last = if i == 0 { "a".to_owned() } else { format!("b{}", i - 1) };
            format!("{text}b{i}: &b{i} [{}]\n", vec![format!("*{last}"); 9].join(","))
        })
    );
    assert_eq!(c.call("POST", MAPS, &["Content-Type: application/yaml"], &bomb).code, 400);
    assert_eq!(c.call_as("wrong", "GET", MAPS, &[], "").code, 401);
    let anonymous = c.call_as("", "GET", MAPS, &[], "");
    assert_eq!(anonymous.code, 403);
    assert!(anonymous.message().contains("User \"system:anonymous\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""), "{}", anonymous.body);
    assert_eq!(c.call_as("", "GET", "/readyz", &[], "").code, 200);
    assert_eq!(c.call_as("", "GET", "/version", &[], "").code, 200);
    assert_eq!(c.call_as("", "GET", "/metrics", &[], "").code, 403);
}

#[test]
fn services_get_addresses_of_their_own() {
    if skip("services_get_addresses_of_their_own") {
        return;
    }
    let c = Cluster::start();
    let path = "/api/v1/namespaces/default/services";
    let service = |name: &str, ip: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": ip, "ports": [{"port": 53}]}});
    let dns = c.post(path, &service("dns", "10.96.0.10"));
    assert_eq!(
        (dns.code, dns.json()["spec"]["clusterIP"].as_str()),
        (201, Some("10.96.0.10")),
        "{}",
        dns.body
    );
    eventually("the cache knows", LIMIT, || {
        c.post(&format!("{path}?dryRun=All"), &service("other", "10.96.0.10")).code == 422
    });
    let taken = c.post(path, &service("other", "10.96.0.10"));
    assert!(
        taken
            .message()
            .contains("failed to allocate IP 10.96.0.10: provided IP is already allocated"),
        "{}",
        taken.body
    );
    assert!(
        c.post(path, &service("other", "10.1.1.1")).message().contains("not in the valid range")
    );
    assert_eq!(
        c.post(path, &service("headless", "None")).json()["spec"]["clusterIPs"],
        json!(["None"])
    );
    let mut moved = dns.json();
    moved["spec"]["clusterIP"] = "10.96.0.11".into();
    moved["spec"]["clusterIPs"] = json!(["10.96.0.11"]);
    assert!(c.put(&format!("{path}/dns"), &moved).message().contains("may not change once set"));
    c.call("DELETE", &format!("{path}/dns"), &[], "");
    eventually("the address is free again", LIMIT, || {
        c.post(path, &service("again", "10.96.0.10")).code == 201
    });
}

#[test]
fn pods_are_bound_once_and_end_gracefully() {
    if skip("pods_are_bound_once_and_end_gracefully") {
        return;
    }
    let c = Cluster::start();
    let path = "/api/v1/namespaces/default/pods";
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let made = c.post(path, &pod);
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(made.json()["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    assert_eq!(made.json()["spec"]["tolerations"].as_array().unwrap().len(), 2);
    let binding =
        |node: &str| json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}});
    assert_eq!(c.post(&format!("{path}/p/binding"), &binding("n1")).code, 201);
    let again = c.post(&format!("{path}/p/binding"), &binding("n2"));
    assert!(again.message().contains("pod p is already assigned to node \"n1\""), "{}", again.body);
    let running =
        json!({"metadata": {"name": "p"}, "status": {"phase": "Running", "podIP": "10.0.0.1"}});
    let patched = c.call(
        "PATCH",
        &format!("{path}/p/status"),
        &["Content-Type: application/strategic-merge-patch+json"],
        &running.to_string(),
    );
    assert_eq!(patched.json()["status"]["podIP"], "10.0.0.1", "{}", patched.body);
    assert_eq!(patched.json()["spec"]["nodeName"], "n1");
    let leaving = c.call("DELETE", &format!("{path}/p"), &[], "").json();
    assert!(leaving["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(leaving["metadata"]["deletionGracePeriodSeconds"], 30);
    let selected = c.get(&format!("{path}?fieldSelector=spec.nodeName%3Dn1")).json();
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
    let confirm = json!({"gracePeriodSeconds": 0}).to_string();
    assert_eq!(
        c.call("DELETE", &format!("{path}/p"), &["Content-Type: application/json"], &confirm).code,
        200
    );
    assert_eq!(c.get(&format!("{path}/p")).code, 404);
}

#[test]
fn tables_and_partial_metadata_are_made_on_demand() {
    if skip("tables_and_partial_metadata_are_made_on_demand") {
        return;
    }
    let c = Cluster::start();
    let table = c
        .call(
            "GET",
            "/api/v1/namespaces",
            &["Accept: application/json;as=Table;v=v1;g=meta.k8s.io"],
            "",
        )
        .json();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["columnDefinitions"][1]["name"], "Status");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial = c
        .call(
            "GET",
            "/api/v1/namespaces",
            &["Accept: application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"],
            "",
        )
        .json();
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert!(partial["items"][0].get("spec").is_none());
    let old = c.get("/apis/apps/v1").json();
    assert!(old["resources"].as_array().unwrap().iter().any(|r| r["name"] == "deployments/scale"));
}

#[test]
fn events_have_two_faces() {
    if skip("events_have_two_faces") {
        return;
    }
    let c = Cluster::start();
    let new = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = json!({"metadata": {"name": "e"}, "eventTime": "2024-01-01T00:00:00.000000Z", "note": "hello", "type": "Normal",
        "reason": "Test", "action": "Testing", "reportingController": "me", "reportingInstance": "me-1",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}});
    let made = c.post(new, &event);
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(made.json()["note"], "hello");
    let core = c.get("/api/v1/namespaces/default/events/e").json();
    assert_eq!(
        (core["message"].as_str(), core["involvedObject"]["name"].as_str()),
        (Some("hello"), Some("p"))
    );
    assert_eq!(c.get(&format!("{new}/e")).json()["regarding"]["name"], "p");
    let chosen =
        c.get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp").json();
    assert_eq!(chosen["items"].as_array().unwrap().len(), 1);
    let patch = json!({"note": "changed"}).to_string();
    let patched = c.call(
        "PATCH",
        &format!("{new}/e"),
        &["Content-Type: application/merge-patch+json"],
        &patch,
    );
    assert_eq!(patched.json()["note"], "changed", "{}", patched.body);
    assert_eq!(c.call("DELETE", &format!("{new}/e"), &[], "").code, 200);
}

#[test]
fn large_answers_are_compressed_when_asked_for() {
    if skip("large_answers_are_compressed_when_asked_for") {
        return;
    }
    let c = Cluster::start();
    let large = json!({"metadata": {"name": "large"}, "data": {"a": "x".repeat(300_000)}});
    assert_eq!(c.post(MAPS, &large).code, 201);
    let output = std::process::Command::new("curl")
        .args([
            "-s",
            "-k",
            "--compressed",
            "-D",
            "/dev/stderr",
            "-H",
            &format!("Authorization: Bearer {}", c.token),
        ])
        .arg(format!("https://{}{MAPS}/large", c.address))
        .output()
        .unwrap();
    let headers = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(headers.contains("content-encoding: gzip"), "{headers}");
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["data"]["a"].as_str().unwrap().len(), 300_000);
}
