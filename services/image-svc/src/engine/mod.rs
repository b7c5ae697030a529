//! What images are: digests, references, manifests, ranges. No wire, no disk.

pub mod digest;
pub mod filter;
pub mod manifest;
pub mod platform;
pub mod range;
pub mod reference;

pub use digest::{Algorithm, Digest, Hasher};
pub use manifest::{Descriptor, Manifest, ManifestError};
pub use platform::Platform;
pub use reference::{Reference, ReferenceError};
