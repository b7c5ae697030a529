//! `flotilla image build`.

use std::path::PathBuf;

use clap::Args;
use flotilla_config::ExitError;
use flotilla_proto::image::flotilla::image::v1::build_client::BuildClient;
use flotilla_proto::image::flotilla::image::v1::{
    BuildOptions, BuildRequest, build_request, build_response,
};
use tonic::transport::Channel;

use super::{Failure, context, output};

#[derive(Debug, Args)]
pub(super) struct BuildArgs {
    /// Folder with the build context.
    #[arg(default_value = ".")]
    context: PathBuf,
    /// The Dockerfile, a path inside the context [default: Dockerfile].
    #[arg(short, long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Name of the result. May be repeated.
    #[arg(short, long = "tag", value_name = "NAME")]
    tags: Vec<String>,
    /// Value for an ARG. May be repeated; without a value it comes from the environment.
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    build_args: Vec<String>,
    /// Label of the result. May be repeated.
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// Stage to build.
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Platform of base images, such as linux/amd64.
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Ask the registry for base images even when they are here.
    #[arg(long)]
    pull: bool,
    /// Push the result to the registries its names say.
    #[arg(long)]
    push: bool,
    /// Print the id of the result only.
    #[arg(short, long)]
    quiet: bool,
}

fn usage(text: String) -> Failure {
    Failure::Local(ExitError::Usage(text))
}

fn options(args: &BuildArgs) -> Result<BuildOptions, Failure> {
    let mut build_args = std::collections::HashMap::new();
    for pair in &args.build_args {
        match pair.split_once('=') {
            Some((name, value)) => drop(build_args.insert(name.to_owned(), value.to_owned())),
            None => {
                if let Ok(value) = std::env::var(pair) {
                    build_args.insert(pair.clone(), value);
                }
            }
        }
    }
    let mut labels = std::collections::HashMap::new();
    for pair in &args.labels {
        let (name, value) = pair.split_once('=').unwrap_or((pair.as_str(), ""));
        labels.insert(name.to_owned(), value.to_owned());
    }
    let epoch =
        match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(text) => Some(text.parse().map_err(|_| {
                usage(format!("SOURCE_DATE_EPOCH={text}: write seconds since 1970"))
            })?),
            Err(_) => None,
        };
    Ok(BuildOptions {
        dockerfile: dockerfile(args)?,
        tags: args.tags.clone(),
        build_args,
        labels,
        target: args.target.clone().unwrap_or_default(),
        platform: args.platform.clone().unwrap_or_default(),
        no_cache: false,
        pull: args.pull,
        source_date_epoch: epoch,
    })
}

/// The Dockerfile's path inside the context; one given relative to the current folder is found too.
fn dockerfile(args: &BuildArgs) -> Result<String, Failure> {
    let Some(file) = &args.file else { return Ok(String::new()) };
    if args.context.join(file).is_file() && file.is_relative() {
        return Ok(file.display().to_string());
    }
    let outside = || {
        usage(format!(
            "--file {}: no such file inside the context {}",
            file.display(),
            args.context.display()
        ))
    };
    let (file, folder) = (
        file.canonicalize().map_err(|_| outside())?,
        args.context.canonicalize().map_err(|_| outside())?,
    );
    let inside = file.strip_prefix(&folder).map_err(|_| outside())?;
    Ok(inside.display().to_string())
}

pub(super) async fn run(channel: Channel, args: BuildArgs) -> Result<(), Failure> {
    let options = options(&args)?;
    if args.push && args.tags.is_empty() {
        return Err(usage("--push needs a name: add --tag REGISTRY/NAME:TAG".to_owned()));
    }
    if !args.context.is_dir() {
        return Err(usage(format!(
            "{} is no folder; name the build context",
            args.context.display()
        )));
    }
    let (chunks, packed) = context::pack(args.context.clone());
    let requests = async_stream::stream! {
        yield BuildRequest { part: Some(build_request::Part::Options(options)) };
        for await chunk in chunks {
            yield BuildRequest { part: Some(build_request::Part::Context(chunk)) };
        }
    };
    let mut client =
        BuildClient::new(channel.clone()).max_decoding_message_size(super::MAX_MESSAGE);
    let sent = client.build(requests).await;
    // What went wrong with the files here explains what image-svc says of the rest.
    if let Ok(Err(error)) = packed.await {
        return Err(Failure::Local(ExitError::unavailable(format!(
            "cannot read the build context: {error}"
        ))));
    }
    let mut events = sent?.into_inner();
    let mut tags = Vec::new();
    while let Some(message) = events.message().await? {
        match message.event {
            Some(build_response::Event::Step(step)) if !args.quiet => {
                let cached = if step.cached { " (cached)" } else { "" };
                output::line(&format!(
                    "[{}/{}] {}{cached}",
                    step.number, step.total, step.instruction
                ));
            }
            Some(build_response::Event::Log(bytes)) if !args.quiet => {
                output::line(String::from_utf8_lossy(&bytes).trim_end())
            }
            Some(build_response::Event::Result(result)) => {
                result
                    .warnings
                    .iter()
                    .filter(|_| !args.quiet)
                    .for_each(|warning| output::line(warning));
                if args.quiet {
                    output::line(&result.id);
                } else {
                    let names = if result.tags.is_empty() {
                        "the image".to_owned()
                    } else {
                        result.tags.join(", ")
                    };
                    output::line(&format!(
                        "Built {names}: {} ({})",
                        result.id,
                        output::human(result.size)
                    ));
                }
                tags = result.tags;
            }
            _ => {}
        }
    }
    if args.push {
        for tag in tags {
            super::transfer::push_name(super::ops(channel.clone()), tag).await?;
        }
    }
    Ok(())
}
