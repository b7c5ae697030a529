//! flotilla.image.v1 Build.

use std::pin::Pin;

use flotilla_proto::image::flotilla::image::v1::build_server::Build;
use flotilla_proto::image::flotilla::image::v1::{
    BuildOptions as WireOptions, BuildRequest, BuildResponse, BuildResult, BuildStep,
    build_request, build_response,
};
use futures::Stream;
use tokio::sync::mpsc;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::build::{BuildError, BuildOptions, Builder, Built, Event};
use crate::engine::Platform;

/// The service.
#[derive(Debug, Clone)]
pub struct BuildApi {
    builder: Builder,
}

impl BuildApi {
    /// A service over `builder`.
    pub fn new(builder: Builder) -> Self {
        Self { builder }
    }
}

impl From<BuildError> for Status {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Node(error) => error.into(),
            BuildError::Store(error) => error.into(),
            error => Self::new(Code::InvalidArgument, error.to_string()),
        }
    }
}

fn options(wire: WireOptions) -> Result<BuildOptions, Status> {
    let platform = match wire.platform.as_str() {
        "" => None,
        text => Some(Platform::parse(text).ok_or_else(|| {
            Status::invalid_argument(format!(
                "platform {text:?}: write OS/ARCH, such as linux/amd64"
            ))
        })?),
    };
    Ok(BuildOptions {
        dockerfile: wire.dockerfile,
        tags: wire.tags,
        args: wire.build_args.into_iter().collect(),
        labels: wire.labels.into_iter().collect(),
        target: wire.target,
        platform,
        pull: wire.pull,
        epoch: wire.source_date_epoch,
    })
}

fn wire_event(event: Event) -> BuildResponse {
    let event = match event {
        Event::Step { number, total, line, text, stage } => {
            build_response::Event::Step(BuildStep {
                number: u32::try_from(number).unwrap_or(u32::MAX),
                total: u32::try_from(total).unwrap_or(u32::MAX),
                line: u32::try_from(line).unwrap_or(u32::MAX),
                instruction: text,
                cached: false,
                stage,
            })
        }
        Event::Log(bytes) => build_response::Event::Log(bytes),
    };
    BuildResponse { event: Some(event) }
}

fn wire_result(built: Built) -> BuildResponse {
    let result = BuildResult {
        digest: built.digest.to_string(),
        id: built.id.to_string(),
        tags: built.tags,
        size: i64::try_from(built.size).unwrap_or(i64::MAX),
        warnings: built.warnings,
    };
    BuildResponse { event: Some(build_response::Event::Result(result)) }
}

#[tonic::async_trait]
impl Build for BuildApi {
    type BuildStream = Pin<Box<dyn Stream<Item = Result<BuildResponse, Status>> + Send>>;

    async fn build(
        &self,
        request: Request<Streaming<BuildRequest>>,
    ) -> Result<Response<Self::BuildStream>, Status> {
        let mut stream = request.into_inner();
        let first = stream.message().await?.and_then(|message| message.part);
        let Some(build_request::Part::Options(wire)) = first else {
            return Err(Status::invalid_argument(
                "the first message of a build must hold its options",
            ));
        };
        let options = options(wire)?;
        let mut receiving = self.builder.begin_context().await?;
        while let Some(message) = stream.message().await? {
            match message.part {
                Some(build_request::Part::Context(chunk)) => receiving.write(chunk).await?,
                _ => {
                    return Err(Status::invalid_argument(
                        "only the first message of a build may hold options",
                    ));
                }
            }
        }
        let context = receiving.finish().await?;
        let builder = self.builder.clone();
        Ok(Response::new(Box::pin(async_stream::try_stream! {
            let (events, mut happened) = mpsc::channel(64);
            let work = builder.build(context, options, events);
            tokio::pin!(work);
            let built = loop {
                tokio::select! {
                    biased;
                    Some(event) = happened.recv() => yield wire_event(event),
                    result = &mut work => break result,
                }
            };
            let built = built.map_err(Status::from)?;
            while let Ok(event) = happened.try_recv() {
                yield wire_event(event);
            }
            yield wire_result(built);
        })))
    }
}
