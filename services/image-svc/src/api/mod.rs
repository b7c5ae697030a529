//! gRPC: decode, call the node, encode. No state, no files.

mod build;
mod content;
mod cri_image;
mod image_ops;
mod snapshots;
mod status;

pub use build::BuildApi;
pub use content::ContentApi;
pub use cri_image::CriImages;
pub use image_ops::ImageOpsApi;
pub use snapshots::SnapshotsApi;

use tonic::Request;

/// Header that names containerd's namespace.
const NAMESPACE_HEADER: &str = "containerd-namespace";

/// The namespace of a request.
fn namespace<T>(request: &Request<T>) -> Result<String, tonic::Status> {
    let given = request
        .metadata()
        .get(NAMESPACE_HEADER)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if given.is_empty() {
        return Err(tonic::Status::failed_precondition(
            "namespace is required: failed precondition",
        ));
    }
    if given.len() > 76 || !given.chars().all(plain) {
        return Err(tonic::Status::invalid_argument(format!(
            "namespace {given:?} is malformed: invalid argument"
        )));
    }
    Ok(given.to_owned())
}
