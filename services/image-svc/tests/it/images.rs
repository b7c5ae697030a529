//! The own image API: tag, push, save, load, remove.

use flotilla_proto::image::flotilla::image::v1::{
    InspectRequest, ListRequest, LoadRequest, PullRequest, PushRequest, RemoveRequest, SaveRequest,
    TagRequest, transfer_progress,
};
use flotilla_testkit::skip_unless_root;
use tonic::Code;

use super::server::{Server, archive, dir, file};

#[tokio::test]
async fn images_move_between_nodes_and_archives() {
    if skip_unless_root("images_move_between_nodes_and_archives") {
        return;
    }
    let (home, far_home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (server, far) = (Server::start(home.path()), Server::start(far_home.path()));
    let layer = archive(&[dir("bin/"), file("bin/app", &"x".repeat(400_000))]);
    let digest = server.push_image("app", "v1", &[layer]).await;
    let mut ops = server.ops();
    let name = format!("{}/app:v1", server.address);
    let mut progress = ops
        .pull(PullRequest { reference: name.clone(), ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    let mut states = Vec::new();
    let mut result = None;
    while let Some(message) = progress.message().await.unwrap() {
        match message.event.unwrap() {
            transfer_progress::Event::Layer(layer) => states.push(layer.state),
            transfer_progress::Event::Result(done) => result = Some(done),
        }
    }
    assert_eq!(result.unwrap().digest, digest.as_str());
    assert!(states.contains(&"unpack".to_owned()), "{states:?}");

    let target = format!("{}/copied/app:v2", far.address);
    ops.tag(TagRequest { source: name.clone(), target: target.clone() }).await.unwrap();
    let mut pushed = ops
        .push(PushRequest { reference: target.clone(), ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    while pushed.message().await.unwrap().is_some() {}
    let there = far.get("/v2/copied/app/manifests/v2").await;
    assert_eq!(there.header("docker-content-digest"), digest.as_str());

    let mut chunks =
        ops.save(SaveRequest { references: vec![name.clone()] }).await.unwrap().into_inner();
    let mut saved = Vec::new();
    while let Some(message) = chunks.message().await.unwrap() {
        saved.extend_from_slice(&message.chunk);
    }
    let parts: Vec<LoadRequest> =
        saved.chunks(100_000).map(|part| LoadRequest { chunk: part.to_vec().into() }).collect();
    let loaded = far.ops().load(futures::stream::iter(parts)).await.unwrap().into_inner().images;
    assert_eq!((loaded.len(), loaded[0].reference.as_str()), (1, name.as_str()));
    let list =
        far.ops().list(ListRequest { reference: String::new() }).await.unwrap().into_inner().images;
    assert_eq!(list[0].tags, std::slice::from_ref(&name));
    let inspected =
        ops.inspect(InspectRequest { reference: name.clone() }).await.unwrap().into_inner();
    assert_eq!((inspected.image.unwrap().id, inspected.layers.len()), (list[0].id.clone(), 1));

    let removed =
        ops.remove(RemoveRequest { reference: target.clone() }).await.unwrap().into_inner();
    assert_eq!((removed.untagged, removed.deleted.as_str()), (vec![target], ""));
    let removed = ops.remove(RemoveRequest { reference: name.clone() }).await.unwrap().into_inner();
    assert!(!removed.deleted.is_empty());
    let gone = ops.inspect(InspectRequest { reference: name }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn archives_that_are_none_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path());
    let load = async |bytes: Vec<u8>| {
        server.ops().load(futures::stream::iter([LoadRequest { chunk: bytes.into() }])).await
    };
    for bytes in [
        b"no tar at all".repeat(100).to_vec(),
        archive(&[file("x", "y")]),
        archive(&[file("manifest.json", "[{}]")]),
    ] {
        let error = load(bytes).await.unwrap_err();
        assert!(error.message().contains("archive"), "{error}");
    }
    assert_eq!(std::fs::read_dir(home.path().join("root/ingest")).unwrap().count(), 0);
}
