//! Which hosts serve a registry's content: containerd's `hosts.toml`, or the registry itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::RemoteError;

/// A base to send requests to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// `https://registry.example/v2`.
    pub base: String,
    /// Whether it resolves tags.
    pub resolve: bool,
    /// Whether content may be pulled from it.
    pub pull: bool,
    /// Whether content may be pushed to it.
    pub push: bool,
    /// Sent with every request.
    pub headers: Vec<(String, String)>,
    /// Registry that a mirror stands for, as `?ns=`.
    pub namespace: Option<String>,
}

/// Finds the hosts of a registry.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    /// Folder with `HOST/hosts.toml`.
    pub dir: PathBuf,
    /// Registries without TLS, besides loopback.
    pub insecure: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct File {
    server: Option<String>,
    #[serde(default)]
    host: toml::Table,
    #[serde(flatten)]
    top: BTreeMap<String, toml::Value>,
}

/// Whether `domain` (with or without port) is this machine.
pub(crate) fn is_loopback(domain: &str) -> bool {
    let host = domain.strip_prefix('[').and_then(|rest| rest.split(']').next());
    let host = host.unwrap_or_else(|| domain.split(':').next().unwrap_or_default());
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Hosts {
    /// The hosts of registry `domain` in the order to try them. The file is read anew each time.
    ///
    /// # Errors
    /// Names the file and key when it is malformed or asks for something unsupported.
    pub fn of(&self, domain: &str) -> Result<Vec<Host>, RemoteError> {
        let with_port = domain.replace(':', "_") + "_";
        for name in [domain, with_port.as_str(), "_default"] {
            let path = self.dir.join(name).join("hosts.toml");
            if let Ok(text) = std::fs::read_to_string(&path) {
                return self
                    .parse(domain, &text)
                    .map_err(|reason| RemoteError::Hosts(format!("{}: {reason}", path.display())));
            }
        }
        Ok(vec![self.own(domain, None)])
    }

    fn own(&self, domain: &str, server: Option<&str>) -> Host {
        let place = if domain == crate::engine::reference::DEFAULT_DOMAIN {
            "registry-1.docker.io"
        } else {
            domain
        };
        let plain = is_loopback(domain) || self.insecure.iter().any(|host| host == domain);
        let base = match server {
            Some(server) => server.trim_end_matches('/').to_owned(),
            None => format!("{}://{place}", if plain { "http" } else { "https" }),
        };
        Host {
            base: format!("{base}/v2"),
            resolve: true,
            pull: true,
            push: true,
            headers: Vec::new(),
            namespace: None,
        }
    }

    fn parse(&self, domain: &str, text: &str) -> Result<Vec<Host>, String> {
        let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        if let Some(key) = file.top.keys().next() {
            return Err(format!("not supported yet: {key}"));
        }
        let mut hosts = Vec::new();
        for (base, settings) in &file.host {
            hosts.push(mirror(domain, base, settings)?);
        }
        hosts.push(self.own(domain, file.server.as_deref()));
        Ok(hosts)
    }
}

fn mirror(domain: &str, base: &str, settings: &toml::Value) -> Result<Host, String> {
    let table = settings.as_table().ok_or_else(|| format!("host.{base:?} is no table"))?;
    let url = if base.contains("://") { base.to_owned() } else { format!("https://{base}") };
    let url = url.trim_end_matches('/').to_owned();
    let mut host = Host {
        base: format!("{url}/v2"),
        resolve: true,
        pull: true,
        push: false,
        headers: Vec::new(),
        namespace: Some(domain.to_owned()),
    };
    for (key, value) in table {
        match key.as_str() {
            "capabilities" => {
                let list = value
                    .as_array()
                    .ok_or_else(|| format!("host.{base:?}.capabilities is no list"))?;
                let has = |name: &str| list.iter().any(|item| item.as_str() == Some(name));
                (host.resolve, host.pull, host.push) = (has("resolve"), has("pull"), has("push"));
            }
            "override_path" => {
                if value.as_bool() == Some(true) {
                    host.base.clone_from(&url);
                }
            }
            "header" => {
                let table =
                    value.as_table().ok_or_else(|| format!("host.{base:?}.header is no table"))?;
                for (name, value) in table {
                    let values = match value {
                        toml::Value::String(one) => vec![one.clone()],
                        toml::Value::Array(many) => {
                            many.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
                        }
                        _ => return Err(format!("host.{base:?}.header.{name} is no text")),
                    };
                    host.headers.extend(values.into_iter().map(|value| (name.clone(), value)));
                }
            }
            other => return Err(format!("not supported yet: host.{base:?}.{other}")),
        }
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_needs_no_tls() {
        let hosts = Hosts::default();
        for (domain, base) in [
            ("127.0.0.1:5000", "http://127.0.0.1:5000/v2"),
            ("localhost:5000", "http://localhost:5000/v2"),
            ("[::1]:5000", "http://[::1]:5000/v2"),
            ("registry.example", "https://registry.example/v2"),
            ("docker.io", "https://registry-1.docker.io/v2"),
        ] {
            assert_eq!(hosts.of(domain).unwrap()[0].base, base);
        }
    }

    #[test]
    fn mirrors_come_first() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("docker.io")).unwrap();
        let text = "server = \"https://registry-1.docker.io\"\n[host.\"http://127.0.0.1:5000\"]\ncapabilities = [\"pull\"]\n";
        std::fs::write(dir.path().join("docker.io/hosts.toml"), text).unwrap();
        let hosts = Hosts { dir: dir.path().to_owned(), insecure: Vec::new() };
        let list = hosts.of("docker.io").unwrap();
        assert_eq!(list[0].base, "http://127.0.0.1:5000/v2");
        assert!(list[0].pull && !list[0].resolve);
        assert_eq!(list[0].namespace.as_deref(), Some("docker.io"));
        assert_eq!(list[1].base, "https://registry-1.docker.io/v2");
        std::fs::write(
            dir.path().join("docker.io/hosts.toml"),
            "[host.\"x.y\"]\nclient = \"/a.pem\"\n",
        )
        .unwrap();
        assert!(hosts.of("docker.io").unwrap_err().to_string().contains("not supported yet"));
    }
}
