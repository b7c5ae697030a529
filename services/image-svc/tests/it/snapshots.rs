//! containerd's snapshotter contract over its own protocol.

use std::collections::HashMap;
use std::path::Path;

use flotilla_proto::containerd::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use flotilla_proto::containerd::containerd::services::snapshots::v1::{
    CleanupRequest, CommitSnapshotRequest, Info, Kind, ListSnapshotsRequest, MountsRequest,
    PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest, UpdateSnapshotRequest,
    UsageRequest, ViewSnapshotRequest,
};
use flotilla_proto::containerd::containerd::types::Mount;
use flotilla_testkit::skip_unless_root;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::server::Server;

struct Snapshots {
    client: SnapshotsClient<Channel>,
    ns: &'static str,
}

fn within<T>(ns: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", ns.parse().unwrap());
    request
}

impl Snapshots {
    fn new(server: &Server, ns: &'static str) -> Self {
        Self { client: SnapshotsClient::new(server.channel()), ns }
    }

    async fn prepare(&mut self, key: &str, parent: &str) -> Result<Vec<Mount>, Status> {
        let labels = HashMap::from([("l".to_owned(), "v".to_owned())]);
        let message = PrepareSnapshotRequest {
            key: key.into(),
            parent: parent.into(),
            labels,
            ..Default::default()
        };
        Ok(self.client.prepare(within(self.ns, message)).await?.into_inner().mounts)
    }

    async fn view(&mut self, key: &str, parent: &str) -> Result<Vec<Mount>, Status> {
        let message =
            ViewSnapshotRequest { key: key.into(), parent: parent.into(), ..Default::default() };
        Ok(self.client.view(within(self.ns, message)).await?.into_inner().mounts)
    }

    async fn commit(&mut self, name: &str, key: &str) -> Result<(), Status> {
        let message =
            CommitSnapshotRequest { name: name.into(), key: key.into(), ..Default::default() };
        self.client.commit(within(self.ns, message)).await.map(drop)
    }

    async fn remove(&mut self, key: &str) -> Result<(), Status> {
        let message = RemoveSnapshotRequest { key: key.into(), ..Default::default() };
        self.client.remove(within(self.ns, message)).await.map(drop)
    }

    async fn stat(&mut self, key: &str) -> Result<Info, Status> {
        let message = StatSnapshotRequest { key: key.into(), ..Default::default() };
        Ok(self.client.stat(within(self.ns, message)).await?.into_inner().info.unwrap())
    }

    async fn mounts(&mut self, key: &str) -> Result<Vec<Mount>, Status> {
        let message = MountsRequest { key: key.into(), ..Default::default() };
        Ok(self.client.mounts(within(self.ns, message)).await?.into_inner().mounts)
    }

    async fn list(&mut self, filters: &[&str]) -> Vec<String> {
        let filters = filters.iter().map(|text| (*text).to_owned()).collect();
        let message = ListSnapshotsRequest { filters, ..Default::default() };
        let mut stream = self.client.list(within(self.ns, message)).await.unwrap().into_inner();
        let mut names = Vec::new();
        while let Some(part) = stream.message().await.unwrap() {
            names.extend(part.info.into_iter().map(|info| info.name));
        }
        names
    }
}

/// The folder that writes to a mount end up in.
fn writable(mounts: &[Mount]) -> &Path {
    let mount = &mounts[0];
    let upper = mount.options.iter().find_map(|option| option.strip_prefix("upperdir="));
    Path::new(upper.unwrap_or(&mount.source))
}

#[tokio::test]
async fn the_life_of_a_snapshot() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path());
    let mut snapshots = Snapshots::new(&server, "test");
    let mounts = snapshots.prepare("a", "").await.unwrap();
    assert_eq!(
        (mounts[0].r#type.as_str(), &mounts[0].options),
        ("bind", &vec!["rw".to_owned(), "rbind".to_owned()])
    );
    std::fs::write(writable(&mounts).join("f"), "1").unwrap();
    assert_eq!(snapshots.mounts("a").await.unwrap(), mounts);
    assert_eq!(snapshots.prepare("a", "").await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(snapshots.prepare("b", "a").await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(snapshots.prepare("b", "none").await.unwrap_err().code(), Code::NotFound);
    snapshots.commit("base", "a").await.unwrap();
    assert_eq!(snapshots.stat("a").await.unwrap_err().code(), Code::NotFound);
    let info = snapshots.stat("base").await.unwrap();
    assert_eq!((info.kind(), info.parent.as_str()), (Kind::Committed, ""));
    assert_eq!(snapshots.commit("x", "base").await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(snapshots.mounts("base").await.unwrap_err().code(), Code::FailedPrecondition);

    let active = snapshots.prepare("c1", "base").await.unwrap();
    assert_eq!((active[0].r#type.as_str(), active[0].source.as_str()), ("overlay", "overlay"));
    let options = active[0].options.join(",");
    assert!(
        options.contains("lowerdir=")
            && options.contains("upperdir=")
            && options.contains("workdir="),
        "{options}"
    );
    let view = snapshots.view("v1", "base").await.unwrap();
    assert_eq!((view[0].r#type.as_str(), view[0].options[0].as_str()), ("bind", "ro"));
    assert_eq!(std::fs::read_to_string(Path::new(&view[0].source).join("f")).unwrap(), "1");
    assert_eq!(snapshots.commit("x", "v1").await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(snapshots.remove("base").await.unwrap_err().code(), Code::FailedPrecondition);
    snapshots.commit("second", "c1").await.unwrap();
    let deep = snapshots.view("v2", "second").await.unwrap();
    assert_eq!(deep[0].options.last().unwrap().split(':').count(), 2);
    assert_eq!(
        snapshots.commit("second", "v2").await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    for key in ["v2", "v1", "second", "base"] {
        snapshots.remove(key).await.unwrap();
    }
    assert_eq!(snapshots.remove("base").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(std::fs::read_dir(home.path().join("root/snapshots")).unwrap().count(), 0);
}

#[tokio::test]
async fn overlay_mounts_show_what_was_written() {
    if skip_unless_root("overlay_mounts_show_what_was_written") {
        return;
    }
    let home = tempfile::tempdir_in("/var/tmp").unwrap();
    let server = Server::start(home.path());
    let mut snapshots = Snapshots::new(&server, "test");
    let mut parent = String::new();
    for number in 0..20 {
        let key = format!("active{number}");
        let mounts = snapshots.prepare(&key, &parent).await.unwrap();
        std::fs::write(writable(&mounts).join(format!("f{number}")), number.to_string()).unwrap();
        parent = format!("layer{number}");
        snapshots.commit(&parent, &key).await.unwrap();
    }
    let mount = snapshots.prepare("top", &parent).await.unwrap().remove(0);
    let point = home.path().join("mnt");
    std::fs::create_dir(&point).unwrap();
    let output = std::process::Command::new("mount")
        .args(["-t", "overlay", "overlay", "-o", &mount.options.join(",")])
        .arg(&point)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = std::fs::read_dir(&point).unwrap().count();
    let removed = std::fs::remove_file(point.join("f3"));
    let status = std::process::Command::new("umount").arg(&point).status().unwrap();
    assert!(status.success());
    assert_eq!(shown, 20);
    removed.unwrap();
}

#[tokio::test]
async fn labels_filters_usage_and_namespaces() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path());
    let (mut one, mut two) = (Snapshots::new(&server, "one"), Snapshots::new(&server, "two"));
    let mounts = one.prepare("a", "").await.unwrap();
    two.prepare("a", "").await.unwrap();
    two.prepare("b", "").await.unwrap();
    assert_eq!(one.list(&[]).await, ["a"]);
    assert_eq!(two.list(&["name==b"]).await, ["b"]);
    assert_eq!(two.list(&["kind==committed"]).await, Vec::<String>::new());
    assert_eq!(two.list(&["labels.l==v"]).await.len(), 2);
    std::fs::write(writable(&mounts).join("big"), vec![1u8; 1 << 20]).unwrap();
    let usage = one
        .client
        .usage(within("one", UsageRequest { key: "a".into(), ..Default::default() }))
        .await
        .unwrap()
        .into_inner();
    assert!(usage.size >= 1 << 20 && usage.inodes == 2, "{usage:?}");
    let info = Info {
        name: "a".into(),
        labels: HashMap::from([("n".into(), "w".into())]),
        ..Default::default()
    };
    let mask = prost_types::FieldMask { paths: vec!["labels.n".into()] };
    let message =
        UpdateSnapshotRequest { info: Some(info), update_mask: Some(mask), ..Default::default() };
    let updated =
        one.client.update(within("one", message)).await.unwrap().into_inner().info.unwrap();
    assert_eq!((updated.labels["l"].as_str(), updated.labels["n"].as_str()), ("v", "w"));
    one.client.cleanup(within("one", CleanupRequest::default())).await.unwrap();
    let bare = one.client.list(Request::new(ListSnapshotsRequest::default())).await.unwrap_err();
    assert_eq!(bare.code(), Code::FailedPrecondition);
    let other = StatSnapshotRequest { snapshotter: "zfs".into(), key: "a".into() };
    assert_eq!(
        one.client.stat(within("one", other)).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}
