//! A scripted control plane: state of the world and delta, whatever the test puts in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use flotilla_proto::envoy::envoy::service::discovery::v3 as discovery;
use gateway::bootstrap::from_text;
use prost::Message;
use prost_types::Any;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

type World = BTreeMap<String, (u64, BTreeMap<String, Any>)>;

/// Names of the types.
pub const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
pub const ENDPOINT: &str = "envoy.config.endpoint.v3.ClusterLoadAssignment";
pub const LISTENER: &str = "envoy.config.listener.v3.Listener";
pub const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";

/// A running control plane; it stops when dropped.
pub struct Control {
    pub address: SocketAddr,
    world: watch::Sender<World>,
    /// Messages of NACKs.
    pub nacks: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Service {
    world: watch::Receiver<World>,
    nacks: Arc<Mutex<Vec<String>>>,
}

impl Control {
    pub async fn start(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (world, receiver) = watch::channel(World::new());
        let (nacks, stop) = (Arc::new(Mutex::new(Vec::new())), CancellationToken::new());
        let service = AggregatedDiscoveryServiceServer::new(Service {
            world: receiver,
            nacks: nacks.clone(),
        });
        let token = stop.clone();
        tokio::spawn(async move {
            let server = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener));
            tokio::select! {
                result = server => result.unwrap(),
                () = token.cancelled() => {}
            }
        });
        Self { address, world, nacks, stop }
    }

    /// Puts a resource, given as YAML, without any check.
    pub fn put<M: Message + Default>(&self, kind: &str, name: &str, yaml: &str) {
        let message: M = from_text(kind, yaml, None).unwrap();
        self.put_bytes(kind, name, message.encode_to_vec());
    }

    pub fn put_bytes(&self, kind: &str, name: &str, value: Vec<u8>) {
        let url = format!("type.googleapis.com/{kind}");
        self.world.send_modify(|world| {
            let entry = world.entry(url.clone()).or_default();
            entry.0 += 1;
            entry.1.insert(name.to_owned(), Any { type_url: url.clone(), value });
        });
    }

    pub fn remove(&self, kind: &str, name: &str) {
        self.world.send_modify(|world| {
            let entry = world.entry(format!("type.googleapis.com/{kind}")).or_default();
            entry.0 += 1;
            entry.1.remove(name);
        });
    }

    /// An EDS cluster and its endpoints.
    pub fn cluster(&self, name: &str, ports: &[u16]) {
        self.put::<flotilla_proto::envoy::envoy::config::cluster::v3::Cluster>(
            CLUSTER,
            name,
            &format!("{{name: {name}, type: EDS, eds_cluster_config: {{eds_config: {{ads: {{}}, resource_api_version: V3}}}}}}"),
        );
        self.endpoints(name, ports);
    }

    pub fn endpoints(&self, name: &str, ports: &[u16]) {
        let list: Vec<String> = ports
            .iter()
            .map(|port| format!("{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}"))
            .collect();
        self.put::<flotilla_proto::envoy::envoy::config::endpoint::v3::ClusterLoadAssignment>(
            ENDPOINT,
            name,
            &format!(
                "{{cluster_name: {name}, endpoints: [{{lb_endpoints: [{}]}}]}}",
                list.join(", ")
            ),
        );
    }

    /// A listener on a free port that asks for routes `routes`.
    pub fn listener(&self, name: &str) {
        self.put::<flotilla_proto::envoy::envoy::config::listener::v3::Listener>(LISTENER, name, &format!(r#"{{name: {name},
            address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}, filter_chains: [{{filters: [{{name: hcm, typed_config: {{
            "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: {name},
            rds: {{route_config_name: routes, config_source: {{ads: {{}}, resource_api_version: V3}}}},
            http_filters: [{{name: r, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}]}}]}}"#));
    }

    pub fn routes(&self, routes: &str) {
        self.put::<flotilla_proto::envoy::envoy::config::route::v3::RouteConfiguration>(
            ROUTES,
            "routes",
            &format!(r#"{{name: routes, virtual_hosts: [{{name: all, domains: ["*"], routes: {routes}}}]}}"#),
        );
    }
}

/// A bootstrap that follows the control plane.
pub fn bootstrap(control: SocketAddr, api_type: &str) -> String {
    format!(
        r"
node: {{id: test, cluster: test}}
dynamic_resources:
  ads_config: {{api_type: {api_type}, transport_api_version: V3, grpc_services: [{{envoy_grpc: {{cluster_name: xds}}}}]}}
  cds_config: {{ads: {{}}, resource_api_version: V3}}
  lds_config: {{ads: {{}}, resource_api_version: V3}}
static_resources:
  clusters: [{}]
",
        crate::gateway::cluster("xds", &[control.port()], crate::gateway::H2)
    )
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(64);
        let (mut world, nacks, mut requests) =
            (self.world.clone(), self.nacks.clone(), request.into_inner());
        tokio::spawn(async move {
            // Type to names asked for and version sent.
            let mut asked: BTreeMap<String, (Vec<String>, u64)> = BTreeMap::new();
            loop {
                tokio::select! {
                    request = requests.message() => {
                        let Ok(Some(request)) = request else { return };
                        if let Some(error) = request.error_detail {
                            nacks.lock().unwrap().push(error.message);
                        }
                        let entry = asked.entry(request.type_url).or_default();
                        if entry.0 != request.resource_names {
                            *entry = (request.resource_names, 0);
                        }
                    }
                    changed = world.changed() => if changed.is_err() { return },
                }
                let now = world.borrow_and_update().clone();
                for (url, (names, sent)) in &mut asked {
                    let Some((version, resources)) =
                        now.get(url).filter(|(version, _)| version != sent)
                    else {
                        continue;
                    };
                    *sent = *version;
                    let chosen = resources
                        .iter()
                        .filter(|(name, _)| names.is_empty() || names.contains(name))
                        .map(|(_, any)| any.clone());
                    let response = DiscoveryResponse {
                        version_info: version.to_string(),
                        resources: chosen.collect(),
                        type_url: url.clone(),
                        nonce: version.to_string(),
                        ..DiscoveryResponse::default()
                    };
                    if sender.send(Ok(response)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(64);
        let (mut world, nacks, mut requests) =
            (self.world.clone(), self.nacks.clone(), request.into_inner());
        tokio::spawn(async move {
            // Type to names asked for and what was sent.
            let mut asked: BTreeMap<String, (Vec<String>, BTreeMap<String, Any>)> = BTreeMap::new();
            let mut nonce = 0;
            loop {
                tokio::select! {
                    request = requests.message() => {
                        let Ok(Some(request)) = request else { return };
                        if let Some(error) = request.error_detail {
                            nacks.lock().unwrap().push(error.message);
                        }
                        let entry = asked.entry(request.type_url).or_default();
                        entry.0.extend(request.resource_names_subscribe);
                        entry.0.retain(|name| !request.resource_names_unsubscribe.contains(name));
                    }
                    changed = world.changed() => if changed.is_err() { return },
                }
                let now = world.borrow_and_update().clone();
                for (url, (names, sent)) in &mut asked {
                    let Some((version, resources)) = now.get(url) else { continue };
                    let changed: BTreeMap<String, Any> = resources
                        .iter()
                        .filter(|(name, any)| {
                            (names.is_empty() || names.contains(name))
                                && sent.get(*name) != Some(any)
                        })
                        .map(|(name, any)| (name.clone(), any.clone()))
                        .collect();
                    let removed: Vec<String> = sent
                        .keys()
                        .filter(|name| !resources.contains_key(*name))
                        .cloned()
                        .collect();
                    if changed.is_empty() && removed.is_empty() {
                        continue;
                    }
                    sent.retain(|name, _| !removed.contains(name));
                    sent.extend(changed.clone());
                    nonce += 1;
                    let response = DeltaDiscoveryResponse {
                        resources: changed
                            .into_iter()
                            .map(|(name, any)| Resource {
                                name,
                                version: version.to_string(),
                                resource: Some(any),
                                ..Resource::default()
                            })
                            .collect(),
                        type_url: url.clone(),
                        removed_resources: removed,
                        nonce: nonce.to_string(),
                        ..DeltaDiscoveryResponse::default()
                    };
                    if sender.send(Ok(response)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
