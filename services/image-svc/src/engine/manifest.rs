//! Manifests and indexes, OCI and docker. Read for what they point at; never written back: bytes stay as they came.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Digest, Platform};

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI layer, gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Docker schema 2 manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Values of `config.mediaType` that mean "no config" for artifacts.
const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// A manifest names at most so many others.
const MAX_DESCRIPTORS: usize = 20_000;

/// Content that a manifest points at (OCI image-spec, descriptor).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the content.
    #[serde(default)]
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Where else the content may be fetched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Type of the artifact behind a manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// For which platform, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// A descriptor of just type, digest and size.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            artifact_type: None,
            platform: None,
        }
    }

    /// Whether the registry is expected to hold it. Foreign layers are fetched elsewhere.
    pub fn is_distributable(&self) -> bool {
        !self.media_type.contains("nondistributable") && !self.media_type.contains(".foreign.")
    }
}

/// What a manifest says.
#[derive(Debug, Clone, Default)]
pub struct Manifest {
    /// Media type, from the document or else from the request.
    pub media_type: String,
    /// Config blob; `None` in an index.
    pub config: Option<Descriptor>,
    /// Layer blobs in order.
    pub layers: Vec<Descriptor>,
    /// Manifests of an index.
    pub manifests: Vec<Descriptor>,
    /// The manifest this one refers to.
    pub subject: Option<Descriptor>,
    /// `artifactType`, or the config's media type where that stands for it.
    pub artifact_type: Option<String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Why bytes are no manifest the registry keeps.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ManifestError {
    /// No JSON object of the right shape.
    #[error("manifest is no valid JSON of its type: {0}")]
    Json(String),
    /// `mediaType` in the document against `Content-Type`.
    #[error("mediaType {document:?} of the manifest differs from Content-Type {header:?}")]
    TypeMismatch {
        /// In the document.
        document: String,
        /// In the request.
        header: String,
    },
    /// Both `layers` (or `config`) and `manifests` (CVE-2021-41190).
    #[error("a manifest has either layers or manifests, not both")]
    Ambiguous,
    /// `schemaVersion` is not 2.
    #[error("schemaVersion must be 2")]
    Version,
    /// Too many entries.
    #[error("manifest names more than {MAX_DESCRIPTORS} descriptors")]
    TooMany,
    /// Media type the registry does not know.
    #[error("media type {0:?} is no manifest type")]
    UnknownType(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    schema_version: Option<u32>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    subject: Option<Descriptor>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Manifest {
    /// Reads a manifest that came with `content_type` (empty when the source had none).
    ///
    /// # Errors
    /// Says what makes the document no manifest.
    pub fn parse(content_type: &str, bytes: &[u8]) -> Result<Self, ManifestError> {
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|error| ManifestError::Json(error.to_string()))?;
        let header = content_type.split(';').next().unwrap_or_default().trim();
        let media_type = match (&document.media_type, header) {
            (Some(inner), "") => inner.clone(),
            (Some(inner), outer) if inner == outer => inner.clone(),
            (Some(inner), outer) if !inner.is_empty() => {
                return Err(ManifestError::TypeMismatch {
                    document: inner.clone(),
                    header: outer.to_owned(),
                });
            }
            (_, "") if document.manifests.is_some() => OCI_INDEX.to_owned(),
            (_, "") => OCI_MANIFEST.to_owned(),
            (_, outer) => outer.to_owned(),
        };
        Self::check(document, media_type)
    }

    fn check(document: Document, media_type: String) -> Result<Self, ManifestError> {
        if document.schema_version != Some(2) {
            return Err(ManifestError::Version);
        }
        let has_image = document.layers.is_some() || document.config.is_some();
        if document.manifests.is_some() && has_image {
            return Err(ManifestError::Ambiguous);
        }
        match media_type.as_str() {
            OCI_INDEX | DOCKER_LIST if has_image => return Err(ManifestError::Ambiguous),
            OCI_MANIFEST | DOCKER_MANIFEST if document.manifests.is_some() => {
                return Err(ManifestError::Ambiguous);
            }
            OCI_MANIFEST | DOCKER_MANIFEST if document.config.is_none() => {
                return Err(ManifestError::Json("config is missing".to_owned()));
            }
            OCI_INDEX | DOCKER_LIST | OCI_MANIFEST | DOCKER_MANIFEST => {}
            other => return Err(ManifestError::UnknownType(other.to_owned())),
        }
        let layers = document.layers.unwrap_or_default();
        let manifests = document.manifests.unwrap_or_default();
        if layers.len() + manifests.len() > MAX_DESCRIPTORS {
            return Err(ManifestError::TooMany);
        }
        let own_type = document.artifact_type.filter(|t| !t.is_empty());
        let artifact_type = own_type.or_else(|| {
            document
                .config
                .as_ref()
                .map(|c| c.media_type.clone())
                .filter(|t| !t.is_empty() && t != OCI_EMPTY)
        });
        Ok(Self {
            media_type,
            config: document.config,
            layers,
            manifests,
            subject: document.subject,
            artifact_type,
            annotations: document.annotations.unwrap_or_default(),
        })
    }

    /// Whether it lists other manifests.
    pub fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_INDEX | DOCKER_LIST)
    }

    /// Blobs of an image: config first, then layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.config.iter().chain(&self.layers)
    }

    /// The entry of an index that runs on `platform`: the first that fits, else the only one without platform.
    pub fn for_platform(&self, platform: &Platform) -> Option<&Descriptor> {
        let fits = |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| platform.accepts(p));
        let exact = self.manifests.iter().find(fits);
        exact.or_else(|| self.manifests.iter().find(|d| d.platform.is_none()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(extra: &str) -> Vec<u8> {
        let digest = Digest::sha256(b"c");
        format!(r#"{{"schemaVersion":2,"config":{{"mediaType":"x/y","digest":"{digest}","size":1}},"layers":[]{extra}}}"#)
            .into_bytes()
    }

    #[test]
    fn image_manifest_is_read() {
        let manifest = Manifest::parse(OCI_MANIFEST, &image("")).unwrap();
        assert_eq!(manifest.artifact_type.as_deref(), Some("x/y"));
        assert_eq!(manifest.blobs().count(), 1);
    }

    #[test]
    fn confused_types_are_refused() {
        assert_eq!(
            Manifest::parse(OCI_MANIFEST, &image(r#","manifests":[]"#)).unwrap_err(),
            ManifestError::Ambiguous
        );
        assert!(matches!(
            Manifest::parse(OCI_MANIFEST, &image(&format!(r#","mediaType":"{OCI_INDEX}""#))),
            Err(ManifestError::TypeMismatch { .. })
        ));
        assert!(Manifest::parse(OCI_MANIFEST, b"{}").is_err());
        assert!(Manifest::parse("text/plain", &image("")).is_err());
    }

    #[test]
    fn mutated_manifests_never_panic() {
        use rand::{Rng, SeedableRng};
        let mut rng = rand::rngs::StdRng::seed_from_u64(7);
        let base = image(r#","annotations":{"a":"b"},"subject":null"#);
        for _ in 0..2_000 {
            let mut bytes = base.clone();
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            // Only the absence of a panic matters.
            let _ = Manifest::parse(OCI_MANIFEST, &bytes);
        }
        let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
        assert!(Manifest::parse(OCI_MANIFEST, &deep).is_err());
    }
}
