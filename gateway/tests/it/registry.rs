//! The registry's gRPC API, and reflection for the whole suite.

use flotilla_proto::gateway::flotilla::gateway::v1::registry_client::RegistryClient;
use flotilla_proto::gateway::flotilla::gateway::v1::watch_response::Kind;
use flotilla_proto::gateway::flotilla::gateway::v1::{
    DeregisterRequest, Instance, ListRequest, RegisterRequest, WatchRequest,
};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::client::get;
use crate::gateway::{Gateway, H2, cluster, http};
use crate::upstream::Upstream;

fn instance(id: &str, address: &str) -> Instance {
    Instance {
        service: "shop".to_owned(),
        id: id.to_owned(),
        address: address.to_owned(),
        ..Instance::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn registered_instances_serve_until_they_leave() {
    let upstream = Upstream::start("u").await;
    let routes = r#"[{match: {prefix: /}, route: {cluster_header: x-to}}]"#;
    let gateway = Gateway::with(routes, "[]");
    let mut client =
        RegistryClient::connect(format!("http://127.0.0.1:{}", gateway.admin)).await.unwrap();
    let to = [("x-to", "registry/shop")];
    assert_eq!(get(gateway.port, "/", &to).await.status.as_u16(), 503);
    let mut events = client.watch(WatchRequest::default()).await.unwrap().into_inner();
    assert_eq!(events.message().await.unwrap().unwrap().kind(), Kind::Synced);
    let ttl = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let request =
        RegisterRequest { instance: Some(instance("1", &upstream.address.to_string())), ttl };
    client.register(request.clone()).await.unwrap();
    assert_eq!(events.message().await.unwrap().unwrap().kind(), Kind::Put);
    assert_eq!(get(gateway.port, "/", &to).await.header("x-upstream"), "u");
    assert_eq!(client.list(ListRequest::default()).await.unwrap().into_inner().instances.len(), 1);
    // Not renewed: it goes after its second.
    assert_eq!(events.message().await.unwrap().unwrap().kind(), Kind::Delete);
    assert_eq!(get(gateway.port, "/", &to).await.body, "no healthy upstream");
    client.register(request).await.unwrap();
    let gone = DeregisterRequest { service: "shop".to_owned(), id: "1".to_owned() };
    assert!(client.deregister(gone.clone()).await.unwrap().into_inner().found);
    assert!(!client.deregister(gone).await.unwrap().into_inner().found);
    for bad in [
        instance("", "127.0.0.1:1"),
        instance("1", "nowhere"),
        Instance { weight: 999, ..instance("1", "127.0.0.1:1") },
    ] {
        let error =
            client.register(RegisterRequest { instance: Some(bad), ttl: None }).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_speaks_for_the_suite() {
    let admin = flotilla_testkit::free_port();
    let clusters = format!("[{}]", cluster("flotilla.reflection", &[admin], H2));
    let text = http(
        0,
        "",
        "[{match: {prefix: /grpc.reflection.}, route: {cluster: flotilla.reflection, timeout: 0s}}]",
        &clusters,
    );
    let mut process = flotilla_testkit::Process::spawn(crate::gateway::command().args([
        "--config-yaml",
        &format!("admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}\n{text}"),
    ]));
    process.wait_for_line("all listeners are up", crate::gateway::PATIENCE);
    let port = crate::gateway::port_of(&process.output(), "\"listener\":\"main\"").unwrap();
    let mut client = ServerReflectionClient::new(
        flotilla_client::channel(&format!("127.0.0.1:{port}")).unwrap(),
    );
    let ask =
        |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let requests = tokio_stream::iter([
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("flotilla.kv.v1.Admin".to_owned())),
    ]);
    let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
    let MessageResponse::ListServicesResponse(list) =
        answers.message().await.unwrap().unwrap().message_response.unwrap()
    else {
        panic!("a list is expected")
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    for name in [
        "flotilla.gateway.v1.Registry",
        "envoy.service.discovery.v3.AggregatedDiscoveryService",
        "grpc.health.v1.Health",
    ] {
        assert!(names.iter().any(|known| known == name), "{name} in {names:?}");
    }
    assert!(answers.message().await.unwrap().is_some());
}
