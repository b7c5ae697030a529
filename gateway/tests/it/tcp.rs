//! The TCP proxy, and endpoints on unix sockets.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use crate::gateway::Gateway;

fn listener(cluster: &str) -> String {
    format!(
        r#"
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains: [{{filters: [{{name: tcp, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c, idle_timeout: 0.3s, max_connect_attempts: 2}}}}]}}]
  clusters: [{cluster}]
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_pass_both_ways_and_half_close_is_kept() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::start(&listener(&crate::gateway::cluster(
        "c",
        &[1, upstream.local_addr().unwrap().port()],
        "",
    )));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = upstream.accept().await.unwrap();
            tokio::spawn(async move {
                let mut all = Vec::new();
                // The client's end of writing is the end of reading here.
                stream.read_to_end(&mut all).await.unwrap();
                all.reverse();
                stream.write_all(&all).await.unwrap();
            });
        }
    });
    for _ in 0..4 {
        let mut client = TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap();
        client.write_all(b"abc").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"cba");
    }
    let mut idle = TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap();
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0, "an idle connection is closed");
    assert!(gateway.stat("tcp.t.idle_timeout").await >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn unix_sockets_are_endpoints() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("up.sock");
    let upstream = UnixListener::bind(&path).unwrap();
    let cluster = format!(
        "{{name: c, load_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{pipe: {{path: {}}}}}}}}}]}}]}}}}",
        path.display()
    );
    let gateway = Gateway::start(&listener(&cluster));
    let mut client = TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap();
    let (mut stream, _) = upstream.accept().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'x');
}
