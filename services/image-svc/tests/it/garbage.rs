//! Garbage collection beside pushes: nothing named is ever lost, everything unnamed goes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use image_svc::engine::Digest;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::server::{MANIFEST, Server};

/// Content all pushers share, small and large.
fn shared() -> Vec<Vec<u8>> {
    (0..8u8).map(|number| vec![number; if number % 2 == 0 { 70_000 } else { 300 }]).collect()
}

/// Pushes, reads back and deletes images of shared blobs until `end`; returns how many rounds.
async fn churn(server: Arc<Server>, worker: u64, end: Instant) -> u32 {
    let mut rng = rand::rngs::StdRng::seed_from_u64(worker);
    let (repo, blobs) = (format!("repo{worker}"), shared());
    let mut rounds = 0;
    while Instant::now() < end {
        let chosen: Vec<&Vec<u8>> =
            (0..3).map(|_| &blobs[rng.random_range(0..blobs.len())]).collect();
        let mut digests = Vec::new();
        for bytes in &chosen {
            let digest = Digest::sha256(bytes);
            let path = format!("/v2/{repo}/blobs/uploads/?mount={digest}");
            // Mounted when some repository has it just now, pushed otherwise.
            let answer = server.send(Method::POST, &path, &[], "").await;
            if answer.status == 202 {
                let place = format!("{}?digest={digest}", answer.header("location"));
                assert_eq!(
                    server.send(Method::PUT, &place, &[], (*bytes).clone()).await.status,
                    201
                );
            }
            digests.push(digest);
        }
        let layer = |digest: &Digest, bytes: &Vec<u8>| json!({"mediaType": "x/y", "digest": digest, "size": bytes.len()});
        let layers: Vec<_> =
            digests.iter().zip(&chosen).map(|(digest, bytes)| layer(digest, bytes)).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": layers[0], "layers": layers,
            "annotations": {"round": rounds.to_string(), "worker": worker.to_string()},
        });
        let put = server.put_manifest(&repo, "latest", &manifest.to_string()).await;
        assert_eq!(put.status, 201, "worker {worker}, round {rounds}: {:?}", put.body);
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..120))).await;
        assert_eq!(server.get(&format!("/v2/{repo}/manifests/latest")).await.status, 200);
        for (digest, bytes) in digests.iter().zip(&chosen) {
            let answer = server.get(&format!("/v2/{repo}/blobs/{digest}")).await;
            assert!(
                answer.body == bytes.as_slice(),
                "worker {worker}, round {rounds}: {digest} is lost"
            );
        }
        let name = put.header("docker-content-digest").to_owned();
        assert_eq!(
            server
                .send(Method::DELETE, &format!("/v2/{repo}/manifests/{name}"), &[], "")
                .await
                .status,
            202
        );
        for digest in digests {
            server.send(Method::DELETE, &format!("/v2/{repo}/blobs/{digest}"), &[], "").await;
        }
        rounds += 1;
    }
    rounds
}

#[tokio::test]
async fn pushes_beside_collection_lose_nothing_and_space_comes_back() {
    let home = tempfile::tempdir().unwrap();
    let server = Arc::new(Server::start_with(home.path(), &["--gc-delay", "0"]));
    let end = Instant::now() + Duration::from_secs(6);
    let workers: Vec<_> =
        (0..4).map(|worker| tokio::spawn(churn(server.clone(), worker, end))).collect();
    let mut rounds = 0;
    for worker in workers {
        rounds += worker.await.unwrap();
    }
    assert!(rounds > 8, "only {rounds} rounds");
    let files = || std::fs::read_dir(home.path().join("root/blobs/sha256")).unwrap().count();
    flotilla_testkit::eventually("the space comes back", Duration::from_secs(20), || files() == 0);
    let metrics = server.get("/metrics").await.body;
    let metrics = std::str::from_utf8(&metrics).unwrap();
    let removed =
        metrics.lines().find_map(|line| line.strip_prefix("image_gc_removed_blobs_total "));
    assert!(removed.unwrap().parse::<u64>().unwrap() > 0, "nothing was collected");
}
