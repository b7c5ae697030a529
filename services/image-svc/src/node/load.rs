//! Archives in: docker-archive (`docker save`) and OCI layout, plain or compressed.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use bytes::Bytes;
use serde::Deserialize;

use super::pull::Documents;
use super::{Node, NodeError};
use crate::engine::manifest::{OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST};
use crate::engine::{Descriptor, Digest, Manifest, Platform, Reference};
use crate::store::{ImageRecord, IngestFile, Mark, NewContent, Pin, StoreError};
use crate::unpack::{Compression, Decompressed};

/// Files of an archive at most.
const MAX_FILES: usize = 100_000;
const MAX_DOCUMENT: u64 = 8 << 20;

/// An archive being received.
#[derive(Debug)]
pub struct Loading {
    file: Option<IngestFile>,
}

/// A file of the archive, now a blob.
#[derive(Debug, Clone)]
struct Member {
    digest: Digest,
    size: u64,
    compression: Compression,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// The files of an archive by path, and what keeps them.
struct Archive {
    members: HashMap<String, Member>,
    _pins: Vec<Pin>,
}

fn bad(reason: impl Into<String>) -> NodeError {
    NodeError::Unusable { name: "archive".to_owned(), reason: reason.into() }
}

impl Loading {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// When the disk refuses them.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), NodeError> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        let written =
            tokio::task::spawn_blocking(move || file.append(&[chunk]).map(|()| file)).await;
        self.file = Some(written.map_err(|error| StoreError::Closed(error.to_string()))??);
        Ok(())
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            file.discard();
        }
    }
}

impl Node {
    /// Begins to receive an archive.
    ///
    /// # Errors
    /// When its file cannot be made.
    pub async fn begin_load(&self) -> Result<Loading, NodeError> {
        let path = self.store.ingest_path(&uuid::Uuid::new_v4().to_string());
        let file = tokio::task::spawn_blocking(move || {
            IngestFile::open(&path, Mark::start(Default::default()))
        })
        .await;
        Ok(Loading { file: Some(file.map_err(|error| StoreError::Closed(error.to_string()))??) })
    }

    /// Takes the images of a complete archive into the store.
    ///
    /// # Errors
    /// Says what the archive lacks.
    pub async fn finish_load(&self, mut loading: Loading) -> Result<Vec<ImageRecord>, NodeError> {
        let Some(file) = loading.file.take() else { return Err(bad("is empty")) };
        let path = file.path().to_owned();
        let _removed_at_end = Loading { file: Some(file) };
        let archive = self.members(path).await?;
        if archive.members.contains_key("manifest.json") {
            return self.load_docker(&archive).await;
        }
        if archive.members.contains_key("index.json") {
            return self.load_layout(&archive).await;
        }
        Err(bad("holds neither manifest.json nor index.json: it is no image archive"))
    }

    /// Makes every file of the archive a blob.
    async fn members(&self, path: std::path::PathBuf) -> Result<Archive, NodeError> {
        let (found, mut files) = tokio::sync::mpsc::channel(4);
        let folder = self.store.clone();
        let reading = tokio::task::spawn_blocking(move || read_members(&path, &folder, &found));
        let (mut members, mut pins) = (HashMap::new(), Vec::new());
        while let Some((name, file, compression)) = files.recv().await {
            let file: IngestFile = file;
            let (digest, size) = (file.mark().hasher().clone().finish(), file.offset());
            pins.push(self.store.pin(&digest).await);
            self.store
                .commit_blob(&digest, NewContent::File(file), |_| Ok::<_, StoreError>(()))
                .await?;
            members.insert(name, Member { digest, size, compression });
        }
        let links = reading.await.map_err(|error| StoreError::Closed(error.to_string()))??;
        for (link, target) in links {
            if let Some(member) = members.get(&target).cloned() {
                members.insert(link, member);
            }
        }
        Ok(Archive { members, _pins: pins })
    }

    async fn document(&self, archive: &Archive, name: &str) -> Result<Bytes, NodeError> {
        let member = archive.members.get(name).ok_or_else(|| bad(format!("lacks {name}")))?;
        Ok(self.store.read_blob(&member.digest, MAX_DOCUMENT).await?.unwrap_or_default())
    }

    async fn load_docker(&self, archive: &Archive) -> Result<Vec<ImageRecord>, NodeError> {
        let bytes = self.document(archive, "manifest.json").await?;
        let entries: Vec<DockerEntry> = serde_json::from_slice(&bytes)
            .map_err(|error| bad(format!("manifest.json: {error}")))?;
        let mut records = Vec::new();
        for entry in entries {
            let member = |name: &String| {
                archive.members.get(name).ok_or_else(|| bad(format!("lacks {name}")))
            };
            let config = member(&entry.config)?;
            let layers = entry.layers.iter().map(member).collect::<Result<Vec<_>, _>>()?;
            let layer = |m: &&Member| {
                let media_type = match m.compression {
                    Compression::None => "application/vnd.oci.image.layer.v1.tar",
                    Compression::Gzip => OCI_LAYER_GZIP,
                    Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
                };
                Descriptor::new(media_type, m.digest.clone(), m.size)
            };
            let config = Descriptor::new(OCI_CONFIG, config.digest.clone(), config.size);
            let documents =
                self.compose(config, layers.iter().map(layer).collect(), BTreeMap::new()).await?;
            let tags = entry.repo_tags.unwrap_or_default();
            records.push(self.adopt_named(documents, tags).await?);
        }
        Ok(records)
    }

    /// Writes a manifest for a config and layers that are in the store.
    pub(crate) async fn compose(
        &self,
        config: Descriptor,
        layers: Vec<Descriptor>,
        annotations: BTreeMap<String, String>,
    ) -> Result<Documents, NodeError> {
        let mut document = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config,
            "layers": layers,
        });
        if !annotations.is_empty() {
            document["annotations"] = serde_json::json!(annotations);
        }
        let bytes = Bytes::from(document.to_string());
        let digest = Digest::sha256(&bytes);
        let size = bytes.len() as u64;
        self.store
            .commit_blob(&digest, NewContent::Bytes(bytes.clone()), |_| Ok::<_, StoreError>(()))
            .await?;
        let manifest =
            Manifest::parse(OCI_MANIFEST, &bytes).map_err(|error| bad(error.to_string()))?;
        let target = Descriptor::new(OCI_MANIFEST, digest.clone(), size);
        Ok(Documents { target, manifest_digest: digest, manifest })
    }

    async fn adopt_named(
        &self,
        documents: Documents,
        tags: Vec<String>,
    ) -> Result<ImageRecord, NodeError> {
        let mut names = Vec::new();
        for tag in tags {
            names.push(tag.parse::<Reference>()?.to_string());
        }
        if names.is_empty() {
            // An image must have some name here; docker shows such images as <none>.
            names.push(format!("docker.io/library/none@{}", documents.target.digest));
        }
        self.adopt(documents, names, &None).await
    }

    async fn load_layout(&self, archive: &Archive) -> Result<Vec<ImageRecord>, NodeError> {
        let bytes = self.document(archive, "index.json").await?;
        let index =
            Manifest::parse("", &bytes).map_err(|error| bad(format!("index.json: {error}")))?;
        let mut records = Vec::new();
        for entry in &index.manifests {
            let annotation = |name: &str| entry.annotations.get(name).cloned();
            let name = annotation("io.containerd.image.name")
                .or_else(|| annotation("org.opencontainers.image.ref.name"));
            let path =
                |digest: &Digest| format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
            let bytes = self.document(archive, &path(&entry.digest)).await?;
            let mut manifest =
                Manifest::parse("", &bytes).map_err(|error| bad(error.to_string()))?;
            let mut chosen = entry.digest.clone();
            if manifest.is_index() {
                let own = manifest
                    .for_platform(&Platform::host())
                    .ok_or_else(|| bad("has no image for this platform"))?;
                chosen = own.digest.clone();
                let bytes = self.document(archive, &path(&chosen)).await?;
                manifest = Manifest::parse("", &bytes).map_err(|error| bad(error.to_string()))?;
            }
            let target = Descriptor::new(&entry.media_type, entry.digest.clone(), entry.size);
            let documents = Documents { target, manifest_digest: chosen, manifest };
            records.push(self.adopt_named(documents, name.into_iter().collect()).await?);
        }
        Ok(records)
    }
}

type Found = (String, IngestFile, Compression);

/// Reads the archive and sends every file on; returns the links in it.
fn read_members(
    path: &std::path::Path,
    store: &crate::Store,
    found: &tokio::sync::mpsc::Sender<Found>,
) -> Result<Vec<(String, String)>, NodeError> {
    let source = std::fs::File::open(path).map_err(|error| StoreError::io(path, error))?;
    let damaged = |error: std::io::Error| bad(format!("is damaged: {error}"));
    let mut archive = tar::Archive::new(Decompressed::new(source).map_err(damaged)?);
    let mut links = Vec::new();
    for (count, entry) in archive.entries().map_err(damaged)?.enumerate() {
        if count > MAX_FILES {
            return Err(bad("holds too many files"));
        }
        let mut entry = entry.map_err(damaged)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        let kind = entry.header().entry_type();
        if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name_bytes().unwrap_or_default();
            let target = String::from_utf8_lossy(&target).into_owned();
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            let joined = if kind.is_hard_link() { target } else { join(folder, &target) };
            links.push((name, joined));
            continue;
        }
        if !kind.is_file() {
            continue;
        }
        let path = store.ingest_path(&uuid::Uuid::new_v4().to_string());
        let mut file = IngestFile::open(&path, Mark::start(Default::default()))?;
        let mut compression = None;
        loop {
            let mut buffer = vec![0; 256 << 10];
            let got = entry.read(&mut buffer).map_err(damaged)?;
            if got == 0 {
                break;
            }
            buffer.truncate(got);
            compression.get_or_insert_with(|| Compression::detect(&buffer));
            file.append(&[buffer.into()])?;
        }
        if found.blocking_send((name, file, compression.unwrap_or(Compression::None))).is_err() {
            return Err(bad("was given up"));
        }
    }
    Ok(links)
}

/// Joins a relative link target to its folder, plainly.
fn join(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|p| !p.is_empty()).collect();
    for part in target.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "" | "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}
