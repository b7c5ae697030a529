//! Pushing samples: a real Prometheus writes to ours, and bad requests are refused.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use flotilla_testkit::{Process, eventually, free_port, skip_unless_program};

use crate::server::{LONG, Server};
use crate::target::Target;

fn post(address: SocketAddr, headers: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "POST /api/v1/write HTTP/1.0\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    // The server may answer before it has read everything.
    let _ = stream.write_all(body);
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    String::from_utf8_lossy(&reply).into_owned()
}

#[test]
fn prometheus_writes_to_us() {
    if skip_unless_program("prometheus_writes_to_us", "prometheus") {
        return;
    }
    let target = Target::start("m{a=\"1\"} 5\n");
    let server = Server::start("");
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "global:\n  external_labels: {{from: oracle}}\nremote_write:\n- url: http://{}/api/v1/write\n  queue_config: {{batch_send_deadline: 100ms}}\nscrape_configs:\n- job_name: app\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n  static_configs:\n  - targets: ['{}']\n",
        server.address, target.address
    );
    std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
    let _sender = Process::spawn(
        Command::new("prometheus")
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", free_port())),
    );
    server.wait_value("m{a=\"1\",from=\"oracle\"}", 5.0);
    target.set_body("");
    eventually("staleness arrives too", LONG, || server.query("m").is_empty());
}

#[test]
fn bad_requests_are_refused() {
    let server = Server::start("");
    let status = |headers: &str, body: &[u8]| {
        let reply = post(server.address, headers, body);
        reply.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    // A header that claims 4 GiB.
    assert_eq!(status("", &[0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3]), "400");
    assert_eq!(status("", b"nonsense"), "400");
    assert_eq!(status("Content-Type: text/plain\r\n", b""), "415");
    assert_eq!(status("Content-Encoding: zstd\r\n", b""), "415");
    assert_eq!(status("Content-Type: application/x-protobuf;proto=other\r\n", b""), "415");
    assert!(server.query("m").is_empty());
}
