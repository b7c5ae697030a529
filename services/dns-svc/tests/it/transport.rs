//! Transports, limits, errors of configuration.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use flotilla_testkit::{Process, skip_unless_program};

use crate::server::Server;

const LIMIT: Duration = Duration::from_secs(10);
const HOSTS: &str = ".:PORT {\n bind 127.0.0.1\n hosts {\n  10.0.0.1 node.example\n }\n}\n";

/// A query for node.example A with this id.
fn query(id: u8) -> Vec<u8> {
    let mut message = vec![0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(b"\x04node\x07example\x00\x00\x01\x00\x01");
    message
}

#[test]
fn tcp_queries_may_be_pipelined_and_dribble_in() {
    let server = Server::ours(HOSTS);
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut bytes = Vec::new();
    for id in 1..=20 {
        let message = query(id);
        bytes.extend_from_slice(&(message.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&message);
    }
    for chunk in bytes.chunks(7) {
        stream.write_all(chunk).unwrap();
    }
    let mut ids = Vec::new();
    for _ in 0..20 {
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[7], 1, "one answer record");
        ids.push(answer[1]);
    }
    ids.sort_unstable();
    assert_eq!(ids, (1..=20).collect::<Vec<u8>>());
}

#[test]
fn garbage_is_survived_and_answered_at_most_once() {
    let server = Server::ours(HOSTS);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", server.port)).unwrap();
    let mut state = 3_u64;
    for _ in 0..2000 {
        let mut message = query(7);
        for _ in 0..4 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (state >> 33) as usize % message.len();
            message[at] = (state >> 24) as u8;
        }
        socket.send(&message).unwrap();
    }
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut own = query(99);
    own[0] = 0xAB;
    socket.send(&own).unwrap();
    let mut buffer = [0; 4096];
    let mut answers = 0;
    loop {
        let length = socket.recv(&mut buffer).unwrap();
        assert!(buffer[2] & 0x80 != 0 && length >= 12, "not a response");
        answers += 1;
        if buffer[..2] == [0xAB, 99] {
            break;
        }
    }
    assert!(answers <= 2001);
}

#[test]
fn broken_corefile_ends_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("Corefile");
    std::fs::write(&file, ".:0 {\n  errors\n  colour\n}\n").unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_dns-svc")).arg("-conf").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("Corefile:3") && text.contains("colour"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn taken_port_is_named() {
    let server = Server::ours(HOSTS);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("Corefile");
    std::fs::write(&file, HOSTS.replace("PORT", &server.port.to_string())).unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_dns-svc")).arg("-conf").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(69));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains(&format!(
            ":{} is taken by dns-svc (pid {})",
            server.port,
            server.process.pid()
        )),
        "{text}"
    );
}

#[test]
fn forwarding_goes_on_to_the_next_server_and_is_cached() {
    if skip_unless_program("forwarding_goes_on_to_the_next_server_and_is_cached", "dig") {
        return;
    }
    let mut upstream = Server::ours(HOSTS);
    let dead = flotilla_testkit::free_port();
    let front = Server::ours(&format!(
        ".:PORT {{\n bind 127.0.0.1\n errors\n cache 30\n forward . 127.0.0.1:{dead} 127.0.0.1:{} {{\n  policy sequential\n }}\n}}\n",
        upstream.port
    ));
    assert!(front.dig("node.example. A").contains("10.0.0.1"));
    upstream.process.kill();
    assert!(front.dig("node.example. A").contains("10.0.0.1"), "the cache has it");
    assert!(front.dig("other.example. A").contains("SERVFAIL"));
}

#[test]
fn sigterm_ends_with_zero() {
    let mut server = Server::ours(HOSTS);
    let status = Process::terminate(&mut server.process, LIMIT);
    assert_eq!(status.code(), Some(0));
}
