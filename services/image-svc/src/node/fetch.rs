//! Blobs from a registry into the store, with digest check and resume.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{Node, NodeError, Watcher, report};
use crate::engine::{Descriptor, Reference};
use crate::remote::{Credentials, Host, RemoteError};
use crate::store::{IngestFile, Mark, NewContent, Pin, StoreError};

/// Bytes written at a time.
const GATHER: usize = 512 << 10;
/// How often a broken download is taken up again, and how long a stall may last.
const ATTEMPTS: u32 = 5;
const STALL: Duration = Duration::from_secs(60);

/// Where an image comes from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// A repository of the own registry.
    Own,
    /// Hosts to try in order.
    Remote(Vec<Host>),
}

/// A download under way.
struct Download<'a> {
    host: &'a Host,
    reference: &'a Reference,
    blob: &'a Descriptor,
    credentials: &'a Credentials,
    watcher: &'a Watcher,
}

impl Node {
    /// Makes sure the store has `blob`; the pin keeps it until the image is recorded.
    pub(super) async fn fetch_blob(
        &self,
        source: &Source,
        reference: &Reference,
        blob: &Descriptor,
        credentials: &Credentials,
        watcher: &Watcher,
    ) -> Result<Pin, NodeError> {
        let _one = self.flights.lock(&format!("fetch {}", blob.digest)).await;
        let pin = self.store.pin(&blob.digest).await;
        let name = reference.to_string();
        if self.store.blob(&blob.digest)?.is_some() {
            report(watcher, &blob.digest, "exists", blob.size, blob.size);
            return Ok(pin);
        }
        let Source::Remote(hosts) = source else {
            return Err(NodeError::Fetch {
                name,
                source: RemoteError::NotFound(blob.digest.to_string()),
            });
        };
        let mut last = RemoteError::NotFound(blob.digest.to_string());
        for host in hosts.iter().filter(|host| host.pull) {
            let download = Download { host, reference, blob, credentials, watcher };
            match self.download(download).await {
                Ok(()) => return Ok(pin),
                Err(NodeError::Fetch { source, .. }) => last = source,
                Err(error) => return Err(error),
            }
        }
        Err(NodeError::Fetch { name, source: last })
    }

    async fn download(&self, download: Download<'_>) -> Result<(), NodeError> {
        let Download { host, reference, blob, credentials, .. } = download;
        let fetch = |source: RemoteError| NodeError::Fetch { name: reference.to_string(), source };
        let path = self.store.ingest_path(&uuid::Uuid::new_v4().to_string());
        let start = Mark::start(blob.digest.algorithm());
        let mut file = Some(open(path.clone(), start.clone()).await?);
        let mut attempt = 0;
        loop {
            let at = file.as_ref().map_or(0, IngestFile::offset);
            let opened = self.client.blob(host, reference, &blob.digest, at, credentials).await;
            let step = match opened {
                Ok(opened) => {
                    if opened.offset == 0 && at > 0 {
                        file = Some(open(path.clone(), start.clone()).await?);
                    }
                    self.drain(&download, opened.body, &mut file).await?
                }
                Err(error) => Err(error),
            };
            match step {
                Ok(()) => break,
                Err(error) if error.is_transient() && attempt < ATTEMPTS => {
                    attempt += 1;
                    tracing::debug!(%error, digest = %blob.digest, attempt, "download interrupted");
                    tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
                }
                Err(error) => {
                    drop(file.take());
                    // Swept at the next start otherwise.
                    let _ = tokio::fs::remove_file(&path).await;
                    return Err(fetch(error));
                }
            }
        }
        let Some(file) = file else { return Ok(()) };
        let found = file.mark().hasher().clone().finish();
        if found != blob.digest {
            file.discard();
            let url = format!("{}/{}", host.base, reference.path);
            return Err(fetch(RemoteError::Digest { url, found, expected: blob.digest.clone() }));
        }
        report(download.watcher, &blob.digest, "transferred", blob.size, blob.size);
        let done = self
            .store
            .commit_blob(&blob.digest, NewContent::File(file), |_| Ok::<_, StoreError>(()))
            .await;
        Ok(done?)
    }

    /// Appends a body to the file. The inner error is the network's, the outer the disk's.
    async fn drain(
        &self,
        download: &Download<'_>,
        mut body: Incoming,
        file: &mut Option<IngestFile>,
    ) -> Result<Result<(), RemoteError>, NodeError> {
        let blob = download.blob;
        let url =
            || format!("{}/{}/blobs/{}", download.host.base, download.reference.path, blob.digest);
        let (mut pending, mut gathered): (Vec<Bytes>, usize) = (Vec::new(), 0);
        loop {
            let frame = match tokio::time::timeout(STALL, body.frame()).await {
                Ok(frame) => frame,
                Err(_) => {
                    return Ok(Err(RemoteError::Transport {
                        url: url(),
                        reason: "download stalled".into(),
                    }));
                }
            };
            let ended = frame.is_none();
            let mut broken = None;
            match frame {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        gathered += data.len();
                        pending.push(data);
                    }
                }
                Some(Err(error)) => broken = Some(error.to_string()),
                None => {}
            }
            let Some(mut open) = file.take() else { return Ok(Ok(())) };
            if gathered >= GATHER || ended || broken.is_some() {
                let chunks = std::mem::take(&mut pending);
                gathered = 0;
                let written =
                    tokio::task::spawn_blocking(move || open.append(&chunks).map(|()| open)).await;
                open = written.map_err(|error| StoreError::Closed(error.to_string()))??;
                report(download.watcher, &blob.digest, "transfer", open.offset(), blob.size);
            }
            let offset = open.offset() + gathered as u64;
            *file = Some(open);
            if offset > blob.size {
                return Ok(Err(RemoteError::TooLarge { url: url(), limit: blob.size }));
            }
            if let Some(reason) = broken {
                return Ok(Err(RemoteError::Transport { url: url(), reason }));
            }
            if ended {
                let short = offset < blob.size;
                let reason = || format!("download ended after {offset} of {} bytes", blob.size);
                return Ok(if short {
                    Err(RemoteError::Transport { url: url(), reason: reason() })
                } else {
                    Ok(())
                });
            }
        }
    }
}

async fn open(path: std::path::PathBuf, mark: Mark) -> Result<IngestFile, StoreError> {
    tokio::task::spawn_blocking(move || IngestFile::open(&path, mark))
        .await
        .unwrap_or_else(|error| Err(StoreError::Closed(error.to_string())))
}
