//! TLS for listeners: files in, acceptor out, reloaded when the files change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

/// The PEM files of a TLS server.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate chain, leaf first.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Authorities for client certificates; `None` asks for no client certificate.
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is refused (only with `client_ca`).
    pub require_client_cert: bool,
}

/// Why TLS could not be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file is missing or holds no usable PEM.
    #[error("cannot read {what} from {path}: {reason}")]
    File {
        /// "certificate", "private key" or "client CA".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate and key do not fit, or the CA is unusable.
    #[error("TLS settings of {path} do not work: {reason}")]
    Config {
        /// The certificate file.
        path: PathBuf,
        /// What rustls says.
        reason: String,
    },
}

/// A TLS acceptor that follows its files: a handshake after a change uses the new certificate.
pub struct TlsServer {
    files: TlsFiles,
    current: Mutex<(Option<SystemTime>, TlsAcceptor)>,
}

impl std::fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsServer").field("files", &self.files).finish_non_exhaustive()
    }
}

impl TlsServer {
    /// Loads the files.
    ///
    /// # Errors
    /// Names the file that is missing, unreadable or does not fit.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let acceptor = acceptor(&files)?;
        let stamp = changed_at(&files.cert);
        Ok(Self { files, current: Mutex::new((stamp, acceptor)) })
    }

    /// The acceptor for the next handshake. A new file that does not load leaves the old one in use.
    pub fn acceptor(&self) -> TlsAcceptor {
        let stamp = changed_at(&self.files.cert);
        let mut current = self.current.lock();
        if current.0 != stamp {
            match acceptor(&self.files) {
                Ok(fresh) => {
                    tracing::info!(cert = %self.files.cert.display(), "reloaded the certificate");
                    *current = (stamp, fresh);
                }
                Err(error) => tracing::warn!(%error, "kept the old certificate"),
            }
        }
        current.1.clone()
    }
}

fn changed_at(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |reason: String| TlsError::File { what, path: path.to_owned(), reason };
    let list: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|e| fail(e.to_string()))?.collect();
    let list = list.map_err(|e| fail(e.to_string()))?;
    if list.is_empty() { Err(fail("it holds no PEM certificate".to_owned())) } else { Ok(list) }
}

fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let chain = certificates("certificate", &files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| TlsError::File {
        what: "private key",
        path: files.key.clone(),
        reason: e.to_string(),
    })?;
    let fail = |reason: String| TlsError::Config { path: files.cert.clone(), reason };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| fail(e.to_string()))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for cert in certificates("client CA", ca)? {
                roots.add(cert).map_err(|e| fail(e.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier =
                if files.require_client_cert { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().map_err(|e| fail(e.to_string()))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|e| fail(e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Runs the handshake and returns the stream with the client's certificates.
pub(crate) async fn handshake(
    acceptor: TlsAcceptor,
    stream: Box<dyn crate::Connection>,
) -> io::Result<(Box<dyn crate::Connection>, Vec<Vec<u8>>)> {
    let stream = acceptor.accept(stream).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let chain = chain.iter().map(|cert| cert.as_ref().to_vec()).collect();
    Ok((Box::new(stream), chain))
}
