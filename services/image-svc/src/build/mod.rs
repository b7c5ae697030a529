//! The image builder: a Dockerfile and a context become an image of the store.
//!
//! Stages are built in the order their results are needed; stages nobody needs are skipped. A layer's bytes depend
//! only on what is copied, so the same input gives the same digest.

mod add;
mod config;
mod context;
pub mod dockerfile;
mod ignore;
mod layer;
mod owner;
mod stage;
mod step;

use std::collections::BTreeMap;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::engine::Digest;
use crate::engine::Platform;
use crate::node::{Node, NodeError};
use crate::store::StoreError;
use crate::unpack::UnpackError;

pub use context::Context;
use dockerfile::DockerfileError;

/// What to build.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// Path of the Dockerfile in the context.
    pub dockerfile: String,
    /// Names of the result.
    pub tags: Vec<String>,
    /// Values for ARG.
    pub args: BTreeMap<String, String>,
    /// Labels of the result.
    pub labels: BTreeMap<String, String>,
    /// Stage to build; the last one when empty.
    pub target: String,
    /// Platform of base images.
    pub platform: Option<Platform>,
    /// Ask the registry for base images even when they are here.
    pub pull: bool,
    /// Time stamp of everything new, seconds since 1970.
    pub epoch: Option<i64>,
}

/// Something to tell whoever waits.
#[derive(Debug, Clone)]
pub enum Event {
    /// A step begins.
    Step {
        /// From 1.
        number: usize,
        /// Of how many.
        total: usize,
        /// Line of the Dockerfile.
        line: usize,
        /// The instruction.
        text: String,
        /// Stage it belongs to.
        stage: String,
    },
    /// Something worth a line.
    Log(Bytes),
}

/// A built image.
#[derive(Debug, Clone)]
pub struct Built {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Digest of the config.
    pub id: Digest,
    /// Full names.
    pub tags: Vec<String>,
    /// Bytes.
    pub size: u64,
    /// What looked wrong but did not stop the build.
    pub warnings: Vec<String>,
}

/// Why a build failed.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The Dockerfile, or what it asks for, is wrong.
    #[error(transparent)]
    Dockerfile(#[from] DockerfileError),
    /// The Dockerfile is not in the context.
    #[error("cannot find {0} in the build context; name it with --file")]
    NoDockerfile(String),
    /// The context is no archive.
    #[error("build context: {0}")]
    Context(UnpackError),
    /// A name of the result is malformed, or the result cannot be stored.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Builds images on a node.
#[derive(Debug, Clone)]
pub struct Builder {
    node: Node,
}

/// Where events go. Slow readers slow the build down.
pub type Events = mpsc::Sender<Event>;

impl Builder {
    /// A builder that stores its results in `node`.
    pub fn new(node: Node) -> Self {
        Self { node }
    }

    /// Begins to receive a context.
    ///
    /// # Errors
    /// When its file cannot be made.
    pub async fn begin_context(&self) -> Result<context::Receiving, BuildError> {
        Ok(context::Receiving::begin(self.node.store()).await?)
    }

    /// Builds the image that `options` describe from a complete context.
    ///
    /// # Errors
    /// Names the line of the Dockerfile, or what else went wrong.
    pub async fn build(
        &self,
        context: Context,
        options: BuildOptions,
        events: Events,
    ) -> Result<Built, BuildError> {
        let _held = self.node.store().hold_layers().await;
        let run = stage::Run::prepare(&self.node, context, options, events)?;
        run.build().await
    }
}
