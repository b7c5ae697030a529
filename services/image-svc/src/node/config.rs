//! What is read of an image's config.

use serde::Deserialize;

use crate::engine::{Digest, Platform};

/// An image config (OCI image-spec, config), as far as the node needs it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ImageConfig {
    /// RFC 3339 time of creation.
    #[serde(default)]
    pub created: Option<String>,
    /// Processor.
    #[serde(default)]
    pub architecture: String,
    /// Operating system.
    #[serde(default)]
    pub os: String,
    /// Variant of the processor.
    #[serde(default)]
    pub variant: String,
    /// What containers start with.
    #[serde(default)]
    pub config: Option<Process>,
    /// Layers.
    #[serde(default)]
    pub rootfs: RootFs,
}

/// The part about the process.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Process {
    /// User, `uid[:gid]` or names.
    #[serde(default, rename = "User")]
    pub user: String,
    /// Labels.
    #[serde(default, rename = "Labels")]
    pub labels: Option<std::collections::BTreeMap<String, String>>,
}

/// The layers of the config.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RootFs {
    /// Digests of the uncompressed layers.
    #[serde(default)]
    pub diff_ids: Vec<Digest>,
}

impl ImageConfig {
    /// Platform of the image.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            variant: self.variant.clone(),
        }
    }

    /// When the image was made, seconds since 1970; 0 when unknown.
    pub fn created_seconds(&self) -> i64 {
        let time = self.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        time.map_or(0, |time| time.as_second())
    }

    /// User of the config.
    pub fn user(&self) -> &str {
        self.config.as_ref().map_or("", |process| process.user.as_str())
    }
}
