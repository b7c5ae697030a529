//! Reloading, the end, and what is logged.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use flotilla_testkit::{eventually, free_port, skip_unless_program};
use nix::sys::signal::Signal;

use crate::server::Server;

const LIMIT: Duration = Duration::from_secs(20);

fn page(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

#[test]
fn reload_loses_no_query_and_keeps_what_did_not_change() {
    if skip_unless_program("reload_loses_no_query_and_keeps_what_did_not_change", "dig") {
        return;
    }
    let metrics = free_port();
    let corefile = |ip: &str, rest: &str| {
        format!(
            "example:PORT {{\n bind 127.0.0.1\n prometheus 127.0.0.1:{metrics}\n cache 30\n hosts {{\n  {ip} node.example\n }}\n{rest}}}\n\
             kept:PORT {{\n bind 127.0.0.1\n prometheus 127.0.0.1:{metrics}\n cache 30\n hosts {{\n  10.0.0.9 a.kept\n }}\n}}\n"
        )
    };
    let server = Server::ours(&corefile("10.0.0.1", ""));
    assert!(server.dig("a.kept. A").contains("10.0.0.9"));
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let asking = {
        let (stop, asked, port) = (stop.clone(), asked.clone(), server.port);
        std::thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(("127.0.0.1", port)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            message.extend_from_slice(b"\x04node\x07example\x00\x00\x01\x00\x01");
            let mut buffer = [0; 512];
            while !stop.load(Ordering::Relaxed) {
                socket.send(&message).unwrap();
                assert!(socket.recv(&mut buffer).is_ok(), "a query was lost");
                assert_eq!((buffer[3] & 15, buffer[7]), (0, 1));
                asked.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    for round in 2..6 {
        server.write(&corefile(&format!("10.0.0.{round}"), ""));
        server.process.signal(Signal::SIGUSR1);
        eventually("the new address", LIMIT, || {
            server.dig("node.example. A").contains(&format!("10.0.0.{round}"))
        });
    }
    server.write(&corefile("10.0.0.7", " colour\n"));
    server.process.signal(Signal::SIGUSR1);
    eventually("the failure", LIMIT, || {
        page(metrics, "/metrics").is_some_and(|text| text.contains("coredns_reload_failed_total 1"))
    });
    assert!(server.dig("node.example. A").contains("10.0.0.5"), "the old plan serves");
    stop.store(true, Ordering::Relaxed);
    asking.join().unwrap();
    assert!(asked.load(Ordering::Relaxed) > 100);
    assert!(server.dig("a.kept. A").contains("10.0.0.9"));
    let text = page(metrics, "/metrics").unwrap();
    let hits = text.lines().find(|l| {
        l.starts_with("coredns_cache_hits_total") && l.contains("kept") && l.contains("success")
    });
    assert!(hits.is_some_and(|line| line.ends_with(" 1")), "the cache was kept: {hits:?}");
}

#[test]
fn changed_file_and_import_are_noticed() {
    if skip_unless_program("changed_file_and_import_are_noticed", "dig") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let part = dir.path().join("part");
    fs::write(&part, "hosts {\n 10.0.0.1 a.example\n}\n").unwrap();
    let server = Server::ours(&format!(
        ".:PORT {{\n bind 127.0.0.1\n reload 2s 1s\n import {}\n}}\n",
        part.display()
    ));
    assert!(server.dig("a.example. A").contains("10.0.0.1"));
    fs::write(&part, "hosts {\n 10.0.0.2 a.example\n}\n").unwrap();
    eventually("the new address", LIMIT, || server.dig("a.example. A").contains("10.0.0.2"));
}

#[test]
fn forwarding_loop_ends_the_server() {
    let mut server =
        Server::ours(".:PORT {\n bind 127.0.0.1\n loop\n forward . 127.0.0.1:PORT\n}\n");
    let status = server.process.wait_exit(LIMIT);
    assert_ne!(status.code(), Some(0));
}

#[test]
fn lameduck_answers_until_the_end() {
    if skip_unless_program("lameduck_answers_until_the_end", "dig") {
        return;
    }
    let (health, ready) = (free_port(), free_port());
    let mut server = Server::ours(&format!(
        ".:PORT {{\n bind 127.0.0.1\n health 127.0.0.1:{health} {{\n  lameduck 3s\n }}\n ready 127.0.0.1:{ready}\n hosts {{\n  10.0.0.1 a.example\n }}\n}}\n"
    ));
    assert!(page(ready, "/ready").unwrap().contains("200 OK"));
    server.process.signal(Signal::SIGTERM);
    eventually("readiness ends", LIMIT, || {
        page(ready, "/ready").is_some_and(|text| text.contains("503"))
    });
    assert!(page(health, "/health").unwrap().contains("200 OK"));
    assert!(server.dig("a.example. A").contains("10.0.0.1"));
    assert_eq!(server.process.wait_exit(LIMIT).code(), Some(0));
}
