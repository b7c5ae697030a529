//! CRI's image service on the runtime's socket: handed on to the image endpoint as it is.

use flotilla_proto::cri::runtime::v1 as cri;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// Longest message either way; image lists of large nodes exceed tonic's default.
const MAX_MESSAGE: usize = 80 << 20;

/// The proxy.
#[derive(Debug, Clone)]
pub struct ImageProxy {
    images: cri::image_service_client::ImageServiceClient<Channel>,
}

impl ImageProxy {
    /// Hands on to what answers on `channel`.
    pub fn new(channel: Channel) -> Self {
        let images = cri::image_service_client::ImageServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE);
        Self { images }
    }
}

/// Deadline and trace headers travel on; connection-level ones do not survive tonic's types anyway.
fn onward<T>(request: Request<T>) -> Request<T> {
    let (metadata, extensions, message) = request.into_parts();
    // Extensions belong to the connection the request came on.
    drop(extensions);
    Request::from_parts(metadata, tonic::Extensions::new(), message)
}

#[tonic::async_trait]
impl cri::image_service_server::ImageService for ImageProxy {
    type StreamImagesStream = tonic::Streaming<cri::StreamImagesResponse>;

    async fn list_images(
        &self,
        request: Request<cri::ListImagesRequest>,
    ) -> Result<Response<cri::ListImagesResponse>, Status> {
        self.images.clone().list_images(onward(request)).await
    }

    async fn stream_images(
        &self,
        request: Request<cri::StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        self.images.clone().stream_images(onward(request)).await
    }

    async fn image_status(
        &self,
        request: Request<cri::ImageStatusRequest>,
    ) -> Result<Response<cri::ImageStatusResponse>, Status> {
        self.images.clone().image_status(onward(request)).await
    }

    async fn pull_image(
        &self,
        request: Request<cri::PullImageRequest>,
    ) -> Result<Response<cri::PullImageResponse>, Status> {
        self.images.clone().pull_image(onward(request)).await
    }

    async fn remove_image(
        &self,
        request: Request<cri::RemoveImageRequest>,
    ) -> Result<Response<cri::RemoveImageResponse>, Status> {
        self.images.clone().remove_image(onward(request)).await
    }

    async fn image_fs_info(
        &self,
        request: Request<cri::ImageFsInfoRequest>,
    ) -> Result<Response<cri::ImageFsInfoResponse>, Status> {
        self.images.clone().image_fs_info(onward(request)).await
    }
}
