//! The binary's own gRPC and its plaintext pages.

use flotilla_proto::kube::flotilla::kube::v1 as pb;
use pb::kube_api_client::KubeApiClient;
use serde_json::{Value, json};
use tonic::Request;

use crate::cluster::{Cluster, skip};

fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

#[test]
fn objects_travel_over_grpc_on_the_callers_rights() {
    if skip("objects_travel_over_grpc_on_the_callers_rights") {
        return;
    }
    let c = Cluster::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = KubeApiClient::connect(format!("http://{}", c.own)).await.unwrap();
        let maps = || {
            Some(pb::Collection {
                resource: "configmaps".into(),
                namespace: "default".into(),
                ..Default::default()
            })
        };
        let refused =
            client.get(pb::GetRequest { collection: maps(), name: "x".into() }).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
        let mut events = client
            .watch(with_token(
                &c.token,
                pb::WatchRequest { collection: maps(), ..Default::default() },
            ))
            .await
            .unwrap()
            .into_inner();
        let json = json!({"metadata": {"name": "x"}}).to_string().into();
        let create = pb::CreateRequest { collection: maps(), object: Some(pb::Object { json }) };
        client.create(with_token(&c.token, create.clone())).await.unwrap();
        let twice = client.create(with_token(&c.token, create)).await.unwrap_err();
        assert_eq!(
            (twice.code(), twice.message()),
            (tonic::Code::AlreadyExists, "configmaps \"x\" already exists")
        );
        let event = events.message().await.unwrap().unwrap();
        let object: Value = serde_json::from_slice(&event.object.unwrap().json).unwrap();
        assert_eq!(object["metadata"]["name"], "x");
        let list = pb::ListRequest { collection: maps(), ..Default::default() };
        assert_eq!(
            client.list(with_token(&c.token, list)).await.unwrap().into_inner().items.len(),
            1
        );
        let delete =
            pb::DeleteRequest { collection: maps(), name: "x".into(), grace_period_seconds: None };
        client.delete(with_token(&c.token, delete.clone())).await.unwrap();
        let gone = client.delete(with_token(&c.token, delete)).await.unwrap_err();
        assert_eq!(gone.code(), tonic::Code::NotFound);
    });
    let page = std::process::Command::new("curl")
        .args(["-s", &format!("http://{}/metrics", c.own)])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&page.stdout).contains("process_cpu_seconds_total"));
    let health = std::process::Command::new(env!("CARGO_BIN_EXE_scheduler-svc"))
        .args(["healthcheck", "--address", &c.own])
        .status()
        .unwrap();
    assert!(health.success());
}

#[test]
fn wrong_flags_end_with_one_line_and_a_code() {
    let run = |args: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_scheduler-svc"))
            .args([
                "--roles",
                "api",
                "--secure-port",
                "0",
                "--grpc-address",
                "127.0.0.1:0",
                "--cert-dir",
            ])
            .arg(dir.path())
            .args(args)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (args, code, text) in [
        (&["--colour"][..], 64, "--colour"),
        (
            &["--authorization-mode", "Webhook"],
            64,
            "not supported yet: --authorization-mode=Webhook",
        ),
        (&["--service-cluster-ip-range", "x"], 64, "--service-cluster-ip-range"),
        (&["--token-auth-file", "/nonexistent"], 78, "/nonexistent"),
        (&["--etcd-servers", "ftp://x"], 64, "--etcd-servers"),
    ] {
        let (got, said) = run(args);
        assert_eq!(got, Some(code), "{args:?}: {said}");
        assert!(said.contains(text), "{args:?}: {said}");
        let ours = said.lines().filter(|l| l.starts_with("scheduler-svc:")).count();
        assert_eq!(ours, 1, "{said}");
    }
}
