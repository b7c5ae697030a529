//! Images and snapshots over CRI and containerd's snapshot API, on one endpoint.
//!
//! Either image-svc or containerd answers there. Snapshots are labelled as roots so that containerd's garbage
//! collector leaves them alone.

use std::collections::HashMap;

use async_trait::async_trait;
use flotilla_proto::containerd::containerd::services::snapshots::v1 as snapshots;
use flotilla_proto::containerd::containerd::types;
use flotilla_proto::cri::runtime::v1 as cri;
use rt_shim::spec::RootMount;
use snapshots::snapshots_client::SnapshotsClient;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::engine::error::{Error, Result};
use crate::engine::image_config::{ImageInfo, parse_verbose};
use crate::engine::ports::Images;

const NAMESPACE: &str = "k8s.io";
const GC_ROOT: &str = "containerd.io/gc.root";

/// The image endpoint.
#[derive(Debug, Clone)]
pub struct ImageService {
    images: cri::image_service_client::ImageServiceClient<Channel>,
    snapshots: SnapshotsClient<Channel>,
    snapshotter: String,
    endpoint: String,
}

impl ImageService {
    /// Speaks over `channel`; `endpoint` is its name for messages.
    pub fn new(channel: Channel, endpoint: &str, snapshotter: &str) -> Self {
        Self {
            images: cri::image_service_client::ImageServiceClient::new(channel.clone()),
            snapshots: SnapshotsClient::new(channel),
            snapshotter: snapshotter.to_owned(),
            endpoint: endpoint.to_owned(),
        }
    }

    fn explain(&self, what: &str, status: &Status) -> Error {
        match status.code() {
            Code::Unavailable => Error::Unavailable(format!(
                "{what}: the image service at {} does not answer ({}); start image-svc or set --image-endpoint",
                self.endpoint,
                status.message()
            )),
            Code::NotFound => Error::NotFound(format!("{what}: {}", status.message())),
            _ => Error::Failed(format!("{what}: {}", status.message())),
        }
    }
}

fn in_namespace<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
    request
}

fn root_mounts(mounts: Vec<types::Mount>) -> Vec<RootMount> {
    let convert = |mount: types::Mount| RootMount {
        kind: mount.r#type,
        source: mount.source,
        options: mount.options,
    };
    mounts.into_iter().map(convert).collect()
}

#[async_trait]
impl Images for ImageService {
    async fn find(&self, image: &str) -> Result<ImageInfo> {
        let what = format!("failed to resolve image {image:?}");
        let spec = cri::ImageSpec { image: image.to_owned(), ..Default::default() };
        let request = cri::ImageStatusRequest { image: Some(spec), verbose: true };
        let answer = self
            .images
            .clone()
            .image_status(request)
            .await
            .map_err(|status| self.explain(&what, &status))?;
        let answer = answer.into_inner();
        let Some(found) = answer.image else { return Err(Error::NotFound(what)) };
        let info = answer.info.get("info").ok_or_else(|| {
            Error::Failed(format!(
                "{what}: {} tells no details of images (info.info is missing)",
                self.endpoint
            ))
        })?;
        let (chain_id, config) = parse_verbose(info)?;
        let reference = found.repo_digests.first().cloned().unwrap_or_else(|| found.id.clone());
        Ok(ImageInfo { id: found.id, reference, chain_id, config })
    }

    async fn prepare(&self, key: &str, chain_id: &str) -> Result<Vec<RootMount>> {
        let request = snapshots::PrepareSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.to_owned(),
            parent: chain_id.to_owned(),
            labels: HashMap::from([(GC_ROOT.to_owned(), "flotilla".to_owned())]),
        };
        let answer = self.snapshots.clone().prepare(in_namespace(request)).await;
        answer
            .map(|answer| root_mounts(answer.into_inner().mounts))
            .map_err(|status| self.explain("failed to prepare the root filesystem", &status))
    }

    async fn view(&self, key: &str, chain_id: &str) -> Result<Vec<RootMount>> {
        let request = snapshots::ViewSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.to_owned(),
            parent: chain_id.to_owned(),
            labels: HashMap::from([(GC_ROOT.to_owned(), "flotilla".to_owned())]),
        };
        let answer = self.snapshots.clone().view(in_namespace(request)).await;
        answer
            .map(|answer| root_mounts(answer.into_inner().mounts))
            .map_err(|status| self.explain("failed to prepare an image volume", &status))
    }

    async fn remove(&self, key: &str) -> Result<()> {
        let request = snapshots::RemoveSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.to_owned(),
        };
        match self.snapshots.clone().remove(in_namespace(request)).await {
            Err(status) if status.code() != Code::NotFound => {
                Err(self.explain("failed to remove the root filesystem", &status))
            }
            _ => Ok(()),
        }
    }

    async fn usage(&self, key: &str) -> Result<(u64, u64)> {
        let request =
            snapshots::UsageRequest { snapshotter: self.snapshotter.clone(), key: key.to_owned() };
        let answer = self.snapshots.clone().usage(in_namespace(request)).await;
        let usage = answer
            .map_err(|status| self.explain("failed to read disk usage", &status))?
            .into_inner();
        Ok((u64::try_from(usage.size).unwrap_or(0), u64::try_from(usage.inodes).unwrap_or(0)))
    }
}
