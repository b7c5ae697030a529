//! The pod network.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use flotilla_proto::cri::runtime::v1 as cri;
use flotilla_testkit::{eventually, free_port};

use crate::fixture::{container_config, sandbox_config, start};

const SERVE: &str =
    "mkdir -p /tmp/www; echo hello > /tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www";

fn get(address: &str) -> Option<String> {
    let mut stream =
        TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_and_host_reach_each_other() {
    let Some(runtime) = start("pods_and_host_reach_each_other") else { return };
    let mut client = runtime.client();
    let port = free_port();
    let mut server = sandbox_config("server", runtime.dir.path());
    server.port_mappings = vec![cri::PortMapping {
        host_port: i32::from(port),
        container_port: 80,
        ..Default::default()
    }];
    let server = client.run_sandbox(server).await;
    client.run(&runtime, &server, container_config("httpd", SERVE)).await;
    let peer = client.run_sandbox(sandbox_config("peer", runtime.dir.path())).await;
    let peer_container = client.run(&runtime, &peer, container_config("main", "sleep 1000")).await;
    let server_ip = client.sandbox_status(&server).await.network.unwrap().ip;
    let peer_ip = client.sandbox_status(&peer).await.network.unwrap().ip;
    let (second, third) = runtime.subnet();
    assert_eq!(
        (server_ip.as_str(), peer_ip.as_str()),
        (format!("10.{second}.{third}.2").as_str(), format!("10.{second}.{third}.3").as_str())
    );
    eventually("the host reaches the pod", Duration::from_secs(5), || {
        get(&format!("{server_ip}:80")).is_some_and(|text| text.contains("hello"))
    });
    for address in [format!("127.0.0.1:{port}"), format!("10.{second}.{third}.1:{port}")] {
        assert!(get(&address).is_some_and(|text| text.contains("hello")), "host port at {address}");
    }
    let fetch = format!(
        "ping -c 1 -W 2 {server_ip} > /dev/null && wget -q -O - http://{server_ip}/index.html"
    );
    assert_eq!(client.output(&peer_container, &fetch).await, "hello");
    assert_eq!(
        client.output(&peer_container, "ping -c 1 -W 2 127.0.0.1 > /dev/null && ip route").await,
        format!(
            "default via 10.{second}.{third}.1 dev eth0 \n10.{second}.{third}.0/24 dev eth0 scope link  src {peer_ip}"
        )
    );
    let taken = {
        let mut config = sandbox_config("taken", runtime.dir.path());
        config.port_mappings = vec![cri::PortMapping {
            host_port: i32::from(port),
            container_port: 81,
            ..Default::default()
        }];
        client.try_run_sandbox(config).await.unwrap_err()
    };
    assert!(taken.message().contains("is taken"), "{taken}");
    client.remove_sandbox(&server).await;
    assert!(get(&format!("127.0.0.1:{port}")).is_none(), "the host port outlived its pod");
    runtime.finish().await;
}

#[tokio::test]
async fn host_network_is_shared() {
    let Some(runtime) = start("host_network_is_shared") else { return };
    let mut client = runtime.client();
    let mut config = sandbox_config("hostnet", runtime.dir.path());
    let options = config
        .linux
        .as_mut()
        .unwrap()
        .security_context
        .as_mut()
        .unwrap()
        .namespace_options
        .as_mut()
        .unwrap();
    options.set_network(cri::NamespaceMode::Node);
    let sandbox = client.run_sandbox(config).await;
    assert_eq!(client.sandbox_status(&sandbox).await.network.unwrap().ip, "");
    let id = client.run(&runtime, &sandbox, container_config("main", "sleep 1000")).await;
    let bridge = runtime.bridge.clone();
    assert!(client.output(&id, "ip -o link").await.contains(&bridge));
    runtime.finish().await;
}
