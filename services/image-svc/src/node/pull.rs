//! Pull: resolve, fetch, unpack, record.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::fetch::Source;
use super::find::MAX_CONFIG;
use super::{ImageConfig, NAMESPACE, Node, NodeError, Watcher};
use crate::engine::{Descriptor, Digest, Manifest, Platform, Reference};
use crate::remote::{Credentials, Fetched, RemoteError};
use crate::store::{ImageRecord, NewContent, StoreError};
use crate::unpack::chain_ids;

/// Layers fetched at once, as containerd's `max_concurrent_downloads`.
const PARALLEL: usize = 3;

/// How to pull.
#[derive(Debug, Default, Clone)]
pub struct PullOptions {
    /// Who asks.
    pub credentials: Credentials,
    /// For which platform; this machine's when `None`.
    pub platform: Option<Platform>,
}

/// The documents of an image, all in the store.
#[derive(Debug)]
pub(crate) struct Documents {
    pub(crate) target: Descriptor,
    pub(crate) manifest_digest: Digest,
    pub(crate) manifest: Manifest,
}

impl Node {
    /// Pulls an image and returns its record. Two pulls of one name share the work.
    ///
    /// # Errors
    /// Says which step failed and why.
    pub async fn pull(
        &self,
        text: &str,
        options: &PullOptions,
        watcher: &Watcher,
    ) -> Result<ImageRecord, NodeError> {
        let reference: Reference = text.parse()?;
        self.metrics.pulling().inc();
        let result = self.pull_reference(&reference, options, watcher).await;
        self.metrics.pulling().dec();
        self.metrics.pulled(result.is_ok());
        result
    }

    async fn pull_reference(
        &self,
        reference: &Reference,
        options: &PullOptions,
        watcher: &Watcher,
    ) -> Result<ImageRecord, NodeError> {
        let _one = self.flights.lock(&format!("pull {reference}")).await;
        let name = reference.to_string();
        let source = self.source(reference)?;
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let mut pins = Vec::new();
        let target = self
            .fetch_manifest(&source, reference, reference.target(), options)
            .await
            .map_err(|source| resolve_error(&name, source))?;
        pins.push(self.keep_document(&target).await?);
        let parsed = parse(&name, &target)?;
        let (manifest_digest, manifest) = if parsed.is_index() {
            let entry = parsed.for_platform(&platform).ok_or_else(|| NodeError::Unusable {
                name: name.clone(),
                reason: format!("no match for platform {platform} in manifest: not found"),
            })?;
            let chosen = self
                .fetch_manifest(&source, reference, entry.digest.as_str(), options)
                .await
                .map_err(|source| NodeError::Fetch { name: name.clone(), source })?;
            pins.push(self.keep_document(&chosen).await?);
            (chosen.digest.clone(), parse(&name, &chosen)?)
        } else {
            (target.digest.clone(), parsed)
        };
        let mut fetches = Vec::new();
        for blob in manifest.blobs() {
            fetches.push(self.fetch_blob(&source, reference, blob, &options.credentials, watcher));
        }
        let fetched = futures::stream::iter(fetches)
            .buffer_unordered(PARALLEL)
            .try_collect::<Vec<_>>()
            .await?;
        pins.extend(fetched);
        let size = target.bytes.len() as u64;
        let media_type = if target.media_type.is_empty() {
            manifest.media_type.clone()
        } else {
            target.media_type
        };
        let target = Descriptor::new(&media_type, target.digest, size);
        let by_digest = reference.with_digest(&target.digest).to_string();
        let documents = Documents { target, manifest_digest, manifest };
        let mut names = vec![by_digest];
        if reference.digest.is_none() {
            names.push(name);
        }
        let record = self.adopt(documents, names, watcher).await;
        drop(pins);
        record
    }

    /// Unpacks an image whose blobs are in the store and records it under `names`; returns the last record.
    pub(crate) async fn adopt(
        &self,
        documents: Documents,
        names: Vec<String>,
        watcher: &Watcher,
    ) -> Result<ImageRecord, NodeError> {
        let Documents { target, manifest_digest, manifest } = documents;
        let _held = self.store.hold_layers().await;
        let shown = names.last().cloned().unwrap_or_default();
        let unusable = |reason: String| NodeError::Unusable { name: shown.clone(), reason };
        let config = manifest
            .config
            .as_ref()
            .ok_or_else(|| unusable("its manifest has no config".to_owned()))?;
        let raw = self.store.read_blob(&config.digest, MAX_CONFIG).await?;
        let raw: Bytes = raw.ok_or_else(|| unusable("its config is gone".to_owned()))?;
        let parsed: ImageConfig = serde_json::from_slice(&raw)
            .map_err(|error| unusable(format!("its config is no image config: {error}")))?;
        let diff_ids = parsed.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            let (layers, ids) = (manifest.layers.len(), diff_ids.len());
            return Err(unusable(format!(
                "it has {layers} layers but {ids} diff ids: it is no container image"
            )));
        }
        self.unpack_layers(&manifest.layers, &diff_ids, watcher).await?;
        let chain_id = chain_ids(&diff_ids).last().map(Digest::to_string).unwrap_or_default();
        let size = target.size + manifest.blobs().map(|blob| blob.size).sum::<u64>();
        let updated = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        let record = |name: String| ImageRecord {
            name,
            target: target.clone(),
            manifest: manifest_digest.clone(),
            config: config.digest.clone(),
            layers: manifest.layers.iter().map(|layer| layer.digest.clone()).collect(),
            chain_id: chain_id.clone(),
            size,
            updated,
            labels: std::collections::BTreeMap::new(),
        };
        let records: Vec<ImageRecord> = names.into_iter().map(record).collect();
        let last = records.last().cloned().ok_or_else(|| unusable("it has no name".to_owned()))?;
        self.store.put_images(NAMESPACE, records).await?;
        Ok(last)
    }

    fn source(&self, reference: &Reference) -> Result<Source, NodeError> {
        if self.own.contains(&reference.domain) {
            return Ok(Source::Own);
        }
        let hosts = self.client.hosts(reference);
        let name = reference.to_string();
        Ok(Source::Remote(hosts.map_err(|source| NodeError::Resolve { name, source })?))
    }

    async fn fetch_manifest(
        &self,
        source: &Source,
        reference: &Reference,
        target: &str,
        options: &PullOptions,
    ) -> Result<Fetched, RemoteError> {
        let by_digest = target.parse::<Digest>().ok();
        let hosts = match source {
            Source::Own => return self.own_manifest(reference, target).await,
            Source::Remote(hosts) => hosts,
        };
        let mut last = RemoteError::NotFound(reference.to_string());
        for host in
            hosts.iter().filter(|host| if by_digest.is_some() { host.pull } else { host.resolve })
        {
            match self.client.manifest(host, reference, target, &options.credentials).await {
                Ok(fetched) => return Ok(fetched),
                Err(error) => {
                    tracing::debug!(host = host.base, %error, "host does not serve the manifest");
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn own_manifest(
        &self,
        reference: &Reference,
        target: &str,
    ) -> Result<Fetched, RemoteError> {
        let url = reference.to_string();
        let fail = |error: StoreError| RemoteError::Transport {
            url: url.clone(),
            reason: error.to_string(),
        };
        let digest = match target.parse::<Digest>() {
            Ok(digest) => Some(digest),
            Err(_) => self.store.tag(&reference.path, target).map_err(fail)?,
        };
        let missing = || RemoteError::NotFound(url.clone());
        let digest = digest.ok_or_else(missing)?;
        let found = self
            .store
            .manifest(&reference.path, &digest)
            .await
            .map_err(fail)?
            .ok_or_else(missing)?;
        Ok(Fetched { media_type: found.media_type, digest, bytes: found.bytes })
    }

    async fn keep_document(&self, document: &Fetched) -> Result<crate::store::Pin, NodeError> {
        let pin = self.store.pin(&document.digest).await;
        let content = NewContent::Bytes(document.bytes.clone());
        self.store.commit_blob(&document.digest, content, |_| Ok::<_, StoreError>(())).await?;
        Ok(pin)
    }
}

fn parse(name: &str, document: &Fetched) -> Result<Manifest, NodeError> {
    Manifest::parse(&document.media_type, &document.bytes)
        .map_err(|source| NodeError::Manifest { name: name.to_owned(), source })
}

fn resolve_error(name: &str, source: RemoteError) -> NodeError {
    let source = match source {
        RemoteError::NotFound(_) => RemoteError::NotFound(name.to_owned()),
        other => other,
    };
    NodeError::Resolve { name: name.to_owned(), source }
}
