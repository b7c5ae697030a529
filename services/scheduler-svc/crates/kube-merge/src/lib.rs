//! Patches of object trees: RFC 6902, RFC 7386, Kubernetes' strategic merge and server-side apply.

mod apply;
mod fields;
mod json_patch;
mod merge_patch;
mod strategic;

use thiserror::Error;

pub use apply::{Conflict, Manager, apply, record_update};
pub use fields::{FieldSet, Path, fields_of, from_fields_v1, shown, to_fields_v1};
pub use json_patch::json_patch;
pub use merge_patch::merge_patch;
pub use strategic::strategic_merge;

/// Why a patch was not applied.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PatchError {
    /// The patch itself is wrong.
    #[error("{0}")]
    Malformed(String),
    /// A `test` operation said no.
    #[error("{0}")]
    TestFailed(String),
    /// A path leads nowhere.
    #[error("{0}")]
    Missing(String),
}
