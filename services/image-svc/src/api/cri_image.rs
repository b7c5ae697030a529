//! CRI v1 ImageService.

use std::collections::HashMap;

use flotilla_proto::cri::runtime::v1::image_service_server::ImageService;
use flotilla_proto::cri::runtime::v1::{
    AuthConfig, FilesystemIdentifier, FilesystemUsage, Image as CriImage, ImageFsInfoRequest,
    ImageFsInfoResponse, ImageSpec, ImageStatusRequest, ImageStatusResponse, Int64Value,
    ListImagesRequest, ListImagesResponse, PullImageRequest, PullImageResponse, RemoveImageRequest,
    RemoveImageResponse, StreamImagesRequest, StreamImagesResponse, UInt64Value,
};
use tonic::{Request, Response, Status};

use crate::node::{Image, Node, NodeError, PullOptions};
use crate::remote::Credentials;

/// Images of one message of `StreamImages`.
const PER_MESSAGE: usize = 200;

/// The service.
#[derive(Debug, Clone)]
pub struct CriImages {
    node: Node,
}

impl CriImages {
    /// A service over `node`.
    pub fn new(node: Node) -> Self {
        Self { node }
    }

    async fn describe(&self, image: &Image) -> Result<CriImage, Status> {
        let (_, config) = self.node.config(&image.record).await?;
        let (uid, username) = user(config.user());
        Ok(CriImage {
            id: image.record.config.to_string(),
            repo_tags: image.tags.clone(),
            repo_digests: image.digests.clone(),
            size: image.record.size,
            uid: uid.map(|value| Int64Value { value }),
            username,
            spec: Some(ImageSpec {
                image: image.record.config.to_string(),
                ..ImageSpec::default()
            }),
            pinned: false,
        })
    }

    async fn listed(&self, wanted: Option<ImageSpec>) -> Result<Vec<CriImage>, Status> {
        let wanted = wanted.map(|spec| spec.image).unwrap_or_default();
        let images = if wanted.is_empty() {
            self.node.images()?
        } else {
            match self.node.find(&wanted) {
                Ok(image) => vec![image],
                Err(NodeError::NotFound(_)) => Vec::new(),
                Err(error) => return Err(error.into()),
            }
        };
        let mut described = Vec::with_capacity(images.len());
        for image in &images {
            described.push(self.describe(image).await?);
        }
        Ok(described)
    }
}

/// Splits the user of a config: a numeric one is a uid, another a name; the group is left out.
fn user(text: &str) -> (Option<i64>, String) {
    let user = text.split(':').next().unwrap_or_default();
    match user.parse::<u32>() {
        Ok(uid) => (Some(uid.into()), String::new()),
        Err(_) if user.is_empty() => (Some(0), String::new()),
        Err(_) => (None, user.to_owned()),
    }
}

fn credentials(auth: Option<AuthConfig>) -> Result<Credentials, Status> {
    let Some(auth) = auth else { return Ok(Credentials::default()) };
    if auth.username.is_empty() && !auth.auth.is_empty() {
        return Credentials::from_auth(&auth.auth).ok_or_else(|| {
            Status::invalid_argument("invalid auth config: auth is no base64 of user:password")
        });
    }
    Ok(Credentials {
        username: auth.username,
        password: auth.password,
        identity_token: auth.identity_token,
        registry_token: auth.registry_token,
    })
}

fn image_name(spec: Option<ImageSpec>) -> Result<String, Status> {
    let name = spec.map(|spec| spec.image).unwrap_or_default();
    if name.is_empty() { Err(Status::invalid_argument("image spec is empty")) } else { Ok(name) }
}

#[tonic::async_trait]
impl ImageService for CriImages {
    async fn list_images(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let wanted = request.into_inner().filter.and_then(|filter| filter.image);
        Ok(Response::new(ListImagesResponse { images: self.listed(wanted).await? }))
    }

    type StreamImagesStream =
        futures::stream::Iter<std::vec::IntoIter<Result<StreamImagesResponse, Status>>>;

    async fn stream_images(
        &self,
        request: Request<StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        let wanted = request.into_inner().filter.and_then(|filter| filter.image);
        let images = self.listed(wanted).await?;
        let messages: Vec<_> = images
            .chunks(PER_MESSAGE)
            .map(|part| Ok(StreamImagesResponse { images: part.to_vec() }))
            .collect();
        Ok(Response::new(futures::stream::iter(messages)))
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        let request = request.into_inner();
        let name = image_name(request.image)?;
        let image = match self.node.find(&name) {
            Ok(image) => image,
            Err(NodeError::NotFound(_)) => {
                return Ok(Response::new(ImageStatusResponse::default()));
            }
            Err(error) => return Err(error.into()),
        };
        let mut info = HashMap::new();
        if request.verbose {
            let (raw, _) = self.node.config(&image.record).await?;
            let spec: serde_json::Value = serde_json::from_slice(&raw).unwrap_or_default();
            let text = serde_json::json!({"chainID": image.record.chain_id, "imageSpec": spec})
                .to_string();
            info.insert("info".to_owned(), text);
        }
        let described = self.describe(&image).await?;
        Ok(Response::new(ImageStatusResponse { image: Some(described), info }))
    }

    async fn pull_image(
        &self,
        request: Request<PullImageRequest>,
    ) -> Result<Response<PullImageResponse>, Status> {
        let request = request.into_inner();
        let name = image_name(request.image)?;
        let options = PullOptions { credentials: credentials(request.auth)?, platform: None };
        let record = self.node.pull(&name, &options, &None).await?;
        tracing::info!(image = name, id = %record.config, "pulled");
        Ok(Response::new(PullImageResponse { image_ref: record.config.to_string() }))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let name = image_name(request.into_inner().image)?;
        if let Some(image) = self.node.remove(&name).await? {
            tracing::info!(image = name, id = %image.record.config, "removed");
        }
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _: Request<ImageFsInfoRequest>,
    ) -> Result<Response<ImageFsInfoResponse>, Status> {
        let usage = self.node.disk_usage().await?;
        let filesystem = FilesystemUsage {
            timestamp: i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX),
            fs_id: Some(FilesystemIdentifier { mountpoint: usage.folder.display().to_string() }),
            used_bytes: Some(UInt64Value { value: usage.bytes }),
            inodes_used: Some(UInt64Value { value: usage.inodes }),
        };
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![filesystem.clone()],
            container_filesystems: vec![filesystem],
        }))
    }
}
