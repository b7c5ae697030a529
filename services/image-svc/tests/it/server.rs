//! A running image-svc and ways to talk to it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::image::flotilla::image::v1::build_client::BuildClient;
use flotilla_proto::image::flotilla::image::v1::image_ops_client::ImageOpsClient;
use flotilla_testkit::Process;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use image_svc::engine::Digest;
use serde_json::{Value, json};
use tonic::transport::Channel;

/// A server over a folder that outlives it.
pub struct Server {
    pub process: Process,
    /// `127.0.0.1:PORT`
    pub address: String,
    pub dir: PathBuf,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// Status, headers, body.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    pub fn code(&self) -> String {
        let value: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        value["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Arguments of a server over `dir`.
pub fn command(dir: &Path, extra: &[&str]) -> Command {
    let mut command = Command::new(flotilla_testkit::binary("image-svc"));
    command.args(["--http-addr", "127.0.0.1:0", "--log-format", "json"]);
    command.arg("--root").arg(dir.join("root"));
    command.arg("--cri-address").arg(format!("unix://{}", dir.join("s.sock").display()));
    command.args(extra);
    command
}

impl Server {
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    pub fn start_with(dir: &Path, extra: &[&str]) -> Self {
        let mut process = Process::spawn(&mut command(dir, extra));
        let line = process.wait_for_line("registry listening", Duration::from_secs(30));
        let line: Value = serde_json::from_str(&line).unwrap();
        let address = line["address"].as_str().unwrap().to_owned();
        if !extra.contains(&"--cri-address") {
            process.wait_for_line("image service listening", Duration::from_secs(30));
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { process, address, dir: dir.to_owned(), client }
    }

    pub fn socket(&self) -> String {
        format!("unix://{}", self.dir.join("s.sock").display())
    }

    pub fn channel(&self) -> Channel {
        flotilla_client::channel(&self.socket()).unwrap()
    }

    pub fn ops(&self) -> ImageOpsClient<Channel> {
        ImageOpsClient::new(flotilla_client::channel(&format!("http://{}", self.address)).unwrap())
            .max_decoding_message_size(16 << 20)
    }

    pub fn builder(&self) -> BuildClient<Channel> {
        BuildClient::new(flotilla_client::channel(&format!("http://{}", self.address)).unwrap())
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("http://{}{path}", self.address)
        };
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response =
            self.client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    /// Begins an upload and returns its location.
    pub async fn start_upload(&self, repo: &str) -> String {
        let answer = self.send(Method::POST, &format!("/v2/{repo}/blobs/uploads/"), &[], "").await;
        assert_eq!(answer.status, 202);
        answer.header("location").to_owned()
    }

    /// Pushes a blob in one go.
    pub async fn push_blob(&self, repo: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        let place = self.start_upload(repo).await;
        let answer =
            self.send(Method::PUT, &format!("{place}?digest={digest}"), &[], bytes.to_vec()).await;
        assert_eq!(answer.status, 201, "{:?}", answer.body);
        digest
    }

    /// Pushes an image of these layer archives and returns the manifest's digest.
    pub async fn push_image(&self, repo: &str, tag: &str, layers: &[Vec<u8>]) -> Digest {
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::sha256(layer)).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/true"], "User": "1000:1000"},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string();
        let config_digest = self.push_blob(repo, config.as_bytes()).await;
        let mut descriptors = Vec::new();
        for layer in layers {
            let digest = self.push_blob(repo, layer).await;
            descriptors.push(json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": layer.len()}));
        }
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len()},
            "layers": descriptors,
        })
        .to_string();
        let answer = self.put_manifest(repo, tag, &manifest).await;
        assert_eq!(answer.status, 201, "{:?}", answer.body);
        Digest::sha256(manifest.as_bytes())
    }

    pub async fn put_manifest(&self, repo: &str, reference: &str, manifest: &str) -> Answer {
        let path = format!("/v2/{repo}/manifests/{reference}");
        self.send(Method::PUT, &path, &[("content-type", MANIFEST)], manifest.to_owned()).await
    }
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An entry of a test archive.
pub struct TarEntry {
    pub path: String,
    pub kind: tar::EntryType,
    pub link: String,
    pub body: Vec<u8>,
    pub mode: u32,
    pub uid: u64,
}

pub fn file(path: &str, body: &str) -> TarEntry {
    TarEntry {
        path: path.into(),
        kind: tar::EntryType::Regular,
        link: String::new(),
        body: body.into(),
        mode: 0o644,
        uid: 0,
    }
}

pub fn dir(path: &str) -> TarEntry {
    TarEntry { kind: tar::EntryType::Directory, mode: 0o755, ..file(path, "") }
}

pub fn symlink(path: &str, target: &str) -> TarEntry {
    TarEntry { kind: tar::EntryType::Symlink, link: target.into(), mode: 0o777, ..file(path, "") }
}

pub fn hardlink(path: &str, target: &str) -> TarEntry {
    TarEntry { kind: tar::EntryType::Link, link: target.into(), ..file(path, "") }
}

/// A tar archive with paths exactly as given, however hostile.
pub fn archive(entries: &[TarEntry]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        let raw = header.as_gnu_mut().unwrap();
        raw.name[..entry.path.len()].copy_from_slice(entry.path.as_bytes());
        raw.linkname[..entry.link.len()].copy_from_slice(entry.link.as_bytes());
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_uid(entry.uid);
        header.set_gid(entry.uid);
        header.set_mtime(1_700_000_000);
        header.set_size(entry.body.len() as u64);
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
        header.set_cksum();
        builder.append(&header, entry.body.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}
