//! Values of flags.

use std::str::FromStr;
use std::time::Duration;

use flotilla_config::{ExitError, ListenAddr};
use flotilla_server::TlsFiles;

use crate::config::parse::Parsed;

/// A URL of a member: scheme and what follows.
pub type Url = String;

/// Reads values by name.
pub struct Lookup<'a>(pub &'a Parsed);

impl Lookup<'_> {
    pub fn text(&self, name: &str) -> String {
        self.0.value(name).to_owned()
    }

    pub fn number<T: FromStr>(&self, name: &str) -> Result<T, ExitError> {
        let text = self.0.value(name);
        text.parse()
            .map_err(|_| ExitError::usage(format!("--{name}: {text:?} is no number in its range")))
    }

    pub fn switch(&self, name: &str) -> Result<bool, ExitError> {
        match self.0.value(name) {
            "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(true),
            "false" | "0" | "f" | "F" | "FALSE" | "False" | "" => Ok(false),
            other => {
                Err(ExitError::usage(format!("--{name}: {other:?} is neither true nor false")))
            }
        }
    }

    pub fn duration(&self, name: &str) -> Result<Duration, ExitError> {
        super::duration(name, self.0.value(name))
    }

    /// Certificate, key and the authority of clients.
    pub fn client_tls(&self) -> Result<Option<TlsFiles>, ExitError> {
        let file = |name| {
            Some(self.text(name)).filter(|path| !path.is_empty()).map(std::path::PathBuf::from)
        };
        let require_client_cert = self.switch("client-cert-auth")?;
        let client_ca = file("trusted-ca-file");
        if require_client_cert && client_ca.is_none() {
            return Err(ExitError::usage("--client-cert-auth needs --trusted-ca-file"));
        }
        match (file("cert-file"), file("key-file")) {
            (None, None) if client_ca.is_some() => {
                Err(ExitError::usage("--trusted-ca-file needs --cert-file and --key-file"))
            }
            (None, None) => Ok(None),
            (Some(cert), Some(key)) => {
                // As in etcd an authority alone asks for certificates, too.
                let require_client_cert = require_client_cert || client_ca.is_some();
                Ok(Some(TlsFiles { cert, key, client_ca, require_client_cert }))
            }
            _ => Err(ExitError::usage("--cert-file and --key-file belong together; give both")),
        }
    }

    pub fn listen(&self, name: &str) -> Result<Vec<ListenAddr>, ExitError> {
        let mut addresses = Vec::new();
        for url in urls(name, self.0.value(name))? {
            let secure = url.starts_with("https://") || url.starts_with("unixs://");
            if secure && name != "listen-client-urls" {
                return Err(ExitError::usage(format!("not supported yet: --{name} with {url}")));
            }
            let url = url.replacen("unixs://", "unix://", 1);
            addresses
                .push(url.parse().map_err(|error| ExitError::usage(format!("--{name}: {error}")))?);
        }
        Ok(addresses)
    }
}

/// Reads a list of URLs.
///
/// # Errors
/// Names the flag and the URL that is none.
pub fn urls(name: &str, text: &str) -> Result<Vec<Url>, ExitError> {
    text.split(',')
        .map(str::trim)
        .filter(|url| !url.is_empty())
        .map(|url| check(name, url))
        .collect()
}

fn check(name: &str, url: &str) -> Result<Url, ExitError> {
    let fail = |what: &str| Err(ExitError::usage(format!("--{name}: {url:?} {what}")));
    let Some((scheme, rest)) = url.split_once("://") else {
        return fail("is no URL; write http://HOST:PORT");
    };
    match scheme {
        "http" | "https" => {
            let (_, port) = rest.rsplit_once(':').unwrap_or((rest, ""));
            if rest.contains('/') {
                return fail("has a path; leave it out");
            }
            if port.parse::<u16>().is_err() {
                return fail("has no port; write http://HOST:PORT");
            }
        }
        "unix" | "unixs" if !rest.is_empty() => {}
        _ => return fail("has an unknown scheme; use http, https, unix or unixs"),
    }
    Ok(url.to_owned())
}

/// Reads `name=url,name=url`; a name may repeat.
///
/// # Errors
/// Names the part that is malformed.
pub fn peers(text: &str) -> Result<Vec<(String, Vec<Url>)>, ExitError> {
    let mut members: Vec<(String, Vec<Url>)> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, url) =
            part.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
                ExitError::usage(format!("--initial-cluster: {part:?} is not NAME=PEER_URL"))
            })?;
        let url = check("initial-cluster", url)?;
        match members.iter_mut().find(|(member, _)| member == name) {
            Some((_, urls)) => urls.push(url),
            None => members.push((name.to_owned(), vec![url])),
        }
    }
    Ok(members)
}
