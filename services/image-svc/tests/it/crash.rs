//! What was acknowledged is there after kill -9.

use http::Method;
use image_svc::engine::Digest;
use serde_json::json;

use super::server::{MANIFEST, Server};

#[tokio::test]
async fn acknowledged_pushes_survive_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<(String, Digest, usize)> = Vec::new();
    let mut tagged: Vec<(String, Digest)> = Vec::new();
    for round in 0..4u64 {
        let mut server = Server::start(dir.path());
        for (repo, digest, length) in &acknowledged {
            let answer = server.get(&format!("/v2/{repo}/blobs/{digest}")).await;
            assert_eq!(
                (answer.status.as_u16(), answer.body.len()),
                (200, *length),
                "round {round}"
            );
            assert_eq!(Digest::sha256(&answer.body), *digest);
        }
        for (tag, digest) in &tagged {
            let answer = server.get(&format!("/v2/repo0/manifests/{tag}")).await;
            assert_eq!(answer.header("docker-content-digest"), digest.as_str(), "round {round}");
        }
        // Pushers that are cut off in the middle.
        let (seen, mut results) = tokio::sync::mpsc::unbounded_channel();
        let pusher = std::sync::Arc::new(server);
        let mut tasks = Vec::new();
        for worker in 0..4u64 {
            let (server, seen) = (pusher.clone(), seen.clone());
            tasks.push(tokio::spawn(async move {
                for number in 0.. {
                    let seed = round * 1_000_000 + worker * 10_000 + number;
                    let length = if number % 3 == 0 { 200_000 } else { 500 };
                    let bytes: Vec<u8> = (0..length)
                        .map(|i| (i as u64 * seed % 253) as u8)
                        .chain(seed.to_be_bytes())
                        .collect();
                    let repo = format!("repo{worker}");
                    let digest = server.push_blob(&repo, &bytes).await;
                    seen.send((repo, digest, bytes.len())).unwrap();
                }
            }));
        }
        let mut count = 0;
        while count < 40 {
            acknowledged.push(results.recv().await.unwrap());
            count += 1;
        }
        let config = pusher.push_blob("repo0", b"{}").await;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": [], "annotations": {"round": round.to_string()},
            "config": {"mediaType": "x/y", "digest": config, "size": 2},
        });
        let answer =
            pusher.put_manifest("repo0", &format!("r{round}"), &manifest.to_string()).await;
        assert_eq!(answer.status, 201);
        tagged.push((format!("r{round}"), answer.header("docker-content-digest").parse().unwrap()));
        // SIGKILL while the pushers are busy.
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pusher.process.pid() as i32),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        for task in tasks {
            // The pusher panics when its connection breaks.
            let _ = task.await;
        }
        while let Ok(item) = results.try_recv() {
            acknowledged.push(item);
        }
        server = std::sync::Arc::into_inner(pusher).unwrap();
        server.process.kill();
    }
    let server = Server::start(dir.path());
    let rows = server.send(Method::GET, "/v2/repo0/tags/list", &[], "").await.json();
    assert_eq!(rows["tags"].as_array().unwrap().len(), 4);
}
