//! Errors as gRPC statuses, with containerd's codes and texts.

use tonic::{Code, Status};

use crate::node::{NodeError, SnapshotError, StoreError};
use crate::remote::RemoteError;

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed a call");
        match error {
            StoreError::Closed(_) => Self::unavailable(error.to_string()),
            _ => Self::internal(error.to_string()),
        }
    }
}

impl From<SnapshotError> for Status {
    fn from(error: SnapshotError) -> Self {
        let code = match &error {
            SnapshotError::NotFound(_) => Code::NotFound,
            SnapshotError::Exists(_) => Code::AlreadyExists,
            SnapshotError::Parent(_) => Code::InvalidArgument,
            SnapshotError::NotActive(_) | SnapshotError::HasChild => Code::FailedPrecondition,
            SnapshotError::Store(_) => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

fn remote_code(error: &RemoteError) -> Code {
    match error {
        RemoteError::NotFound(_) => Code::NotFound,
        RemoteError::Status { status: 429, .. } | RemoteError::Transport { .. } => {
            Code::Unavailable
        }
        // containerd has no code for refused credentials; kubelet matches on Unknown.
        _ => Code::Unknown,
    }
}

impl From<NodeError> for Status {
    fn from(error: NodeError) -> Self {
        let code = match &error {
            NodeError::Reference(_) | NodeError::Ambiguous(_) => Code::InvalidArgument,
            NodeError::NotFound(_) => Code::NotFound,
            NodeError::Resolve { source, .. }
            | NodeError::Fetch { source, .. }
            | NodeError::Push { source, .. } => remote_code(source),
            NodeError::Unusable { reason, .. } if reason.ends_with("not found") => Code::NotFound,
            NodeError::Unpack { .. } | NodeError::Manifest { .. } | NodeError::Unusable { .. } => {
                Code::Unknown
            }
            NodeError::Snapshot(_) | NodeError::Store(_) => Code::Internal,
        };
        if code == Code::Internal {
            tracing::error!(%error, "an image call failed");
        }
        Self::new(code, error.to_string())
    }
}
