//! distribution's `config.yml` (version 0.1) with its `REGISTRY_*` overrides.
//!
//! Every key of distribution is known here. Those that do nothing yet are refused by name; keys distribution does
//! not have are refused with file and line.

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_config::{ExitError, ListenAddr, parse_duration};
use flotilla_server::TlsFiles;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_norway::Value;

use super::Config;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Value,
    #[serde(default)]
    log: Log,
    loglevel: Option<String>,
    #[serde(default)]
    storage: Storage,
    #[serde(default)]
    auth: Auth,
    middleware: Option<Value>,
    reporting: Option<Value>,
    #[serde(default)]
    http: Http,
    notifications: Option<Value>,
    redis: Option<Value>,
    #[serde(default)]
    health: Health,
    catalog: Option<Value>,
    proxy: Option<Value>,
    #[serde(default)]
    validation: Validation,
    policy: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Auth {
    htpasswd: Option<Htpasswd>,
    token: Option<Value>,
    silly: Option<Value>,
    none: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Htpasswd {
    realm: String,
    path: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    accesslog: Option<AccessLog>,
    level: Option<String>,
    formatter: Option<String>,
    /// Only added to log lines by distribution.
    fields: Option<Value>,
    hooks: Option<Value>,
    reportcaller: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccessLog {
    disabled: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Storage {
    filesystem: Option<Filesystem>,
    azure: Option<Value>,
    gcs: Option<Value>,
    s3: Option<Value>,
    swift: Option<Value>,
    oss: Option<Value>,
    inmemory: Option<Value>,
    delete: Option<Enabled>,
    #[serde(rename = "redirect")]
    _redirect: Option<Redirect>,
    cache: Option<BTreeMap<String, Value>>,
    maintenance: Option<Maintenance>,
    tag: Option<BTreeMap<String, Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filesystem {
    rootdirectory: Option<String>,
    maxthreads: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Enabled {
    enabled: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Redirect {
    /// Redirects exist with object storage only, so either value holds.
    #[serde(rename = "disable")]
    _disable: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Maintenance {
    uploadpurging: Option<Purging>,
    readonly: Option<Enabled>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Purging {
    enabled: Option<bool>,
    age: Option<String>,
    interval: Option<String>,
    dryrun: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    addr: Option<String>,
    net: Option<String>,
    prefix: Option<String>,
    host: Option<String>,
    /// Signs upload state in distribution; ours is kept by the server.
    #[serde(rename = "secret")]
    _secret: Option<String>,
    /// Locations are relative unless `host` is set.
    relativeurls: Option<bool>,
    draintimeout: Option<String>,
    tls: Option<Tls>,
    #[serde(default)]
    headers: BTreeMap<String, Vec<String>>,
    debug: Option<Debug>,
    http2: Option<Disabled>,
    h2c: Option<Enabled>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Disabled {
    disabled: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    certificate: Option<String>,
    key: Option<String>,
    clientcas: Option<Vec<String>>,
    clientauth: Option<String>,
    minimumtls: Option<String>,
    ciphersuites: Option<Value>,
    letsencrypt: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Debug {
    addr: Option<String>,
    prometheus: Option<Prometheus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Prometheus {
    /// Metrics are always exposed.
    #[serde(rename = "enabled")]
    _enabled: Option<bool>,
    path: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Health {
    /// Readiness follows the store whatever is set here.
    #[serde(rename = "storagedriver")]
    _storagedriver: Option<Value>,
    file: Option<Value>,
    http: Option<Value>,
    tcp: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Validation {
    enabled: Option<bool>,
    disabled: Option<bool>,
    manifests: Option<Value>,
}

/// Applies a file and the environment to `config`.
pub(super) fn apply(
    config: &mut Config,
    name: &str,
    text: &str,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<(), ExitError> {
    let wrong = |error: serde_norway::Error| ExitError::Config(format!("{name}: {error}"));
    // Once for messages with line numbers, and again after the overrides.
    let _: File = serde_norway::from_str(text).map_err(wrong)?;
    let mut tree: Value = serde_norway::from_str(text).map_err(wrong)?;
    for (variable, value) in environment {
        if let Some(path) =
            variable.strip_prefix("REGISTRY_").filter(|p| *p != "CONFIGURATION_PATH")
        {
            override_key(&mut tree, path, &value)
                .map_err(|reason| ExitError::Config(format!("{variable}: {reason}")))?;
        }
    }
    let file: File = serde_norway::from_value(tree).map_err(wrong)?;
    let fail = |what: String| ExitError::Config(format!("{name}: {what}"));
    if !matches!(&file.version, Value::Number(n) if n.as_f64() == Some(0.1))
        && file.version.as_str() != Some("0.1")
    {
        return Err(fail("version must be 0.1".to_owned()));
    }
    refuse(&file).map_err(fail)?;
    fill(config, file).map_err(fail)
}

/// Sets the key that `path` (`STORAGE_DELETE_ENABLED`) names, making maps on the way.
fn override_key(tree: &mut Value, path: &str, value: &str) -> Result<(), String> {
    let parsed: Value =
        serde_norway::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    let mut node = tree;
    let mut parts = path.split('_').map(str::to_lowercase).peekable();
    while let Some(part) = parts.next() {
        if node.is_null() {
            *node = Value::Mapping(serde_norway::Mapping::new());
        }
        let Value::Mapping(map) = node else {
            return Err(format!("{part} is below a value that is no map"));
        };
        let entry = map.entry(Value::String(part)).or_insert(Value::Null);
        if parts.peek().is_none() {
            *entry = parsed;
            return Ok(());
        }
        node = entry;
    }
    Ok(())
}

fn refuse(file: &File) -> Result<(), String> {
    let given = |value: &Option<Value>| value.as_ref().is_some_and(|v| !v.is_null());
    let unsupported = [
        ("auth.token", given(&file.auth.token)),
        ("auth.silly", given(&file.auth.silly)),
        ("middleware", given(&file.middleware)),
        ("reporting", given(&file.reporting)),
        ("notifications", given(&file.notifications)),
        ("redis", given(&file.redis)),
        ("catalog", given(&file.catalog)),
        ("proxy", given(&file.proxy)),
        ("policy", given(&file.policy)),
        ("log.hooks", given(&file.log.hooks)),
        ("log.fields", given(&file.log.fields)),
        ("log.reportcaller", given(&file.log.reportcaller)),
        ("storage.azure", given(&file.storage.azure)),
        ("storage.gcs", given(&file.storage.gcs)),
        ("storage.s3", given(&file.storage.s3)),
        ("storage.swift", given(&file.storage.swift)),
        ("storage.oss", given(&file.storage.oss)),
        ("storage.inmemory", given(&file.storage.inmemory)),
        ("health.file", given(&file.health.file)),
        ("health.http", given(&file.health.http)),
        ("health.tcp", given(&file.health.tcp)),
        ("validation.manifests", given(&file.validation.manifests)),
        ("http.prefix", file.http.prefix.as_deref().is_some_and(|p| !p.is_empty() && p != "/")),
        ("http.net", file.http.net.as_deref().is_some_and(|n| !matches!(n, "" | "tcp" | "unix"))),
        ("http.http2.disabled", file.http.http2.as_ref().is_some_and(|h| h.disabled == Some(true))),
    ];
    if let Some((key, _)) = unsupported.iter().find(|(_, given)| *given) {
        return Err(format!("not supported yet: {key}"));
    }
    refuse_deep(file)
}

fn refuse_deep(file: &File) -> Result<(), String> {
    if let Some(cache) = &file.storage.cache {
        for (key, value) in cache {
            // The store caches descriptors in memory on its own.
            let known = key.starts_with("blobdescriptor") && value.as_str() != Some("redis");
            if !known {
                return Err(format!("not supported yet: storage.cache.{key}: {value:?}"));
            }
        }
    }
    if let Some(key) =
        file.storage.tag.iter().flat_map(BTreeMap::keys).find(|key| *key != "concurrencylimit")
    {
        return Err(format!("storage.tag.{key} is unknown"));
    }
    if let Some(tls) = &file.http.tls {
        for (key, given) in [
            ("letsencrypt", tls.letsencrypt.is_some()),
            ("ciphersuites", tls.ciphersuites.is_some()),
        ] {
            if given {
                return Err(format!("not supported yet: http.tls.{key}"));
            }
        }
        if tls.minimumtls.as_deref().is_some_and(|v| !matches!(v, "tls1.2")) {
            return Err("not supported yet: http.tls.minimumtls other than tls1.2".to_owned());
        }
    }
    if file.http.h2c.as_ref().is_some_and(|h| h.enabled == Some(false)) {
        return Err("http.h2c.enabled: false is not possible: the port also serves gRPC".to_owned());
    }
    Ok(())
}

fn fill(config: &mut Config, file: File) -> Result<(), String> {
    let duration = |key: &str, text: &str| -> Result<Duration, String> {
        parse_duration(text).map_err(|error| format!("{key}: {error}"))
    };
    if file.auth.none.is_some() && file.auth.htpasswd.is_some() {
        return Err("auth: give one kind only".to_owned());
    }
    config.registry.htpasswd = file.auth.htpasswd.map(|auth| (auth.realm, auth.path.into()));
    config.log_level = file
        .log
        .level
        .or(file.loglevel)
        .map(|level| if level == "warning" { "warn".into() } else { level });
    if let Some(format) = file.log.formatter.filter(|f| !matches!(f.as_str(), "json" | "text")) {
        return Err(format!("not supported yet: log.formatter {format:?}"));
    }
    if file.log.accesslog.is_some_and(|log| log.disabled == Some(false)) {
        return Err("not supported yet: log.accesslog.disabled: false".to_owned());
    }
    if let Some(filesystem) = file.storage.filesystem {
        if filesystem.maxthreads.is_some() {
            return Err("not supported yet: storage.filesystem.maxthreads".to_owned());
        }
        config.root =
            filesystem.rootdirectory.unwrap_or_else(|| "/var/lib/registry".to_owned()).into();
    }
    if let Some(delete) = file.storage.delete {
        config.registry.delete = delete.enabled.unwrap_or(false);
    }
    let maintenance = file.storage.maintenance.unwrap_or_default();
    config.registry.read_only = maintenance.readonly.is_some_and(|r| r.enabled == Some(true));
    if let Some(purging) = maintenance.uploadpurging {
        if purging.dryrun == Some(true) {
            return Err("not supported yet: storage.maintenance.uploadpurging.dryrun".to_owned());
        }
        let key = "storage.maintenance.uploadpurging";
        let age = duration(key, purging.age.as_deref().unwrap_or("168h"))?;
        let interval = duration(key, purging.interval.as_deref().unwrap_or("24h"))?;
        config.purge = (purging.enabled != Some(false)).then_some((age, interval));
    }
    config.registry.sparse =
        file.validation.disabled == Some(true) || file.validation.enabled == Some(false);
    fill_http(config, file.http, duration)
}

fn fill_http(
    config: &mut Config,
    http: Http,
    duration: impl Fn(&str, &str) -> Result<Duration, String>,
) -> Result<(), String> {
    let listen = |key: &str, text: &str| -> Result<ListenAddr, String> {
        text.parse().map_err(|error| format!("{key}: {error}"))
    };
    if let Some(addr) = http.addr {
        config.http = match http.net.as_deref() {
            Some("unix") => ListenAddr::Unix(addr.into()),
            _ => listen("http.addr", &addr)?,
        };
    }
    if http.host.is_some() && http.relativeurls != Some(true) {
        config.registry.host = http.host.filter(|host| !host.is_empty());
    }
    if let Some(text) = http.draintimeout {
        config.drain = duration("http.draintimeout", &text)?;
    }
    for (name, values) in http.headers {
        for value in values {
            let pair =
                HeaderName::try_from(name.as_str()).ok().zip(HeaderValue::try_from(value).ok());
            config
                .registry
                .headers
                .push(pair.ok_or_else(|| format!("http.headers.{name} is no valid header"))?);
        }
    }
    if let Some(debug) = http.debug {
        if debug.prometheus.and_then(|p| p.path).is_some_and(|path| path != "/metrics") {
            return Err(
                "not supported yet: http.debug.prometheus.path other than /metrics".to_owned()
            );
        }
        config.debug = debug.addr.map(|addr| listen("http.debug.addr", &addr)).transpose()?;
    }
    if let Some(tls) = http.tls {
        match (tls.certificate, tls.key) {
            (Some(cert), Some(key)) => {
                let cas = tls.clientcas.unwrap_or_default();
                if cas.len() > 1 {
                    return Err(
                        "not supported yet: more than one file in http.tls.clientcas".to_owned()
                    );
                }
                let auth =
                    tls.clientauth.unwrap_or_else(|| "require-and-verify-client-cert".to_owned());
                let require = match auth.as_str() {
                    "require-and-verify-client-cert" => true,
                    "verify-client-cert-if-given" => false,
                    other => {
                        return Err(format!("not supported yet: http.tls.clientauth {other:?}"));
                    }
                };
                config.tls = Some(TlsFiles {
                    cert: cert.into(),
                    key: key.into(),
                    client_ca: cas.into_iter().next().map(Into::into),
                    require_client_cert: require,
                });
            }
            (None, None) => {}
            _ => return Err("http.tls needs both certificate and key".to_owned()),
        }
    }
    Ok(())
}
