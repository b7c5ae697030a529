//! flotilla.image.v1 ImageOps.

use std::pin::Pin;

use flotilla_proto::image::flotilla::image::v1::image_ops_server::ImageOps;
use flotilla_proto::image::flotilla::image::v1::{
    Credentials as WireCredentials, Descriptor as WireDescriptor, ImageSummary, InspectRequest,
    InspectResponse, LayerProgress, ListRequest, ListResponse, LoadRequest, LoadResponse,
    PullRequest, PushRequest, RemoveRequest, RemoveResponse, SaveRequest, SaveResponse, TagRequest,
    TagResponse, TransferProgress, TransferResult, transfer_progress,
};
use futures::Stream;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use crate::engine::{Digest, Manifest, Platform, Reference};
use crate::node::{Image, ImageRecord, Node, NodeError, Progress, PullOptions};
use crate::remote::Credentials;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
#[derive(Debug, Clone)]
pub struct ImageOpsApi {
    node: Node,
}

impl ImageOpsApi {
    /// A service over `node`.
    pub fn new(node: Node) -> Self {
        Self { node }
    }

    async fn summary(&self, image: &Image) -> Result<ImageSummary, NodeError> {
        let (_, config) = self.node.config(&image.record).await?;
        Ok(ImageSummary {
            id: image.record.config.to_string(),
            tags: image.tags.clone(),
            digests: image.digests.clone(),
            size: signed(image.record.size),
            created: config.created_seconds(),
            platform: config.platform().to_string(),
            labels: config
                .config
                .and_then(|process| process.labels)
                .unwrap_or_default()
                .into_iter()
                .collect(),
        })
    }
}

fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn credentials(wire: Option<WireCredentials>) -> Credentials {
    let wire = wire.unwrap_or_default();
    Credentials {
        username: wire.username,
        password: wire.password,
        registry_token: wire.registry_token,
        identity_token: String::new(),
    }
}

fn platform(text: &str) -> Result<Option<Platform>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || {
        Status::invalid_argument(format!("platform {text:?}: write OS/ARCH, such as linux/amd64"))
    };
    Platform::parse(text).map(Some).ok_or_else(wrong)
}

fn wire_progress(progress: Progress) -> TransferProgress {
    let layer = LayerProgress {
        digest: progress.digest.to_string(),
        state: progress.state.to_owned(),
        offset: signed(progress.offset),
        total: signed(progress.total),
    };
    TransferProgress { event: Some(transfer_progress::Event::Layer(layer)) }
}

fn pulled(record: &ImageRecord) -> TransferResult {
    TransferResult {
        reference: record.name.clone(),
        digest: record.target.digest.to_string(),
        id: record.config.to_string(),
        size: signed(record.size),
    }
}

/// Runs `work` and streams the steps it reports, then its result.
fn watched<F>(work: impl FnOnce(mpsc::Sender<Progress>) -> F) -> Answers<TransferProgress>
where
    F: Future<Output = Result<TransferResult, NodeError>> + Send + 'static,
{
    let (steps, mut reported) = mpsc::channel(64);
    let work = work(steps);
    Box::pin(async_stream::try_stream! {
        tokio::pin!(work);
        let result = loop {
            tokio::select! {
                biased;
                Some(step) = reported.recv() => yield wire_progress(step),
                result = &mut work => break result,
            }
        };
        let result = result.map_err(Status::from)?;
        while let Ok(step) = reported.try_recv() {
            yield wire_progress(step);
        }
        yield TransferProgress { event: Some(transfer_progress::Event::Result(result)) };
    })
}

#[tonic::async_trait]
impl ImageOps for ImageOpsApi {
    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let wanted = request.into_inner().reference;
        let mut images = Vec::new();
        for image in self.node.images()? {
            let summary = self.summary(&image).await?;
            if wanted.is_empty() || named(&summary, &wanted)? {
                images.push(summary);
            }
        }
        images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.tags.cmp(&b.tags)));
        Ok(Response::new(ListResponse { images }))
    }

    async fn inspect(
        &self,
        request: Request<InspectRequest>,
    ) -> Result<Response<InspectResponse>, Status> {
        let image = self.node.find(&request.into_inner().reference)?;
        let summary = self.summary(&image).await?;
        let (config, _) = self.node.config(&image.record).await?;
        let bytes = self.node.manifest(&image.record).await?;
        let manifest =
            Manifest::parse("", &bytes).map_err(|error| Status::internal(error.to_string()))?;
        let wire = |d: &crate::engine::Descriptor| WireDescriptor {
            media_type: d.media_type.clone(),
            digest: d.digest.to_string(),
            size: signed(d.size),
        };
        Ok(Response::new(InspectResponse {
            image: Some(summary),
            target: Some(wire(&image.record.target)),
            manifest: bytes,
            config,
            chain_id: image.record.chain_id,
            layers: manifest.layers.iter().map(wire).collect(),
        }))
    }

    async fn tag(&self, request: Request<TagRequest>) -> Result<Response<TagResponse>, Status> {
        let request = request.into_inner();
        self.node.tag(&request.source, &request.target).await?;
        Ok(Response::new(TagResponse {}))
    }

    async fn remove(
        &self,
        request: Request<RemoveRequest>,
    ) -> Result<Response<RemoveResponse>, Status> {
        let (untagged, deleted) = self.node.untag(&request.into_inner().reference).await?;
        let deleted = deleted.map(|id: Digest| id.to_string()).unwrap_or_default();
        Ok(Response::new(RemoveResponse { untagged, deleted }))
    }

    type PushStream = Answers<TransferProgress>;

    async fn push(
        &self,
        request: Request<PushRequest>,
    ) -> Result<Response<Self::PushStream>, Status> {
        let request = request.into_inner();
        let node = self.node.clone();
        Ok(Response::new(watched(move |steps| async move {
            let destination =
                (!request.destination.is_empty()).then_some(request.destination.as_str());
            let credentials = credentials(request.credentials);
            let pushed =
                node.push(&request.reference, destination, &credentials, &Some(steps)).await;
            let (reference, digest) = pushed?;
            let image = node.find(&request.reference)?;
            Ok(TransferResult {
                reference: reference.to_string(),
                digest: digest.to_string(),
                id: image.record.config.to_string(),
                size: signed(image.record.size),
            })
        })))
    }

    type PullStream = Answers<TransferProgress>;

    async fn pull(
        &self,
        request: Request<PullRequest>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let request = request.into_inner();
        let options = PullOptions {
            credentials: credentials(request.credentials),
            platform: platform(&request.platform)?,
        };
        let node = self.node.clone();
        Ok(Response::new(watched(move |steps| async move {
            node.pull(&request.reference, &options, &Some(steps))
                .await
                .map(|record| pulled(&record))
        })))
    }

    async fn load(
        &self,
        request: Request<Streaming<LoadRequest>>,
    ) -> Result<Response<LoadResponse>, Status> {
        let mut stream = request.into_inner();
        let mut loading = self.node.begin_load().await?;
        while let Some(part) = stream.message().await? {
            loading.write(part.chunk).await?;
        }
        let records = self.node.finish_load(loading).await?;
        Ok(Response::new(LoadResponse { images: records.iter().map(pulled).collect() }))
    }

    type SaveStream = Answers<SaveResponse>;

    async fn save(
        &self,
        request: Request<SaveRequest>,
    ) -> Result<Response<Self::SaveStream>, Status> {
        let chunks = self.node.save(&request.into_inner().references).await?;
        let stream = futures::StreamExt::map(chunks, |chunk| match chunk {
            Ok(chunk) => Ok(SaveResponse { chunk }),
            Err(error) => Err(Status::internal(error.to_string())),
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

/// Whether an image has the name, or any tag of it when the text has none.
fn named(summary: &ImageSummary, wanted: &str) -> Result<bool, Status> {
    let reference: Reference = wanted.parse().map_err(NodeError::from)?;
    let (full, repository) = (reference.to_string(), reference.repository() + ":");
    let has_tag = wanted.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    let mut names = summary.tags.iter().chain(&summary.digests);
    Ok(names.any(|name| *name == full || (!has_tag && name.starts_with(&repository))))
}
