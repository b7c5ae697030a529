//! Where the API server is and who asks: kubeconfig files and the in-cluster mount.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use thiserror::Error;

/// Connection settings of one API server.
#[derive(Clone, Default)]
pub struct KubeConfig {
    /// Base URL, `https://HOST:PORT`.
    pub server: String,
    /// PEM bundle that signs the server's certificate; `None` trusts nothing over https.
    pub ca: Option<Vec<u8>>,
    /// Accept any server certificate (`insecure-skip-tls-verify`).
    pub insecure: bool,
    /// Bearer token.
    pub token: Option<String>,
    /// Client certificate chain and key, both PEM.
    pub client_cert: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for KubeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeConfig").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Why there are no usable settings.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The kubeconfig is no kubeconfig.
    #[error("{path} is no kubeconfig: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Not inside a pod.
    #[error("not in a cluster: KUBERNETES_SERVICE_HOST is not set; give a kubeconfig")]
    NotInCluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(rename = "current-context", default)]
    current_context: String,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: Option<User>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(rename_all = "kebab-case")]
struct User {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
}

impl KubeConfig {
    /// A plain server without credentials.
    pub fn plain(server: impl Into<String>) -> Self {
        Self { server: server.into(), ..Self::default() }
    }

    /// Reads the current context of a kubeconfig file. Relative file names in it are relative to its folder.
    ///
    /// # Errors
    /// When a file cannot be read, or the context, cluster or user is missing.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let parse = |reason: String| ConfigError::Parse { path: path.to_owned(), reason };
        let text = read(path)?;
        let file: File = serde_norway::from_slice(&text).map_err(|e| parse(e.to_string()))?;
        let wanted = &file.current_context;
        let context = file.contexts.iter().find(|c| &c.name == wanted);
        let context =
            &context.ok_or_else(|| parse(format!("no context named {wanted:?}")))?.context;
        let cluster = file.clusters.iter().find(|c| c.name == context.cluster);
        let cluster = &cluster
            .ok_or_else(|| parse(format!("no cluster named {:?}", context.cluster)))?
            .cluster;
        let user = file
            .users
            .into_iter()
            .find(|u| u.name == context.user)
            .and_then(|u| u.user)
            .unwrap_or_default();
        let dir = path.parent().unwrap_or(Path::new("."));
        let load = |data: &Option<String>,
                    file: &Option<PathBuf>|
         -> Result<Option<Vec<u8>>, ConfigError> {
            match (data, file) {
                (Some(data), _) => {
                    STANDARD.decode(data).map(Some).map_err(|e| parse(format!("bad base64: {e}")))
                }
                (None, Some(file)) => read(&dir.join(file)).map(Some),
                (None, None) => Ok(None),
            }
        };
        let certificate = load(&user.client_certificate_data, &user.client_certificate)?;
        let key = load(&user.client_key_data, &user.client_key)?;
        let token = match (user.token, user.token_file) {
            (Some(token), _) => Some(token),
            (None, Some(file)) => {
                Some(String::from_utf8_lossy(&read(&dir.join(file))?).trim().to_owned())
            }
            (None, None) => None,
        };
        Ok(Self {
            server: cluster.server.trim_end_matches('/').to_owned(),
            ca: load(&cluster.certificate_authority_data, &cluster.certificate_authority)?,
            insecure: cluster.insecure_skip_tls_verify,
            token,
            client_cert: certificate.zip(key),
        })
    }

    /// The settings a pod finds in its environment and under `/var/run/secrets/kubernetes.io/serviceaccount`.
    ///
    /// # Errors
    /// Outside a pod, or when the mount is incomplete.
    pub fn in_cluster() -> Result<Self, ConfigError> {
        const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
        let variable = |name| std::env::var(name).map_err(|_| ConfigError::NotInCluster);
        let (host, port) =
            (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        Ok(Self {
            server: format!("https://{host}:{port}"),
            ca: Some(read(&Path::new(MOUNT).join("ca.crt"))?),
            token: Some(
                String::from_utf8_lossy(&read(&Path::new(MOUNT).join("token"))?).trim().to_owned(),
            ),
            ..Self::default()
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

/// Verifies signatures but not identities, for `insecure-skip-tls-verify`.
#[derive(Debug)]
pub(crate) struct AcceptAny(pub(crate) std::sync::Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &rustls_pki_types::CertificateDer<'_>,
        _intermediates: &[rustls_pki_types::CertificateDer<'_>],
        _server_name: &rustls_pki_types::ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls_pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls_pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
