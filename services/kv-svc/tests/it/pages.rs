//! HTTP pages, flags and the admin API.

use std::process::Command;

use flotilla_proto::kv_admin::flotilla::kv::v1::GetStoreRequest;
use flotilla_proto::kv_admin::flotilla::kv::v1::admin_client::AdminClient;
use flotilla_testkit::{binary, skip_unless_program};

use crate::harness::Member;

fn curl(url: &str) -> (String, String) {
    let output =
        Command::new("curl").args(["-s", "-w", "\n%{http_code}", url]).output().expect("curl runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let (body, code) = text.rsplit_once('\n').expect("a code");
    (code.to_owned(), body.to_owned())
}

#[test]
fn pages_answer_as_etcds() {
    if skip_unless_program("pages_answer_as_etcds", "curl") {
        return;
    }
    let member = Member::start(&["--listen-metrics-urls=http://127.0.0.1:0"]);
    let page = |path: &str| curl(&format!("http://{}{path}", member.address));
    let ok = |body: &str| ("200".to_owned(), body.to_owned());
    assert_eq!(page("/health"), ok("{\"health\":\"true\",\"reason\":\"\"}"));
    assert_eq!(page("/livez"), ok("ok\n"));
    assert_eq!(page("/livez/serializable_read"), ok("ok\n"));
    let verbose = page("/readyz?verbose&exclude=non_learner").1;
    assert_eq!(
        verbose,
        "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\nok\n"
    );
    assert!(page("/version").1.contains("\"etcdserver\":\"3.7.1\""));
    let metrics = page("/metrics").1;
    for name in [
        "etcd_server_has_leader 1",
        "etcd_mvcc_db_total_size_in_bytes",
        "process_resident_memory_bytes",
    ] {
        assert!(metrics.contains(name), "{name} is missing");
    }
}

fn post(url: &str, body: &str) -> (String, String) {
    let output = Command::new("curl")
        .args(["-s", "-w", "\n%{http_code}", "-X", "POST", "-d", body, url])
        .output()
        .expect("curl runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let (body, code) = text.rsplit_once('\n').expect("a code");
    (code.to_owned(), body.to_owned())
}

#[test]
fn json_comes_out_as_from_etcd() {
    if skip_unless_program("json_comes_out_as_from_etcd", "curl") {
        return;
    }
    let (original, ours) = (Member::original(), Member::start(&[]));
    for (path, body) in [
        ("/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#),
        ("/v3/kv/put", r#"{"key":"Zm9v","value":"YmF6","prev_kv":true}"#),
        ("/v3/kv/range", r#"{"key":"Zm9v","range_end":"Zm9w","sort_order":"DESCEND","limit":"7"}"#),
        (
            "/v3/kv/txn",
            r#"{"compare":[{"key":"Zm9v","target":"MOD","result":"EQUAL","mod_revision":"3"}],"success":[{"request_range":{"key":"Zm9v"}}]}"#,
        ),
        ("/v3/kv/deleterange", r#"{"key":"Zm9v"}"#),
        ("/v3/lease/grant", r#"{"ID":"77","TTL":"600"}"#),
        ("/v3/lease/leases", ""),
        ("/v3/kv/compaction", r#"{"revision":"2"}"#),
        ("/v3/kv/compaction", r#"{"revision":"2"}"#),
        ("/v3/auth/status", "{}"),
        ("/v3/kv/put", r#"{"value":"YmFy"}"#),
    ] {
        let plain = |member: &Member| {
            let (code, body) = post(&format!("http://{}{path}", member.address), body);
            let mut json: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            for name in ["cluster_id", "member_id", "raft_term"] {
                if let Some(header) =
                    json.get_mut("header").and_then(|header| header.as_object_mut())
                {
                    assert!(
                        header.remove(name).is_some_and(|value| value.is_string()),
                        "{name}: {body}"
                    );
                }
            }
            if let Some(error) = json.as_object_mut() {
                // Later versions add an empty list.
                error.remove("details");
            }
            (code, json)
        };
        assert_eq!(plain(&ours), plain(&original), "{path} {body}");
    }
}

#[test]
fn the_command_line_is_etcds() {
    let run = |args: &[&str]| Command::new(binary("kv-svc")).args(args).output().expect("it runs");
    let version = String::from_utf8(run(&["--version"]).stdout).expect("text");
    assert!(version.starts_with("etcd Version: 3.7.1\n"), "{version}");
    assert!(run(&["--help"]).status.success());
    for (args, code, text) in [
        (&["--force-new-cluster"][..], 64, "not supported yet: --force-new-cluster"),
        (&["--nonsense"], 64, "--nonsense is no flag"),
        (&["--config-file=/does/not/exist"], 78, "/does/not/exist"),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        let error = String::from_utf8(output.stderr).expect("text");
        assert!(error.contains(text) && error.lines().count() == 1, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_api_describes_the_store() {
    let member = Member::start(&[]);
    let mut clients = member.clients().await;
    clients.put("a", "1").await;
    clients.put("a", "2").await;
    let mut admin =
        AdminClient::connect(format!("http://{}", member.address)).await.expect("a connection");
    let store = admin.get_store(GetStoreRequest {}).await.expect("a store").into_inner();
    assert_eq!((store.revision, store.live_keys, store.compact_revision), (3, 1, 0));
    let health = Command::new(binary("kv-svc"))
        .args(["healthcheck", &member.address])
        .status()
        .expect("it runs");
    assert!(health.success());
}
