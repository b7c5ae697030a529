//! Images by name, digest or id, and what is known of each.

use std::collections::BTreeMap;

use super::{ImageConfig, NAMESPACE, Node, NodeError};
use crate::engine::{Digest, Reference};
use crate::store::{ImageRecord, now};

/// Configs larger than this are no configs.
pub(super) const MAX_CONFIG: u64 = 8 << 20;

/// An image with all its names.
#[derive(Debug, Clone)]
pub struct Image {
    /// One of its records.
    pub record: ImageRecord,
    /// Names with a tag.
    pub tags: Vec<String>,
    /// Names with a digest.
    pub digests: Vec<String>,
}

impl Node {
    /// All images, by id.
    ///
    /// # Errors
    /// When the store fails.
    pub fn images(&self) -> Result<Vec<Image>, NodeError> {
        let mut by_id: BTreeMap<Digest, Image> = BTreeMap::new();
        for record in self.store.images(NAMESPACE)? {
            let entry = by_id.entry(record.config.clone()).or_insert_with(|| Image {
                record: record.clone(),
                tags: Vec::new(),
                digests: Vec::new(),
            });
            if record.name.contains('@') {
                entry.digests.push(record.name);
            } else {
                entry.tags.push(record.name);
            }
        }
        Ok(by_id.into_values().collect())
    }

    /// The image that `text` means: name, name with digest, id or start of an id.
    ///
    /// # Errors
    /// When there is none, or several.
    pub fn find(&self, text: &str) -> Result<Image, NodeError> {
        let images = self.images()?;
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if let Ok(reference) = text.parse::<Reference>() {
            let name = reference.to_string();
            let named =
                |image: &&Image| image.tags.contains(&name) || image.digests.contains(&name);
            if let Some(image) = images.iter().find(named) {
                return Ok(image.clone());
            }
        }
        let looks_like_id =
            !hex.is_empty() && hex.len() <= 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        let mut fitting = images
            .into_iter()
            .filter(|image| looks_like_id && image.record.config.hex().starts_with(hex));
        match (fitting.next(), fitting.next()) {
            (Some(image), None) => Ok(image),
            (Some(_), Some(_)) => Err(NodeError::Ambiguous(text.to_owned())),
            (None, _) => Err(NodeError::NotFound(text.to_owned())),
        }
    }

    /// The config of an image, raw and read.
    ///
    /// # Errors
    /// When the store fails or the config is malformed.
    pub async fn config(
        &self,
        record: &ImageRecord,
    ) -> Result<(bytes::Bytes, ImageConfig), NodeError> {
        let unusable = |reason: String| NodeError::Unusable { name: record.name.clone(), reason };
        let bytes = self
            .store
            .read_blob(&record.config, MAX_CONFIG)
            .await?
            .ok_or_else(|| unusable("its config is gone".to_owned()))?;
        let config =
            serde_json::from_slice(&bytes).map_err(|error| unusable(format!("config: {error}")))?;
        Ok((bytes, config))
    }

    /// Gives an image another name.
    ///
    /// # Errors
    /// When there is no such image or the name is malformed.
    pub async fn tag(&self, source: &str, target: &str) -> Result<(), NodeError> {
        let image = self.find(source)?;
        let mut record = image.record;
        record.name = target.parse::<Reference>()?.to_string();
        record.updated = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        Ok(self.store.put_images(NAMESPACE, vec![record]).await?)
    }

    /// Removes an image with all its names, and the layers no other image needs. `false` when there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn remove(&self, text: &str) -> Result<Option<Image>, NodeError> {
        let image = match self.find(text) {
            Ok(image) => image,
            Err(NodeError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let names = image.tags.iter().chain(&image.digests).cloned().collect();
        self.store.remove_images(NAMESPACE, names).await?;
        self.store.sweep_image_layers(NAMESPACE, now()).await?;
        Ok(Some(image))
    }

    /// Takes one name away; the image goes with its last one. Returns the names taken and the id when it went.
    ///
    /// # Errors
    /// When there is no such image or the store fails.
    pub async fn untag(&self, text: &str) -> Result<(Vec<String>, Option<Digest>), NodeError> {
        let image = self.find(text)?;
        let name =
            text.parse::<Reference>().map(|reference| reference.to_string()).unwrap_or_default();
        let other_tags = image.tags.iter().any(|tag| *tag != name);
        if image.tags.contains(&name) && other_tags {
            self.store.remove_images(NAMESPACE, vec![name.clone()]).await?;
            return Ok((vec![name], None));
        }
        let id = image.record.config.clone();
        let gone = self
            .remove(&id.to_string())
            .await?
            .map(|i| i.tags.into_iter().chain(i.digests).collect());
        Ok((gone.unwrap_or_default(), Some(id)))
    }
}
