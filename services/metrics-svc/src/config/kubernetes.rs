//! `kubernetes_sd_configs`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Authorization, HttpClientConfig, LoadError, Secret, TlsConfig, Unsupported};

/// Which objects become targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "named as in the configuration")]
pub enum Role {
    Node,
    Pod,
    Service,
    Endpoints,
    EndpointSlice,
    Ingress,
}

/// Restricts what is listed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "named as in the configuration")]
pub struct RoleSelector {
    pub role: Role,
    #[serde(default)]
    pub label: Option<String>,
    #[serde(default)]
    pub field: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named as in the configuration")]
pub struct Namespaces {
    pub own_namespace: bool,
    pub names: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(
    missing_docs,
    dead_code,
    reason = "named as in the configuration; refused fields are only read by refusing"
)]
pub struct AttachMetadata {
    pub node: bool,
    pub namespace: Option<Unsupported>,
}

/// One entry of `kubernetes_sd_configs`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "refused fields are only ever read by refusing them")]
#[allow(missing_docs, reason = "named as in the configuration")]
pub struct KubernetesSdConfig {
    pub role: Role,
    #[serde(default)]
    pub api_server: Option<String>,
    #[serde(default)]
    pub kubeconfig_file: Option<PathBuf>,
    #[serde(default)]
    pub namespaces: Namespaces,
    #[serde(default)]
    pub selectors: Vec<RoleSelector>,
    #[serde(default)]
    pub attach_metadata: AttachMetadata,
    #[serde(default)]
    pub tls_config: TlsConfig,
    #[serde(default)]
    pub authorization: Option<Authorization>,
    #[serde(default)]
    pub bearer_token: Option<Secret>,
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
    #[serde(default)]
    pub follow_redirects: Option<Unsupported>,
    #[serde(default)]
    pub enable_http2: Option<Unsupported>,
    #[serde(default)]
    pub basic_auth: Option<Unsupported>,
    #[serde(default)]
    pub oauth2: Option<Unsupported>,
    #[serde(default)]
    pub proxy_url: Option<Unsupported>,
    #[serde(default)]
    pub proxy_from_environment: Option<Unsupported>,
    #[serde(skip)]
    pub http: HttpClientConfig,
}

impl KubernetesSdConfig {
    pub(super) fn resolve(&mut self, dir: &Path) -> Result<(), LoadError> {
        if self.api_server.is_some() && self.kubeconfig_file.is_some() {
            return Err(LoadError::new(
                "cannot use 'kubeconfig_file' and 'api_server' simultaneously",
            ));
        }
        if let Some(path) = &mut self.kubeconfig_file {
            *path = dir.join(&*path);
        }
        let http = HttpClientConfig {
            authorization: self.authorization.clone(),
            tls_config: self.tls_config.clone(),
            ..HttpClientConfig::default()
        };
        self.http =
            http.resolve(self.bearer_token.as_ref(), self.bearer_token_file.as_ref(), dir)?;
        let custom =
            self.http.authorization.is_some() || self.http.tls_config != TlsConfig::default();
        if self.kubeconfig_file.is_some() && custom {
            return Err(LoadError::new(
                "cannot use a custom HTTP client configuration together with 'kubeconfig_file'",
            ));
        }
        if self.api_server.is_none() && custom {
            return Err(LoadError::new(
                "to use custom HTTP client configuration please provide the 'api_server' URL explicitly",
            ));
        }
        Ok(())
    }
}
