//! CRI v1 ImageService on the socket.

use flotilla_proto::cri::runtime::v1::image_service_client::ImageServiceClient;
use flotilla_proto::cri::runtime::v1::{
    AuthConfig, Image, ImageFsInfoRequest, ImageSpec, ImageStatusRequest, ListImagesRequest,
    PullImageRequest, RemoveImageRequest,
};
use flotilla_testkit::skip_unless_root;
use serde_json::Value;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::server::{Server, archive, dir, file};

pub struct Cri(ImageServiceClient<Channel>);

fn spec(image: &str) -> Option<ImageSpec> {
    Some(ImageSpec { image: image.to_owned(), ..ImageSpec::default() })
}

impl Cri {
    pub fn new(server: &Server) -> Self {
        Self(ImageServiceClient::new(server.channel()))
    }

    pub async fn pull(&mut self, image: &str) -> Result<String, Status> {
        let request = PullImageRequest { image: spec(image), ..PullImageRequest::default() };
        Ok(self.0.pull_image(request).await?.into_inner().image_ref)
    }

    pub async fn status(&mut self, image: &str) -> Option<Image> {
        let request = ImageStatusRequest { image: spec(image), verbose: false };
        self.0.image_status(request).await.unwrap().into_inner().image
    }

    pub async fn remove(&mut self, image: &str) {
        self.0.remove_image(RemoveImageRequest { image: spec(image) }).await.unwrap();
    }

    pub async fn list(&mut self) -> Vec<Image> {
        self.0.list_images(ListImagesRequest::default()).await.unwrap().into_inner().images
    }
}

fn layers() -> [Vec<u8>; 2] {
    [
        archive(&[dir("bin/"), file("bin/app", &"a".repeat(100_000))]),
        archive(&[file("etc/conf", "c")]),
    ]
}

#[tokio::test]
async fn an_image_of_the_own_registry_is_pulled_listed_and_removed() {
    if skip_unless_root("an_image_of_the_own_registry_is_pulled_listed_and_removed") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path());
    let digest = server.push_image("team/app", "v1", &layers()).await;
    let mut cri = Cri::new(&server);
    let name = format!("{}/team/app:v1", server.address);
    assert!(cri.status(&name).await.is_none());
    let id = cri.pull(&name).await.unwrap();
    let image = cri.status(&name).await.unwrap();
    assert_eq!((image.id.as_str(), &image.repo_tags), (id.as_str(), &vec![name.clone()]));
    assert_eq!(image.repo_digests, [format!("{}/team/app@{digest}", server.address)]);
    assert_eq!((image.uid.unwrap().value, image.username.as_str()), (1000, ""));
    for reference in [&id, &id["sha256:".len()..][..20].to_owned(), &image.repo_digests[0]] {
        assert_eq!(cri.status(reference).await.unwrap().id, id, "{reference}");
    }
    let request = ImageStatusRequest { image: spec(&name), verbose: true };
    let info = cri.0.image_status(request).await.unwrap().into_inner().info;
    let info: Value = serde_json::from_str(&info["info"]).unwrap();
    assert!(info["chainID"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(info["imageSpec"]["config"]["Cmd"][0], "/bin/true");
    let fs = cri.0.image_fs_info(ImageFsInfoRequest {}).await.unwrap().into_inner();
    let used = fs.image_filesystems[0].used_bytes.unwrap().value;
    assert!(used >= 100_000 && fs.image_filesystems[0].inodes_used.unwrap().value >= 4);
    // Another name for the same image: one image, two tags; removing it takes both.
    let second = server.get("/v2/team/app/manifests/v1").await.body;
    server.put_manifest("team/app", "v2", std::str::from_utf8(&second).unwrap()).await;
    cri.pull(&format!("{}/team/app:v2", server.address)).await.unwrap();
    assert_eq!(cri.list().await.len(), 1);
    assert_eq!(cri.list().await[0].repo_tags.len(), 2);
    cri.remove(&name).await;
    assert!(cri.list().await.is_empty());
    cri.remove(&name).await;
    let fs = cri.0.image_fs_info(ImageFsInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(fs.image_filesystems[0].used_bytes.unwrap().value, 0);
    assert_eq!(std::fs::read_dir(home.path().join("root/snapshots")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_image_of_another_registry_is_pulled_over_http() {
    if skip_unless_root("an_image_of_another_registry_is_pulled_over_http") {
        return;
    }
    let (home, far_home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let far = Server::start_with(far_home.path(), &[]);
    far.push_image("team/app", "v1", &layers()).await;
    let server = Server::start(home.path());
    let name = format!("{}/team/app:v1", far.address);
    // Many pulls of one image at once share the work.
    let mut pulls = Vec::new();
    for _ in 0..8 {
        let (mut cri, name) = (Cri::new(&server), name.clone());
        pulls.push(tokio::spawn(async move { cri.pull(&name).await.unwrap() }));
    }
    let mut ids = std::collections::BTreeSet::new();
    for pull in pulls {
        ids.insert(pull.await.unwrap());
    }
    assert_eq!(ids.len(), 1);
    let mut cri = Cri::new(&server);
    assert_eq!(cri.list().await.len(), 1);
    let metrics = server.get("/metrics").await.body;
    assert!(
        std::str::from_utf8(&metrics)
            .unwrap()
            .contains("containerd_cri_image_pulls_total{status=\"success\"} 8")
    );
}

#[tokio::test]
async fn unknown_images_say_not_found_as_containerd() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path());
    let mut cri = Cri::new(&server);
    let name = format!("{}/no/such:v1", server.address);
    let error = cri.pull(&name).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    let want = format!(
        "failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": {name}: not found"
    );
    assert_eq!(error.message(), want);
    assert_eq!(cri.pull("Not A Name").await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(cri.pull("127.0.0.1:1/x").await.unwrap_err().code(), Code::Unavailable);
    let auth = AuthConfig { auth: "%".into(), ..AuthConfig::default() };
    let request = PullImageRequest { image: spec(&name), auth: Some(auth), sandbox_config: None };
    assert_eq!(cri.0.pull_image(request).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_layer_that_lies_leaves_nothing_behind() {
    if skip_unless_root("a_layer_that_lies_leaves_nothing_behind") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path());
    server.push_image("bad", "v1", &[archive(&[file("../out", "x")])]).await;
    let mut cri = Cri::new(&server);
    let error = cri.pull(&format!("{}/bad:v1", server.address)).await.unwrap_err();
    assert!(error.message().contains("../out"), "{error}");
    assert!(cri.list().await.is_empty());
    assert_eq!(std::fs::read_dir(home.path().join("root/snapshots")).unwrap().count(), 0);
}

#[tokio::test]
async fn images_and_snapshots_survive_kill() {
    if skip_unless_root("images_and_snapshots_survive_kill") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut server = Server::start(home.path());
    server.push_image("app", "v1", &layers()).await;
    let name = format!("{}/app:v1", server.address);
    let id = Cri::new(&server).pull(&name).await.unwrap();
    server.process.kill();
    let server = Server::start(home.path());
    assert_eq!(Cri::new(&server).status(&name).await.unwrap().id, id);
    assert_eq!(std::fs::read_dir(home.path().join("root/snapshots")).unwrap().count(), 2);
}
