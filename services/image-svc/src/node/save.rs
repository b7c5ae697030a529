//! Archives out: one tar that is a docker-archive and an OCI layout at once.

use std::collections::BTreeMap;
use std::io::Write;

use bytes::Bytes;
use futures::Stream;
use serde_json::json;
use tokio::sync::mpsc;

use super::{Node, NodeError};
use crate::engine::manifest::OCI_INDEX;
use crate::engine::{Digest, Manifest};
use crate::store::{ImageRecord, Pin, Store, StoreError};

const MAX_MANIFEST: u64 = 8 << 20;

/// What goes into an archive.
struct Plan {
    documents: Vec<(&'static str, Vec<u8>)>,
    blobs: BTreeMap<String, Digest>,
    _pins: Vec<Pin>,
}

impl Node {
    /// The manifest of an image as it is stored.
    ///
    /// # Errors
    /// When it is gone.
    pub async fn manifest(&self, record: &ImageRecord) -> Result<Bytes, NodeError> {
        let bytes = self.store.read_blob(&record.manifest, MAX_MANIFEST).await?;
        Ok(bytes.ok_or_else(|| StoreError::Damaged(format!("{} is gone", record.manifest)))?)
    }

    /// The named images as a stream of tar bytes.
    ///
    /// # Errors
    /// When there is no such image.
    pub async fn save(
        &self,
        names: &[String],
    ) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + use<>, NodeError> {
        let plan = self.plan(names).await?;
        let (sender, receiver) = mpsc::channel(4);
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || {
            let mut writer = ChannelWriter { sender, buffer: Vec::with_capacity(CHUNK) };
            if let Err(error) = write(&store, &plan, &mut writer) {
                // The reader went away when this fails.
                let _ = writer.sender.blocking_send(Err(error));
            }
        });
        Ok(tokio_stream::wrappers::ReceiverStream::new(receiver))
    }

    async fn plan(&self, names: &[String]) -> Result<Plan, NodeError> {
        let (mut docker, mut index, mut blobs, mut pins) =
            (Vec::new(), Vec::new(), BTreeMap::new(), Vec::new());
        let path =
            |digest: &Digest| format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        for name in names {
            let image = self.find(name)?;
            let bytes = self.manifest(&image.record).await?;
            let manifest = Manifest::parse("", &bytes)
                .map_err(|source| NodeError::Manifest { name: name.clone(), source })?;
            for digest in manifest.blobs().map(|blob| &blob.digest).chain([&image.record.manifest])
            {
                pins.push(self.store.pin(digest).await);
                blobs.insert(path(digest), digest.clone());
            }
            let wanted =
                name.parse::<crate::engine::Reference>().map(|r| r.to_string()).unwrap_or_default();
            let tags: Vec<&String> = if image.tags.contains(&wanted) {
                image.tags.iter().filter(|tag| **tag == wanted).collect()
            } else {
                image.tags.iter().collect()
            };
            docker.push(json!({
                "Config": path(&image.record.config),
                "RepoTags": tags,
                "Layers": manifest.layers.iter().map(|layer| path(&layer.digest)).collect::<Vec<_>>(),
            }));
            for tag in tags {
                index.push(json!({
                    "mediaType": manifest.media_type,
                    "digest": image.record.manifest,
                    "size": bytes.len(),
                    "annotations": {
                        "io.containerd.image.name": tag,
                        "org.opencontainers.image.ref.name": tag.rsplit(':').next().unwrap_or_default(),
                    },
                }));
            }
        }
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index});
        let documents = vec![
            ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json", index.to_string().into_bytes()),
            ("manifest.json", json!(docker).to_string().into_bytes()),
        ];
        Ok(Plan { documents, blobs, _pins: pins })
    }
}

fn write(store: &Store, plan: &Plan, out: &mut ChannelWriter) -> std::io::Result<()> {
    let mut archive = tar::Builder::new(&mut *out);
    for (path, digest) in &plan.blobs {
        let blob = store.open_blob(digest).map_err(std::io::Error::other)?;
        let blob = blob.ok_or_else(|| std::io::Error::other(format!("{digest} is gone")))?;
        archive.append_data(&mut header(blob.len()), path, blob.reader())?;
    }
    for (path, bytes) in &plan.documents {
        archive.append_data(&mut header(bytes.len() as u64), path, bytes.as_slice())?;
    }
    archive.into_inner()?;
    out.flush()
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(size);
    header.set_mtime(0);
    header
}

const CHUNK: usize = 256 << 10;

struct ChannelWriter {
    sender: mpsc::Sender<std::io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.sender
            .blocking_send(Ok(full.into()))
            .map_err(|_| std::io::Error::other("the reader went away"))
    }
}
