//! push, pull, load and save.

use std::path::PathBuf;

use clap::Args;
use flotilla_config::ExitError;
use flotilla_proto::image::flotilla::image::v1::image_ops_client::ImageOpsClient;
use flotilla_proto::image::flotilla::image::v1::transfer_progress::Event;
use flotilla_proto::image::flotilla::image::v1::{
    Credentials, LoadRequest, PullRequest, PushRequest, SaveRequest, TransferProgress,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::{Failure, output};

/// Bytes of one message.
const CHUNK: usize = 256 << 10;

/// Who to be at the registry.
#[derive(Debug, Args)]
pub(super) struct LoginArgs {
    /// USER:PASSWORD for the registry.
    #[arg(
        long,
        value_name = "USER:PASSWORD",
        env = "FLOTILLA_REGISTRY_AUTH",
        hide_env_values = true
    )]
    creds: Option<String>,
}

impl LoginArgs {
    fn wire(&self) -> Option<Credentials> {
        let (username, password) = self.creds.as_deref()?.split_once(':')?;
        Some(Credentials {
            username: username.to_owned(),
            password: password.to_owned(),
            registry_token: String::new(),
        })
    }
}

#[derive(Debug, Args)]
pub(super) struct PushArgs {
    /// Name or id of the image.
    reference: String,
    /// Name to push under, when not its own.
    destination: Option<String>,
    #[command(flatten)]
    login: LoginArgs,
}

#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// Name of the image.
    reference: String,
    /// Platform, such as linux/arm64; this machine's when absent.
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    #[command(flatten)]
    login: LoginArgs,
}

#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// The archive; standard input when absent.
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct SaveArgs {
    /// Names or ids.
    #[arg(required = true)]
    references: Vec<String>,
    /// The archive; standard output when absent.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) async fn push(mut ops: ImageOpsClient<Channel>, args: PushArgs) -> Result<(), Status> {
    let request = PushRequest {
        credentials: args.login.wire(),
        reference: args.reference,
        destination: args.destination.unwrap_or_default(),
    };
    watch(ops.push(request).await?.into_inner()).await
}

pub(super) async fn pull(mut ops: ImageOpsClient<Channel>, args: PullArgs) -> Result<(), Status> {
    let request = PullRequest {
        credentials: args.login.wire(),
        reference: args.reference,
        platform: args.platform.unwrap_or_default(),
    };
    watch(ops.pull(request).await?.into_inner()).await
}

/// Prints a line when a blob enters another state, and the result.
async fn watch(mut progress: Streaming<TransferProgress>) -> Result<(), Status> {
    let mut shown = std::collections::HashMap::new();
    while let Some(message) = progress.message().await? {
        match message.event {
            Some(Event::Layer(layer)) => {
                let before = shown.insert(layer.digest.clone(), layer.state.clone());
                if before.as_deref() != Some(layer.state.as_str()) {
                    output::line(&format!(
                        "{}: {} {}",
                        output::short(&layer.digest),
                        layer.state,
                        output::human(layer.total)
                    ));
                }
            }
            Some(Event::Result(result)) => {
                output::line(&format!(
                    "{}: digest: {} size: {}",
                    result.reference,
                    result.digest,
                    output::human(result.size)
                ));
            }
            None => {}
        }
    }
    Ok(())
}

pub(super) async fn load(mut ops: ImageOpsClient<Channel>, args: LoadArgs) -> Result<(), Failure> {
    let mut source: Box<dyn AsyncRead + Send + Unpin> = match &args.input {
        None => Box::new(tokio::io::stdin()),
        Some(path) => Box::new(tokio::fs::File::open(path).await.map_err(|error| {
            Failure::Local(ExitError::unavailable(format!(
                "cannot read {}: {error}",
                path.display()
            )))
        })?),
    };
    let chunks = async_stream::stream! {
        loop {
            let mut buffer = vec![0; CHUNK];
            match source.read(&mut buffer).await {
                // A broken source ends the archive, which image-svc then finds incomplete.
                Ok(0) | Err(_) => break,
                Ok(got) => {
                    buffer.truncate(got);
                    yield LoadRequest { chunk: buffer.into() };
                }
            }
        }
    };
    for image in ops.load(chunks).await?.into_inner().images {
        output::line(&format!("Loaded image: {}", image.reference));
    }
    Ok(())
}

pub(super) async fn save(mut ops: ImageOpsClient<Channel>, args: SaveArgs) -> Result<(), Failure> {
    let mut chunks = ops.save(SaveRequest { references: args.references }).await?.into_inner();
    let Some(path) = args.output else {
        return copy(&mut chunks, tokio::io::stdout(), "standard output").await;
    };
    let partial = path.with_extension("partial");
    let name = path.display().to_string();
    let fail = |error: std::io::Error| {
        Failure::Local(ExitError::unavailable(format!("cannot write {name}: {error}")))
    };
    let file = tokio::fs::File::create(&partial).await.map_err(fail)?;
    match copy(&mut chunks, file, &name).await {
        Ok(()) => tokio::fs::rename(&partial, &path).await.map_err(fail),
        Err(error) => {
            // The half archive is of no use; that it stays is not the error to report.
            let _ = tokio::fs::remove_file(&partial).await;
            Err(error)
        }
    }
}

async fn copy<W: AsyncWrite + Unpin>(
    chunks: &mut Streaming<flotilla_proto::image::flotilla::image::v1::SaveResponse>,
    mut out: W,
    name: &str,
) -> Result<(), Failure> {
    let fail = |error: std::io::Error| {
        Failure::Local(ExitError::unavailable(format!("cannot write {name}: {error}")))
    };
    while let Some(message) = chunks.message().await? {
        out.write_all(&message.chunk).await.map_err(fail)?;
    }
    out.flush().await.map_err(fail)
}

/// Pushes an image under its own name.
pub(super) async fn push_name(
    mut ops: ImageOpsClient<Channel>,
    reference: String,
) -> Result<(), Status> {
    let request = PushRequest { reference, ..PushRequest::default() };
    watch(ops.push(request).await?.into_inner()).await
}
