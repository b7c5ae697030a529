//! Push: everything an image points at, then its manifest.

use axum::body::Body;
use futures::{StreamExt, TryStreamExt};

use super::{Node, NodeError, Watcher, report};
use crate::engine::{Descriptor, Digest, Manifest, Reference};
use crate::remote::{Credentials, Host, RemoteError};
use crate::store::{ManifestPut, PutError, StoreError};

/// Blobs sent at once.
const PARALLEL: usize = 3;
const MAX_MANIFEST: u64 = 8 << 20;

/// A push under way.
struct Sending<'a> {
    host: &'a Host,
    reference: &'a Reference,
    credentials: &'a Credentials,
    watcher: &'a Watcher,
}

impl Node {
    /// Sends image `text` to the registry its name, or `destination`, says. Returns the manifest's digest.
    ///
    /// # Errors
    /// When there is no such image, or what the registry answered.
    pub async fn push(
        &self,
        text: &str,
        destination: Option<&str>,
        credentials: &Credentials,
        watcher: &Watcher,
    ) -> Result<(Reference, Digest), NodeError> {
        let image = self.find(text)?;
        let reference: Reference = destination.unwrap_or(text).parse()?;
        // What is here of an index is one platform; that is what is sent.
        let digest = image.record.manifest;
        let name = reference.to_string();
        let bytes = self.store.read_blob(&digest, MAX_MANIFEST).await?;
        let bytes = bytes.ok_or_else(|| StoreError::Damaged(format!("{digest} is gone")))?;
        let manifest = Manifest::parse("", &bytes)
            .map_err(|source| NodeError::Manifest { name: name.clone(), source })?;
        let target = reference.tag.clone().unwrap_or_else(|| digest.to_string());
        if self.own.contains(&reference.domain) {
            self.push_own(&reference, &digest, bytes, manifest).await?;
            return Ok((reference, digest));
        }
        let failed = |source| NodeError::Push { name: name.clone(), source };
        let hosts = self.client.hosts(&reference).map_err(failed)?;
        let host = hosts.iter().find(|host| host.push).ok_or_else(|| NodeError::Unusable {
            name: name.clone(),
            reason: "no host of its registry takes pushes (hosts.toml)".to_owned(),
        })?;
        let sending = Sending { host, reference: &reference, credentials, watcher };
        let mut sends = Vec::new();
        for blob in manifest.blobs().filter(|blob| blob.is_distributable()) {
            sends.push(self.push_blob(&sending, blob));
        }
        futures::stream::iter(sends).buffer_unordered(PARALLEL).try_collect::<Vec<()>>().await?;
        let sent = self.client.put_manifest(
            host,
            &reference,
            &target,
            &manifest.media_type,
            bytes,
            credentials,
        );
        sent.await.map_err(failed)?;
        Ok((reference, digest))
    }

    async fn push_blob(&self, sending: &Sending<'_>, blob: &Descriptor) -> Result<(), NodeError> {
        let Sending { host, reference, credentials, watcher } = sending;
        let failed = |source: RemoteError| NodeError::Push { name: reference.to_string(), source };
        if self.client.has_blob(host, reference, &blob.digest, credentials).await.map_err(failed)? {
            report(watcher, &blob.digest, "exists", blob.size, blob.size);
            return Ok(());
        }
        let content = self.store.open_blob(&blob.digest)?;
        let content =
            content.ok_or_else(|| StoreError::Damaged(format!("{} is gone", blob.digest)))?;
        report(watcher, &blob.digest, "transfer", 0, blob.size);
        let size = content.len();
        let body: Body = crate::registry::blob_body(content, 0, size);
        let sent = self.client.put_blob(host, reference, &blob.digest, size, body, credentials);
        sent.await.map_err(failed)?;
        report(watcher, &blob.digest, "done", blob.size, blob.size);
        Ok(())
    }

    /// Pushing to the own registry only names what is in the store.
    async fn push_own(
        &self,
        reference: &Reference,
        digest: &Digest,
        bytes: bytes::Bytes,
        manifest: Manifest,
    ) -> Result<(), NodeError> {
        for blob in manifest.blobs() {
            self.store.adopt_blob(&reference.path, &blob.digest).await?;
        }
        let put = ManifestPut {
            repo: reference.path.clone(),
            digest: digest.clone(),
            bytes,
            manifest,
            tags: reference.tag.iter().cloned().collect(),
            sparse: false,
        };
        let name = reference.to_string();
        self.store.put_manifest(put).await.map_err(|error| match error {
            PutError::Store(error) => error.into(),
            PutError::Missing(_) => NodeError::Unusable { name, reason: error.to_string() },
        })
    }
}
