//! Too much, too slow, too many.

use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server::Server;

fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn oversized_manifests_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let huge = vec![b' '; (4 << 20) + 1];
    let answer = server
        .send(Method::PUT, "/v2/a/manifests/v1", &[("content-type", super::server::MANIFEST)], huge)
        .await;
    assert_eq!(answer.status, 413);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(server.put_manifest("a", "v1", &deep).await.code(), "MANIFEST_INVALID");
    assert_eq!(
        server.get("/v2/_catalog?n=99999999999999999999").await.code(),
        "PAGINATION_NUMBER_INVALID"
    );
    assert_eq!(server.get("/v2/_catalog?n=999999999").await.status, 200);
}

#[tokio::test]
async fn a_client_that_vanishes_leaves_the_upload_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let place = server.start_upload("a").await;
    server.send(Method::PATCH, &place, &[], vec![1u8; 1000]).await;
    let mut raw = TcpStream::connect(&server.address).await.unwrap();
    let head = format!("PATCH {place} HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n");
    raw.write_all(head.as_bytes()).await.unwrap();
    raw.write_all(&[2u8; 3000]).await.unwrap();
    drop(raw);
    // The upload is taken until the broken request has been noticed.
    for _ in 0..200 {
        let again = server
            .send(Method::PATCH, &place, &[("content-range", "1000-1999")], vec![3u8; 1000])
            .await;
        if again.status == 202 {
            assert_eq!(again.header("range"), "0-1999");
            return;
        }
        assert_eq!(again.status, 416);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the upload stays taken");
}

#[tokio::test]
async fn idle_uploads_and_slow_readers_cost_little() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let digest = server.push_blob("a", &vec![7u8; 32 << 20]).await;
    server.get("/v2/").await;
    let before = resident(server.process.pid());
    for _ in 0..2_000 {
        server.start_upload("a").await;
    }
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut raw = TcpStream::connect(&server.address).await.unwrap();
        let head = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n");
        raw.write_all(head.as_bytes()).await.unwrap();
        let mut some = [0u8; 1024];
        raw.read_exact(&mut some).await.unwrap();
        slow.push(raw);
    }
    // Others are served while fifty readers stand still.
    let started = std::time::Instant::now();
    assert_eq!(server.get("/v2/a/tags/list").await.status, 200);
    assert!(started.elapsed() < Duration::from_secs(2));
    let grown = resident(server.process.pid()).saturating_sub(before);
    assert!(grown < 64 << 10, "grew by {grown} KiB");
}

#[tokio::test]
async fn half_open_requests_do_not_block_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let place = server.start_upload("a").await;
    let mut raw = TcpStream::connect(&server.address).await.unwrap();
    raw.write_all(
        format!("PATCH {place} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc").as_bytes(),
    )
    .await
    .unwrap();
    assert!(server.process.terminate(Duration::from_secs(20)).success());
}
