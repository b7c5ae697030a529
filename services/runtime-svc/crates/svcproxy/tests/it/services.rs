//! Packets through Services.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::Duration;

use clap::Parser;
use flotilla_kube_client::{Client, KubeConfig};
use flotilla_server::Shutdown;
use flotilla_testkit::{eventually, skip_unless_program, skip_unless_root};
use serde_json::{Value, json};

use crate::api::{Api, SERVICES, SLICES};
use crate::net::Net;

const LIMIT: Duration = Duration::from_secs(10);

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    proxy: svcproxy::Config,
}

struct Rig {
    net: Net,
    api: Api,
    runtime: tokio::runtime::Runtime,
    proxy: Option<(std::thread::JoinHandle<()>, Shutdown)>,
}

fn rig(test: &str, pods: u8) -> Option<Rig> {
    if skip_unless_root(test) || skip_unless_program(test, "nft") || skip_unless_program(test, "ip")
    {
        return None;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let api = runtime.block_on(Api::start());
    Some(Rig { net: Net::new(pods), api, runtime, proxy: None })
}

impl Rig {
    /// Runs the proxy on a thread inside the node's namespace: `nft` it starts is inside too. The client's
    /// connections are made by a bridge to the host's loopback.
    fn start(&mut self, flags: &[&str]) {
        let proxy = Cli::try_parse_from(["proxy"].iter().chain(flags)).unwrap().proxy;
        let shutdown = Shutdown::new();
        let (ending, node, target) = (shutdown.clone(), self.net.node(), self.api.address.unwrap());
        let relay = self.relay(target);
        let thread = std::thread::spawn(move || {
            let path = std::path::Path::new("/run/netns").join(node);
            nix::sched::setns(
                std::fs::File::open(path).unwrap(),
                nix::sched::CloneFlags::CLONE_NEWNET,
            )
            .unwrap();
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let client = Client::new(KubeConfig::plain(format!("http://{relay}")), "test").unwrap();
            runtime.block_on(svcproxy::run(client, proxy, ending)).unwrap();
        });
        self.proxy = Some((thread, shutdown));
    }

    /// A listener inside the namespace whose connections go to `target` outside of it.
    fn relay(&self, target: std::net::SocketAddr) -> std::net::SocketAddr {
        let listener = self
            .net
            .inside(&self.net.node(), || std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        self.runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((mut inside, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut outside = tokio::net::TcpStream::connect(target).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
                });
            }
        });
        address
    }

    fn stop(&mut self) {
        if let Some((thread, shutdown)) = self.proxy.take() {
            shutdown.trigger();
            thread.join().unwrap();
        }
    }

    fn service(&self, spec: Value) {
        self.api.put(SERVICES, json!({"metadata": {"name": "web"}, "spec": spec}));
    }

    fn endpoints(&self, port: u16, protocol: &str, numbers: &[u8]) {
        let endpoints: Vec<Value> = numbers
            .iter()
            .map(|n| json!({"addresses": [self.net.address(*n)], "conditions": {"ready": true}}))
            .collect();
        self.api.put(SLICES, json!({
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
            "endpoints": endpoints, "ports": [{"name": "", "port": port, "protocol": protocol}]
        }));
    }

    fn answers(&self, namespace: &str, address: &str, count: usize) -> BTreeSet<String> {
        let one = || {
            self.net.ask(namespace, address).map_or_else(
                |e| format!("{:?}", e.kind()),
                |text| text.split(' ').next().unwrap_or_default().to_owned(),
            )
        };
        (0..count).map(|_| one()).collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop();
    }
}

fn set(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(|s| (*s).to_owned()).collect()
}

#[test]
fn service_address_leads_to_ready_pods() {
    let Some(mut rig) = rig("service_address_leads_to_ready_pods", 3) else { return };
    for number in 0..3 {
        rig.net.serve(number, 8080);
    }
    rig.service(json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80, "protocol": "TCP"}]}));
    rig.endpoints(8080, "TCP", &[0, 1]);
    rig.start(&["--proxy-nft-table", "flt-test"]);
    let (node, client) = (rig.net.node(), rig.net.pod(2));
    let vip = "10.96.0.9:80";
    eventually("a pod gets both answers", LIMIT, || {
        rig.answers(&client, vip, 16) == set(&["0", "1"])
    });
    eventually("the node gets both answers", LIMIT, || {
        rig.answers(&node, vip, 16) == set(&["0", "1"])
    });
    assert_eq!(
        rig.net.ask(&client, vip).unwrap().split(' ').nth(1),
        Some("10.77.0.4"),
        "a pod's address is kept"
    );
    eventually("a pod reaches itself", LIMIT, || {
        rig.answers(&rig.net.pod(0), vip, 16) == set(&["0", "1"])
    });
    rig.endpoints(8080, "TCP", &[1]);
    eventually("endpoints are followed", LIMIT, || rig.answers(&client, vip, 8) == set(&["1"]));
    rig.endpoints(8080, "TCP", &[]);
    eventually("nobody there is said at once", LIMIT, || {
        rig.answers(&client, vip, 1) == set(&["ConnectionRefused"])
    });
    assert_eq!(rig.answers(&node, vip, 1), set(&["ConnectionRefused"]));
    let got = rig.answers(&client, "10.96.0.9:81", 1);
    assert_eq!(got, set(&["ConnectionRefused"]), "a port the Service lacks: {}", rig.net.ruleset());
    rig.endpoints(8080, "TCP", &[0]);
    eventually("endpoints come back", LIMIT, || rig.answers(&client, vip, 4) == set(&["0"]));
    rig.api.delete(SERVICES, "web");
    eventually("the Service goes", LIMIT, || !rig.net.ruleset().contains("10.96.0.9"));
    assert!(!rig.net.ruleset().contains("svc-"), "chains go with their Service");
    rig.stop();
    assert!(rig.net.ruleset().contains("table ip flt-test"), "rules outlive the process");
    rig.start(&["--proxy-nft-table", "flt-test", "--proxy-cleanup-on-exit"]);
    rig.service(json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80, "protocol": "TCP"}]}));
    eventually("a new process takes over", LIMIT, || rig.answers(&client, vip, 2) == set(&["0"]));
    rig.stop();
    assert_eq!(rig.net.ruleset().trim(), "", "nothing is left");
}

#[test]
fn node_port_and_affinity_work() {
    let Some(mut rig) = rig("node_port_and_affinity_work", 3) else { return };
    for number in 0..2 {
        rig.net.serve(number, 8080);
    }
    rig.service(json!({"clusterIP": "10.96.0.9", "type": "NodePort", "sessionAffinity": "ClientIP", "ports": [{"port": 80, "nodePort": 30080}]}));
    rig.endpoints(8080, "TCP", &[0, 1]);
    rig.start(&[]);
    let client = rig.net.pod(2);
    eventually("the node's port leads to a pod", LIMIT, || {
        rig.net.ask(&client, "10.77.0.1:30080").is_ok()
    });
    assert_eq!(
        rig.net.ask(&client, "10.77.0.1:30080").unwrap().split(' ').nth(1),
        Some("10.77.0.1"),
        "from outside the node's address is used"
    );
    eventually("the Service answers", LIMIT, || rig.net.ask(&client, "10.96.0.9:80").is_ok());
    assert_eq!(
        rig.answers(&client, "10.96.0.9:80", 16).len(),
        1,
        "a client stays with its endpoint"
    );
}

#[test]
fn udp_flow_leaves_an_endpoint_that_is_gone() {
    let Some(mut rig) = rig("udp_flow_leaves_an_endpoint_that_is_gone", 3) else { return };
    if skip_unless_program("udp_flow_leaves_an_endpoint_that_is_gone", "conntrack") {
        return;
    }
    for number in 0..2 {
        rig.net.serve_udp(number, 5353);
    }
    rig.service(json!({"clusterIP": "10.96.0.9", "ports": [{"port": 53, "protocol": "UDP"}]}));
    rig.endpoints(5353, "UDP", &[0]);
    rig.start(&[]);
    let socket = rig.net.inside(&rig.net.pod(2), || UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let ask = || {
        let mut buffer = [0; 8];
        let _ = socket.send_to(b"?", "10.96.0.9:53");
        socket
            .recv(&mut buffer)
            .map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned())
            .unwrap_or_default()
    };
    eventually("the first endpoint answers", LIMIT, || ask() == "0");
    rig.endpoints(5353, "UDP", &[1]);
    eventually("the same socket reaches the other one", LIMIT, || ask() == "1");
}
