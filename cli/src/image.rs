//! `flotilla image ...`: images of a node, through image-svc's own API.

mod build;
mod context;
mod output;
mod transfer;

use clap::{Args, Subcommand};
use flotilla_config::ExitError;
use flotilla_proto::image::flotilla::image::v1::image_ops_client::ImageOpsClient;
use flotilla_proto::image::flotilla::image::v1::{
    InspectRequest, ListRequest, RemoveRequest, TagRequest,
};
use tonic::Status;
use tonic::transport::Channel;

/// Largest message taken from image-svc.
const MAX_MESSAGE: usize = 16 << 20;

/// Work with images.
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// image-svc: http://HOST:PORT or unix:///PATH.
    #[arg(
        long,
        global = true,
        value_name = "ENDPOINT",
        default_value = "http://127.0.0.1:5000",
        env = "FLOTILLA_IMAGE_ENDPOINT"
    )]
    image_endpoint: String,
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Build an image from a Dockerfile.
    Build(build::BuildArgs),
    /// Send an image to a registry.
    Push(transfer::PushArgs),
    /// Fetch an image from a registry.
    Pull(transfer::PullArgs),
    /// List images.
    #[command(alias = "list")]
    Ls {
        /// Only images with this name.
        reference: Option<String>,
        /// Only ids.
        #[arg(short, long)]
        quiet: bool,
    },
    /// Show everything known about images, as JSON.
    Inspect {
        /// Names or ids.
        #[arg(required = true)]
        references: Vec<String>,
    },
    /// Remove images.
    Rm {
        /// Names or ids.
        #[arg(required = true)]
        references: Vec<String>,
    },
    /// Give an image another name.
    Tag {
        /// Name or id.
        source: String,
        /// New name.
        target: String,
    },
    /// Take in an archive (docker-archive or OCI layout).
    Load(transfer::LoadArgs),
    /// Write images to an archive.
    Save(transfer::SaveArgs),
}

/// Runs one command.
///
/// # Errors
/// One line that says what failed; a usage error when the endpoint is malformed.
pub async fn run(args: ImageArgs) -> Result<(), ExitError> {
    let channel = flotilla_client::channel(&args.image_endpoint)
        .map_err(|error| ExitError::usage(format!("--image-endpoint: {error}")))?;
    let endpoint = args.image_endpoint;
    let explain = |status: Status| explain(&endpoint, &status);
    let mut ops = ops(channel.clone());
    match args.command {
        ImageCommand::Build(args) => {
            build::run(channel, args).await.map_err(|failure| failure.explain(&endpoint))
        }
        ImageCommand::Push(args) => transfer::push(ops, args).await.map_err(explain),
        ImageCommand::Pull(args) => transfer::pull(ops, args).await.map_err(explain),
        ImageCommand::Ls { reference, quiet } => {
            let request = ListRequest { reference: reference.unwrap_or_default() };
            let images = ops.list(request).await.map_err(explain)?.into_inner().images;
            output::list(&images, quiet);
            Ok(())
        }
        ImageCommand::Inspect { references } => {
            let mut shown = Vec::new();
            for reference in references {
                shown.push(
                    ops.inspect(InspectRequest { reference }).await.map_err(explain)?.into_inner(),
                );
            }
            output::inspect(&shown);
            Ok(())
        }
        ImageCommand::Rm { references } => {
            for reference in references {
                let removed =
                    ops.remove(RemoveRequest { reference }).await.map_err(explain)?.into_inner();
                output::removed(&removed);
            }
            Ok(())
        }
        ImageCommand::Tag { source, target } => {
            ops.tag(TagRequest { source, target }).await.map_err(explain)?;
            Ok(())
        }
        ImageCommand::Load(args) => {
            transfer::load(ops, args).await.map_err(|failure| failure.explain(&endpoint))
        }
        ImageCommand::Save(args) => {
            transfer::save(ops, args).await.map_err(|failure| failure.explain(&endpoint))
        }
    }
}

fn ops(channel: Channel) -> ImageOpsClient<Channel> {
    ImageOpsClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}

/// What went wrong on this side or the other.
#[derive(Debug)]
enum Failure {
    /// image-svc says so.
    Remote(Status),
    /// A local file, or what the user wrote.
    Local(ExitError),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Remote(status)
    }
}

impl Failure {
    fn explain(self, endpoint: &str) -> ExitError {
        match self {
            Self::Remote(status) => explain(endpoint, &status),
            Self::Local(error) => error,
        }
    }
}

fn explain(endpoint: &str, status: &Status) -> ExitError {
    let unreachable =
        status.code() == tonic::Code::Unavailable && std::error::Error::source(status).is_some();
    if unreachable {
        return ExitError::unavailable(format!(
            "no image-svc answers at {endpoint}; start it, or name it with --image-endpoint"
        ));
    }
    ExitError::runtime(status.message())
}
