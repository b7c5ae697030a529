//! The images of this node: pull, unpack, list, name, push, load and save.
//!
//! Every image belongs to one containerd namespace, `k8s.io`, so that kubelet, builder and command line see the
//! same ones. An image appears only when all its layers are unpacked.

mod config;
mod fetch;
mod find;
mod load;
mod pull;
mod push;
mod save;
mod unpacking;
mod usage;

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::mpsc;

use crate::engine::reference::ReferenceError;
use crate::engine::{Digest, ManifestError};
use crate::metrics::Metrics;
use crate::remote::{Client, RemoteError};
use crate::store::{KeyedLocks, Store};
use crate::unpack::UnpackError;

pub use crate::store::{ImageRecord, SnapshotError, StoreError};
pub use config::ImageConfig;
pub use find::Image;
pub use pull::PullOptions;

/// Namespace of images and their snapshots.
pub const NAMESPACE: &str = "k8s.io";

/// Why an image operation failed.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The name is malformed.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// No such image here.
    #[error("image {0:?}: not found")]
    NotFound(String),
    /// The start of an id fits several images.
    #[error("image id {0:?} fits several images; write more of it")]
    Ambiguous(String),
    /// The registry does not resolve the name.
    #[error(
        "failed to pull and unpack image {name:?}: failed to resolve reference {name:?}: {source}"
    )]
    Resolve {
        /// Full name.
        name: String,
        /// What the registry said.
        source: RemoteError,
    },
    /// Content could not be fetched.
    #[error("failed to pull and unpack image {name:?}: {source}")]
    Fetch {
        /// Full name.
        name: String,
        /// What happened.
        source: RemoteError,
    },
    /// Content could not be sent.
    #[error("failed to push {name:?}: {source}")]
    Push {
        /// Full name.
        name: String,
        /// What happened.
        source: RemoteError,
    },
    /// A layer could not be unpacked.
    #[error("failed to extract layer {layer}: {source}")]
    Unpack {
        /// Digest of the layer.
        layer: Digest,
        /// What is wrong with it.
        source: UnpackError,
    },
    /// The manifest is malformed.
    #[error("image {name:?}: {source}")]
    Manifest {
        /// Full name.
        name: String,
        /// What is wrong.
        source: ManifestError,
    },
    /// The content is no image for this node.
    #[error("image {name:?}: {reason}")]
    Unusable {
        /// Full name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A snapshot call failed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A step of a transfer, for whoever watches.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Blob.
    pub digest: Digest,
    /// What happens to it.
    pub state: &'static str,
    /// Bytes done.
    pub offset: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Where steps are reported to.
pub type Watcher = Option<mpsc::Sender<Progress>>;

/// Reports a step; a watcher that does not keep up misses steps.
fn report(watcher: &Watcher, digest: &Digest, state: &'static str, offset: u64, total: u64) {
    if let Some(watcher) = watcher {
        // Progress is for people; the transfer does not wait for it.
        let _ = watcher.try_send(Progress { digest: digest.clone(), state, offset, total });
    }
}

/// The images of a node. Clones share it.
#[derive(Debug, Clone)]
pub struct Node {
    store: Store,
    client: Arc<Client>,
    /// `HOST:PORT` under which this process serves its own registry.
    own: Arc<Vec<String>>,
    flights: KeyedLocks,
    metrics: Arc<Metrics>,
}

impl Node {
    /// A node over `store` that answers for the registry hosts `own` itself.
    pub fn new(store: Store, client: Client, own: Vec<String>, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            client: Arc::new(client),
            own: Arc::new(own),
            flights: KeyedLocks::default(),
            metrics,
        }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Removes what an interrupted unpack left.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn recover(&self) -> Result<(), NodeError> {
        for (name, _) in self.store.snapshots(NAMESPACE)? {
            if name.starts_with(unpacking::EXTRACT) {
                self.store.remove_snapshot(NAMESPACE, &name).await?;
            }
        }
        Ok(())
    }
}
