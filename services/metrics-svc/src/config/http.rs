//! How a target or API server is asked: credentials and TLS.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{LoadError, Secret};

/// `tls_config`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named as in the configuration")]
pub struct TlsConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    pub insecure_skip_verify: bool,
}

/// `basic_auth`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named as in the configuration")]
pub struct BasicAuth {
    pub username: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

/// `authorization`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named as in the configuration")]
pub struct Authorization {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
}

impl Default for Authorization {
    fn default() -> Self {
        Self { kind: "Bearer".to_owned(), credentials: None, credentials_file: None }
    }
}

/// What the HTTP fields of a scrape or discovery section come to.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs, reason = "named as in the configuration")]
pub struct HttpClientConfig {
    pub basic_auth: Option<BasicAuth>,
    pub authorization: Option<Authorization>,
    pub tls_config: TlsConfig,
    pub follow_redirects: bool,
    pub enable_http2: bool,
}

impl HttpClientConfig {
    /// Joins the older bearer fields with `authorization` and makes file names relative to `dir`.
    pub(super) fn resolve(
        mut self,
        bearer_token: Option<&Secret>,
        bearer_token_file: Option<&PathBuf>,
        dir: &Path,
    ) -> Result<Self, LoadError> {
        let bearer = bearer_token.is_some() || bearer_token_file.is_some();
        if bearer_token.is_some() && bearer_token_file.is_some() {
            return Err(LoadError::new(
                "at most one of bearer_token & bearer_token_file must be configured",
            ));
        }
        if usize::from(bearer)
            + usize::from(self.basic_auth.is_some())
            + usize::from(self.authorization.is_some())
            > 1
        {
            return Err(LoadError::new(
                "at most one of basic_auth, authorization, bearer_token & bearer_token_file must be configured",
            ));
        }
        if bearer {
            self.authorization = Some(Authorization {
                credentials: bearer_token.cloned(),
                credentials_file: bearer_token_file.cloned(),
                ..Authorization::default()
            });
        }
        let join = |path: &mut Option<PathBuf>| {
            if let Some(path) = path {
                *path = dir.join(&*path);
            }
        };
        if let Some(auth) = &mut self.authorization {
            if auth.kind.eq_ignore_ascii_case("basic") {
                return Err(LoadError::new(
                    "authorization type cannot be set to \"basic\", use \"basic_auth\" instead",
                ));
            }
            join(&mut auth.credentials_file);
        }
        if let Some(basic) = &mut self.basic_auth {
            join(&mut basic.username_file);
            join(&mut basic.password_file);
        }
        join(&mut self.tls_config.ca_file);
        join(&mut self.tls_config.cert_file);
        join(&mut self.tls_config.key_file);
        Ok(self)
    }
}
