//! Every service's own gRPC API through the gateway: from Rust, from Python, and by reflection.

use std::path::Path;
use std::process::Command;

use flotilla_testkit::{pip_package, skip_unless_program, skip_unless_root};

use crate::suite::Suite;

/// Place of the gateway's port in the order of `flotilla up --port-base`.
const GATEWAY: u16 = 14;

#[test]
fn own_apis_answer_through_the_gateway() {
    let test = "own_apis_answer_through_the_gateway";
    if skip_unless_root(test) || skip_unless_program(test, "python3") {
        return;
    }
    let mut suite = Suite::new(6);
    let output = suite.up(&[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let gateway = format!("127.0.0.1:{}", suite.port(GATEWAY));
    let config = flotilla_kube_client::KubeConfig::from_file(&suite.kubeconfig()).unwrap();
    let token = format!("Bearer {}", config.token.unwrap());
    tokio::runtime::Runtime::new().unwrap().block_on(from_rust(&gateway, &token));
    from_python(&gateway);
}

async fn from_rust(gateway: &str, token: &str) {
    use flotilla_proto::{dns, engine, gateway as gw, image, kube, kv_admin, metrics, scheduler};
    let channel = flotilla_client::channel(gateway).unwrap();

    let mut kv = kv_admin::flotilla::kv::v1::admin_client::AdminClient::new(channel.clone());
    let store =
        kv.get_store(kv_admin::flotilla::kv::v1::GetStoreRequest {}).await.unwrap().into_inner();
    assert!(store.revision > 1 && store.live_keys > 0, "{store:?}");

    let mut images =
        image::flotilla::image::v1::image_ops_client::ImageOpsClient::new(channel.clone());
    images.list(image::flotilla::image::v1::ListRequest::default()).await.unwrap();

    let mut engine =
        engine::flotilla::engine::v1::engine_client::EngineClient::new(channel.clone());
    engine.version(engine::flotilla::engine::v1::VersionRequest::default()).await.unwrap();

    let mut objects =
        kube::flotilla::kube::v1::kube_api_client::KubeApiClient::new(channel.clone());
    let namespaces = kube::flotilla::kube::v1::Collection {
        resource: "namespaces".to_owned(),
        ..Default::default()
    };
    let list = kube::flotilla::kube::v1::ListRequest {
        collection: Some(namespaces),
        ..Default::default()
    };
    let mut request = tonic::Request::new(list);
    request.metadata_mut().insert("authorization", token.parse().unwrap());
    assert!(
        objects.list(request).await.unwrap().into_inner().items.len() >= 4,
        "the namespaces every cluster has"
    );

    let mut decisions =
        scheduler::flotilla::scheduler::v1::scheduler_client::SchedulerClient::new(channel.clone());
    let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "x", "resources": {"requests": {"cpu": "1m"}}}]}});
    let request =
        scheduler::flotilla::scheduler::v1::SimulateRequest { pod_json: pod.to_string(), count: 3 };
    let placed = decisions.simulate(request).await.unwrap().into_inner();
    assert_eq!(placed.nodes.len(), 3, "{}", placed.message);

    let mut queries =
        metrics::flotilla::metrics::v1::query_client::QueryClient::new(channel.clone());
    let request = metrics::flotilla::metrics::v1::InstantRequest {
        query: "1 + 1".to_owned(),
        ..Default::default()
    };
    queries.instant(request).await.unwrap();

    let mut names =
        dns::flotilla::dns::v1::resolve_service_client::ResolveServiceClient::new(channel.clone());
    let request = dns::flotilla::dns::v1::ResolveRequest {
        name: "kubernetes.default.svc.cluster.local".to_owned(),
        r#type: 1,
    };
    assert_eq!(names.resolve(request).await.unwrap().into_inner().rcode, "NOERROR");

    let mut registry = gw::flotilla::gateway::v1::registry_client::RegistryClient::new(channel);
    registry.list(gw::flotilla::gateway::v1::ListRequest::default()).await.unwrap();
}

/// A client that protoc generated from `proto/`, in Python.
fn from_python(gateway: &str) {
    let packages = [
        pip_package("grpcio==1.76.0"),
        pip_package("grpcio-tools==1.76.0"),
        pip_package("grpcio-reflection==1.76.0"),
    ];
    let path = std::env::join_paths(&packages).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/own_apis.py");
    let output =
        Command::new("python3").env("PYTHONPATH", path).arg(script).arg(gateway).output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains("all own APIs answered"), "{out}");
}
